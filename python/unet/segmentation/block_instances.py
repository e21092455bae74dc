"""Cells of a slice that is computed block by block: joined over the edges of blocks, renumbered.

In memory are the pixels at the edges of blocks, a few numbers for each component, and one block.
The result is `unet.segmentation.instances.find_instances` of the whole slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from unet.errors import InputError
from unet.segmentation.blocks import Block
from unet.segmentation.instances import InstanceRules


def check_joinable(rules: InstanceRules, size: tuple[int, int], block: tuple[int, int]) -> None:
    """Refuse rules by which a cell depends on pixels of the slice that are far from it.

    Raises
    ------
    InputError
        If cells are split in slices of several blocks.
    """
    if block != size and rules.watershed is not None:
        raise InputError(
            f"--watershed needs a whole slice, {size[0]}x{size[1]}, in memory, where blocks of "
            f"{block[0]}x{block[1]} fit: leave it out, or give more with --memory"
        )


def joined_instances(
    blocks: Sequence[Block],
    read: Callable[[Block], np.ndarray],
    minimum_area: int,
    fill_holes: bool = False,
) -> Iterator[tuple[Block, np.ndarray]]:
    """Yield the cells of a slice, block by block.

    Parameters
    ----------
    blocks : sequence of Block
        All of a slice, row by row.
    read : callable
        Gives the components of a block, (height, width) of int, each of one number from 1; called
        twice for each block.
    minimum_area, fill_holes
        As of `InstanceRules`. Holes within a block may be filled in it already, or not.

    Yields
    ------
    Block
    int32 ndarray, shape (height, width)
        0 is background; cells count from 1, by their first pixels in the slice, row by row.
    """
    height, width = (max(block[axis].stop for block in blocks) for axis in (1, 2))
    firsts, areas, pairs, at_edge = [], [], [], []
    offsets = [0]
    # The last row of the blocks above; so is `before` the last column of the block to the left.
    above = np.zeros(width + 2, np.int64)
    for block in blocks:
        regions = _regions(read(block), offsets[-1], fill_holes)
        values, first, area = np.unique(np.abs(regions), return_index=True, return_counts=True)
        is_region = values > 0
        values, first, area = values[is_region] - offsets[-1], first[is_region], area[is_region]
        count = int(values[-1]) if len(values) else 0
        rows, columns = np.divmod(first, regions.shape[1])
        places, sizes = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        places[values - 1] = (rows + block.rows.start) * width + columns + block.columns.start
        sizes[values - 1] = area
        firsts.append(places)
        areas.append(sizes)
        offsets.append(offsets[-1] + count)
        if block.columns.start == 0:
            # Of this row of blocks: its own last row is that above the next.
            over, above = above, np.zeros(width + 2, np.int64)
            before = np.zeros(regions.shape[0] + 2, np.int64)
        left = block.columns.start
        pairs.append(_touching(over[left : block.columns.stop + 2], regions[0]))
        pairs.append(_touching(before, regions[:, 0]))
        if fill_holes:
            pairs.append(_cells_at_background(regions))
            at_edge.append(_background_at_edge(regions, block, (height, width)))
        above[left + 1 : block.columns.stop + 1] = regions[-1]
        before = np.pad(regions[:, -1], 1)
    number = _numbers(
        np.concatenate(firsts),
        np.concatenate(areas),
        np.concatenate(pairs),
        np.concatenate(at_edge) if at_edge else np.zeros(0, np.int64),
        minimum_area,
    )
    for block, offset in zip(blocks, offsets):
        yield block, number[np.abs(_regions(read(block), offset, fill_holes))]


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
