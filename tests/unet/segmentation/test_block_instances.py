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


def joined(foreground: np.ndarray, block: tuple[int, int], minimum_area: int) -> np.ndarray:
    whole = np.full(foreground.shape, -1, np.int32)
    parts = joined_instances(
        blocks_of(range(1), foreground.shape, block),
        lambda one: ndimage.label(foreground[one.rows, one.columns], EIGHT)[0],
        minimum_area,
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


def test_cells_that_touch_by_corners_of_four_blocks_are_one():
    foreground = np.eye(4, dtype=bool)
    assert joined(foreground, (2, 2), 1).max() == 1
    assert joined(foreground[:, ::-1], (2, 2), 1).max() == 1


def test_a_slice_without_a_cell_stays_so():
    assert not joined(np.zeros((5, 6), bool), (2, 2), 1).any()


@pytest.mark.parametrize("rules", [InstanceRules(fill_holes=True), InstanceRules(watershed=0.2)])
def test_rules_that_need_the_whole_slice_are_refused_with_numbers(rules):
    check_joinable(rules, (40, 50), (40, 50))
    with pytest.raises(InputError, match=r"a whole slice, 40x50, .* blocks of 16x32 fit"):
        check_joinable(rules, (40, 50), (16, 32))
