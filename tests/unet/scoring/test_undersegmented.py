"""Merged cells: against loops over pairs of cells."""

from __future__ import annotations

import numpy as np
import pytest

from unet.scoring.undersegmented import undersegmented


def naive(truth, found):
    merged = set()
    for cell in set(truth.ravel()) - {0}:
        for component in set(found.ravel()) - {0}:
            if (found[truth == cell] == component).mean() <= 0.5:
                continue
            for other in set(truth.ravel()) - {0, cell}:
                if (found[truth == other] == component).mean() > 0.5:
                    merged.add(cell)
    return sorted(merged)


@pytest.mark.parametrize("seed", range(8))
def test_equals_loops_over_pairs(seed):
    random = np.random.default_rng(seed)
    truth = np.kron(random.integers(0, 9, (5, 6)), np.ones((3, 3), int))
    lump = random.integers(0, 5, 9)
    lump[0] = 0
    found = np.where(random.random(truth.shape) < 0.2, 0, lump[truth])
    assert undersegmented(truth, found).tolist() == naive(truth, found)


def test_none_is_merged_where_nothing_is_found_or_all_is_right():
    truth = np.array([[1, 1, 2, 2]])
    assert undersegmented(truth, truth).size == 0
    assert undersegmented(truth, np.zeros_like(truth)).size == 0
    assert undersegmented(np.zeros_like(truth), truth).size == 0


def test_half_of_a_cell_is_not_enough():
    truth = np.array([[1, 1, 2, 2]])
    assert undersegmented(truth, np.array([[7, 7, 7, 0]])).size == 0
