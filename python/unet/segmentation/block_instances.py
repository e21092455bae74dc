"""Cells of a slice that is computed block by block: joined over the edges of blocks, renumbered.

In memory are the pixels at the edges of blocks, a few numbers for each component, and one block; to
split cells also what surrounds it of components that go over its edges, and all numbers, packed.
The result is `unet.segmentation.instances.find_instances` of the whole slice.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from unet.errors import InputError
from unet.segmentation.blocks import Block
from unet.segmentation.instances import InstanceRules, split

# Bytes for each pixel of a part in which cells are split.
_SPLIT_BYTES = 120


def joined_instances(
    blocks: Sequence[Block],
    read: Callable[[Block], np.ndarray],
    rules: InstanceRules,
    read_cell: Callable[[Block], np.ndarray] | None = None,
    memory: float = np.inf,
) -> Iterator[tuple[Block, np.ndarray]]:
    """Yield the cells of a slice, block by block.

    Parameters
    ----------
    blocks : sequence of Block
        All of a slice, row by row.
    read : callable
        Gives the components of a block, (height, width) of int, each of one number from 1; called
        several times for each block.
    rules : InstanceRules
        But for the threshold. Holes within a block may be filled in it already, or not.
    read_cell : callable, optional
        Gives the probability of not being background, where components are split.
    memory : float
        Bytes that a block, and the components that go over its edges, may take to be split.

    Yields
    ------
    Block
    int32 ndarray, shape (height, width)
        0 is background; cells count from 1, by their first pixels in the slice, row by row.

    Raises
    ------
    InputError
        If components are too large to be split in that memory.
    """
    components = _Components(blocks, read, rules.fill_holes)
    if rules.watershed:
        yield from _split(components, rules, read_cell, memory)
        return
    number = components.numbers(rules.minimum_area)
    for place, block in enumerate(blocks):
        yield block, number[components.regions(place)]


class _Components:
    """The components of a slice, of which each lies in one block or in several."""

    def __init__(
        self, blocks: Sequence[Block], read: Callable[[Block], np.ndarray], fill_holes: bool
    ) -> None:
        self.blocks = blocks
        self.height, self.width = (max(block[axis].stop for block in blocks) for axis in (1, 2))
        self._read, self._fill_holes = read, fill_holes
        self._offsets = [0]
        firsts, areas, pairs, at_edge = [], [], [], []
        # The last row of the blocks above; so is `before` the last column of the block to the left.
        above = np.zeros(self.width + 2, np.int64)
        for place, block in enumerate(blocks):
            regions = self._signed_regions(place)
            first, area = _firsts_and_areas(np.abs(regions), self._offsets[-1], block, self.width)
            firsts.append(first)
            areas.append(area)
            self._offsets.append(self._offsets[-1] + len(first))
            if block.columns.start == 0:
                # Of this row of blocks: its own last row is that above the next.
                over, above = above, np.zeros(self.width + 2, np.int64)
                before = np.zeros(regions.shape[0] + 2, np.int64)
            left = block.columns.start
            pairs.append(_touching(over[left : block.columns.stop + 2], regions[0]))
            pairs.append(_touching(before, regions[:, 0]))
            if fill_holes:
                pairs.append(_cells_at_background(regions))
                at_edge.append(_background_at_edge(regions, block, (self.height, self.width)))
            above[left + 1 : block.columns.stop + 1] = regions[-1]
            before = np.pad(regions[:, -1], 1)
        self._first, self._area = np.concatenate(firsts), np.concatenate(areas)
        self._pairs = np.concatenate(pairs)
        self._at_edge = np.concatenate([*at_edge, np.zeros(0, np.int64)])

    def regions(self, place: int) -> np.ndarray:
        """Return the regions of which the block at this place consists; 0 is background."""
        return np.abs(self._signed_regions(place))

    def _signed_regions(self, place: int) -> np.ndarray:
        components = self._read(self.blocks[place])
        return _regions(components, self._offsets[place], self._fill_holes)

    def numbers(self, minimum_area: int) -> np.ndarray:
        """Return the number of the component of each region, int32; of 0 it is 0."""
        return _numbers(self._first, self._area, self._pairs, self._at_edge, minimum_area)


def _firsts_and_areas(
    regions: np.ndarray, offset: int, block: Block, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixels in the slice of regions from `offset` + 1 on, and their areas."""
    values, first, area = np.unique(regions, return_index=True, return_counts=True)
    is_region = values > 0
    values, first, area = values[is_region] - offset, first[is_region], area[is_region]
    count = int(values[-1]) if len(values) else 0
    rows, columns = np.divmod(first, regions.shape[1])
    places, sizes = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    places[values - 1] = (rows + block.rows.start) * width + columns + block.columns.start
    sizes[values - 1] = area
    return places, sizes


