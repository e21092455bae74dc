"""The scores: by hand, by the definitions, by scikit-image and by the challenge's own values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from tests.unet.drawn import drawn_cells
from unet.errors import InputError
from unet.preparation.labels import instances_from_binary
from unet.scoring.contingency_table import ContingencyTable, contingency_table, f_score
from unet.scoring.score_stack import (
    THRESHOLDS,
    WARPING_THRESHOLDS,
    pixel_counts,
    pixel_error,
    score_stack,
)
from unet.scoring.thinning import thin_membranes

ABOUT_THE_FILES = {"description", "label_bitdepth", "proposal_bitdepth"}


def overlap(truth: np.ndarray, proposal: np.ndarray) -> ContingencyTable:
    return contingency_table(instances_from_binary(truth), instances_from_binary(proposal))


def random_stack(seed: int, slices: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    height, width = random.integers(15, 30, 2)
    field = ndimage.gaussian_filter(random.random((slices, height, width)), (0, 1.5, 1.5))
    labels = field > np.quantile(field, 0.6, axis=(1, 2), keepdims=True)
    noise = ndimage.gaussian_filter(random.random(labels.shape), (0, 1, 1))
    return labels, np.clip(0.6 * labels + noise - 0.3, 0, 1).astype(np.float32)


# The challenge's own values


def test_values_of_the_challenge(shared_data: Path):
    folder = shared_data / "metrics"
    for name, expected in json.loads((folder / "expected.json").read_text()).items():
        labels = tifffile.imread(folder / f"{name}_labels.tif")
        proposal = tifffile.imread(folder / f"{name}_proposal.tif")
        scores = score_stack(labels, proposal, legacy=True)
        for key in expected.keys() - ABOUT_THE_FILES:
            assert_close(scores[key], expected[key], f"{name} {key}")


def assert_close(value, expected, place: str) -> None:
    if isinstance(expected, dict):
        assert value.keys() == expected.keys(), place
        for key in expected:
            assert_close(value[key], expected[key], f"{place} {key}")
    elif isinstance(expected, str) or "warping" in place:
        assert value == expected, place
    else:
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12, err_msg=place)


# Thresholds and pixels


def test_thresholds_are_repeated_sums_of_a_tenth():
    assert THRESHOLDS[3] == 0.30000000000000004
    assert THRESHOLDS[-2:] == (0.8999999999999999, 0.9999999999999999)
    assert len(THRESHOLDS) == 11 and THRESHOLDS[:10] == WARPING_THRESHOLDS


def test_single_precision_tenths_lie_above_their_own_threshold_but_for_5_7_and_9():
    for k in range(11):
        tenth = np.full((1, 1), k / 10, np.float32)
        above = pixel_counts(np.ones((1, 1)), tenth)[:, 0]
        assert above.sum() == k + (k not in (0, 5, 7, 9)), k


def test_pixel_error_by_hand():
    labels = np.array([[1, 1, 1, 0]])
    # At 0.5: two of three cells found, the membrane taken for one: P = R = F = 2/3.
    probabilities = np.array([[0.55, 0.55, 0.0, 0.55]])
    assert pixel_error(labels, probabilities) == pytest.approx(1 / 3)
    assert pixel_counts(labels, probabilities)[[0, 5, 6]].tolist() == [[2, 1, 1]] * 2 + [[0, 0, 3]]


def test_pixel_error_sums_the_counts_over_the_stack():
    labels = np.array([[[1, 1]], [[1, 0]]])
    probabilities = np.array([[[1.0, 1.0]], [[0.0, 1.0]]])
    # tp 2, fp 1, fn 1; the mean of the slices' F-scores would be 1/2.
    assert pixel_error(labels, probabilities) == pytest.approx(1 / 3)


def test_one_threshold_holds_for_the_whole_stack():
    labels = np.array([[[1, 0]], [[1, 0]]])
    probabilities = np.array([[[0.35, 0.25]], [[0.85, 0.75]]])
    scores = score_stack(labels, probabilities, warping=False)
    assert scores["pixel_error"] == pytest.approx(1 - 4 / 5)
    assert [one["pixel_error"] for one in scores["per_slice"]] == [0, 0]
    assert [one["pixel_error_threshold"] for one in scores["per_slice"]] == [
        THRESHOLDS[3],
        THRESHOLDS[8],
    ]


@pytest.mark.parametrize(
    ("counts", "expected"), [((3, 1, 0), 6 / 7), ((0, 0, 0), 1), ((0, 2, 3), 0), ((0, 0, 5), 0)]
)
def test_f_score(counts, expected):
    assert f_score(np.array(counts)) == pytest.approx(expected)


# Rand


def test_rand_by_hand():
    # One true cell of 4; the proposal finds 2 of its pixels and loses 2 to the membrane.
    truth, proposal = drawn_cells("####.."), drawn_cells("##....")
    # tp = 2^2 + 2, tp + fp = 2^2 + 2, tp + fn = 4^2
    assert overlap(truth, proposal).squares() == (6, 0, 10)
    # One pair is together in both, of six.
    assert overlap(truth, proposal).pairs() == (1, 0, 5)
    assert score_stack(truth, proposal)["rand_error"] == pytest.approx(1 - 12 / 22)


def test_rand_of_a_merge_by_hand():
    truth, proposal = drawn_cells("##.##"), drawn_cells("#####")
    # The true background does not count: a region of 4 against two of 2.
    assert overlap(truth, proposal).squares() == (8, 8, 0)
    assert overlap(truth, proposal).pairs() == (2, 4, 0)
    # With it, 5 pixels: 10 pairs in the proposal, 2 in the truth.
    assert overlap(truth, proposal).pairs_with_background() == (2, 8, 0)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_give_the_error_of_scikit_image_if_every_membrane_pixel_is_a_region(seed):
    labels, probabilities = random_stack(seed, 1)
    truth = instances_from_binary(labels[0])
    proposal = instances_from_binary(probabilities[0] > 0.4)
    membrane = proposal == 0
    proposal[membrane] = proposal.max() + 1 + np.arange(np.count_nonzero(membrane))
    error = 1 - f_score(overlap(labels[0], probabilities[0] > 0.4).pairs())
    assert error == pytest.approx(adapted_rand_error(truth, proposal)[0], abs=1e-15)


def test_many_regions_are_counted_alike():
    # Beyond the dense table: a chequerboard of single pixels against itself.
    chequers = np.indices((100, 100)).sum(axis=0) % 2 == 0
    assert overlap(chequers, chequers).squares() == (5000, 0, 0)


# Information


def information_naively(truth: np.ndarray, proposal: np.ndarray) -> float:
    """F-score of I(A; B) with a region for every membrane pixel of the proposal."""
    proposal = proposal.copy()
    membrane = proposal == 0
    proposal[membrane] = proposal.max() + 1 + np.arange(np.count_nonzero(membrane))
    pairs = list(zip(truth[truth > 0].tolist(), proposal[truth > 0].tolist()))

    def entropy(items):
        counts = [items.count(item) for item in set(items)]
        return -sum(c / len(items) * math.log(c / len(items)) for c in counts)

    a, b = entropy([pair[0] for pair in pairs]), entropy([pair[1] for pair in pairs])
    shared = a + b - entropy(pairs)
    return 2 * shared / (a + b)


@pytest.mark.parametrize("seed", range(5))
def test_information_is_that_of_the_pixels_of_true_cells(seed):
    labels, probabilities = random_stack(seed, 1)
    truth = instances_from_binary(labels[0])
    regions = thin_membranes(probabilities[0] > 0.4)
    value = contingency_table(truth, regions).information()
    assert value == pytest.approx(information_naively(truth, regions), abs=1e-12)


def test_information_of_one_region_is_none():
    both = drawn_cells("##.##")
    assert overlap(both, drawn_cells("#####")).information() == 0
    assert overlap(drawn_cells("#####"), both).information() == 0
    assert overlap(both, both).information() == pytest.approx(1)


# Whole stacks


@pytest.mark.parametrize("seed", range(3))
def test_a_stack_combines_its_slices(seed):
    labels, probabilities = random_stack(seed)
    scores = score_stack(labels, probabilities)
    mean = np.mean([one["v_rand_thin_by_threshold"] for one in scores["per_slice"]], axis=0)
    np.testing.assert_allclose(scores["v_rand_thin_by_threshold"], mean, atol=1e-15)
    mean = np.mean([one["v_info_thin_by_threshold"] for one in scores["per_slice"]], axis=0)
    np.testing.assert_allclose(scores["v_info_thin_by_threshold"], mean, atol=1e-15)
    types = np.sum([one["warping_types_by_threshold"] for one in scores["per_slice"]], axis=0)
    assert scores["warping_types_by_threshold"] == types.tolist()
    assert scores["warping_error"] == types[:, :2].sum(axis=1).min() / labels.size
    assert scores["slices"] == len(scores["per_slice"]) == 3


def test_a_stack_of_one_slice_is_that_slice():
    labels, probabilities = random_stack(7, 1)
    stack = score_stack(labels, probabilities)
    flat = score_stack(labels[0], probabilities[0])
    assert stack == flat
    assert flat.pop("per_slice") == [flat]


def test_a_perfect_proposal_has_no_error():
    labels = drawn_cells("##.##", ".....", "##.##")
    scores = score_stack(labels, labels.astype(np.float32))
    assert scores["pixel_error"] == scores["rand_error"] == scores["warping_error"] == 0
    # The grown cells and the dams lie on the true membrane, which does not count.
    assert scores["v_rand_thin"] == pytest.approx(1)
    assert scores["v_info_thin"] == pytest.approx(1)


def test_holes_and_islands_have_no_warping_error():
    labels = np.zeros((12, 12), bool)
    labels[2:9, 2:9] = True
    proposal = labels.copy()
    proposal[5, 5], proposal[10, 10] = False, True
    scores = score_stack(labels, proposal.astype(np.float32))
    assert scores["warping_error"] == 0
    assert scores["warping_error_classic"] == 2 / 144


def test_all_membrane_is_one_region_after_thinning():
    labels = drawn_cells("##.##", "##.##")
    scores = score_stack(labels, np.zeros(labels.shape))
    assert scores["pixel_error"] == 1
    # Every pixel by itself: tp = 8, tp + fn = 32.
    assert scores["rand_error"] == pytest.approx(1 - 2 * 8 / 40)
    assert scores["v2012"]["rand_error"] == 1
    all_cell = score_stack(labels, np.ones(labels.shape))
    assert scores["v_rand_thin"] == all_cell["v_rand_thin"] == pytest.approx(2 / 3)
    assert scores["v_info_thin"] == all_cell["v_info_thin"] == 0


def test_without_any_true_cell_there_is_no_score_of_regions():
    scores = score_stack(np.zeros((2, 4, 5), bool), np.full((2, 4, 5), 0.25))
    for key in ("rand_error", "v_rand_thin", "v_info_thin"):
        assert math.isnan(scores[key]) and math.isnan(scores[f"{key}_threshold"]), key
    assert math.isnan(scores["v2012"]["rand_error"])
    assert math.isnan(scores["v_info_unthinned"])
    assert scores["warping_error"] == scores["cells"] == 0


def test_slices_without_a_true_cell_leave_the_scores_of_regions_to_the_others():
    labels, probabilities = random_stack(6)
    empty = np.zeros((1,) + labels.shape[1:])
    with_empty = score_stack(
        np.concatenate([labels[:1], empty > 0, labels[1:]]),
        np.concatenate([probabilities[:1], empty + np.float32(0.05), probabilities[1:]]),
    )
    without = score_stack(labels, probabilities)
    of_pixels = ("pixel", "warping", "rand_error_standard", "slices", "per_slice", "v2012", "v2014")
    same = [key for key in without if not key.startswith(of_pixels)]
    assert {"rand_error", "v_rand_thin", "v_info_thin", "v_info_thin_by_threshold"} <= set(same)
    assert {key: with_empty[key] for key in same} == {key: without[key] for key in same}
    assert with_empty["v2012"]["rand_error"] == without["v2012"]["rand_error"]
    # Pixels are counted everywhere: at 0 all of the empty slice is falsely taken for cells.
    assert with_empty["pixel_fscore_by_threshold"][0] < without["pixel_fscore_by_threshold"][0]
    alone = with_empty["per_slice"][1]
    assert math.isnan(alone["rand_error"]) and math.isnan(alone["v_info_thin"])
    assert [one["cells"] > 0 for one in with_empty["per_slice"]] == [True, False, True, True]


def test_an_all_cell_truth_shares_no_information():
    scores = score_stack(np.ones((4, 4)), drawn_cells("####", "....", "####", "####"))
    assert scores["v_info_thin"] == 0
    assert scores["pixel_error"] == pytest.approx(1 - 24 / 28)


@pytest.mark.parametrize("cell", [0, 1])
@pytest.mark.parametrize("proposed", [0.0, 0.5, 1.0])
def test_a_slice_of_one_pixel_is_scored(cell, proposed):
    scores = score_stack(np.array([[cell]]), np.array([[proposed]]))
    assert scores["warping_error"] == 0
    # A cell of 0.5 is found below 0.5, and membrane of 0.5 above.
    assert scores["pixel_error"] == (proposed == 0 if cell else proposed == 1)


def test_integers_are_used_unscaled():
    labels, probabilities = random_stack(4)
    bytes_ = (255 * probabilities).astype(np.uint8)
    scores = score_stack(labels, bytes_, warping=False)
    binary = score_stack(labels, bytes_ > 0, warping=False)
    assert scores["rand_fscore_by_threshold"] == binary["rand_fscore_by_threshold"]
    assert scores["v_rand_thin"] == binary["v_rand_thin"] == binary["v_rand_thin_binary"]
    assert len(set(scores["pixel_fscore_by_threshold"])) == 1


def test_labels_are_cells_wherever_they_are_above_zero():
    labels, probabilities = random_stack(5)
    ids = labels * np.arange(1, 4)[:, np.newaxis, np.newaxis] * 85
    assert score_stack(ids, probabilities) == score_stack(labels, probabilities)


def test_processes_change_nothing():
    random = np.random.default_rng(0)
    labels = ndimage.gaussian_filter(random.random((2, 400, 400)), (0, 4, 4)) > 0.49
    probabilities = np.clip(0.7 * labels + 0.3 * random.random(labels.shape), 0, 1)
    alone = score_stack(labels, probabilities, warping=False)
    assert score_stack(labels, probabilities, warping=False, workers=2) == alone
    assert "warping_error" not in alone


def test_the_warping_error_of_2012_is_computed_where_it_is_asked_for():
    labels, probabilities = random_stack(8)
    both = score_stack(labels, probabilities, legacy=True)
    assert both["v2012"].pop("warping_error") >= 0
    del both["v2014"]["warping_error"]
    for one in both["per_slice"]:
        del one["v2012"]["warping_error"], one["v2014"]["warping_error"]
    assert score_stack(labels, probabilities) == both


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"\(2, 3\).*\(3, 2\)"),
        (np.zeros((1, 2, 3)), np.zeros((2, 3)), "shape"),
        (np.zeros(3), np.zeros(3), "slice"),
        (np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), "slice"),
        (np.zeros((2, 3)), np.array([[0, 0, 0], [0, np.nan, 0]]), r"prediction.*\(0, 1, 1\)"),
        (np.array([[np.nan]]), np.zeros((1, 1)), "labels"),
    ],
)
def test_what_cannot_be_scored_is_told(labels, probabilities, message):
    with pytest.raises(InputError, match=message):
        score_stack(labels, probabilities)
