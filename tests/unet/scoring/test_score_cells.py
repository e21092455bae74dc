"""Cells are matched as by StarDist and Caicedo et al. 2019: a naive version judges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from unet.scoring.score_cells import IOUS, cell_counts, cell_overlaps, f1, score_cells
from unet.scoring.seg_det_tra import match_objects, seg


def naive_counts(truth: np.ndarray, found: np.ndarray, demanded: float) -> tuple[int, int, int]:
    """Return tp, fp, fn: all pairs are looked at, and the best assignment is looked for."""
    trues, finds = (np.unique(one[one > 0]) for one in (truth, found))
    iou = np.zeros((len(trues), len(finds)))
    for i, true in enumerate(trues):
        for j, one in enumerate(finds):
            a, b = truth == true, found == one
            iou[i, j] = (a & b).sum() / (a | b).sum()
    tp = 0
    if iou.size:
        # StarDist's cost: as many as reach the IoU, among them the greatest sum.
        cost = -(iou >= demanded).astype(float) - iou / (2 * min(iou.shape))
        pairs = linear_sum_assignment(cost)
        tp = int((iou[pairs] >= demanded).sum())
    return tp, len(finds) - tp, len(trues) - tp


def blobs(seed: int, smooth: float) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 70)), smooth)
    return ndimage.label(field > 0.02)[0]


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_the_best_assignment(seed):
    truth = blobs(seed, 2.5)
    found = ndimage.label(
        ndimage.gaussian_filter(
            (truth > 0) + 0.8 * np.random.default_rng(9).normal(size=truth.shape), 1
        )
        > 0.5
    )[0]
    counts = cell_counts(*cell_overlaps(truth, found))
    assert counts.tolist() == [list(naive_counts(truth, found, iou)) for iou in IOUS]
    # Neither all nor none, so that there is something to count.
    assert 0 < counts[0, 0] < counts[0, 0] + counts[0, 2]
    assert counts[-1, 0] < counts[0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_cells_of_exact_halves_count_once(seed):
    # Small areas, so that 0.5 is met exactly, from either side.
    random = np.random.default_rng(seed)
    truth, found = random.integers(0, 4, (2, 3, 8)).repeat(2, axis=2)
    counts = cell_counts(*cell_overlaps(truth, found))
    assert counts.tolist() == [list(naive_counts(truth, found, iou)) for iou in IOUS]
    whole, halves = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert cell_counts(*cell_overlaps(whole, halves))[0].tolist() == [1, 1, 0]
    assert cell_counts(*cell_overlaps(halves, whole))[0].tolist() == [1, 0, 1]


def test_a_cell_moved_by_half_its_width_is_false_as_stardist_prints():
    # The example in the documentation of stardist.matching.matching: fp=1, tp=0, fn=1.
    truth = np.zeros((100, 100), np.uint16)
    truth[10:20, 10:20] = 1
    found = np.roll(truth, 5, axis=0)
    assert cell_counts(*cell_overlaps(truth, found))[0].tolist() == [0, 1, 1]


def test_small_cells_do_not_count_from_a_minimum_area_on():
    truth, found = np.array([[1, 1, 1, 0, 2, 0]]), np.array([[1, 1, 1, 0, 0, 3]])
    overlaps = cell_overlaps(truth, found)
    assert cell_counts(*overlaps, 1)[0].tolist() == [1, 1, 1]
    assert cell_counts(*overlaps, 2)[0].tolist() == [1, 0, 1]
    assert cell_counts(*overlaps, 4)[0].tolist() == [0, 0, 2]


def test_f1_by_hand():
    np.testing.assert_array_equal(f1([[3, 1, 2], [0, 1, 1], [0, 0, 0]]), [6 / 9, 0, np.nan])


def test_scores_of_a_stack_are_those_of_all_its_cells():
    pairs = [(blobs(seed, 2.5), blobs(seed, 2.3)) for seed in (1, 2)]
    scores = score_cells(pairs)
    counts = [sum(np.array(naive_counts(*pair, iou)) for pair in pairs) for iou in IOUS]
    assert scores["f1_by_iou"] == pytest.approx([2 * t / (2 * t + p + n) for t, p, n in counts])
    assert scores["f1_mean"] == pytest.approx(np.mean(scores["f1_by_iou"]))
    assert scores["f1_0.70"] == scores["f1_by_iou"][IOUS.index(0.7)]
    (tp, fp, fn) = counts[0]
    assert scores["precision"] == tp / (tp + fp) and scores["recall"] == tp / (tp + fn)
    assert scores["SEG"] == seg([match_objects(*pair) for pair in pairs])
    for pair, one in zip(pairs, scores["per_slice"]):
        assert one["f1_0.50"] == score_cells([pair])["f1_0.50"]


def test_what_lies_where_nobody_annotated_does_not_count():
    truth = np.array([[-1, -1, -1, 0, 4, 4]])
    # Mostly unknown; half unknown, so it is false; found.
    found = np.array([[1, 1, 1, 1, 3, 3]])
    scores = score_cells([(truth, found)])
    assert (scores["f1_0.50"], scores["found_cells"], scores["SEG"]) == (1, 1, 1)
    known = np.where(truth < 0, 0, truth)
    assert score_cells([(known, found)])["found_cells"] == 2


def test_a_slice_without_a_true_cell_has_no_seg_and_its_found_cells_are_false():
    empty, cell = np.zeros((2, 3), int), np.ones((2, 3), int)
    scores = score_cells([(empty, cell), (empty, empty)])
    assert np.isnan(scores["SEG"]) and scores["f1_mean"] == 0
    assert np.isnan(scores["per_slice"][1]["f1_mean"])
