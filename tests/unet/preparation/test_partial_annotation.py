"""What nobody has said anything about is unknown, by each rule; held against pixel-wise rules."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unet.drawn import drawn
from unet.errors import InputError
from unet.preparation.partial_annotation import (
    IgnoreRule,
    check_rule,
    largest_reach,
    undrawn_markers,
    unknown_pixels,
)

CELLS = drawn(
    "..........",
    ".77....5..",
    ".77....5..",
    ".......5..",
    ".......5..",
)
MARKERS = drawn(
    "........2.",
    "..1.......",
    ".......3..",
    "..........",
    "4.........",
)


def test_markers_without_a_drawn_cell():
    # 7 is marked as 1 and 5 as 3: numbers need not agree.
    assert undrawn_markers(CELLS, MARKERS).tolist() == [2, 4]
    assert undrawn_markers(CELLS, np.where(MARKERS == 3, 0, MARKERS)).tolist() == [2, 4]
    assert undrawn_markers(CELLS * 0, MARKERS).tolist() == [1, 2, 3, 4]
    assert undrawn_markers(CELLS, CELLS).tolist() == []


def test_a_marker_that_only_touches_a_cell_with_one_pixel_is_drawn():
    markers = np.zeros_like(CELLS)
    markers[0, 3] = markers[1, 2] = 9
    assert undrawn_markers(CELLS, markers).tolist() == []


def test_none_and_the_field():
    assert not unknown_pixels(CELLS, IgnoreRule()).any()
    got = unknown_pixels(CELLS, IgnoreRule(field_of_interest=2))
    expected = np.ones(CELLS.shape, bool)
    expected[2:-2, 2:-2] = False
    assert np.array_equal(got, expected & (CELLS == 0))
    assert np.array_equal(unknown_pixels(CELLS, IgnoreRule(field_of_interest=3)), CELLS == 0)


def test_outside_the_surroundings():
    cells = np.random.default_rng(0).integers(0, 60, (30, 40))
    cells[cells > 3] = 0
    rows, columns = np.indices(cells.shape)
    nearest = np.min([np.hypot(rows - r, columns - c) for r, c in zip(*np.nonzero(cells))], axis=0)
    got = unknown_pixels(cells, IgnoreRule("surroundings", 2.5))
    assert np.array_equal(got, nearest > 2.5)
    assert 0 < got.sum() < got.size


def test_nothing_is_known_in_a_frame_without_cells():
    assert unknown_pixels(CELLS * 0, IgnoreRule("surroundings", 5)).all()


def test_the_region_around_an_undrawn_marker():
    got = unknown_pixels(CELLS, IgnoreRule("markers", 1.5), MARKERS)
    assert np.array_equal(
        got,
        drawn(
            ".......111",
            "........11",
            "..........",
            "11........",
            "11........",
        ),
    )


def test_the_region_does_not_reach_behind_a_drawn_cell():
    wall = np.zeros((9, 9), int)
    wall[:, 4] = 1
    marker = np.zeros((9, 9), int)
    marker[4, 2] = 6
    got = unknown_pixels(wall, IgnoreRule("markers", 5), marker)
    assert not got[:, 4:].any()
    assert got[4, :4].all()
    wall[8, 4] = 0  # A way around, but farther than the reach.
    assert not unknown_pixels(wall, IgnoreRule("markers", 4), marker)[:, 4:].any()


def test_markers_as_large_as_cells():
    marked = np.array([[0, 3, 3, 0, 5, 5]])
    drawn = np.array([[0, 9, 9, 0, 0, 0]])
    rule = IgnoreRule("markers", largest_reach(drawn, marked))
    check_rule(rule)
    assert unknown_pixels(drawn, rule, marked).tolist() == [[False] * 4 + [True] * 2]


def test_how_far_a_cell_reaches_from_its_marker():
    # From (2, 7) to (4, 7); from (1, 2) to (2, 1).
    assert largest_reach(CELLS, MARKERS) == 2
    assert largest_reach(np.where(CELLS == 5, 0, CELLS), MARKERS) == pytest.approx(np.sqrt(2))
    assert largest_reach(CELLS, MARKERS * 0) == 0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (IgnoreRule("markers", -1), "reach -1: give pixels"),
        (IgnoreRule("surroundings", 0), "reach 0: give pixels"),
        (IgnoreRule("surroundings", float("nan")), "reach nan: give pixels"),
        (IgnoreRule(field_of_interest=-1), "field -1: give pixels"),
    ],
)
def test_rules_that_mean_nothing(rule, message):
    with pytest.raises(InputError, match=message):
        check_rule(rule)
