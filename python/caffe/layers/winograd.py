"""3x3 convolution on the CPU with fewer products, for layers of many channels.

The minimal algorithms F(2x2, 3x3) and F(4x4, 3x3): every 2x2 (4x4) tile of the output comes from a
4x4 (6x6) tile of the input; both, and the 3x3 kernels, are transformed so that convolution becomes
16 (36) products of matrices, (tiles x channels) by (channels x maps), in place of 36 (144). This is
done strip by strip of tiles and block by block of maps, so that what the additions make is still in
the cache when the products read it.

References
----------
Winograd, Arithmetic Complexity of Computations, SIAM 1980. Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, Sec. 4.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Algorithm:
    """The transforms of one tile size, along one axis.

    Attributes
    ----------
    out, size : int
        Outputs and inputs of a tile.
    input, output : matrix
        What the inputs, and the products, are multiplied with.
    kernel : matrix
        What the three values of a kernel are multiplied with.
    both : float32 tensor, shape (size * size, 9)
        The kernels' transform along both axes.
    """

    out: int
    size: int
    input: Matrix
    output: Matrix
    kernel: Matrix
    both: torch.Tensor = field(init=False, compare=False)

    def __post_init__(self) -> None:
        lines = torch.tensor(self.kernel)
        both = torch.einsum("ai,bj->abij", lines, lines).reshape(self.size * self.size, 9)
        object.__setattr__(self, "both", both.contiguous())


# More exact than direct convolution.
F2 = Algorithm(
    2,
    4,
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
    ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
)
# Fewer products still, ten times the rounding, and kernels that take more room.
F4 = Algorithm(
    4,
    6,
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
)
# Tiles of a strip, at most: enough rows for the products.
_TILES = 512
# Values of all products of a strip, fewer than: 16 MiB stay in the cache, and single products below
# 1 MiB do not come as fresh pages each time.
_STRIP = 2**22
# Values of the transformed kernels of a block of maps, at most.
_BLOCK = 2**22
_scratch = threading.local()


def choose(channels: int, maps: int, pixels: int, backward: bool) -> Algorithm | None:
    """Return the fastest algorithm for a layer; None: direct convolution is.

    Parameters
    ----------
    channels, maps : int
        Of input and output.
    pixels : int
        Of one output map.
    backward : bool
        Whether gradients are wanted: they share some of the additions.
    """
    fewest = min(channels, maps)
    few = fewest < 64 if backward else fewest < 128 or channels * maps < 2**15
    if few or pixels < 400:
        return None
    return F4 if channels * maps <= 2**17 else F2


def forward(
    data: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None,
    pad: tuple[int, int],
    rectify: bool,
    algorithm: Algorithm = F2,
) -> torch.Tensor:
    """Convolve, with stride 1.

    Parameters
    ----------
    data : float32 tensor, shape (n, channels, height, width)
    weights : float32 tensor, shape (maps, channels, 3, 3)
    bias : float32 tensor, shape (maps,), optional
    pad : (rows, columns) of zeros on each side
    rectify : bool
        Whether a ReLU follows.
    algorithm : Algorithm

    Returns
    -------
    float32 tensor, shape (n, maps, height + 2 pad - 2, width + 2 pad - 2), channels last
    """
    maps = weights.shape[0]
    pixels = _Pixels(data, pad, maps, algorithm)
    step = algorithm.out
    out = data.new_empty(len(data), step * pixels.rows, step * pixels.columns, maps)
    for block in pixels.blocks():
        kernels = _transformed(weights[block], algorithm).unbind()
        for image, result in zip(pixels.images, out[..., block]):
            for first, count in pixels.strips():
                tiles = _matrices(pixels.spread(image, first, count))
                products = [_product(tile, kernel) for tile, kernel in zip(tiles, kernels)]
                strip = result[step * first : step * (first + count)]
                _gather(products, strip, algorithm)
                if bias is not None:
                    strip.add_(bias[block])
                if rectify:
                    strip.relu_()
    height, width = pixels.output
    return out[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def backward(
    gradient: torch.Tensor,
    data: torch.Tensor,
    weights: torch.Tensor,
    pad: tuple[int, int],
    wants: tuple[bool, bool, bool],
    algorithm: Algorithm = F2,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of what `forward` was given: each step of it, transposed.

    Parameters
    ----------
    gradient : float32 tensor
        Shaped as the output.
    data, weights, pad, algorithm
        As given to `forward`.
    wants : (bool, bool, bool)
        Which of the three gradients are needed; others are None.

    Returns
    -------
    data, weights, bias : float32 tensor or None
    """
    maps, channels = weights.shape[:2]
    pixels = _Pixels(data, pad, maps, algorithm)
    step = algorithm.out
    missing = step * pixels.columns - gradient.shape[3], step * pixels.rows - gradient.shape[2]
    grown = F.pad(gradient, (0, missing[0], 0, missing[1])) if any(missing) else gradient
    grown = grown.permute(0, 2, 3, 1)
    grad_pixels = torch.zeros_like(pixels.images) if wants[0] else None
    grad_weights = torch.empty_like(weights) if wants[1] else None
    for block in pixels.blocks():
        width = block.stop - block.start
        kernels = _transformed(weights[block], algorithm).unbind() if wants[0] else ()
        grad_kernels = _room("grad_kernels", algorithm.size**2, width, channels).zero_()
        for number in range(len(data)):
            for first, count in pixels.strips():
                strip = grown[number, step * first : step * (first + count), :, block]
                products = _scatter(strip, algorithm)
                if wants[1]:
                    tiles = _matrices(pixels.spread(pixels.images[number], first, count))
                    for total, product, tile in zip(grad_kernels.unbind(), products, tiles):
                        total.addmm_(product.t(), tile)
                if wants[0]:
                    tiles = pixels.tiles(count)
                    for product, kernel, tile in zip(products, kernels, _matrices(tiles)):
                        torch.mm(product, kernel, out=tile)
                    last = step * (first + count) + 2
                    part = grad_pixels[number, step * first : last]
                    _collect(tiles, part, algorithm)
        if wants[1]:
            back = _room("half", 9, width * channels)
            torch.mm(algorithm.both.t(), grad_kernels.flatten(1), out=back)
            grad_weights[block].view(-1, 9).copy_(back.t())
    grad_data = None
    if wants[0]:
        (top, left), (height, width) = pad, data.shape[2:]
        grad_data = grad_pixels[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    return grad_data, grad_weights, gradient.sum((0, 2, 3)) if wants[2] else None


class _Pixels:
    """Padded pictures, pixel by pixel, and how they are cut.

    Parameters
    ----------
    data : tensor, shape (n, channels, height, width)
    pad : (int, int)
    maps : int
        Of the output.
    algorithm : Algorithm
    """

    def __init__(
        self, data: torch.Tensor, pad: tuple[int, int], maps: int, algorithm: Algorithm
    ) -> None:
        self.algorithm = algorithm
        self.output = tuple(size + 2 * side - 2 for size, side in zip(data.shape[2:], pad))
        # The last tiles may reach over the edge.
        self.rows, self.columns = (-(-size // algorithm.out) for size in self.output)
        around = []
        for size, side, tiles in zip(data.shape[2:], pad, (self.rows, self.columns)):
            around = [side, algorithm.out * tiles + 2 - size - side, *around]
        grown = F.pad(data, around) if any(around) else data
        self.images = grown.permute(0, 2, 3, 1).contiguous()
        self.channels, self.maps = data.shape[1], maps
        self.block = min(maps, max(64, _BLOCK // (algorithm.size**2 * self.channels)))
        widest = max(self.channels, self.block)
        tiles = min(_TILES, (_STRIP // algorithm.size**2 - 1) // widest)
        self.strip = min(self.rows, max(1, tiles // self.columns))

    def blocks(self) -> Iterator[slice]:
        """Yield the maps, block by block."""
        for first in range(0, self.maps, self.block):
            yield slice(first, min(first + self.block, self.maps))

    def strips(self) -> Iterator[tuple[int, int]]:
        """Yield first row and number of rows of tiles, strip by strip."""
        for first in range(0, self.rows, self.strip):
            yield first, min(self.strip, self.rows - first)

    def tiles(self, count: int) -> torch.Tensor:
        """Return room for `count` rows of tiles: (size, size, rows, columns, channels)."""
        size = self.algorithm.size
        return _room("tiles", size, size, count, self.columns, self.channels)

    def spread(self, image: torch.Tensor, first: int, count: int) -> torch.Tensor:
        """Transform `count` rows of input tiles, which overlap by two pixels."""
        how = self.algorithm
        x = image[how.out * first : how.out * (first + count) + 2]
        half = _room("half", how.size, count, *x.shape[1:])
        tiles = self.tiles(count)
        _combine(_starts(x, 0, how), how.input, half)
        _combine(_starts(half, 2, how), how.input, tiles.transpose(0, 1))
        return tiles


def _room(name: str, *shape: int) -> torch.Tensor:
    """Return memory that stays from call to call: fresh pages would cost as much as the sums."""
    kept = _scratch.__dict__
    count = math.prod(shape)
    if name not in kept or kept[name].numel() < count:
        kept[name] = torch.empty(count)
    return kept[name][:count].view(shape)


def _matrices(tiles: torch.Tensor) -> Sequence[torch.Tensor]:
    """Take (size, size, rows, columns, c) as size * size matrices of (tiles, c)."""
    return tiles.flatten(2, 3).flatten(0, 1).unbind()


def _transformed(weights: torch.Tensor, algorithm: Algorithm) -> torch.Tensor:
    """Return the transforms of kernels: (size * size, maps, channels)."""
    maps, channels = weights.shape[:2]
    kernels = _room("kernels", algorithm.size**2, maps, channels)
    torch.mm(algorithm.both, weights.reshape(maps * channels, 9).t(), out=kernels.flatten(1))
    return kernels


def _product(tiles: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    if torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(tiles, kernel, None, "none", [], "")
    return F.linear(tiles, kernel)


def _starts(x: torch.Tensor, axis: int, algorithm: Algorithm) -> list[torch.Tensor]:
    """Return value number k of every tile along an axis, for each k: tiles overlap by two."""
    reach = x.shape[axis] - algorithm.size + 1
    every = (*(slice(None) for _ in range(axis)), slice(None, None, algorithm.out))
    return [x.narrow(axis, k, reach)[every] for k in range(algorithm.size)]


def _sum(parts: Sequence[torch.Tensor], factors: Sequence[float], out: torch.Tensor) -> None:
    """Set `out` to the sum of factor times part."""
    terms = [(factor, part) for factor, part in zip(factors, parts) if factor]
    # A part that counts once comes first: it is not multiplied.
    terms.sort(key=lambda term: term[0] != 1)
    (factor, part), *rest = terms
    if factor != 1:
        torch.mul(part, factor, out=out)
    elif rest:
        torch.add(part, rest[0][1], alpha=rest[0][0], out=out)
        rest = rest[1:]
    else:
        out.copy_(part)
    for factor, part in rest:
        out.add_(part, alpha=factor)


def _combine(
    parts: Sequence[torch.Tensor], matrix: Sequence[Sequence[float]], out: torch.Tensor
) -> None:
    """Multiply a matrix with a vector of tensors."""
    for factors, result in zip(matrix, out):
        _sum(parts, factors, result)


def _gather(products: list[torch.Tensor], out: torch.Tensor, algorithm: Algorithm) -> None:
    """Make the outputs of each tile of its products."""
    height, width, maps = out.shape
    step, size = algorithm.out, algorithm.size
    rows, columns = height // step, width // step
    half = _room("half", size, step, rows, columns, maps)
    lined = [product.view(rows, columns, maps) for product in products]
    for k in range(size):
        _combine(lined[k::size], algorithm.output, half[k])
    for row in range(step):
        parts = [part[row] for part in half]
        _combine(parts, algorithm.output, [out[row::step, column::step] for column in range(step)])


def _scatter(gradient: torch.Tensor, algorithm: Algorithm) -> Sequence[torch.Tensor]:
    """Make the gradients of the products of those of the outputs: `_gather`, transposed."""
    height, width, maps = gradient.shape
    step, size = algorithm.out, algorithm.size
    half = _room("half", size, height // step, width, maps)
    out = _room("products", size, size, height // step, width // step, maps)
    back = tuple(zip(*algorithm.output))
    _combine([gradient[k::step] for k in range(step)], back, half)
    _combine([half[:, :, k::step] for k in range(step)], back, out.transpose(0, 1))
    return _matrices(out)


def _collect(tiles: torch.Tensor, pixels: torch.Tensor, algorithm: Algorithm) -> None:
    """Add to the pixels what `_Pixels.spread` would have read of them: its transpose."""
    half = _room("half", algorithm.size, tiles.shape[2], *pixels.shape[1:]).zero_()
    back = tuple(zip(*algorithm.input))
    for parts, values, axis in ((tiles.transpose(0, 1), half, 2), (half, pixels, 0)):
        for factors, start in zip(back, _starts(values, axis, algorithm)):
            for factor, part in zip(factors, parts):
                if factor:
                    start.add_(part, alpha=factor)
