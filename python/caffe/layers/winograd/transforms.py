"""F(4x4, 3x3), compiled: pixels to tiles, tiles times kernels, products to pixels.

Pictures are float32, pixel by pixel (height, width, channels). A tile starts every `OUT` pixels,
but none reaches over the edge: the last one of a row or column repeats some pixels of the one
before.

What is made of tiles, of kernels and of products lies in SIZE * SIZE planes, one for each value: a
plane is float32 of shape (channels / LANES, tiles, LANES), kernels (maps / LANES, channels, LANES):
what is multiplied lies side by side. `plane` is the step from one to the next.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from caffe.layers.winograd import simd
from caffe.layers.winograd.simd import Code, Number, Pointer, Vector

Matrix = tuple[tuple[float, ...], ...]
# Rows and columns of tiles; pixels where the last ones start; steps in memory from a row of pixels
# to the next and from a pixel to the next.
_PIXELS = ("rows", "columns", "last_row", "last_column", "line", "pixel")
# And the step from a plane to the next; tiles that a plane has room for; channels.
_SIZES = (*_PIXELS, "plane", "room", "channels")
# Products that are added up at a time: their factors stay in the nearest cache, and sums of sums
# are exact to more digits.
_ADDED = 128

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
            fresh = (
                [
                    value.where(tile.y + i, tile.top).where(tile.x + j, tile.left)
                    for i, value in enumerate(column)
                ]
                for j, column in enumerate(tile.pixels(picture, OUT))
            )
            tile.store(tiles, _both(tuple(zip(*_OUTPUT)), fresh))

    return simd.compiled("scatter", ("picture", "tiles"), _SIZES, body)


@functools.cache
def multiply() -> Callable[..., None]:
    """Compile: products = tiles times kernels, plane by plane.

    Where `count` is no multiple of `simd.vectors_held()` there is room up to the next.
    """
    held = simd.vectors_held()

    def body(
        code: Code,
        tiles: Pointer,
        kernels: Pointer,
        products: Pointer,
        planes: Number,
        count: Number,
        room: Number,
        channels: Number,
        maps: Number,
        tiles_plane: Number,
        kernels_plane: Number,
        products_plane: Number,
    ) -> None:
        with (
            code.loop(planes) as plane,
            code.loop(maps, simd.LANES) as first,
            code.loop(channels, _ADDED) as start,
            code.loop(count, held) as tile,
        ):
            number = (channels - start).at_most(code.whole(_ADDED))
            left = tiles.at(plane * tiles_plane + start * room + tile * simd.LANES)
            right = kernels.at(plane * kernels_plane + first * channels + start * simd.LANES)

            def add(channel: Number, sums: list[Vector]) -> list[Vector]:
                for lane in range(simd.LANES):
                    row = right.load((channel + lane) * simd.LANES)
                    sums = [
                        total + row * left.repeated(channel * room + k * simd.LANES + lane)
                        for k, total in enumerate(sums)
                    ]
                return sums

            place = plane * products_plane + first * room + tile * simd.LANES
            for total in code.summed(number, simd.LANES, [code.zeros()] * held, add):
                before = products.load(place).where(start, code.whole(1))
                products.store(place, before + total)
                place = place + simd.LANES

    return _compiled("multiply", body)


@functools.cache
def multiply_back() -> Callable[..., None]:
    """Compile: kernels = (`more`: +=) tiles, transposed, times products, plane by plane."""
    held = simd.vectors_held()
    parts = -(-simd.LANES // held) if held < 12 else 1
    cuts = [simd.LANES * part // parts for part in range(parts + 1)]

    def body(
        code: Code,
        tiles: Pointer,
        products: Pointer,
        kernels: Pointer,
        more: Number,
        planes: Number,
        count: Number,
        room: Number,
        channels: Number,
        maps: Number,
        tiles_plane: Number,
        products_plane: Number,
        kernels_plane: Number,
    ) -> None:
        with (
            code.loop(planes) as plane,
            code.loop(count, _ADDED) as start,
            code.loop(maps, simd.LANES) as first,
            code.loop(channels, simd.LANES) as channel,
        ):
            number = (count - start).at_most(code.whole(_ADDED))
            left = tiles.at(plane * tiles_plane + channel * room + start * simd.LANES)
            right = products.at(plane * products_plane + first * room + start * simd.LANES)
            place = plane * kernels_plane + first * channels + channel * simd.LANES
            for low, high in itertools.pairwise(cuts):

                def add(
                    tile: Number, sums: list[Vector], lanes: range = range(low, high)
                ) -> list[Vector]:
                    row = right.load(tile * simd.LANES)
                    return [
                        total + row * left.repeated(tile * simd.LANES + lane)
                        for lane, total in zip(lanes, sums)
                    ]

                for total in code.summed(number, 1, [code.zeros()] * (high - low), add):
                    before = kernels.load(place).where(start + more, code.whole(1))
                    kernels.store(place, before + total)
                    place = place + simd.LANES

    return _compiled("multiply_back", body)


@functools.cache
def sweep() -> Callable[..., None]:
    """Compile: out = rows of tiles of a picture convolved, some tiles and maps at a time.

    `spread`, `multiply` and `gather` are the addresses of these functions; `chunk` tiles are taken
    at a time. The last row and column of tiles, lines and pixels are as above, of the picture and
    of what is written.
    """

    def body(
        code: Code,
        picture: Pointer,
        kernels: Pointer,
        bias: Pointer,
        out: Pointer,
        tiles: Pointer,
        products: Pointer,
        spread: Number,
        multiply: Number,
        gather: Number,
        rows: Number,
        columns: Number,
        last_row: Number,
        last_column: Number,
        chunk: Number,
        channels: Number,
        line: Number,
        maps: Number,
        out_line: Number,
        out_pixel: Number,
        tiles_plane: Number,
        kernels_plane: Number,
        products_plane: Number,
    ) -> None:
        with code.loop(rows) as row, code.loop(columns, chunk) as column:
            y, x = row * OUT, column * OUT
            count = (columns - column).at_most(chunk)
            where = (1, count, last_row - y, last_column - x)
            first = picture.at(y * line + x * channels)
            code.call(spread, first, tiles, *where, line, channels, tiles_plane, chunk, channels)
            with code.loop(maps, simd.LANES) as number:
                code.call(
                    multiply,
                    tiles,
                    kernels.at(number * channels),
                    products,
                    SIZE**2,
                    count,
                    chunk,
                    channels,
                    simd.LANES,
                    tiles_plane,
                    kernels_plane,
                    products_plane,
                )
                code.call(
                    gather,
                    products,
                    bias.at(number),
                    out.at(y * out_line + x * out_pixel + number),
                    *where,
                    out_line,
                    out_pixel,
                    products_plane,
                    chunk,
                    simd.LANES,
                )

    return _compiled("sweep", body)


def _compiled(name: str, body: Callable[..., None]) -> Callable[..., None]:
    """Compile a function of the pointers and numbers that its body is annotated to take."""
    kinds = body.__annotations__
    pointers, numbers = (
        [label for label in kinds if kinds[label] == kind] for kind in ("Pointer", "Number")
    )
    return simd.compiled(name, pointers, numbers, body)


# Rows (channels) and maps of kernels, and steps in memory to the next; the first of a kernel's nine
# values and the step to the next; the step from a plane of the transforms to the next.
_KERNEL_SIZES = ("rows", "maps", "row_step", "map_step", "first_tap", "tap_step", "plane")


@functools.cache
def transform() -> Callable[..., None]:
    """Compile: transformed = the transforms of kernels."""

    def body(code: Code, weights: Pointer, transformed: Pointer, **sizes: Number) -> None:
        with _each_kernel(code, **sizes) as (taps, step, place):
            columns = ([weights.gather(tap, step) for tap in taps[j::3]] for j in range(3))
            for line in _both(_KERNEL, columns):
                for value in line:
                    transformed.store(place, value)
                    place = place + sizes["plane"]

    return simd.compiled("transform", ("weights", "transformed"), _KERNEL_SIZES, body)


@functools.cache
def transform_back() -> Callable[..., None]:
    """Compile: gradient = that of kernels, of that of their transforms: `transform`, transposed."""

    def body(code: Code, gradient: Pointer, transformed: Pointer, **sizes: Number) -> None:
        with _each_kernel(code, **sizes) as (taps, step, place):
            places = [place + sizes["plane"] * k for k in range(SIZE**2)]
            columns = ([transformed.load(k) for k in places[j::SIZE]] for j in range(SIZE))
            lines = _both(tuple(zip(*_KERNEL)), columns)
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
    """Write the loops over maps and rows; the block is their body.

    It is given the places of the nine values, the step to the next map and the place in the
    transforms.
    """
    with code.loop(maps, simd.LANES) as number, code.loop(rows) as row:
        start = row * row_step + number * map_step + first_tap
        place = number * rows + row * simd.LANES
        yield [start + tap_step * k for k in range(9)], map_step, place


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
        Steps: to the next row of pixels, the next pixel, the next plane.
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

    def pixels(self, picture: Pointer, size: int) -> Iterator[list[Vector]]:
        """Read size x size pixels of a picture, column by column."""
        for j in range(size):
            yield [picture.load(self.at(i, j)) for i in range(size)]

    def values(self, tiles: Pointer, size: int) -> Iterator[list[Vector]]:
        """Read the tile's size x size values, column by column."""
        for j in range(size):
            yield [tiles.load(self.place + self.plane * (size * i + j)) for i in range(size)]

    def store(self, tiles: Pointer, values: Iterable[Sequence[Vector]]) -> None:
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
    room: Number,
    channels: Number,
) -> Iterator[_Tile]:
    """Write the loops over tiles and channels; the block is their body."""
    with code.loop(rows) as row, code.loop(columns) as column:
        top, left = row * OUT, column * OUT
        first = (row * columns + column) * simd.LANES
        with code.loop(channels, simd.LANES) as channel:
            yield _Tile(
                top.at_most(last_row),
                left.at_most(last_column),
                top,
                left,
                channel,
                first + channel * room,
                line,
                pixel,
                plane,
            )


def _both(matrix: Matrix, columns: Iterable[Sequence[Vector]]) -> Iterator[list[Vector]]:
    """Multiply with a matrix from the left and its transpose from the right; yield the lines."""
    # Each column is read when it is needed, each line written when it is made: registers are few.
    half = [_times(matrix, column) for column in columns]
    for line in zip(*half):
        yield _times(matrix, line)


def _times(matrix: Matrix, parts: Sequence[Vector]) -> list[Vector]:
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
        turned = [first != second for first, second in zip(row, rows[0])] if rows else []
        if 1 < sum(turned) < sum(map(bool, row)) and [abs(factor) for factor in row] == [
            abs(factor) for factor in rows[0]
        ]:
            # Two sums alike but for signs: of the parts that count alike, and of the opposite.
            rows.pop(0)
            alike = _sum([0 if other else factor for factor, other in zip(row, turned)], parts)
            opposite = _sum([factor if other else 0 for factor, other in zip(row, turned)], parts)
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
        if factor == 1:
            total = total + part
        elif factor == -1:
            total = total - part
        else:
            total = total + part * factor
    return total
