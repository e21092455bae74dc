"""The additions of F(4x4, 3x3), compiled: pixels to tiles, products to pixels.

Pictures are float32, pixel by pixel (height, width, channels). Tiles are float32 of shape
(SIZE * SIZE, rows, columns, channels): one value of every tile, then the next value. A tile starts
every `OUT` pixels, but none reaches over the edge: the last one of a row or column repeats some
pixels of the one before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from caffe import simd
from caffe.simd import Code, Number, Pointer, Vector

Matrix = tuple[tuple[float, ...], ...]
# Rows and columns of tiles; pixels where the last ones start; steps in memory from a row of pixels
# to the next, from a pixel to the next and from a value of the tiles to the next; channels.
_SIZES = ("rows", "columns", "last_row", "last_column", "line", "pixel", "plane", "channels")


# Of a tile along one axis: outputs, and inputs.
OUT, SIZE = 4, 6
# What the inputs of a tile, its products and the three values of a kernel are multiplied with.
_INPUT: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OUTPUT: Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
_KERNEL: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


@functools.cache
def spread() -> Callable[..., None]:
    """Compile: tiles = the transforms of a picture's tiles, which overlap by two pixels."""

    def body(code: Code, picture: Pointer, tiles: Pointer, **sizes: Number) -> None:
        with _each_tile(code, **sizes) as tile:
            tile.store(tiles, _both(_INPUT, tile.pixels(picture, SIZE)))

    return simd.compiled("spread", ("picture", "tiles"), _SIZES, body)


@functools.cache
def gather(rectify: bool) -> Callable[..., None]:
    """Compile: picture = the outputs of tiles of products, plus a bias, and max(0, .) of them."""

    def body(code: Code, tiles: Pointer, bias: Pointer, picture: Pointer, **sizes: Number) -> None:
        with _each_tile(code, **sizes) as tile:
            added = bias.load(tile.channel)
            for i, line in enumerate(_both(_OUTPUT, tile.values(tiles, SIZE))):
                for j, value in enumerate(line):
                    result = value + added
                    picture.store(tile.at(i, j), result.rectified() if rectify else result)

    return simd.compiled("gather", ("tiles", "bias", "picture"), _SIZES, body)


@functools.cache
def scatter() -> Callable[..., None]:
    """Compile: tiles = the gradients of products, of those of the outputs: `gather`, transposed.

    A pixel that two tiles cover counts in the first.
    """

    def body(code: Code, picture: Pointer, tiles: Pointer, **sizes: Number) -> None:
        with _each_tile(code, **sizes) as tile:
            fresh = [
                [
                    value.where(tile.y + i, tile.top).where(tile.x + j, tile.left)
                    for j, value in enumerate(line)
                ]
                for i, line in enumerate(tile.pixels(picture, OUT))
            ]
            tile.store(tiles, _both(tuple(zip(*_OUTPUT)), fresh))

    return simd.compiled("scatter", ("picture", "tiles"), _SIZES, body)


# Rows and maps of kernels, and steps in memory to the next; the first of a kernel's nine values and
# the step to the next; the step from a value of the transforms to the next.
_KERNEL_SIZES = ("rows", "maps", "row_step", "map_step", "first_tap", "tap_step", "plane")


@functools.cache
def transform() -> Callable[..., None]:
    """Compile: transformed = the transforms of kernels, (SIZE * SIZE, rows, maps)."""

    def body(code: Code, weights: Pointer, transformed: Pointer, **sizes: Number) -> None:
        with _each_kernel(code, **sizes) as (taps, step, place):
            values = [weights.gather(tap, step) for tap in taps]
            for line in _both(_KERNEL, [values[0:3], values[3:6], values[6:9]]):
                for value in line:
                    transformed.store(place, value)
                    place = place + sizes["plane"]

    return simd.compiled("transform", ("weights", "transformed"), _KERNEL_SIZES, body)


