"""How a convolution by F(4x4, 3x3) is cut into tiles, and these into what threads work on."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from caffe.layers.winograd import simd
from caffe.layers.winograd.transforms import OUTPUT_TILE, PLANES

# Values of the transformed tiles that all threads work on together, at most.
_SHARED_VALUES = 2**23
_kept = threading.local()


@dataclass(frozen=True)
class Strip:
    """Rows of tiles of one of the images, and the number of their first tile in a plane."""

    image: int
    rows: range
    first: int


@dataclass(frozen=True)
class Source:
    """Where rows of tiles are read: some channels of an image.

    Attributes
    ----------
    pixels : float32 tensor, shape (channels, height, width)
        From the first row of pixels on; the channels of a pixel lie side by side.
    channels : int
    row_step, pixel_step : int
        Steps in memory.
    """

    pixels: torch.Tensor
    channels: int
    row_step: int
    pixel_step: int


@dataclass(frozen=True)
class Tiling:
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
    def of(cls, data: Sequence[torch.Tensor], pad: tuple[int, int]) -> Tiling:
        """Cut the convolution of (n, channels, height, width) tensors joined by channels."""
        height, width = (size + 2 * side - 2 for size, side in zip(data[0].shape[2:], pad))
        return cls(pad, sum(part.shape[1] for part in data), height, width)

    @property
    def rows(self) -> int:
        """How many rows of tiles there are."""
        return -(-self.height // OUTPUT_TILE)

    @property
    def columns(self) -> int:
        """How many columns of tiles there are."""
        return -(-self.width // OUTPUT_TILE)

    def row_ranges(self, tiles: int) -> list[range]:
        """Cut the rows of tiles into ranges of at most so many tiles, but one row at least."""
        cuts = ranges(self.rows, max(1, tiles // self.columns))
        if self.height % OUTPUT_TILE and len(cuts) > 1 and len(cuts[-1]) == 1:
            # The last row of tiles writes to pixels of the one before it: not in another thread.
            cuts[-2:] = [range(cuts[-2].start, cuts[-1].stop)]
        return cuts

    def extent(self, rows: range) -> tuple[int, int, int, int]:
        """Return rows, columns and where the last ones start, as compiled code takes them."""
        last_row = self.height - OUTPUT_TILE * (1 + rows.start)
        return len(rows), self.columns, last_row, self.width - OUTPUT_TILE

    def groups(self, images: int, tiles: int) -> list[list[Strip]]:
        """Cut all images into strips, together so many tiles a group at most, or one strip."""
        tiles = min(tiles, _SHARED_VALUES // (PLANES * self.channels))
        groups: list[list[Strip]] = []
        for image, rows in itertools.product(range(images), self.row_ranges(tiles)):
            count = self.count(groups[-1]) if groups else tiles
            if count + len(rows) * self.columns > tiles:
                groups.append([])
                count = 0
            groups[-1].append(Strip(image, rows, count))
        return groups

    def count(self, strips: Sequence[Strip]) -> int:
        """Return how many tiles strips have."""
        return sum(len(strip.rows) for strip in strips) * self.columns

    def capacity(self, strips: Sequence[Strip]) -> int:
        """Return how many tiles a plane has room for."""
        return round_up(self.count(strips), simd.accumulators())

    def parts(self, strips: Sequence[Strip]) -> Iterator[tuple[Strip]]:
        """Cut the rows of strips for the threads."""
        for strip in strips:
            for part in ranges(len(strip.rows), -(-len(strip.rows) // 8)):
                rows = strip.rows[part.start : part.stop]
                yield (Strip(strip.image, rows, strip.first + part.start * self.columns),)

    def sources(self, data: Sequence[torch.Tensor], number: int, rows: range) -> list[Source]:
        """Return where rows of tiles of an image are read, of each tensor it is joined from."""
        return [self._source(part[number], rows, f"padded {k}") for k, part in enumerate(data)]

    def _source(self, image: torch.Tensor, rows: range, room: str) -> Source:
        (top, left), start = self.pad, OUTPUT_TILE * rows.start
        if top or left:
            # Where the last row of tiles starts before its place, so does the padded copy.
            first = min(start, self.height - OUTPUT_TILE)
            last = min(OUTPUT_TILE * rows.stop, self.height) + 2
            padded = scratch(room, last - first, self.width + 2, len(image)).zero_()
            above, below = max(first, top), min(last, image.shape[1] + top)
            inside = image[:, above - top : below - top].permute(1, 2, 0)
            padded[above - first : below - first, left : left + image.shape[2]] = inside
            image, start = padded.permute(2, 0, 1), start - first
        return Source(image[:, start:], *image.shape[:1], *image.stride()[1:])


def ranges(count: int, width: int) -> list[range]:
    """Cut the numbers below `count` into ranges of `width`; the last may be shorter."""
    return [range(first, min(first + width, count)) for first in range(0, count, width)]


def round_up(count: float, step: int) -> int:
    """Round up to a multiple."""
    return math.ceil(count / step) * step


def scratch(name: str, *shape: int) -> torch.Tensor:
    """Return memory that stays from call to call: fresh pages would cost as much as the sums."""
    kept = _kept.__dict__
    count = math.prod(shape)
    if name not in kept or kept[name].numel() < count:
        kept[name] = torch.empty(count)
    return kept[name][:count].view(shape)


def scratch_planes(name: str, count: int) -> torch.Tensor:
    """Return memory for planes of `count` values, each a row."""
    # An odd number of lines of the cache from one to the next: at multiples of 4096 bytes all of
    # them would compete for the same few places there.
    return scratch(name, PLANES, simd.LANES * (count // simd.LANES | 1))
