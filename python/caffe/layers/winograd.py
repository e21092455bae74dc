"""3x3 convolution on the CPU with fewer products, for layers of many channels.

The minimal algorithm F(4x4, 3x3): every 4x4 tile of the output comes from a 6x6 tile of the input;
both, and the 3x3 kernels, are transformed so that convolution becomes 36 products of matrices,
(tiles x channels) by (channels x maps), in place of 144. This is done strip by strip of tiles and
block by block of maps, so that what the additions make is still in the cache when the products read
it. The cuts do not depend on the number of threads, nor does the result.

References
----------
Winograd, Arithmetic Complexity of Computations, SIAM 1980. Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, Sec. 4.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from caffe import simd, threads
from caffe.layers import winograd_code as code
from caffe.layers.winograd_code import OUT, SIZE

# Values of a tile: so many products of matrices there are.
_PLACES = SIZE**2
# Values of the tiles of a strip, at most, and tiles of a strip: what stays in a core's cache.
_STRIP = 2**20
_TILES = 256
# Strips below which the maps are shared out among the threads as well, and maps of a share.
_FEW_STRIPS = 8
_NARROW = 64
# Values of the transformed kernels of a block of maps, at most.
_BLOCK = 2**22
# Values of the tiles whose products are added up at once for the weights' gradient.
_SUM = 2**22
# Below so many kernels, or pixels of a map, direct convolution is as fast.
_KERNELS = 64 * 64
_PIXELS = 400
_scratch = threading.local()


def pays(channels: int, maps: int, output: tuple[int, int]) -> bool:
    """Tell whether this is faster than direct convolution, and possible.

    Parameters
    ----------
    channels, maps : int
        Of input and output.
    output : (height, width)
    """
    return (
        simd.available()
        and channels % simd.LANES == maps % simd.LANES == 0
        and channels * maps >= _KERNELS
        and math.prod(output) >= _PIXELS
        # The input, which the gradient is convolved to, may be two pixels smaller.
        and min(output) >= OUT + 2
    )


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
        Copied if not channels last.
    weights : float32 tensor, shape (maps, channels, 3, 3)
    bias : float32 tensor, shape (maps,), optional
    pad : (rows, columns) of zeros on each side
    rectify : bool
        Whether a ReLU follows.

    Returns
    -------
    float32 tensor, shape (n, maps, height + 2 pad - 2, width + 2 pad - 2), channels last

    Notes
    -----
    Channels and maps are multiples of `simd.LANES`, the output has at least one tile.
    """
    return _convolve(data, weights, False, bias, pad, rectify)


