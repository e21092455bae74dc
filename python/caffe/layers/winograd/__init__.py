"""3x3 convolution on the CPU with fewer products, for layers of many channels.

The minimal algorithm F(4x4, 3x3): every 4x4 tile of the output comes from a 6x6 tile of the input;
both, and the 3x3 kernels, are transformed so that convolution becomes 36 products of matrices,
(tiles x channels) by (channels x maps), in place of 144. This is done some tiles and some maps at a
time, so that what the additions make is still in the cache when the products read it. Every sum is
taken in one order, however the work is cut and shared out: the result does not depend on the number
of threads.

References
----------
Winograd, Arithmetic Complexity of Computations, SIAM 1980. Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, Sec. 4.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from caffe.layers.winograd import simd, threads
from caffe.layers.winograd import transforms as code
from caffe.layers.winograd.transforms import OUT, SIZE

# Values of a tile: so many products of matrices there are.
_PLACES = SIZE**2
# Values of a thread's tiles that stay in its core's own cache, and tiles below which that does not
# pay: the kernels are read from afar for so many at a time.
_NEAR = 2**17
_FEW_TILES = 16
# Values of the tiles that all threads work on together, at most; and so many tiles.
_FAR = 2**23
_TILES = 256
# Values of the transformed kernels of a block of maps, at most.
_BLOCK = 2**22
# Tiles whose products are added up at once for the weights' gradient.
_SUM = 512
# Below so many kernels, pixels of a map, or pixels times kernels, direct convolution is as fast, or
# faster where several threads share the work.
_KERNELS = 64 * 64
_PIXELS = 400
_WORK = 2**22
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
        and math.prod(output) >= max(_PIXELS, _WORK // (channels * maps))
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
    blocks = _blocks(maps, cut.channels)
    near = min(_NEAR // (_PLACES * cut.channels), cut.columns)
    if near >= _FEW_TILES:
        chunk = _rounded(near, simd.vectors_held())
        for block in blocks:
            kernels = _transformed(weights, turned, block)
            _convolve_apart(data, kernels, added, rectify, cut, block, chunk, out)
        return out
    kernels = None
    for pieces in cut.groups(len(data), _TILES):
        tiles = _spread(data, cut, pieces)
        for block in blocks:
            if kernels is None or len(blocks) > 1:
                kernels = _transformed(weights, turned, block)
            _convolve_together(tiles, kernels, added, rectify, cut, pieces, block, out)
    return out


def _convolve_apart(
    data: torch.Tensor,
    kernels: torch.Tensor,
    bias: torch.Tensor,
    rectify: bool,
    cut: _Cut,
    block: range,
    chunk: int,
    out: torch.Tensor,
) -> None:
    """Compute a block of the maps of `out`, each thread some tiles, `chunk` at a time."""
    maps = out.shape[1]
    functions = [code.spread(), code.multiply(), code.gather(rectify)]

    def convolve(image: int, rows: range) -> None:
        tiles = _planes("tiles", chunk * cut.channels)
        products = _planes("products", chunk * simd.LANES)
        picture, start, line = cut.source(data[image], rows)
        code.sweep()(
            _address(picture, start),
            _address(kernels),
            _address(bias, block.start),
            _address(out[image], OUT * rows.start * cut.width * maps + block.start),
            _address(tiles),
            _address(products),
            *(function.address for function in functions),
            *cut.extent(rows),
            chunk,
            cut.channels,
            line,
            len(block),
            cut.width * maps,
            maps,
            *(planes.stride(0) for planes in (tiles, kernels, products)),
        )

    threads.each(convolve, itertools.product(range(len(data)), cut.strips(2 * cut.columns)))


def _convolve_together(
    tiles: torch.Tensor,
    kernels: torch.Tensor,
    bias: torch.Tensor,
    rectify: bool,
    cut: _Cut,
    pieces: Sequence[_Piece],
    block: range,
    out: torch.Tensor,
) -> None:
    """Compute some pieces of a block of the maps of `out`, all threads step by step."""
    count, room = cut.count(pieces), cut.room(pieces)
    products = _planes("products", room * len(block))
    maps = out.shape[1]

    def multiply(part: range) -> None:
        code.multiply()(
            *(_address(planes[part.start]) for planes in (tiles, kernels, products)),
            len(part),
            count,
            room,
            cut.channels,
            len(block),
            *(planes.stride(0) for planes in (tiles, kernels, products)),
        )

    def gather(piece: _Piece, part: range) -> None:
        first = block.start + part.start
        code.gather(rectify)(
            _address(products, part.start * room + piece.first * simd.LANES),
            _address(bias, first),
            _address(out[piece.image], OUT * piece.rows.start * cut.width * maps + first),
            *cut.extent(piece.rows),
            cut.width * maps,
            maps,
            products.stride(0),
            room,
            len(part),
        )

    threads.each(multiply, _place_parts())
    # Shared out by maps: of rows the last two may write to the same pixels.
    parts = _ranges(len(block), _lanes(len(block) / 8))
    threads.each(gather, itertools.product(pieces, parts))


def _weights_gradient(
    gradient: torch.Tensor, data: torch.Tensor, weights: torch.Tensor, pad: tuple[int, int]
) -> torch.Tensor:
    """Return the gradient of the weights: each step of `forward`, transposed."""
    gradient, data = _pixelwise(gradient), _pixelwise(data)
    cut = _Cut.of(data, pad)
    result = torch.empty(weights.shape)
    groups = cut.groups(len(data), _SUM)
    there = None
    for block in _blocks(len(weights), cut.channels):
        total = _planes("kernels", cut.channels * len(block))
        for number, pieces in enumerate(groups):
            if there != number:
                tiles, there = _spread(data, cut, pieces), number
            _add_group(gradient, tiles, cut, pieces, block, total, number > 0)
        _transform(code.transform_back(), result, total, False, block)
    return result


def _add_group(
    gradient: torch.Tensor,
    tiles: torch.Tensor,
    cut: _Cut,
    pieces: Sequence[_Piece],
    block: range,
    total: torch.Tensor,
    more: bool,
) -> None:
    """Add what some pieces give to the gradients of a block of transformed kernels.

    Where there is no `more` yet, it takes the place of what lies there.
    """
    count, room = cut.count(pieces), cut.room(pieces)
    products = _planes("products", room * len(block))
    maps = gradient.shape[1]

    def scatter(piece: _Piece) -> None:
        own = piece.rows
        code.scatter()(
            _address(gradient[piece.image], OUT * own.start * cut.width * maps + block.start),
            _address(products, piece.first * simd.LANES),
            *cut.extent(own),
            cut.width * maps,
            maps,
            products.stride(0),
            room,
            len(block),
        )

    def add(part: range) -> None:
        code.multiply_back()(
            *(_address(planes[part.start]) for planes in (tiles, products, total)),
            more,
            len(part),
            count,
            room,
            cut.channels,
            len(block),
            *(planes.stride(0) for planes in (tiles, products, total)),
        )

    threads.each(scatter, cut.parts(pieces))
    threads.each(add, _place_parts())


def _spread(data: torch.Tensor, cut: _Cut, pieces: Sequence[_Piece]) -> torch.Tensor:
    """Transform the input of some pieces, all threads together."""
    room = cut.room(pieces)
    tiles = _planes("tiles", room * cut.channels)

    def spread(piece: _Piece) -> None:
        picture, start, line = cut.source(data[piece.image], piece.rows)
        code.spread()(
            _address(picture, start),
            _address(tiles, piece.first * simd.LANES),
            *cut.extent(piece.rows),
            line,
            cut.channels,
            tiles.stride(0),
            room,
            cut.channels,
        )

    threads.each(spread, cut.parts(pieces))
    return tiles


@dataclass(frozen=True)
class _Piece:
    """Rows of tiles of one of the images, and the number of their first tile in a plane."""

    image: int
    rows: range
    first: int


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

    def extent(self, rows: range) -> tuple[int, int, int, int]:
        """Return rows, columns and where the last ones start, as compiled code takes them."""
        return (
            len(rows),
            self.columns,
            self.height - OUT * (1 + rows.start),
            self.width - OUT,
        )

    def groups(self, images: int, tiles: int) -> list[list[_Piece]]:
        """Cut all images into pieces, together so many tiles a group at most, or one piece."""
        tiles = min(tiles, _FAR // (_PLACES * self.channels))
        groups: list[list[_Piece]] = []
        for image, rows in itertools.product(range(images), self.strips(tiles)):
            count = self.count(groups[-1]) if groups else tiles
            if count + len(rows) * self.columns > tiles:
                groups.append([])
                count = 0
            groups[-1].append(_Piece(image, rows, count))
        return groups

    def count(self, pieces: Sequence[_Piece]) -> int:
        """Return how many tiles pieces have."""
        return sum(len(piece.rows) for piece in pieces) * self.columns

    def room(self, pieces: Sequence[_Piece]) -> int:
        """Return how many tiles a plane has room for."""
        return _rounded(self.count(pieces), simd.vectors_held())

    def parts(self, pieces: Sequence[_Piece]) -> Iterator[tuple[_Piece]]:
        """Cut the rows of pieces for the threads."""
        for piece in pieces:
            for part in _ranges(len(piece.rows), -(-len(piece.rows) // 8)):
                rows = piece.rows[part.start : part.stop]
                yield (_Piece(piece.image, rows, piece.first + part.start * self.columns),)

    def source(self, image: torch.Tensor, rows: range) -> tuple[torch.Tensor, int, int]:
        """Return where some rows of tiles are read: tensor, number of the first value, line."""
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
        return image, start * line, line


def _transformed(weights: torch.Tensor, turned: bool, block: range) -> torch.Tensor:
    """Return the transforms of a block of kernels, or of their transposes, in planes."""
    rows = weights.shape[0 if turned else 1]
    kernels = _planes("kernels", rows * len(block))
    _transform(code.transform(), weights, kernels, turned, block)
    return kernels


def _transform(
    function: Callable[..., None],
    weights: torch.Tensor,
    transformed: torch.Tensor,
    turned: bool,
    block: range,
) -> None:
    """Run one of the two transforms between a block of kernels and their planes."""
    rows, row_step, map_step, first_tap, tap_step = weights.shape[1], 9, 9 * weights.shape[1], 0, 1
    if turned:
        rows, row_step, map_step, first_tap, tap_step = len(weights), map_step, row_step, 8, -1

    def run(part: range) -> None:
        function(
            _address(weights, (block.start + part.start) * map_step),
            _address(transformed, part.start * rows),
            rows,
            len(part),
            row_step,
            map_step,
            first_tap,
            tap_step,
            transformed.stride(0),
        )

    threads.each(run, ((part,) for part in _ranges(len(block), _lanes(len(block) / 8))))


def _pixelwise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _blocks(maps: int, channels: int) -> list[range]:
    """Cut maps into blocks whose transformed kernels stay in the cache."""
    count = -(-maps * channels * _PLACES // _BLOCK)
    return list(_ranges(maps, _lanes(maps / count)))


def _lanes(count: float) -> int:
    """Round up to whole vectors."""
    return _rounded(math.ceil(count), simd.LANES)


def _rounded(count: int, step: int) -> int:
    """Round up to a multiple."""
    return -(-count // step) * step


def _place_parts() -> Iterator[tuple[range]]:
    """Cut the products of matrices for the threads: they do not depend on each other."""
    for part in _ranges(_PLACES, max(1, SIZE // torch.get_num_threads())):
        yield (part,)


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


def _planes(name: str, count: int) -> torch.Tensor:
    """Return room for planes of `count` values, each a row."""
    # An odd number of lines of the cache from one to the next: at multiples of 4096 bytes all of
    # them would compete for the same few places there.
    return _room(name, _PLACES, simd.LANES * (count // simd.LANES | 1))
