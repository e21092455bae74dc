"""Cells of blocks: those that scipy finds in the whole slice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unet.errors import InputError
from unet.segmentation.block_instances import joined_instances
from unet.segmentation.blocks import blocks_of
from unet.segmentation.instances import InstanceRules, drop_small, find_instances

EIGHT = np.ones((3, 3), bool)


def joined(
    foreground: np.ndarray, block: tuple[int, int], minimum_area: int, fill_holes: bool = False
) -> np.ndarray:
    whole = np.full(foreground.shape, -1, np.int32)
    parts = joined_instances(
        blocks_of(range(1), foreground.shape, block),
        lambda one: ndimage.label(foreground[one.rows, one.columns], EIGHT)[0],
        InstanceRules(minimum_area=minimum_area, fill_holes=fill_holes),
    )
    for one, labels in parts:
        whole[one.rows, one.columns] = labels
    return whole


@pytest.mark.parametrize("minimum_area", [1, 5])
@pytest.mark.parametrize("block", [(16, 16), (1, 3), (7, 40), (40, 7), (64, 64)])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.45, 1.0])
def test_cells_of_blocks_are_those_of_the_slice(share, block, minimum_area):
    foreground = np.random.default_rng(3).random((40, 53)) < share
    wanted = drop_small(ndimage.label(foreground, EIGHT)[0], minimum_area)
    np.testing.assert_array_equal(joined(foreground, block, minimum_area), wanted)


@pytest.mark.parametrize("block", [(16, 16), (2, 5), (7, 40), (40, 7), (64, 64)])
@pytest.mark.parametrize("share", [0.45, 0.6, 0.75, 0.95])
def test_holes_over_edges_of_blocks_are_those_of_the_slice(share, block, minimum_area=9):
    foreground = np.random.default_rng(4).random((40, 53)) < share
    # A ring around a ring around a cell, over many blocks.
    y, x = np.mgrid[:40, :53]
    far = np.hypot(y - 20, x - 26)
    foreground |= (np.abs(far - 18) < 1) | (np.abs(far - 10) < 1)
    foreground &= np.abs(far - 14) > 2
    filled = ndimage.binary_fill_holes(foreground)
    assert (filled != foreground).any()
    wanted = drop_small(ndimage.label(filled, EIGHT)[0], minimum_area)
    np.testing.assert_array_equal(joined(foreground, block, minimum_area, True), wanted)


@pytest.mark.parametrize("block", [(3, 3), (2, 5), (1, 1)])
def test_a_gap_at_a_corner_lets_no_background_through(block):
    # Background is connected by edges: a ring that closes by corners encloses.
    ring = np.array(
        [[0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
    )
    filled = joined(ring > 0, block, 1, True)
    np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(ring))
    ring[2, 4] = 0
    np.testing.assert_array_equal(joined(ring > 0, block, 1, True), ring)


def test_cells_that_touch_by_corners_of_four_blocks_are_one():
    foreground = np.eye(4, dtype=bool)
    assert joined(foreground, (2, 2), 1).max() == 1
    assert joined(foreground[:, ::-1], (2, 2), 1).max() == 1


def test_a_slice_without_a_cell_stays_so():
    assert not joined(np.zeros((5, 6), bool), (2, 2), 1).any()


def split(
    cell: np.ndarray, block: tuple[int, int], rules: InstanceRules, memory: float = np.inf
) -> np.ndarray:
    probabilities = np.stack([1 - cell, cell])
    in_block = rules._replace(minimum_area=0, watershed=None)
    whole = np.full(cell.shape, -1, np.int32)
    parts = joined_instances(
        blocks_of(range(1), cell.shape, block),
        lambda one: find_instances(probabilities[:, one.rows, one.columns], in_block),
        rules,
        lambda one: cell[one.rows, one.columns],
        memory,
    )
    for one, labels in parts:
        whole[one.rows, one.columns] = labels
    return whole


def hills(seed: int) -> np.ndarray:
    """Return probabilities of cells that touch, float32 (61, 83)."""
    noise = np.random.default_rng(seed).random((61, 83))
    smooth = ndimage.gaussian_filter(noise, 2.5)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.mark.parametrize("block", [(16, 16), (61, 20), (9, 83), (64, 96)])
@pytest.mark.parametrize("fill_holes", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_cells_are_split_over_edges_of_blocks_as_in_the_slice(block, fill_holes, seed):
    rules = InstanceRules(0.45, minimum_area=12, fill_holes=fill_holes, watershed=0.05)
    cell = hills(seed)
    wanted = find_instances(np.stack([1 - cell, cell]), rules)
    assert (
        wanted.max()
        > find_instances(np.stack([1 - cell, cell]), rules._replace(watershed=None)).max()
    )
    np.testing.assert_array_equal(split(cell, block, rules), wanted)


@pytest.mark.parametrize("block", [(16, 16), (9, 83)])
@pytest.mark.parametrize("steps", [2, 4, 9])
def test_so_they_are_where_peaks_are_as_high_as_each_other(block, steps):
    rules = InstanceRules(0.2, watershed=0.1)
    # As of a network that is certain: many pixels of one value.
    cell = np.float32(np.rint(hills(5) * steps) / steps)
    wanted = find_instances(np.stack([1 - cell, cell]), rules)
    np.testing.assert_array_equal(split(cell, block, rules), wanted)


def test_components_too_large_to_be_split_are_refused_with_what_they_take():
    cell = hills(1)
    with pytest.raises(InputError, match=r"slice 0 has components that go through 61x83 pixels"):
        split(cell, (16, 16), InstanceRules(0.1, watershed=0.1), 120 * 61 * 83 - 1)
    split(cell, (16, 16), InstanceRules(0.1, watershed=0.1), 120 * 61 * 83)
