"""Cells of a slice that is computed block by block: joined over the edges of blocks, renumbered.

In memory are the pixels at the edges of blocks, a few numbers for each component, and one block.
The result is `unet.segmentation.instances.find_instances` of the whole slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
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
        If holes are filled, or cells split, in slices of several blocks.
    """
    asked = "--fill-holes" if rules.fill_holes else "--watershed"
    if block != size and (rules.fill_holes or rules.watershed is not None):
        raise InputError(
            f"{asked} needs a whole slice, {size[0]}x{size[1]}, in memory, where blocks of "
            f"{block[0]}x{block[1]} fit: leave it out, or give more with --memory"
        )


def joined_instances(
    blocks: Sequence[Block], read: Callable[[Block], np.ndarray], minimum_area: int
) -> Iterator[tuple[Block, np.ndarray]]:
    """Yield the cells of a slice, block by block.

    Parameters
    ----------
    blocks : sequence of Block
        All of a slice, row by row.
    read : callable
        Gives the components of a block, (height, width) of int, each of one number from 1; called
        twice for each block.
    minimum_area : int
        As of `InstanceRules`.

    Yields
    ------
    Block
    int32 ndarray, shape (height, width)
        0 is background; cells count from 1, by their first pixels in the slice, row by row.
    """
    width = max(block.columns.stop for block in blocks)
    firsts, areas, pairs = [], [], []
    offsets = [0]
    # The last row of the blocks above; so is `before` the last column of the block to the left.
    above = np.zeros(width + 2, np.int64)
    for block in blocks:
        labels = read(block).astype(np.int64)
        values, first, area = np.unique(labels, return_index=True, return_counts=True)
        is_cell = values > 0
        values, first, area = values[is_cell], first[is_cell], area[is_cell]
        count = int(values[-1]) if len(values) else 0
        rows, columns = np.divmod(first, labels.shape[1])
        places, sizes = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        places[values - 1] = (rows + block.rows.start) * width + columns + block.columns.start
        sizes[values - 1] = area
        firsts.append(places)
        areas.append(sizes)
        labels[labels > 0] += offsets[-1]
        offsets.append(offsets[-1] + count)
        if block.columns.start == 0:
            # Of this row of blocks: its own last row is that above the next.
            over, above = above, np.zeros(width + 2, np.int64)
            before = np.zeros(labels.shape[0] + 2, np.int64)
        left = block.columns.start
        pairs.append(_touching(over[left : block.columns.stop + 2], labels[0]))
        pairs.append(_touching(before, labels[:, 0]))
        above[left + 1 : block.columns.stop + 1] = labels[-1]
        before = np.pad(labels[:, -1], 1)
    number = _numbers(np.concatenate(firsts), np.concatenate(areas), pairs, minimum_area)
    for block, offset in zip(blocks, offsets):
        labels = read(block).astype(np.int64)
        labels[labels > 0] += offset
        yield block, number[labels]


def _touching(line: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return which components of a line and of the one inside it touch, by edge or corner: (n, 2).

    The line is a pixel longer at both ends.
    """
    found = [np.stack([line[k : k + len(inner)], inner], axis=1) for k in range(3)]
    pairs = np.concatenate(found)
    return np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)


def _numbers(
    first: np.ndarray, area: np.ndarray, pairs: list[np.ndarray], minimum_area: int
) -> np.ndarray:
    """Return the final number of each component, int32 (components + 1,); of 0 it is 0."""
    count = len(first)
    touching = np.concatenate(pairs) - 1
    edges = coo_matrix((np.ones(len(touching), bool), touching.T), shape=(count, count))
    cells, cell = connected_components(edges, directed=False)
    size, begin = np.zeros(cells, np.int64), np.full(cells, np.iinfo(np.int64).max)
    np.add.at(size, cell, area)
    # Numbers that no pixel has are no cells.
    there = first >= 0
    np.minimum.at(begin, cell[there], first[there])
    kept = np.nonzero((size > 0) & (size >= minimum_area))[0]
    final = np.zeros(cells, np.int32)
    final[kept[np.argsort(begin[kept])]] = np.arange(1, len(kept) + 1)
    return np.concatenate([np.zeros(1, np.int32), final[cell]])
