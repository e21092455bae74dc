"""Cells that merge are told apart, pixel by pixel, and only where they were apart before."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from unet.tracking.split_merged import APART, SplitMerged
from unet.tracking.track import track_cells


def row(*spans: tuple[int, int, int]) -> np.ndarray:
    """Return a frame of bars of 12 rows: (label, first column, end)."""
    labels = np.zeros((30, 100), np.uint16)
    for label, first, end in spans:
        labels[8:20, first:end] = label
    return labels


TWO = row((1, 20, 40), (2, 44, 64))
ONE = row((7, 20, 64))


def test_merged_cells_stay_apart_for_as_long_as_they_touch():
    frames = [TWO] * APART + [ONE] * 9 + [TWO]
    separated = SplitMerged(frames)
    assert len(separated) == len(frames)
    for t in range(APART, APART + 9):
        # From column 40 to 43 the gap: two columns are nearer to each.
        np.testing.assert_array_equal(separated[t], row((1, 20, 42), (2, 42, 64)))
    np.testing.assert_array_equal(separated[len(frames) - 1], TWO)
    tracks = track_cells(frames, "assignment").tracks
    assert [(k.begin, k.end, k.parent) for k in tracks] == [(0, len(frames) - 1, 0)] * 2


def test_cells_that_touched_from_the_start_are_a_mother():
    frames = [ONE] * 6 + [TWO] * APART
    np.testing.assert_array_equal(SplitMerged(frames)[0], ONE > 0)
    tracks = track_cells(frames, "assignment").tracks
    assert [(k.begin, k.end, k.parent) for k in tracks] == [(0, 5, 0), (6, 8, 1), (6, 8, 1)]


def test_parts_of_a_moment_are_not_kept_apart():
    frames = [ONE] + [TWO] * (APART - 1) + [ONE] * 4
    separated = SplitMerged(frames)
    for t in (0, *range(APART, len(frames))):
        np.testing.assert_array_equal(separated[t], ONE > 0)


def test_a_cell_that_vanishes_beside_another_is_not_drawn_from_it():
    # What is there is the left cell: of the right one little would be left.
    gone = row((5, 20, 44))
    gone[13:14, 44:57] = 5
    separated = SplitMerged([TWO] * APART + [gone])
    np.testing.assert_array_equal(separated[APART], gone > 0)


@pytest.mark.parametrize("seed", range(4))
def test_pixels_go_to_the_nearest_cell(seed):
    rng = np.random.default_rng(seed)
    before = np.zeros((40, 40), int)
    for label, (y, x) in enumerate([(12, 10), (14, 28), (30, 20)], 1):
        before[y - 5 : y + 5, x - 5 : x + 5] = label
        before[y - 5 + rng.integers(3), x - 5 : x] = label
    merged = np.zeros_like(before)
    merged[6:36, 4:35] = 1
    given = SplitMerged([before] * APART + [merged])[APART]
    assert given.max() == 3
    for y, x in np.argwhere(merged > 0):
        nearest = [
            np.min(np.linalg.norm(np.argwhere(before == label) - (y, x), axis=1))
            for label in (1, 2, 3)
        ]
        assert nearest[given[y, x] - 1] == pytest.approx(min(nearest))
    assert (given[merged == 0] == 0).all()


def test_frames_are_not_kept():
    def peak(count: int) -> int:
        tracemalloc.start()
        SplitMerged([TWO] * count)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)
    # A frame of numbers takes 24 kB.
    assert peak(40) - peak(10) < 20_000


def test_empty_frames():
    empty = np.zeros((5, 5), int)
    for frames in ([empty], [empty] * 5):
        separated = SplitMerged(frames)
        assert not any(separated[t].any() for t in range(len(frames)))
