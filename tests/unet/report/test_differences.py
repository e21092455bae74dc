"""Where a result differs from the truth: small pictures whose answer can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unet.drawn import drawn
from unet.report.differences import (
    INVENTED,
    MERGED,
    MISSED,
    SPLIT,
    differences,
    serious,
    worst_places,
)
from unet.report.run_files import UNKNOWN, HeldOutSlice


def held(truth: np.ndarray, result: np.ndarray, place: int = 0) -> HeldOutSlice:
    return HeldOutSlice(place, f"slice {place}", np.zeros((1, *truth.shape)), truth, result)


def test_membranes_are_missed_or_invented():
    truth = drawn("1101", "1101")
    result = drawn("1111", "1001")
    expected = drawn("..1.", ".2..")
    assert (differences("membranes", truth, result) == expected).all()
    assert (MISSED, INVENTED) == (1, 2)


def test_cells_are_missed_invented_merged_and_split():
    truth = drawn(
        "11.22....",
        "11.22.333",
        "......333",
        "44....333",
    )
    result = drawn(
        "1111.....",
        "11111.2.3",
        "......2.3",
        "..55..2.3",
    )
    told = differences("cells", truth, result)
    assert (told[:2, :2] == MERGED).all() and told[1, 4] == MERGED
    assert told[0, 4] == MISSED and told[0, 2] == INVENTED
    assert (told[3, :2] == MISSED).all() and (told[3, 2:4] == INVENTED).all()
    # No part has more than half of the whole: only from two parts that lie in it is it split.
    assert (told[1:, 7] == MISSED).all()
    assert (told[1:, [6, 8]] == SPLIT).all()


def test_classes_are_told_by_the_one_that_is_true():
    truth, result = drawn("0122"), drawn("1120")
    assert differences("classes", truth, result).tolist() == [[1, 0, 0, 3]]


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
def test_what_nobody_annotated_differs_in_nothing(kind):
    truth = np.full((4, 4), UNKNOWN)
    assert not differences(kind, truth, np.eye(4, dtype=int)).any()
    assert not serious(kind, truth, np.eye(4, dtype=int)).any()


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
@pytest.mark.parametrize("by", [1, 2])
def test_borders_two_pixels_elsewhere_are_not_serious(kind, by):
    truth = np.ones((40, 40), int)
    truth[:, 18:21] = 0
    assert not serious(kind, truth, np.roll(truth, by, 1)).any()
    # Cells are wide: of them a border has to lie farther away.
    truth[:, 10:30] = 0
    assert serious(kind, truth, np.roll(truth, 5, 1)).any()


def test_cells_that_were_merged_are_serious_along_their_seam():
    truth = np.repeat([[1] * 20 + [2] * 20], 30, axis=0)
    wrong = serious("cells", truth, np.ones_like(truth))
    assert wrong[:, 18:22].all()
    assert not wrong[:, :15].any() and not wrong[:, 25:].any()


def test_the_worst_place_is_the_square_with_most_mistakes_in_its_middle():
    truth = np.ones((100, 120), int)
    result = truth.copy()
    result[40:50, 70:80] = 0
    result[5:10, 5:10] = 0
    first, second = worst_places("membranes", [held(truth, result)], side=30, most=5)
    assert (first.rows, first.columns) == (range(30, 60), range(60, 90))
    assert (first.pixels, first.kinds) == (100, (INVENTED,))
    assert (second.rows, second.columns) == (range(30), range(30))
    assert second.pixels == 25


def test_places_of_all_slices_are_sorted_and_do_not_overlap():
    random = np.random.default_rng(0)
    truth = np.ones((64, 64), int)
    slices = [
        held(truth, (random.random((64, 64)) < share).astype(int), place)
        for place, share in ((0, 0.9), (1, 0.5))
    ]
    places = worst_places("membranes", slices, side=16, most=6)
    assert len(places) == 6
    assert [p.pixels for p in places] == sorted((p.pixels for p in places), reverse=True)
    assert places[0].slice.place == 1
    taken = np.zeros((2, 64, 64), int)
    for p in places:
        taken[p.slice.place, p.rows.start : p.rows.stop, p.columns.start : p.columns.stop] += 1
    assert taken.max() <= 2


def test_slices_smaller_than_a_place_are_one():
    truth = np.ones((8, 12), int)
    (place,) = worst_places("membranes", [held(truth, 0 * truth)], side=96, most=3)
    assert (place.rows, place.columns, place.pixels) == (range(8), range(12), 96)


def test_a_result_without_mistakes_has_no_worst_place():
    truth = np.eye(20, dtype=int)
    assert worst_places("membranes", [held(truth, truth)], side=8, most=3) == []