def backward(
    gradient: torch.Tensor,
    data: torch.Tensor,
    weights: torch.Tensor,
    pad: tuple[int, int],
    wants: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of what `forward` was given.

    Parameters
    ----------
    gradient : float32 tensor
        Shaped as the output; copied if not channels last.
    data, weights, pad
        As given to `forward`; pad is at most 2.
    wants : (bool, bool, bool)
        Which of the three gradients are needed; others are None.

    Returns
    -------
    data, weights, bias : float32 tensor or None
    """
    back = (2 - pad[0], 2 - pad[1])
    return (
        _convolve(gradient, weights, True, None, back, False) if wants[0] else None,
        _weights_gradient(gradient, data, weights, pad) if wants[1] else None,
        gradient.sum((0, 2, 3)) if wants[2] else None,
    )


def _convolve(
    data: torch.Tensor,
    weights: torch.Tensor,
    turned: bool,
    bias: torch.Tensor | None,
    pad: tuple[int, int],
    rectify: bool,
) -> torch.Tensor:
    """Convolve with the weights or, `turned`, with their transpose: from maps to channels."""
    data, weights = _pixelwise(data), weights.contiguous()
    cut = _Cut.of(data, pad)
    maps = weights.shape[1 if turned else 0]
    out = torch.empty((len(data), maps, cut.height, cut.width), memory_format=torch.channels_last)
    added = torch.zeros(maps) if bias is None else bias.contiguous()
    for block in _blocks(maps, cut.channels):
        kernels = _transformed(weights, turned, block)
        _convolve_block(data, kernels, added, rectify, cut, block, out)
    return out


def _convolve_block(
    data: torch.Tensor,
    kernels: torch.Tensor,
    bias: torch.Tensor,
    rectify: bool,
    cut: _Cut,
    block: range,
    out: torch.Tensor,
) -> None:
    """Compute a block of the maps of `out`."""
    strips = cut.strips(min(_TILES, _STRIP // (_PLACES * max(cut.channels, len(block)))))
    # Few strips are not enough for all threads: they share out the maps as well.
    shares = -(-_FEW_STRIPS // (len(data) * len(strips)))
    parts = _ranges(len(block), max(_NARROW, _lanes(len(block) / shares)))
    maps = out.shape[1]

    def convolve(image: int, rows: range, part: range) -> None:
        tiles = _room("tiles", _PLACES, len(rows) * cut.columns, cut.channels)
        cut.spread(data[image], rows, tiles)
        products = _room("products", _PLACES, len(rows) * cut.columns, len(part))
        torch.bmm(tiles, kernels[:, :, part.start : part.stop], out=products)
        first = block.start + part.start
        code.gather(rectify)(
            _address(products),
            _address(bias, first),
            _address(out[image], OUT * rows.start * cut.width * maps + first),
            *cut.sizes(rows, cut.width * maps, maps, products),
        )

    threads.each(convolve, itertools.product(range(len(data)), strips, parts))


def _weights_gradient(
    gradient: torch.Tensor, data: torch.Tensor, weights: torch.Tensor, pad: tuple[int, int]
) -> torch.Tensor:
    """Return the gradient of the weights: each step of `forward`, transposed."""
    gradient, data = _pixelwise(gradient), _pixelwise(data)
    cut = _Cut.of(data, pad)
    result = torch.empty(weights.shape)
    for block in _blocks(len(weights), cut.channels):
        total = _room("kernels", _PLACES, cut.channels, len(block)).zero_()
        strips = cut.strips(_SUM // (_PLACES * max(cut.channels, len(block))))
        for image, rows in itertools.product(range(len(data)), strips):
            _add_strip(gradient[image], data[image], cut, rows, block, total)
        _transform(code.transform_back(), result, total, False, block)
    return result


def _add_strip(
    gradient: torch.Tensor,
    image: torch.Tensor,
    cut: _Cut,
    rows: range,
    block: range,
    total: torch.Tensor,
) -> None:
    """Add what some rows of tiles give to the gradients of a block of transformed kernels."""
    tiles = _room("tiles", _PLACES, len(rows) * cut.columns, cut.channels)
    products = _room("products", _PLACES, len(rows) * cut.columns, len(block))
    maps = len(gradient)

    def transform(part: range) -> None:
        first, last = part.start * cut.columns, part.stop * cut.columns
        own = rows[part.start : part.stop]
        cut.spread(image, own, tiles[:, first:last])
        code.scatter()(
            _address(gradient, OUT * own.start * cut.width * maps + block.start),
            _address(products, first * len(block)),
            *cut.sizes(own, cut.width * maps, maps, products),
        )

    def add(part: range) -> None:
        places = slice(part.start, part.stop)
        total[places].baddbmm_(tiles[places].transpose(1, 2), products[places])

    threads.each(transform, ((part,) for part in _ranges(len(rows), -(-len(rows) // 8))))
    threads.each(add, ((part,) for part in _ranges(_PLACES, SIZE)))


@dataclass(frozen=True)
class _Cut:
    """How a convolution is cut into tiles.

    Attributes
    ----------
    pad : (rows, columns)
    channels : int
        Of the input.
    height, width : int
        Of the output.
    """

    pad: tuple[int, int]
    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, data: torch.Tensor, pad: tuple[int, int]) -> _Cut:
        """Cut the convolution of a (n, channels, height, width) tensor."""
        height, width = (size + 2 * side - 2 for size, side in zip(data.shape[2:], pad))
        return cls(pad, data.shape[1], height, width)

    @property
    def rows(self) -> int:
        """How many rows of tiles there are."""
        return -(-self.height // OUT)

    @property
    def columns(self) -> int:
        """How many columns of tiles there are."""
        return -(-self.width // OUT)

    def strips(self, tiles: int) -> list[range]:
        """Cut the rows of tiles into strips of at most so many tiles, but one row at least."""
        height = max(1, tiles // self.columns)
        cuts = list(_ranges(self.rows, height))
        if self.height % OUT and len(cuts) > 1 and len(cuts[-1]) == 1:
            # The last row of tiles writes to pixels of the one before it: not in another thread.
            cuts[-2:] = [range(cuts[-2].start, cuts[-1].stop)]
        return cuts

    def sizes(self, rows: range, line: int, pixel: int, tiles: torch.Tensor) -> tuple[int, ...]:
        """Return the numbers that compiled code takes; `winograd_code` tells what they are."""
        return (
            len(rows),
            self.columns,
            self.height - OUT * (1 + rows.start),
            self.width - OUT,
            line,
            pixel,
            tiles.stride(0),
            tiles.shape[2],
        )

    def spread(self, image: torch.Tensor, rows: range, tiles: torch.Tensor) -> None:
        """Transform the input of some rows of tiles."""
        (top, left), start = self.pad, OUT * rows.start
        if top or left:
            # Where the last row of tiles starts before its place, so does the strip.
            first = min(start, self.height - OUT)
            last = min(OUT * rows.stop, self.height) + 2
            strip = _room("strip", last - first, self.width + 2, self.channels).zero_()
            above, below = max(first, top), min(last, image.shape[1] + top)
            inside = image[:, above - top : below - top].permute(1, 2, 0)
            strip[above - first : below - first, left : left + image.shape[2]] = inside
            image, start = strip.permute(2, 0, 1), start - first
        line = image.shape[2] * self.channels
        code.spread()(
            _address(image, start * line),
            _address(tiles),
            *self.sizes(rows, line, self.channels, tiles),
        )


def _transformed(weights: torch.Tensor, turned: bool, block: range) -> torch.Tensor:
    """Return the transforms of a block of kernels, or of their transposes.

    Returns
    -------
    float32 tensor, shape (SIZE * SIZE, channels, len(block)) or, `turned`, with maps for channels
    """
    rows = weights.shape[0 if turned else 1]
    kernels = _room("kernels", _PLACES, rows, len(block))
    _transform(code.transform(), weights, kernels, turned, block)
    return kernels


def _transform(
    function: Callable[..., None],
    weights: torch.Tensor,
    transformed: torch.Tensor,
    turned: bool,
    block: range,
) -> None:
    """Run one of the two transforms between a block of kernels and (SIZE * SIZE, rows, maps)."""
    row_step, map_step, first_tap, tap_step = 9, 9 * weights.shape[1], 0, 1
    if turned:
        row_step, map_step, first_tap, tap_step = map_step, row_step, 8, -1
    _, rows, width = transformed.shape

    def run(part: range) -> None:
        function(
            _address(weights, part.start * row_step + block.start * map_step),
            _address(transformed, part.start * width),
            len(part),
            width,
            row_step,
            map_step,
            first_tap,
            tap_step,
            rows * width,
        )

    threads.each(run, ((part,) for part in _ranges(rows, max(16, rows // 8))))


def _pixelwise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _blocks(maps: int, channels: int) -> Iterator[range]:
    """Cut maps into blocks whose transformed kernels stay in the cache."""
    count = -(-maps * channels * _PLACES // _BLOCK)
    return _ranges(maps, _lanes(maps / count))


def _lanes(count: float) -> int:
    """Round up to whole vectors."""
    return simd.LANES * math.ceil(count / simd.LANES)


def _ranges(count: int, width: int) -> Iterator[range]:
    """Cut the numbers below `count` into ranges of `width`; the last may be shorter."""
    for first in range(0, count, width):
        yield range(first, min(first + width, count))


def _address(tensor: torch.Tensor, number: int = 0) -> int:
    """Return the address of a float32 value, counted from a tensor's first in memory."""
    return tensor.data_ptr() + 4 * number


def _room(name: str, *shape: int) -> torch.Tensor:
    """Return memory that stays from call to call: fresh pages would cost as much as the sums."""
    kept = _scratch.__dict__
    count = math.prod(shape)
    if name not in kept or kept[name].numel() < count:
        kept[name] = torch.empty(count)
    return kept[name][:count].view(shape)
