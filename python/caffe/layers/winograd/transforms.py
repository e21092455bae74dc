"""The transforms of F(4x4, 3x3), compiled: of input tiles, of filters, of products to outputs.

As the paper has it, an output tile is Y = A^T M A, where M is the product, channel by channel
summed, of U = G g G^T, the transform of a filter g, and V = B^T d B, that of an input tile d.

Images are float32, pixel by pixel (height, width, channels). A tile starts every `OUTPUT_TILE`
pixels, but none reaches over the edge: the last one of a row or column repeats some pixels of the
one before.

U, V and M lie in `PLANES` planes, one for each element of a transform: a plane of V or M is float32
of shape (channels / LANES, tiles, LANES), of U (maps / LANES, channels, LANES): what is multiplied
lies side by side. `plane` is the step from one to the next.

References
----------
Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, Sec. 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from caffe.layers.winograd import simd
from caffe.layers.winograd.simd import Builder, Int, Pointer, Vector

Matrix = tuple[tuple[float, ...], ...]
# The paper's m and m + r - 1, along one axis.
OUTPUT_TILE, INPUT_TILE = 4, 6
PLANES = INPUT_TILE**2

B_T: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
G: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
A_T: Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)

# Rows and columns of tiles; pixels where the last ones start; steps in memory from a row of pixels
# to the next and from a pixel to the next, and in planes from one to the next; tiles that a plane
# has room for; channels.
_TILE_SIZES = (
    *("rows", "columns", "last_row", "last_column", "row_step", "pixel_step"),
    *("plane", "capacity", "channels"),
)
# Channels and maps of filters, and steps in memory to the next; the first of a filter's nine values
# and the step to the next; the step from a plane to the next.
_FILTER_SIZES = ("channels", "maps", "channel_step", "map_step", "first_tap", "tap_step", "plane")


@functools.cache
def input_transform(streamed: bool) -> Callable[..., None]:
    """Compile: V = B^T d B of an image's tiles, which overlap by two pixels.

    `streamed` tells that there are more of them than a cache holds until they are read.
    """

    def body(builder: Builder, image: Pointer, tiles: Pointer, **sizes: Int) -> None:
        with _each_tile(builder, **sizes) as tile:
            values = _transform(B_T, tile.pixels(image, INPUT_TILE))
            tile.write(values, tiles.stream if streamed else tiles.store)
        if streamed:
            builder.fence()

    return simd.compiled(body, *_TILE_SIZES)


@functools.cache
def output_transform(relu: bool) -> Callable[..., None]:
    """Compile: image = A^T M A plus a bias; with `relu`, max(0, .) of that."""

    def body(
        builder: Builder, products: Pointer, bias: Pointer, image: Pointer, **sizes: Int
    ) -> None:
        with _each_tile(builder, **sizes) as tile:
            added = bias.load(tile.channel)
            for i, row in enumerate(_transform(A_T, tile.elements(products))):
                for j, value in enumerate(row):
                    result = value + added
                    image.stream(tile.pixel(i, j), result.relu() if relu else result)
        builder.fence()

    return simd.compiled(body, *_TILE_SIZES)


@functools.cache
def output_transform_transposed() -> Callable[..., None]:
    """Compile: the gradient of M = A y A^T, y that of the outputs.

    A pixel that two tiles cover counts in the first.
    """

    def body(builder: Builder, image: Pointer, products: Pointer, **sizes: Int) -> None:
        with _each_tile(builder, **sizes) as tile:
            own = (
                [
                    value.where(tile.y + i >= tile.top).where(tile.x + j >= tile.left)
                    for i, value in enumerate(column)
                ]
                for j, column in enumerate(tile.pixels(image, OUTPUT_TILE))
            )
            tile.write(_transform(tuple(zip(*A_T)), own), products.store)

    return simd.compiled(body, *_TILE_SIZES)


@functools.cache
def filter_transform() -> Callable[..., None]:
    """Compile: U = G g G^T of filters."""

    def body(builder: Builder, weights: Pointer, filters: Pointer, **sizes: Int) -> None:
        with _each_filter(builder, **sizes) as (taps, step, index):
            columns = ([weights.load_strided(tap, step) for tap in taps[j::3]] for j in range(3))
            for row in _transform(G, columns):
                for value in row:
                    filters.stream(index, value)
                    index = index + sizes["plane"]
        builder.fence()

    return simd.compiled(body, *_FILTER_SIZES)


@functools.cache
def filter_transform_transposed() -> Callable[..., None]:
    """Compile: the gradient of filters g = G^T u G, u that of their transforms."""

    def body(builder: Builder, weights: Pointer, filters: Pointer, **sizes: Int) -> None:
        with _each_filter(builder, **sizes) as (taps, step, index):
            elements = [index + sizes["plane"] * k for k in range(PLANES)]
            columns = (
                [filters.load(k) for k in elements[j::INPUT_TILE]] for j in range(INPUT_TILE)
            )
            rows = _transform(tuple(zip(*G)), columns)
            for tap, value in zip(taps, (value for row in rows for value in row)):
                weights.store_strided(tap, step, value)

    return simd.compiled(body, *_FILTER_SIZES)


@contextmanager
def _each_filter(
    builder: Builder,
    channels: Int,
    maps: Int,
    channel_step: Int,
    map_step: Int,
    first_tap: Int,
    tap_step: Int,
    plane: Int,
) -> Iterator[tuple[list[Int], Int, Int]]:
    """Write the loops over maps and channels; the block is their body.

    It is given where the nine values lie, the step to the next map and where the transform begins.
    """
    with builder.loop(maps, simd.LANES) as number, builder.loop(channels) as channel:
        start = channel * channel_step + number * map_step + first_tap
        index = number * channels + channel * simd.LANES
        yield [start + tap_step * k for k in range(9)], map_step, index


@dataclass(frozen=True)
class _Tile:
    """One tile of a loop over all: where its values lie.

    Attributes
    ----------
    y, x : Int
        The first pixel.
    top, left : Int
        The first pixel that no tile before it covers.
    channel : Int
        The first of the channels.
    index : Int
        In a plane.
    row_step, pixel_step, plane : Int
        Steps: to the next row of pixels, the next pixel, the next plane.
    """

    y: Int
    x: Int
    top: Int
    left: Int
    channel: Int
    index: Int
    row_step: Int
    pixel_step: Int
    plane: Int

    def pixel(self, i: int, j: int) -> Int:
        """Return where pixel (i, j) of the tile lies in an image."""
        return (self.y + i) * self.row_step + (self.x + j) * self.pixel_step + self.channel

    def pixels(self, image: Pointer, size: int) -> Iterator[list[Vector]]:
        """Read size x size pixels of an image, column by column."""
        for j in range(size):
            yield [image.load(self.pixel(i, j)) for i in range(size)]

    def _element(self, i: int, j: int) -> Int:
        """Return where element (i, j) of the tile's transform lies in planes."""
        return self.index + self.plane * (INPUT_TILE * i + j)

    def elements(self, planes: Pointer) -> Iterator[list[Vector]]:
        """Read the elements of the tile's transform, column by column."""
        for j in range(INPUT_TILE):
            yield [planes.load(self._element(i, j)) for i in range(INPUT_TILE)]

    def write(
        self, values: Iterable[Sequence[Vector]], store: Callable[[Int, Vector], None]
    ) -> None:
        """Write the elements of the tile's transform to planes."""
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                store(self._element(i, j), value)


