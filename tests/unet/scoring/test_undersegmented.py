"""Merged cells: against loops over pairs of cells; the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unet.scoring.undersegmented import merged_cells, save_separation


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
    assert merged_cells(truth, found).tolist() == naive(truth, found)


def test_none_is_merged_where_nothing_is_found_or_all_is_right():
    truth = np.array([[1, 1, 2, 2]])
    assert merged_cells(truth, truth).size == 0
    assert merged_cells(truth, np.zeros_like(truth)).size == 0
    assert merged_cells(np.zeros_like(truth), truth).size == 0


def test_half_of_a_cell_is_not_enough():
    truth = np.array([[1, 1, 2, 2]])
    assert merged_cells(truth, np.array([[7, 7, 7, 0]])).size == 0


def test_picture_shows_the_truth_and_each_result(tmp_path):
    truth = np.zeros((20, 30), int)
    truth[5:15, 5:14], truth[5:15, 14:25] = 1, 2
    results = {"apart": truth, "together": (truth > 0).astype(int)}
    save_separation(tmp_path / "a.png", np.full(truth.shape, 0.5), truth, results)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    third = pixels.shape[1] // 3
    # Orange is where cells were merged, and nowhere else.
    orange = (pixels[..., 0] - pixels[..., 2]) > 60
    assert not orange[:, : 2 * third].any()
    assert orange[:, 2 * third :].sum() > 1000