class _Packed(NamedTuple):
    """Cells of a block: places in `first`, from 1, as packed int32."""

    pixels: bytes
    first: np.ndarray


def _split(
    components: _Components,
    rules: InstanceRules,
    read_cell: Callable[[Block], np.ndarray],
    memory: float,
) -> Iterator[tuple[Block, np.ndarray]]:
    """Yield the cells of a slice whose components are split, as `joined_instances` does.

    A component is split with all of its pixels in view, so it is in each of its blocks alike; what
    tells its cells from all others are their first pixels in the slice.
    """
    number = components.numbers(0)
    boxes = _boxes(components, number)
    packed: list[_Packed] = []
    firsts, areas = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for place, block in enumerate(components.blocks):
        here = np.unique(number[components.regions(place)])
        window = _window(block, boxes[here[here > 0]], memory)
        groups, cell = _seen(components, number, window, read_cell)
        is_here = np.zeros(len(boxes), bool)
        is_here[here[here > 0]] = True
        cells = split(cell, is_here[groups], rules.watershed)
        first, area = _firsts_and_areas(cells, 0, window, components.width)
        firsts.append(first)
        areas.append(area)
        rows, columns = (
            slice(part.start - seen.start, part.stop - seen.start)
            for part, seen in zip(block[1:], window[1:])
        )
        inner = np.ascontiguousarray(cells[rows, columns], np.int32)
        packed.append(_Packed(zlib.compress(inner.data, 1), first))
    # A cell is seen from each of its blocks.
    first, where = np.unique(np.concatenate(firsts), return_index=True)
    area = np.concatenate(areas)[where]
    first = first[(first >= 0) & (area > 0) & (area >= rules.minimum_area)]
    for block, (pixels, own) in zip(components.blocks, packed):
        shape = tuple(part.stop - part.start for part in block[1:])
        cells = np.frombuffer(zlib.decompress(pixels), np.int32).reshape(shape)
        at = np.searchsorted(first, own)
        kept = np.isin(own, first)
        final = np.concatenate([[0], np.where(kept, at + 1, 0)]).astype(np.int32)
        yield block, final[cells]


