"""Cells of probabilities: against floods by loops, peaks by union-find, and what can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unet.errors import InputError
from unet.segmentation.instances import InstanceRules, as_stored, drop_small, find_instances

NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def two_classes(cell: np.ndarray) -> np.ndarray:
    """Return the probabilities of background and cell."""
    return np.stack([1 - cell, cell])


def flooded(foreground: np.ndarray) -> np.ndarray:
    """Number the 8-connected components by a flood from each pixel, row by row."""
    labels = np.zeros(foreground.shape, int)
    for start in np.argwhere(foreground):
        if labels[tuple(start)]:
            continue
        number, stack = labels.max() + 1, [tuple(start)]
        while stack:
            y, x = stack.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and foreground[y, x] and not labels[y, x]:
                labels[y, x] = number
                stack += [(y + dy, x + dx) for dy, dx in NEIGHBOURS]
    return labels


def peaks_that_stand_out(cell: np.ndarray, foreground: np.ndarray, depth: float) -> int:
    """Count the peaks from which every way to a higher one falls by more than `depth`."""
    parent: dict = {}
    peak: dict = {}
    surviving = 0

    def root(pixel):
        while parent[pixel] != pixel:
            pixel = parent[pixel]
        return pixel

    for pixel in sorted(map(tuple, np.argwhere(foreground)), key=lambda p: -cell[p]):
        parent[pixel], peak[pixel] = pixel, cell[pixel]
        for dy, dx in NEIGHBOURS:
            other = (pixel[0] + dy, pixel[1] + dx)
            if other in parent and root(other) != root(pixel):
                low, high = sorted((root(other), root(pixel)), key=lambda r: peak[r])
                surviving += peak[low] - cell[pixel] > depth
                parent[low] = high
    return surviving + sum(parent[pixel] == pixel for pixel in parent)


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_a_flood(seed):
    cell = np.random.default_rng(seed).random((23, 31))
    given = find_instances(two_classes(cell), InstanceRules())
    np.testing.assert_array_equal(given, flooded(cell > 0.5))
    assert given.dtype == np.int32
    given = find_instances(two_classes(cell), InstanceRules(threshold=0.7))
    np.testing.assert_array_equal(given, flooded(cell > 0.7))


@pytest.mark.parametrize("seed", range(5))
def test_small_cells_are_dropped_and_the_others_numbered_anew(seed):
    cell = np.random.default_rng(seed).random((40, 40))
    probabilities = two_classes(cell)
    everything = flooded(cell > 0.7)
    given = find_instances(probabilities, InstanceRules(threshold=0.7, minimum_area=5))
    number = 0
    for label in range(1, everything.max() + 1):
        pixels = everything == label
        if pixels.sum() < 5:
            assert not given[pixels].any()
        else:
            number += 1
            assert (given[pixels] == number).all()
    assert given.max() == number > 3


def test_holes_by_eye():
    # The diagonal closes the ring, for cells are 8-connected; the bay on the right is open.
    rows = ["######....", "#....#.###", "#.##.#.#..", "#....#.#..", ".####..###"]
    cell = np.array([[float(c == "#") for c in row] for row in rows])
    filled = ["111111....", "111111.222", "111111.2..", "111111.2..", ".1111..222"]
    wanted = np.array([[0 if c == "." else int(c) for c in row] for row in filled])
    given = find_instances(two_classes(cell), InstanceRules(fill_holes=True))
    np.testing.assert_array_equal(given, wanted)
    assert find_instances(two_classes(cell), InstanceRules())[2, 1] == 0


@pytest.mark.parametrize("seed", range(8))
def test_watershed_gives_a_cell_for_each_peak_that_stands_out(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((30, 36)), 1.5)
    # Steps of 1/64 are exact, also less the depth.
    cell = np.round((smooth - smooth.min()) / np.ptp(smooth) * 64) / 64
    for depth in (1 / 64, 4 / 64, 12 / 64, 40 / 64):
        for threshold in (0.25, 0.5):
            rules = InstanceRules(threshold=threshold, watershed=depth)
            given = find_instances(two_classes(cell), rules)
            np.testing.assert_array_equal(given > 0, cell > threshold)
            assert given.max() == peaks_that_stand_out(cell, cell > threshold, depth)
            for label in range(1, given.max() + 1):
                assert flooded(given == label).max() == 1


def test_watershed_cuts_where_the_border_is():
    distance = np.abs(np.arange(40) - 19)
    cell = np.tile(np.where(distance == 0, 0.6, 0.95), (20, 1))
    assert find_instances(two_classes(cell), InstanceRules()).max() == 1
    given = find_instances(two_classes(cell), InstanceRules(watershed=0.2))
    assert (given[:, :19] == 1).all()
    assert (given[:, 20:] == 2).all()
    # A depth that no valley has.
    assert find_instances(two_classes(cell), InstanceRules(watershed=0.5)).max() == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (7, 2)])
def test_watershed_of_narrow_pictures(shape):
    cell = np.random.default_rng(shape).random(shape)
    given = find_instances(two_classes(cell), InstanceRules(threshold=0.2, watershed=0.1))
    assert given.max() == peaks_that_stand_out(cell, cell > 0.2, 0.1)


def test_of_three_classes_those_that_are_not_background():
    probabilities = np.array([[0.4, 0.4, 0.2, 0.5], [0.3, 0.5, 0.3, 0.2], [0.3, 0.1, 0.5, 0.3]])
    probabilities = probabilities[:, None]
    assert find_instances(probabilities, InstanceRules()).tolist() == [[0, 1, 1, 0]]
    # Not background is more probable than 0.55, though no class is the likeliest.
    assert find_instances(probabilities, InstanceRules(threshold=0.55)).tolist() == [[1, 1, 1, 0]]


@pytest.mark.parametrize("rules", [InstanceRules(), InstanceRules(0.5, 500, True, 0.2)])
def test_no_cell_and_nothing_but_cell(rules):
    nothing = find_instances(two_classes(np.zeros((30, 30))), rules)
    assert nothing.shape == (30, 30)
    assert not nothing.any()
    assert (find_instances(two_classes(np.ones((30, 30))), rules) == 1).all()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (InstanceRules(threshold=1.0), "threshold 1: give a probability"),
        (InstanceRules(threshold=float("nan")), "threshold nan"),
        (InstanceRules(watershed=1.0), "watershed 1: give the depth"),
        (InstanceRules(watershed=float("nan")), "watershed nan"),
        (InstanceRules(minimum_area=-1), "minimum area -1: give a number of pixels"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rules, said):
    with pytest.raises(InputError, match=said):
        find_instances(two_classes(np.zeros((4, 4))), rules)


def test_nan_is_refused():
    cell = np.zeros((4, 4))
    cell[1, 2] = np.nan
    with pytest.raises(InputError, match="probabilities are NaN"):
        find_instances(two_classes(cell), InstanceRules())


def test_more_cells_than_16_bit_can_number():
    dots = np.zeros((520, 520), np.float32)
    dots[::2, ::2] = 1
    cells = find_instances(two_classes(dots), InstanceRules())
    assert cells.max() == 260**2
    with pytest.raises(InputError, match="67600 cells in one slice are more than the 65535"):
        as_stored(cells, np.uint16)
    stored = as_stored(cells, np.uint32)
    assert stored.dtype == np.uint32
    np.testing.assert_array_equal(stored, cells)
    assert as_stored(drop_small(cells, 2), np.uint16).max() == 0
