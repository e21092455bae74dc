"""Tiles: tilings that leave no gap and keep to the grid."""

from __future__ import annotations

import pytest

from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.segmentation.tiles import Tiling, tile_starts

FIG_1 = Geometry()
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
            FIG_1.check((size, size))
            assert maps == size - 2 * FIG_1.border
        else:
            with pytest.raises(InputError):
                FIG_1.check((size, 188))


@pytest.mark.parametrize(
    ("size", "below", "above"),
    [(500, 492, 508), (573, 572, 588), (0, 188, 204), (-4, 188, 204), (189, 188, 204)],
)
def test_invalid_size_names_the_nearest_valid_ones(size, below, above):
    with pytest.raises(InputError, match=f"{size} .*nearest are {below} and {above}"):
        FIG_1.check((572, size))


@pytest.mark.parametrize("length", [1, 4, 5, 16, 20, 21, 36, 37, 100, 388, 389, 512, 600, 1999])
def test_tiles_keep_to_the_grid_and_leave_no_gap(length):
    for size in SIZES:
        output = size - 2 * FIG_1.border
        if output < 16 and length > output:
            with pytest.raises(InputError, match=rf"{size} .* up to 4 pixels; take {size + 16}"):
                tile_starts(length, size, FIG_1)
            continue
        starts = list(tile_starts(length, size, FIG_1))
        assert starts[0] == 0
        assert all(start % 16 == 0 for start in starts)
        ends = [start + output for start in starts]
        assert all(start <= end for start, end in zip(starts[1:], ends))
        assert ends[-1] >= length
        # None is superfluous.
        assert starts[-1] < length
        assert len(starts) == 1 or ends[-2] < length


def test_tiles_laid_on_their_side_come_row_by_row_as_well():
    tiling = Tiling.over((512, 300), (572, 444), FIG_1)
    assert tiling.transposed() == Tiling.over((300, 512), (444, 572), FIG_1)
