"""3x3 convolution on the CPU with 16 products in place of 36, for layers of many channels.

The minimal algorithm F(2x2, 3x3): every 2x2 tile of the output comes from a 4x4 tile of the input;
both, and the 3x3 kernels, are transformed so that convolution becomes 16 products of matrices,
(tiles x channels) by (channels x maps). This is done strip by strip of tiles and block by block of
maps, so that what the additions make is still in the cache when the products read it.

References
----------
Winograd, Arithmetic Complexity of Computations, SIAM 1980. Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, Sec. 4.1.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

# Kernel to its 4x4 transform along one axis, and along both.
_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1.0]])
_KERNEL = torch.einsum("ai,bj->abij", _G, _G).reshape(16, 9).contiguous()
# Of the 16 products the one that all four outputs of a tile have with the sign +.
_COMMON = 5
# Tiles of a strip, at most: enough rows for the products.
_TILES = 512
# Values of one product, fewer than: blocks of 1 MiB and more come as fresh pages each time.
_PRODUCT = 2**18
# Values of the transformed kernels of a block of maps, at most.
_BLOCK = 2**22
_scratch = threading.local()


def pays(channels: int, maps: int, pixels: int, backward: bool) -> bool:
    """Return whether the saved products outweigh the additions.

    Parameters
    ----------
    channels, maps : int
        Of input and output.
    pixels : int
        Of one output map.
    backward : bool
        Whether gradients are wanted: they share some of the additions.
    """
    return min(channels, maps) >= 128 and pixels >= 400 and (backward or channels * maps >= 2**15)


def forward(
    data: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None,
    pad: tuple[int, int],
    rectify: bool,
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

    Returns
    -------
    float32 tensor, shape (n, maps, height + 2 pad - 2, width + 2 pad - 2), channels last
    """
    maps = weights.shape[0]
    pixels = _Pixels(data, pad, maps)
    out = data.new_empty(len(data), 2 * pixels.rows, 2 * pixels.columns, maps)
    for block in pixels.blocks():
        kernels = _transformed(weights[block]).unbind()
        shift = None if bias is None else bias[block]
        for image, result in zip(pixels.images, out[..., block]):
            for first, count in pixels.strips():
                tiles = _matrices(pixels.spread(image, first, count))
                products = [
                    _product(tile, kernel, shift if k == _COMMON else None)
                    for k, (tile, kernel) in enumerate(zip(tiles, kernels))
                ]
                strip = result[2 * first : 2 * (first + count)]
                _gather(products, strip)
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
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of what `forward` was given: each step of it, transposed.

    Parameters
    ----------
    gradient : float32 tensor
        Shaped as the output.
    data, weights, pad
        As given to `forward`.
    wants : (bool, bool, bool)
        Which of the three gradients are needed; others are None.

    Returns
    -------
    data, weights, bias : float32 tensor or None
    """
    maps, channels = weights.shape[:2]
    pixels = _Pixels(data, pad, maps)
    missing = (2 * pixels.columns - gradient.shape[3], 2 * pixels.rows - gradient.shape[2])
    grown = F.pad(gradient, (0, missing[0], 0, missing[1])) if any(missing) else gradient
    grown = grown.permute(0, 2, 3, 1)
    grad_pixels = torch.zeros_like(pixels.images) if wants[0] else None
    grad_weights = torch.empty_like(weights) if wants[1] else None
    grad_bias = weights.new_zeros(maps) if wants[2] else None
    for block in pixels.blocks():
        kernels = _transformed(weights[block]).unbind() if wants[0] else ()
        grad_kernels = _room("grad_kernels", 16, block.stop - block.start, channels)
        grad_kernels.zero_()
        for number in range(len(data)):
            for first, count in pixels.strips():
                strip = grown[number, 2 * first : 2 * (first + count), :, block]
                products = _scatter(strip)
                if wants[1]:
                    tiles = _matrices(pixels.spread(pixels.images[number], first, count))
                    for total, product, tile in zip(grad_kernels.unbind(), products, tiles):
                        total.addmm_(product.t(), tile)
                if wants[2]:
                    grad_bias[block] += products[_COMMON].sum(0)
                if wants[0]:
                    tiles = pixels.tiles(count)
                    for product, kernel, tile in zip(products, kernels, _matrices(tiles)):
                        torch.mm(product, kernel, out=tile)
                    _collect(tiles, grad_pixels[number, 2 * first : 2 * (first + count) + 2])
        if wants[1]:
            back = _room("half", 9, (block.stop - block.start) * channels)
            torch.mm(_KERNEL.t(), grad_kernels.flatten(1), out=back)
            grad_weights[block].view(-1, 9).copy_(back.t())
    grad_data = None
    if wants[0]:
        (top, left), (height, width) = pad, data.shape[2:]
        grad_data = grad_pixels[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    return grad_data, grad_weights, grad_bias


class _Pixels:
    """Padded pictures, pixel by pixel, and how they are cut.

    Parameters
    ----------
    data : tensor, shape (n, channels, height, width)
    pad : (int, int)
    maps : int
        Of the output.
    """

    def __init__(self, data: torch.Tensor, pad: tuple[int, int], maps: int) -> None:
        self.output = tuple(size + 2 * side - 2 for size, side in zip(data.shape[2:], pad))
        # Tiles of 2x2 outputs; of odd sizes the last ones reach over the edge.
        self.rows, self.columns = ((size + 1) // 2 for size in self.output)
        around = []
        for size, side, tiles in zip(data.shape[2:], pad, (self.rows, self.columns)):
            around = [side, 2 * tiles + 2 - size - side, *around]
        grown = F.pad(data, around) if any(around) else data
        self.images = grown.permute(0, 2, 3, 1).contiguous()
        self.channels, self.maps = data.shape[1], maps
        self.block = min(maps, max(64, _BLOCK // (16 * self.channels)))
        tiles = min(_TILES, (_PRODUCT - 1) // max(self.channels, self.block))
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
        """Return room for the 4x4 values of `count` rows of tiles: (4, 4, rows, columns, c)."""
        return _room("tiles", 4, 4, count, self.columns, self.channels)

    def spread(self, image: torch.Tensor, first: int, count: int) -> torch.Tensor:
        """Transform `count` rows of 4x4 input tiles, which overlap by two pixels."""
        x = image[2 * first : 2 * (first + count) + 2]
        half = _room("half", 4, count, *x.shape[1:])
        tiles = self.tiles(count)
        _spread_axis(x[0:-2:2], x[1:-1:2], x[2::2], x[3::2], half)
        parts = half[:, :, 0:-2:2], half[:, :, 1:-1:2], half[:, :, 2::2], half[:, :, 3::2]
        _spread_axis(*parts, tiles.transpose(0, 1))
        return tiles


def _room(name: str, *shape: int) -> torch.Tensor:
    """Return memory that stays from call to call: fresh pages would cost as much as the sums."""
    kept = _scratch.__dict__
    count = math.prod(shape)
    if name not in kept or kept[name].numel() < count:
        kept[name] = torch.empty(count)
    return kept[name][:count].view(shape)


def _matrices(tiles: torch.Tensor) -> Sequence[torch.Tensor]:
    """Take (4, 4, rows, columns, c) as 16 matrices of (tiles, c)."""
    return tiles.flatten(2, 3).flatten(0, 1).unbind()


def _transformed(weights: torch.Tensor) -> torch.Tensor:
    """Return the 4x4 transforms of kernels: (16, maps, channels)."""
    maps, channels = weights.shape[:2]
    kernels = _room("kernels", 16, maps, channels)
    torch.mm(_KERNEL, weights.reshape(maps * channels, 9).t(), out=kernels.flatten(1))
    return kernels


def _product(tiles: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(tiles, kernel, bias, "none", [], "")
    return F.linear(tiles, kernel, bias)


def _spread_axis(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, out: torch.Tensor
) -> None:
    torch.sub(a, c, out=out[0])
    torch.add(b, c, out=out[1])
    torch.sub(c, b, out=out[2])
    torch.sub(b, d, out=out[3])


def _gather(products: list[torch.Tensor], out: torch.Tensor) -> None:
    """Make the 2x2 outputs of each tile of its 4x4 products."""
    height, width, maps = out.shape
    sums = _room("sums", 2, 4, height // 2, width // 2, maps)
    for k in range(4):
        first, second, third, last = (
            products[4 * row + k].view(sums.shape[2:]) for row in range(4)
        )
        torch.add(second, third, out=sums[0, k]).add_(first)
        torch.sub(second, third, out=sums[1, k]).sub_(last)
    for row in (0, 1):
        first, second, third, last = sums[row]
        torch.add(second, third, out=out[row::2, 0::2]).add_(first)
        torch.sub(second, third, out=out[row::2, 1::2]).sub_(last)


def _scatter(gradient: torch.Tensor) -> Sequence[torch.Tensor]:
    """Make the gradients of the 4x4 products of those of the 2x2 outputs: `_gather`, transposed."""
    height, width, maps = gradient.shape
    half = _room("half", 4, height // 2, width, maps)
    out = _room("products", 4, 4, height // 2, width // 2, maps)
    _scatter_axis(gradient[0::2], gradient[1::2], half)
    _scatter_axis(half[:, :, 0::2], half[:, :, 1::2], out.transpose(0, 1))
    return _matrices(out)


def _scatter_axis(even: torch.Tensor, odd: torch.Tensor, out: torch.Tensor) -> None:
    out[0].copy_(even)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.neg(odd, out=out[3])


def _collect(tiles: torch.Tensor, pixels: torch.Tensor) -> None:
    """Add to the pixels what `_Pixels.spread` would have read of them: its transpose."""
    half = _room("half", 4, tiles.shape[2], *pixels.shape[1:])
    half[:, :, -2:] = 0
    half[:, :, 0:-2:2] = tiles[:, 0]
    half[:, :, 2::2].sub_(tiles[:, 0]).add_(tiles[:, 1]).add_(tiles[:, 2])
    torch.sub(tiles[:, 1], tiles[:, 2], out=half[:, :, 1:-1:2]).add_(tiles[:, 3])
    half[:, :, 3::2].sub_(tiles[:, 3])
    first, second, third, last = half
    pixels[0:-2:2].add_(first)
    pixels[2::2].sub_(first).add_(second).add_(third)
    pixels[1:-1:2].add_(second.sub_(third).add_(last))
    pixels[3::2].sub_(last)
