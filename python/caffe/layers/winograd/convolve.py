"""3x3 convolution on the CPU with fewer products, for layers of many channels.

The minimal algorithm F(4x4, 3x3) of Winograd, as Lavin and Gray have it: every 4x4 tile of the
output comes from a 6x6 tile of the input; both, and the 3x3 filters, are transformed so that
convolution becomes 36 products of matrices, (tiles x channels) by (channels x maps), in place of
144. This is done some tiles and some maps at a time, so that what the additions make is still in
the cache when the products read it. Every sum is taken in one order, however the work is cut and
shared out: the result does not depend on the number of threads.

References
----------
Winograd, Arithmetic Complexity of Computations, SIAM 1980. Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, Sec. 4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from caffe import pages
from caffe.layers.winograd import simd, transforms
from caffe.layers.winograd.products import fused, lines_fetched, multiply, multiply_transposed
from caffe.layers.winograd.threads import parallel_for
from caffe.layers.winograd.tiling import Strip, Tiling, ranges, round_up, scratch_planes
from caffe.layers.winograd.transforms import INPUT_TILE, OUTPUT_TILE, PLANES

# Values of a thread's transformed tiles that stay in its core's own cache, and tiles below which
# that is not faster: the filters are read from afar for so many at a time.
_CORE_VALUES = 2**17
_MIN_TILES = 16
# Tiles that all threads work on together.
_TILES = 400
# Values of the transformed filters of a block of maps, at most: for each block all tiles are read
# again. To the gradients of a block all tiles add; they stay in the cache meanwhile.
_BLOCK_VALUES = 9 * 2**21
_GRADIENT_VALUES = 9 * 2**19
# Tiles whose products are added up at once for the weights' gradient.
_GRADIENT_TILES = 512
# Below so many filters, pixels of a map, or pixels times filters, direct convolution is as fast, or
# faster where several threads share the work.
_MIN_FILTERS = 64 * 64
_MIN_PIXELS = 400
_MIN_WORK = 2**22


def takes(channels: int) -> bool:
    """Tell whether so many channels, of input or output, are whole vectors."""
    return channels % simd.LANES == 0


def is_faster(channels: int, maps: int, output: tuple[int, int]) -> bool:
    """Tell whether this is faster than direct convolution, and possible.

    Parameters
    ----------
    channels, maps : int
        Of input and output.
    output : (height, width)
    """
    return (
        simd.available()
        and takes(channels)
        and takes(maps)
        and channels * maps >= _MIN_FILTERS
        and math.prod(output) >= max(_MIN_PIXELS, _MIN_WORK // (channels * maps))
        # The input, which the gradient is convolved to, may be two pixels smaller.
        and min(output) >= INPUT_TILE
    )


def forward(
    data: Sequence[torch.Tensor],
    weights: torch.Tensor,
    bias: torch.Tensor | None,
    pad: tuple[int, int],
    relu: bool,
) -> torch.Tensor:
    """Convolve, with stride 1.

    Parameters
    ----------
    data : sequence of float32 tensors, each of shape (n, its channels, height, width)
        Joined by channels. A tensor is copied if the channels of a pixel do not lie side by side.
    weights : float32 tensor, shape (maps, channels, 3, 3)
    bias : float32 tensor, shape (maps,), optional
    pad : (rows, columns) of zeros on each side
    relu : bool
        Whether a ReLU follows.

    Returns
    -------
    float32 tensor, shape (n, maps, height + 2 pad - 2, width + 2 pad - 2), channels last

    Notes
    -----
    Channels of each tensor, and maps, are multiples of `simd.LANES`; the output has at least one
    tile.
    """
    return _convolve(data, weights, False, bias, pad, relu)


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
    data : float32 tensor
        What `forward` was given, in one.
    weights, pad
        As given to `forward`; pad is at most 2.
    wants : (bool, bool, bool)
        Which of the three gradients are needed; others are None.

    Returns
    -------
    data, weights, bias : float32 tensor or None
    """
    back = (2 - pad[0], 2 - pad[1])
    return (
        _convolve([gradient], weights, True, None, back, False) if wants[0] else None,
        _weights_gradient(gradient, data, weights, pad) if wants[1] else None,
        gradient.sum((0, 2, 3)) if wants[2] else None,
    )


