"""Cells of blocks: those that scipy finds in the whole slice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unet.errors import InputError
from unet.segmentation.block_instances import check_joinable, joined_instances
from unet.segmentation.blocks import blocks_of
from unet.segmentation.instances import InstanceRules, drop_small

EIGHT = np.ones((3, 3), bool)


def joined(
    foreground: np.ndarray, block: tuple[int, int], minimum_area: int, fill_holes: bool = False
) -> np.ndarray:
    whole = np.full(foreground.shape, -1, np.int32)
    parts = joined_instances(
        blocks_of(range(1), foreground.shape, block),
        lambda one: ndimage.label(foreground[one.rows, one.columns], EIGHT)[0],
        minimum_area,
        fill_holes,
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


@pytest.mark.parametrize("minimum_area", [1, 9])
@pytest.mark.parametrize("block", [(16, 16), (1, 3), (7, 40), (40, 7), (64, 64)])
@pytest.mark.parametrize("share", [0.45, 0.6, 0.75, 0.95])
def test_holes_over_edges_of_blocks_are_those_of_the_slice(share, block, minimum_area):
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


def test_rules_that_need_the_whole_slice_are_refused_with_numbers():
    rules = InstanceRules(watershed=0.2)
    check_joinable(rules, (40, 50), (40, 50))
    with pytest.raises(InputError, match=r"a whole slice, 40x50, .* blocks of 16x32 fit"):
        check_joinable(rules, (40, 50), (16, 32))