@contextmanager
def _each_tile(
    builder: Builder,
    rows: Int,
    columns: Int,
    last_row: Int,
    last_column: Int,
    row_step: Int,
    pixel_step: Int,
    plane: Int,
    capacity: Int,
    channels: Int,
) -> Iterator[_Tile]:
    """Write the loops over tiles and channels; the block is their body."""
    with builder.loop(rows) as row, builder.loop(columns) as column:
        top, left = row * OUTPUT_TILE, column * OUTPUT_TILE
        first = (row * columns + column) * simd.LANES
        with builder.loop(channels, simd.LANES) as channel:
            y, x, index = top.minimum(last_row), left.minimum(last_column), channel * capacity
            yield _Tile(y, x, top, left, channel, first + index, row_step, pixel_step, plane)


def _transform(matrix: Matrix, columns: Iterable[Sequence[Vector]]) -> Iterator[list[Vector]]:
    """Multiply with a matrix from the left and its transpose from the right; yield the rows."""
    # Each column is read when it is needed, each row written when it is made: registers are few.
    half = [_product(matrix, column) for column in columns]
    for row in zip(*half):
        yield _product(matrix, row)


def _product(matrix: Matrix, parts: Sequence[Vector]) -> list[Vector]:
    """Return a matrix times a column."""
    rows, parts = [list(row) for row in matrix], list(parts)
    for i in range(len(parts) - 1):
        pairs = [(row[i], row[i + 1]) for row in rows if row[i] or row[i + 1]]
        if len(pairs) > 2 and all(abs(first) == abs(second) for first, second in pairs):
            # Two parts that count alike, or opposite: their sum and difference take their places.
            parts[i : i + 2] = parts[i] + parts[i + 1], parts[i] - parts[i + 1]
            for row in rows:
                row[i : i + 2] = (row[i], 0) if row[i] == row[i + 1] else (0, row[i])
    sums: list[Vector] = []
    while rows:
        row = rows.pop(0)
        differ = [first != second for first, second in zip(row, rows[0])] if rows else []
        if 1 < sum(differ) < sum(map(bool, row)) and [abs(factor) for factor in row] == [
            abs(factor) for factor in rows[0]
        ]:
            # Two sums alike but for signs: of the parts that count alike, and of the opposite.
            rows.pop(0)
            alike = _sum([0 if other else factor for factor, other in zip(row, differ)], parts)
            opposite = _sum([factor if other else 0 for factor, other in zip(row, differ)], parts)
            sums += [alike + opposite, alike - opposite]
        else:
            sums.append(_sum(row, parts))
    return sums


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
        if abs(factor) == 1:
            total = total + part if factor == 1 else total - part
        else:
            total = total + part * factor
    return total
