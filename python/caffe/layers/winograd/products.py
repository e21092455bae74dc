"""The products of F(4x4, 3x3), compiled: M = V U, plane by plane, and their gradient.

Planes are laid out as `transforms` says.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

from caffe.layers.winograd import simd
from caffe.layers.winograd.simd import Builder, Int, Pointer, Vector
from caffe.layers.winograd.transforms import INPUT_TILE, OUTPUT_TILE, PLANES

# Products that are added up at a time: their factors stay in the nearest cache, and sums of sums
# are exact to more digits.
_ADDED = 128
# What is fetched from afar while products are computed: its address, values from a run of it to the
# next and from a piece of a run to the next, and lines of the cache at a time.
_FETCHED = ("fetched", "run_step", "piece_step", "lines")


@functools.cache
def multiply(fetching: bool) -> Callable[..., None]:
    """Compile: products = tiles times filters, plane by plane.

    Where `count` is not a multiple of `simd.accumulators()` there is room up to the next. While it
    computes it is `fetching` what comes next: with each plane a piece, with six of them a run.
    """
    held = simd.accumulators()

    def body(
        builder: Builder,
        tiles: Pointer,
        filters: Pointer,
        products: Pointer,
        planes: Int,
        count: Int,
        capacity: Int,
        channels: Int,
        maps: Int,
        tiles_plane: Int,
        filters_plane: Int,
        products_plane: Int,
        **sizes: Int,
    ) -> None:
        with (
            builder.loop(planes) as plane,
            builder.loop(maps, simd.LANES) as first,
            builder.loop(channels, _ADDED) as start,
            builder.loop(count, held) as tile,
        ):
            if fetching:
                address, run_step, piece_step, lines = (sizes[name] for name in _FETCHED)
                run = plane // INPUT_TILE
                piece = plane - run * INPUT_TILE
                begin = address.pointer().at(run * run_step + piece * piece_step)
                with builder.loop(lines) as line:
                    begin.fetch((tile // held * lines + line) * simd.LANES)
            left = tiles.at(plane * tiles_plane + start * capacity + tile * simd.LANES)
            right = filters.at(plane * filters_plane + first * channels + start * simd.LANES)

            def add(channel: Int, sums: list[Vector]) -> list[Vector]:
                for lane in range(simd.LANES):
                    row = right.load((channel + lane) * simd.LANES)
                    sums = [
                        total + row * left.broadcast(channel * capacity + k * simd.LANES + lane)
                        for k, total in enumerate(sums)
                    ]
                return sums

            number = (channels - start).minimum(_ADDED)
            index = plane * products_plane + first * capacity + tile * simd.LANES
            for total in builder.accumulate(number, simd.LANES, [builder.zeros()] * held, add):
                before = products.load(index).where(start >= 1)
                products.store(index, before + total)
                index = index + simd.LANES

    return simd.compiled(body, *(_FETCHED if fetching else ()))


@functools.cache
def multiply_transposed() -> Callable[..., None]:
    """Compile: filters = (`more`: +=) tiles, transposed, times products, plane by plane."""
    held = simd.accumulators()
    parts = -(-simd.LANES // held) if held < 12 else 1
    cuts = [simd.LANES * part // parts for part in range(parts + 1)]

    def body(
        builder: Builder,
        tiles: Pointer,
        products: Pointer,
        filters: Pointer,
        planes: Int,
        count: Int,
        capacity: Int,
        channels: Int,
        maps: Int,
        more: Int,
        tiles_plane: Int,
        products_plane: Int,
        filters_plane: Int,
    ) -> None:
        with (
            builder.loop(planes) as plane,
            builder.loop(count, _ADDED) as start,
            builder.loop(maps, simd.LANES) as first,
            builder.loop(channels, simd.LANES) as channel,
        ):
            left = tiles.at(plane * tiles_plane + channel * capacity + start * simd.LANES)
            right = products.at(plane * products_plane + first * capacity + start * simd.LANES)
            number = (count - start).minimum(_ADDED)
            index = plane * filters_plane + first * channels + channel * simd.LANES
            for low, high in itertools.pairwise(cuts):

                def add(
                    tile: Int, sums: list[Vector], lanes: range = range(low, high)
                ) -> list[Vector]:
                    row = right.load(tile * simd.LANES)
                    return [
                        total + row * left.broadcast(tile * simd.LANES + lane)
                        for lane, total in zip(lanes, sums)
                    ]

                for total in builder.accumulate(number, 1, [builder.zeros()] * (high - low), add):
                    before = filters.load(index).where(start + more >= 1)
                    filters.store(index, before + total)
                    index = index + simd.LANES

    return simd.compiled(body)


# Of each tensor that an image's channels come from: its address and channels, its steps in memory
# from a row of pixels to the next and from a pixel to the next, and lines fetched at a time.
_SOURCE_SIZES = ("image", "image_channels", "row_step", "pixel_step", "lines")


def lines_fetched(channels: int, maps: int) -> int:
    """Return how many lines at a time fetch a tensor's pixels while so many maps are computed."""
    values = OUTPUT_TILE * simd.accumulators() * channels
    return -(-values // (INPUT_TILE * maps))


def _fetched_with(
    number: Int, tensors: Sequence[dict[str, Int]], share: Int
) -> tuple[dict[str, Int], Int]:
    """Return the tensor fetched with map `number`, and which of its `share` maps that is."""
    tensor = dict(tensors[0])
    for before, after in itertools.pairwise(tensors):
        later = number >= share
        number = number - share.where(later)
        for name, size in tensor.items():
            tensor[name] = size + (after[name] - before[name]).where(later)
    return tensor, number


@functools.cache
def fused(sources: int) -> Callable[..., None]:
    """Compile: out = rows of tiles of an image convolved, some tiles and maps at a time.

    The transforms of input and output and `multiply` are given as the addresses of these functions;
    `chunk` tiles are taken at a time. The image's channels come from so many tensors, each of which
    is told of at the end. While some tiles are multiplied, the pixels of those after them are
    fetched: of one tensor after the other.
    """
    held = simd.accumulators()
    names = [f"{name}{number}" for number in range(sources) for name in _SOURCE_SIZES]

    def body(
        builder: Builder,
        filters: Pointer,
        bias: Pointer,
        out: Pointer,
        tiles: Pointer,
        products: Pointer,
        input_transform: Int,
        multiply: Int,
        output_transform: Int,
        rows: Int,
        columns: Int,
        last_row: Int,
        last_column: Int,
        chunk: Int,
        channels: Int,
        maps: Int,
        out_row_step: Int,
        out_pixel_step: Int,
        share: Int,
        tiles_plane: Int,
        filters_plane: Int,
        products_plane: Int,
        **sizes: Int,
    ) -> None:
        tensors = [{name: sizes[f"{name}{k}"] for name in _SOURCE_SIZES} for k in range(sources)]
        with builder.loop(rows) as row, builder.loop(columns, chunk) as column:
            y, x = row * OUTPUT_TILE, column * OUTPUT_TILE
            count = (columns - column).minimum(chunk)
            where = (1, count, last_row - y, last_column - x)
            found = tiles
            for tensor in tensors:
                steps, here = (tensor["row_step"], tensor["pixel_step"]), tensor["image_channels"]
                first = tensor["image"].pointer().at(y * steps[0] + x * steps[1])
                last = (*steps, tiles_plane, chunk, here)
                builder.call(input_transform, first, found, *where, *last)
                found = found.at(here * chunk)
            # After the last tiles of a row come the first of the next one.
            end, begin = column + chunk >= columns, (column + chunk) * OUTPUT_TILE
            next_y, next_x = y + begin.where(end).minimum(OUTPUT_TILE), begin - begin.where(end)
            with builder.loop(maps, simd.LANES) as number:
                block = filters.at(number * channels)
                planes = (tiles_plane, filters_plane, products_plane)
                counts = (PLANES, count, chunk, channels, simd.LANES)
                tensor, part = _fetched_with(number, tensors, share)
                pixel = next_y * tensor["row_step"] + next_x * tensor["pixel_step"]
                step = tensor["lines"] * (chunk // held)
                fetched = (tensor["image"] + (pixel + part * step) * 4, tensor["row_step"])
                piece = (share * step, tensor["lines"])
                builder.call(multiply, tiles, block, products, *counts, *planes, *fetched, *piece)
                first = out.at(y * out_row_step + x * out_pixel_step + number)
                last = (out_row_step, out_pixel_step, products_plane, chunk, simd.LANES)
                builder.call(output_transform, products, bias.at(number), first, *where, *last)

    return simd.compiled(body, *names)