def _boxes(components: _Components, number: np.ndarray) -> np.ndarray:
    """Return top, left, bottom and right of each component, int64 (components + 1, 4)."""
    boxes = np.empty((int(number.max(initial=0)) + 1, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
    for place, block in enumerate(components.blocks):
        found = ndimage.find_objects(number[components.regions(place)])
        for component, box in enumerate(found, 1):
            if box is not None:
                rows, columns = box
                low = (rows.start + block.rows.start, columns.start + block.columns.start)
                high = (rows.stop + block.rows.start, columns.stop + block.columns.start)
                boxes[component, :2] = np.minimum(boxes[component, :2], low)
                boxes[component, 2:] = np.maximum(boxes[component, 2:], high)
    return boxes


def _window(block: Block, boxes: np.ndarray, memory: float) -> Block:
    """Return what has to be seen to split components of a block; InputError if it is too much."""
    corners = np.array([[part.start for part in block[1:]], [part.stop for part in block[1:]]])
    if len(boxes):
        corners[0] = np.minimum(corners[0], boxes[:, :2].min(axis=0))
        corners[1] = np.maximum(corners[1], boxes[:, 2:].max(axis=0))
    (top, left), (bottom, right) = corners.tolist()
    height, width = bottom - top, right - left
    if height * width * _SPLIT_BYTES > memory:
        raise InputError(
            f"--watershed: slice {block.z} has components that go through {height}x{width} pixels, "
            f"which take about {height * width * _SPLIT_BYTES / 2**30:.1f} GB to be split: give "
            f"twice as much with --memory, or leave it out"
        )
    return Block(block.z, slice(top, bottom), slice(left, right))


def _seen(
    components: _Components,
    number: np.ndarray,
    window: Block,
    read_cell: Callable[[Block], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of a window, and its probabilities of not being background."""
    shape = tuple(part.stop - part.start for part in window[1:])
    groups, cell = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for place, block in enumerate(components.blocks):
        inside, given = [], []
        for part, seen in zip(block[1:], window[1:]):
            start, stop = max(part.start, seen.start), min(part.stop, seen.stop)
            inside.append(slice(start - seen.start, stop - seen.start))
            given.append(slice(start - part.start, stop - part.start))
        if all(one.start < one.stop for one in inside):
            groups[tuple(inside)] = number[components.regions(place)[tuple(given)]]
            cell[tuple(inside)] = read_cell(block)[tuple(given)]
    return groups, cell


def _regions(components: np.ndarray, offset: int, fill_holes: bool) -> np.ndarray:
    """Number the regions of a block from `offset` + 1: components, then those of background.

    These are 4-connected, have negative numbers, and are 0 unless holes are filled.
    """
    regions = components.astype(np.int64)
    regions[regions > 0] += offset
    if fill_holes:
        background, _ = ndimage.label(components == 0)
        first = offset + int(components.max(initial=0))
        regions[background > 0] = -(first + background[background > 0])
    return regions


def _touching(line: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return which regions of a line and of the one inside it touch: (n, 2).

    Components do by edge or corner, background by edge. The line is a pixel longer at both ends.
    """
    found = [np.stack([line[k : k + len(inner)], inner], axis=1) for k in range(3)]
    corners = np.concatenate(found[::2])
    edges = found[1][(found[1] != 0).all(axis=1)]
    return np.unique(np.concatenate([edges, corners[(corners > 0).all(axis=1)]]), axis=0)


def _cells_at_background(regions: np.ndarray) -> np.ndarray:
    """Return which components and regions of background of a block share an edge: (n, 2)."""
    found = []
    for one, other in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        differ = (one > 0) != (other > 0)
        found.append(np.stack([one[differ], other[differ]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _background_at_edge(regions: np.ndarray, block: Block, size: tuple[int, int]) -> np.ndarray:
    """Return the regions of background of a block that lie at an edge of the slice."""
    lines = []
    for part, length, (first, last) in zip(
        block[1:], size, ((regions[0], regions[-1]), (regions[:, 0], regions[:, -1]))
    ):
        lines += [first] * (part.start == 0) + [last] * (part.stop == length)
    found = np.unique(np.concatenate([*lines, np.zeros(0, np.int64)]))
    return found[found < 0]


def _joined(pairs: np.ndarray, count: int) -> tuple[int, np.ndarray]:
    """Return how many groups `count` regions are by these pairs, and the group of each."""
    places = np.abs(pairs) - 1
    edges = coo_matrix((np.ones(len(places), bool), places.T), shape=(count, count))
    return connected_components(edges, directed=False)


def _numbers(
    first: np.ndarray, area: np.ndarray, pairs: np.ndarray, at_edge: np.ndarray, minimum_area: int
) -> np.ndarray:
    """Return the final number of each region, int32 (regions + 1,); of 0 it is 0."""
    count = len(first)
    # Background that reaches an edge of the slice is no hole.
    groups, group = _joined(pairs[(pairs < 0).all(axis=1)], count)
    is_outside = np.zeros(groups, bool)
    is_outside[group[-at_edge - 1]] = True
    outside = is_outside[group]
    cells, cell = _joined(pairs[~outside[np.abs(pairs) - 1].any(axis=1)], count)
    size, begin = np.zeros(cells, np.int64), np.full(cells, np.iinfo(np.int64).max)
    # Numbers that no pixel has are no cells.
    there = (first >= 0) & ~outside
    np.add.at(size, cell[there], area[there])
    np.minimum.at(begin, cell[there], first[there])
    kept = np.nonzero((size > 0) & (size >= minimum_area))[0]
    final = np.zeros(cells, np.int32)
    final[kept[np.argsort(begin[kept])]] = np.arange(1, len(kept) + 1)
    return np.concatenate([np.zeros(1, np.int32), final[cell]])