def _convolve(
    data: Sequence[torch.Tensor],
    weights: torch.Tensor,
    transposed: bool,
    bias: torch.Tensor | None,
    pad: tuple[int, int],
    relu: bool,
) -> torch.Tensor:
    """Convolve with the weights or, `transposed`, with their transpose: from maps to channels."""
    # What a layer cuts out of a larger image is read where it lies.
    data = [part if part.stride(1) == 1 else _channels_last(part) for part in data]
    weights, images = weights.contiguous(), len(data[0])
    tiling = Tiling.of(data, pad)
    maps = weights.shape[1 if transposed else 0]
    shape = images, maps, tiling.height, tiling.width
    out = pages.empty(shape)
    added = torch.zeros(maps) if bias is None else bias.contiguous()
    blocks = _blocks(maps, tiling.channels, _BLOCK_VALUES)
    near = min(_CORE_VALUES // (PLANES * tiling.channels), tiling.columns)
    if near >= _MIN_TILES:
        chunk = round_up(near, simd.accumulators())
        for block in blocks:
            filters = _filter_transform(weights, transposed, block)
            _convolve_fused(data, filters, added, relu, tiling, block, chunk, out)
        return out
    filters = None
    for strips in tiling.groups(images, _TILES):
        tiles = _input_transform(data, tiling, strips)
        for block in blocks:
            if filters is None or len(blocks) > 1:
                filters = _filter_transform(weights, transposed, block)
            _convolve_in_steps(tiles, filters, added, relu, tiling, strips, block, out)
    return out


def _convolve_fused(
    data: Sequence[torch.Tensor],
    filters: torch.Tensor,
    bias: torch.Tensor,
    relu: bool,
    tiling: Tiling,
    block: range,
    chunk: int,
    out: torch.Tensor,
) -> None:
    """Compute a block of the maps of `out`, each thread some tiles, `chunk` at a time."""
    maps = out.shape[1]
    functions = (
        transforms.input_transform(streamed=False),
        multiply(fetching=True),
        transforms.output_transform(relu),
    )

    def convolve(image: int, rows: range) -> None:
        tiles = scratch_planes("tiles", chunk * tiling.channels)
        products = scratch_planes("products", chunk * simd.LANES)
        sources = tiling.sources(data, image, rows)
        # While so many maps are computed one of the sources is fetched.
        share = max(simd.LANES, len(block) // len(sources) // simd.LANES * simd.LANES)
        fused(len(sources))(
            _address(filters),
            _address(bias, block.start),
            _address(out[image], OUTPUT_TILE * rows.start * tiling.width * maps + block.start),
            _address(tiles),
            _address(products),
            *(function.address for function in functions),
            *tiling.extent(rows),
            chunk,
            tiling.channels,
            len(block),
            tiling.width * maps,
            maps,
            share,
            *(planes.stride(0) for planes in (tiles, filters, products)),
            *itertools.chain.from_iterable(
                (
                    _address(source.pixels),
                    *(source.channels, source.row_step, source.pixel_step),
                    lines_fetched(source.channels, share),
                )
                for source in sources
            ),
        )

    rows = tiling.row_ranges(2 * tiling.columns)
    parallel_for(convolve, itertools.product(range(len(out)), rows))


def _convolve_in_steps(
    tiles: torch.Tensor,
    filters: torch.Tensor,
    bias: torch.Tensor,
    relu: bool,
    tiling: Tiling,
    strips: Sequence[Strip],
    block: range,
    out: torch.Tensor,
) -> None:
    """Compute some strips of a block of the maps of `out`, all threads step by step."""
    capacity, maps = tiling.capacity(strips), out.shape[1]
    products = scratch_planes("products", capacity * len(block))

    def transform(strip: Strip, part: range) -> None:
        first = block.start + part.start
        pixel = OUTPUT_TILE * strip.rows.start * tiling.width
        transforms.output_transform(relu)(
            _address(products, part.start * capacity + strip.first * simd.LANES),
            _address(bias, first),
            _address(out[strip.image], pixel * maps + first),
            *tiling.extent(strip.rows),
            tiling.width * maps,
            maps,
            products.stride(0),
            capacity,
            len(part),
        )

    sizes = tiling.count(strips), capacity, tiling.channels, len(block)
    _each_plane(multiply(fetching=False), (tiles, filters, products), *sizes)
    # Shared out by maps: of rows the last two may write to the same pixels.
    parts = ranges(len(block), round_up(len(block) / 8, simd.LANES))
    parallel_for(transform, itertools.product(strips, parts))


def _weights_gradient(
    gradient: torch.Tensor, data: torch.Tensor, weights: torch.Tensor, pad: tuple[int, int]
) -> torch.Tensor:
    """Return the gradient of the weights: each step of `forward`, transposed."""
    gradient, data = _channels_last(gradient), _channels_last(data)
    tiling = Tiling.of([data], pad)
    result = torch.empty(weights.shape)
    groups = tiling.groups(len(data), _GRADIENT_TILES)
    there = None
    for block in _blocks(len(weights), tiling.channels, _GRADIENT_VALUES):
        total = scratch_planes("filters", tiling.channels * len(block))
        for number, strips in enumerate(groups):
            if there != number:
                tiles, there = _input_transform([data], tiling, strips), number
            _add_group(gradient, tiles, tiling, strips, block, total, number > 0)
        _each_block(transforms.filter_transform_transposed(), result, total, False, block)
    return result


def _add_group(
    gradient: torch.Tensor,
    tiles: torch.Tensor,
    tiling: Tiling,
    strips: Sequence[Strip],
    block: range,
    total: torch.Tensor,
    more: bool,
) -> None:
    """Add what some strips give to the gradients of a block of transformed filters.

    With `more` it is added to what `total` holds, else it replaces that.
    """
    capacity, maps = tiling.capacity(strips), gradient.shape[1]
    products = scratch_planes("products", capacity * len(block))

    def transform(strip: Strip) -> None:
        pixel = OUTPUT_TILE * strip.rows.start * tiling.width
        transforms.output_transform_transposed()(
            _address(gradient[strip.image], pixel * maps + block.start),
            _address(products, strip.first * simd.LANES),
            *tiling.extent(strip.rows),
            tiling.width * maps,
            maps,
            products.stride(0),
            capacity,
            len(block),
        )

    parallel_for(transform, tiling.parts(strips))
    sizes = tiling.count(strips), capacity, tiling.channels, len(block)
    _each_plane(multiply_transposed(), (tiles, products, total), *sizes, more)


def _each_plane(
    function: Callable[..., None], operands: Sequence[torch.Tensor], *sizes: int
) -> None:
    """Run one of the two products, plane by plane: they do not depend on each other."""

    def run(part: range) -> None:
        addresses = (_address(planes[part.start]) for planes in operands)
        function(*addresses, len(part), *sizes, *(planes.stride(0) for planes in operands))

    parts = ranges(PLANES, max(1, INPUT_TILE // torch.get_num_threads()))
    parallel_for(run, ((part,) for part in parts))


def _input_transform(
    data: Sequence[torch.Tensor], tiling: Tiling, strips: Sequence[Strip]
) -> torch.Tensor:
    """Return the transforms of the input tiles of some strips, in planes."""
    capacity = tiling.capacity(strips)
    tiles = scratch_planes("tiles", capacity * tiling.channels)

    def transform(strip: Strip) -> None:
        channel = 0
        for source in tiling.sources(data, strip.image, strip.rows):
            transforms.input_transform(streamed=True)(
                _address(source.pixels),
                _address(tiles, channel * capacity + strip.first * simd.LANES),
                *tiling.extent(strip.rows),
                source.row_step,
                source.pixel_step,
                tiles.stride(0),
                capacity,
                source.channels,
            )
            channel += source.channels

    parallel_for(transform, tiling.parts(strips))
    return tiles


def _filter_transform(weights: torch.Tensor, transposed: bool, block: range) -> torch.Tensor:
    """Return the transforms of a block of filters, or of their transposes, in planes."""
    channels = weights.shape[0 if transposed else 1]
    filters = scratch_planes("filters", channels * len(block))
    _each_block(transforms.filter_transform(), weights, filters, transposed, block)
    return filters


def _each_block(
    function: Callable[..., None],
    weights: torch.Tensor,
    filters: torch.Tensor,
    transposed: bool,
    block: range,
) -> None:
    """Run one of the two transforms between a block of filters and their planes."""
    channels, channel_step, map_step, first_tap, tap_step = (
        (len(weights), 9 * weights.shape[1], 9, 8, -1)
        if transposed
        else (weights.shape[1], 9, 9 * weights.shape[1], 0, 1)
    )

    def transform(part: range) -> None:
        function(
            _address(weights, (block.start + part.start) * map_step),
            _address(filters, part.start * channels),
            channels,
            len(part),
            channel_step,
            map_step,
            first_tap,
            tap_step,
            filters.stride(0),
        )

    parts = ranges(len(block), round_up(len(block) / 8, simd.LANES))
    parallel_for(transform, ((part,) for part in parts))


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor pixel by pixel; a copy if it is not."""
    return tensor.contiguous(memory_format=torch.channels_last)


def _blocks(maps: int, channels: int, values: int) -> list[range]:
    """Cut maps into blocks whose transformed filters are so many values at most."""
    count = -(-maps * channels * PLANES // values)
    return ranges(maps, round_up(maps / count, simd.LANES))


def _address(tensor: torch.Tensor, number: int = 0) -> int:
    """Return the address of a float32 value, counted from a tensor's first in memory."""
    return tensor.data_ptr() + 4 * number