@functools.cache
def transform_back() -> Callable[..., None]:
    """Compile: gradient = that of kernels, of that of their transforms: `transform`, transposed."""

    def body(code: Code, gradient: Pointer, transformed: Pointer, **sizes: Number) -> None:
        with _each_kernel(code, **sizes) as (taps, step, place):
            values = [transformed.load(place + sizes["plane"] * k) for k in range(SIZE**2)]
            square = [values[i : i + SIZE] for i in range(0, len(values), SIZE)]
            lines = _both(tuple(zip(*_KERNEL)), square)
            for tap, value in zip(taps, (value for line in lines for value in line)):
                gradient.scatter(tap, step, value)

    return simd.compiled("transform_back", ("gradient", "transformed"), _KERNEL_SIZES, body)


@contextmanager
def _each_kernel(
    code: Code,
    rows: Number,
    maps: Number,
    row_step: Number,
    map_step: Number,
    first_tap: Number,
    tap_step: Number,
    plane: Number,
) -> Iterator[tuple[list[Number], Number, Number]]:
    """Write the loops over rows and maps; the block is their body.

    It is given the places of the nine values, the step to the next map and the place in the
    transforms.
    """
    with code.loop(rows) as row, code.loop(maps, simd.LANES) as number:
        start = row * row_step + number * map_step + first_tap
        yield [start + tap_step * k for k in range(9)], map_step, row * maps + number


@dataclass(frozen=True)
class _Tile:
    """One tile of a loop over all: where its values lie.

    Attributes
    ----------
    y, x : Number
        The first pixel.
    top, left : Number
        The first pixel that no tile before it covers.
    channel : Number
        The first of the channels.
    place : Number
        In the tiles.
    line, pixel, plane : Number
        Steps: to the next row of pixels, the next pixel, the next value of the tile.
    """

    y: Number
    x: Number
    top: Number
    left: Number
    channel: Number
    place: Number
    line: Number
    pixel: Number
    plane: Number

    def at(self, i: int, j: int) -> Number:
        """Return the place of pixel (i, j) of the tile."""
        return (self.y + i) * self.line + (self.x + j) * self.pixel + self.channel

    def pixels(self, picture: Pointer, size: int) -> list[list[Vector]]:
        """Read size x size pixels of a picture."""
        return [[picture.load(self.at(i, j)) for j in range(size)] for i in range(size)]

    def values(self, tiles: Pointer, size: int) -> list[list[Vector]]:
        """Read the tile's size x size values."""
        return [
            [tiles.load(self.place + self.plane * (size * i + j)) for j in range(size)]
            for i in range(size)
        ]

    def store(self, tiles: Pointer, values: Sequence[Sequence[Vector]]) -> None:
        """Write the tile's values."""
        for i, line in enumerate(values):
            for j, value in enumerate(line):
                tiles.store(self.place + self.plane * (len(line) * i + j), value)


@contextmanager
def _each_tile(
    code: Code,
    rows: Number,
    columns: Number,
    last_row: Number,
    last_column: Number,
    line: Number,
    pixel: Number,
    plane: Number,
    channels: Number,
) -> Iterator[_Tile]:
    """Write the loops over tiles and channels; the block is their body."""
    with code.loop(rows) as row, code.loop(columns) as column:
        top, left = row * OUT, column * OUT
        first = (row * columns + column) * channels
        with code.loop(channels, simd.LANES) as channel:
            yield _Tile(
                top.at_most(last_row),
                left.at_most(last_column),
                top,
                left,
                channel,
                first + channel,
                line,
                pixel,
                plane,
            )


def _both(matrix: Matrix, square: Sequence[Sequence[Vector]]) -> list[list[Vector]]:
    """Multiply with a matrix from the left, and with its transpose from the right."""
    lines = [[_sum(factors, column) for column in zip(*square)] for factors in matrix]
    return [[_sum(factors, line) for factors in matrix] for line in lines]


def _sum(factors: Sequence[float], parts: Sequence[Vector]) -> Vector:
    """Return the sum of factor times part."""
    # A part that counts once comes first: it is not multiplied.
    terms = sorted(
        ((factor, part) for factor, part in zip(factors, parts) if factor),
        key=lambda term: term[0] != 1,
    )
    (factor, part), *rest = terms
    total = part if factor == 1 else part * factor
    for factor, part in rest:
        if factor == 1:
            total = total + part
        elif factor == -1:
            total = total - part
        else:
            total = total + part * factor
    return total
