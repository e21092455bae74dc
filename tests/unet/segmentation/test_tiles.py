"""Tiles: sizes, mirrors, and tilings that leave no gap and keep to the grid."""

from __future__ import annotations

import numpy as np
import pytest

from unet.errors import InputError
from unet.segmentation.tiles import (
    BORDER,
    PassCost,
    check_tile,
    choose_tile,
    count_tiles,
    tile_places,
    tile_starts,
)

SIZES = range(188, 1500, 16)


def test_valid_sizes_are_those_that_every_pooling_halves():
    for size in range(100, 800):
        maps, fits = size, True
        for _ in range(4):
            maps -= 4
            fits &= maps % 2 == 0
            maps //= 2
        maps -= 4
        for _ in range(4):
            maps = 2 * maps - 4
        if fits and maps > 0:
            check_tile((size, size))
            assert maps == size - 2 * BORDER
        else:
            with pytest.raises(InputError):
                check_tile((size, 188))


@pytest.mark.parametrize(
    ("size", "below", "above"),
    [(500, 492, 508), (573, 572, 588), (0, 188, 204), (-4, 188, 204), (189, 188, 204)],
)
def test_invalid_size_names_the_nearest_valid_ones(size, below, above):
    with pytest.raises(InputError, match=f"{size} .*nearest are {below} and {above}"):
        check_tile((572, size))


@pytest.mark.parametrize("length", [1, 4, 5, 16, 20, 21, 36, 37, 100, 388, 389, 512, 600, 1999])
def test_tiles_keep_to_the_grid_and_leave_no_gap(length):
    for size in SIZES:
        output = size - 2 * BORDER
        if output < 16 and length > output:
            with pytest.raises(InputError, match=rf"{size} .* up to 4 pixels; take {size + 16}"):
                tile_starts(length, size)
            continue
        starts = list(tile_starts(length, size))
        assert starts[0] == 0
        assert all(start % 16 == 0 for start in starts)
        ends = [start + output for start in starts]
        assert all(start <= end for start, end in zip(starts[1:], ends))
        assert ends[-1] >= length
        # None is superfluous.
        assert starts[-1] < length
        assert len(starts) == 1 or ends[-2] < length


def test_places_are_rows_of_columns():
    assert list(tile_places((512, 300), (572, 444))) == [(0, 0), (0, 256), (384, 0), (384, 256)]
    assert count_tiles((512, 300), (572, 444)) == 4


def made_up_cost(**changes) -> PassCost:
    """Return the cost of a net with two maps: one as large as the input, one as the output."""
    values = dict(
        sizes=np.array([[188, 188], [4, 4]]),
        growth=np.ones((2, 2)),
        channels=np.array([1, 10]),
        live=np.ones((1, 2), bool),
        multiply_adds=np.array([2, 0]),
        workspace=np.array([3, 5]),
        workspaces_add=False,
    )
    return PassCost(**{**values, **changes})


def test_cost_by_hand():
    cost = made_up_cost()
    assert cost.pixels((204, 188)).tolist() == [204 * 188, 20 * 4]
    assert cost.work((204, 188)) == 2 * 204 * 188
    kept = 204 * 188 + 10 * 20 * 4
    assert cost.memory((204, 188)) == 4 * (kept + 3 * 204 * 188)
    in_turn = made_up_cost(live=np.eye(2, dtype=bool))
    assert in_turn.memory((204, 188)) == 4 * (204 * 188 + 3 * 204 * 188)
    both = made_up_cost(workspaces_add=True)
    assert both.memory((204, 188)) == 4 * (kept + 3 * 204 * 188 + 5 * 20 * 4)


def test_a_blob_that_caffe_cannot_count_fits_no_memory():
    huge = made_up_cost(channels=np.array([1, 100]))
    assert np.isfinite(huge.memory((4620, 4620)))
    assert huge.memory((4844, 4844)) == np.inf


def test_a_slice_of_isbi_takes_one_pass():
    assert choose_tile((512, 512), made_up_cost(), np.inf) == (700, 700)
    # Height and width do not depend on each other.
    assert choose_tile((37, 600), made_up_cost(), np.inf) == (236, 796)
    assert choose_tile((1, 1), made_up_cost(), np.inf) == (188, 188)


@pytest.mark.parametrize("shape", [(512, 512), (1024, 300), (5, 2000), (4, 4), (1, 5)])
@pytest.mark.parametrize("megabytes", [1, 2, 8, 64])
def test_choice_is_the_cheapest_of_all_that_fit(shape, megabytes):
    cost, memory = made_up_cost(), megabytes * 2.0**20
    every = []
    for height in range(188, shape[0] + 204, 16):
        for width in range(188, shape[1] + 204, 16):
            tile = (height, width)
            try:
                tiles = count_tiles(shape, tile)
            except InputError:
                continue
            if cost.memory(tile) <= memory:
                every.append(tiles * cost.work(tile))
    chosen = choose_tile(shape, cost, memory)
    assert cost.memory(chosen) <= memory
    assert count_tiles(shape, chosen) * cost.work(chosen) == min(every)


def test_memory_for_no_tile_is_refused():
    with pytest.raises(InputError, match="smallest tiles, 204x204, takes about 1 MB, but 0 MB"):
        choose_tile((512, 512), made_up_cost(), 1e5)


def test_tile_of_a_huge_picture_is_chosen_quickly():
    tile = choose_tile((30000, 40000), made_up_cost(), 2.0**30)
    assert made_up_cost().memory(tile) <= 2.0**30
