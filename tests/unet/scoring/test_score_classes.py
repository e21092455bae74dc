"""IoU of classes, judged by the formula on masks."""

from __future__ import annotations

import numpy as np
import pytest

from unet.scoring.score_classes import confusion, score_classes

RANDOM = np.random.default_rng(0)


@pytest.fixture(name="truth")
def make_truth() -> np.ndarray:
    return RANDOM.integers(0, 3, (2, 20, 30))


@pytest.fixture(name="found")
def make_found(truth: np.ndarray) -> np.ndarray:
    right = RANDOM.random(truth.shape) < 0.7
    return np.where(right, truth, RANDOM.integers(0, 3, truth.shape))


def test_iou_is_intersection_over_union_of_masks(truth, found):
    scores = score_classes(zip(truth, found), 3)
    wanted = [
        ((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in range(3)
    ]
    assert [scores[f"iou_{c}"] for c in range(3)] == pytest.approx(wanted)
    assert scores["iou_mean"] == pytest.approx(np.mean(wanted))
    assert scores["accuracy"] == pytest.approx((truth == found).mean())
    assert np.sum(scores["confusion"]) == truth.size
    for z, one in enumerate(scores["per_slice"]):
        assert one["accuracy"] == pytest.approx((truth[z] == found[z]).mean())


@pytest.mark.parametrize("unknown", [-1, 255])
def test_what_nobody_annotated_does_not_count(truth, found, unknown):
    hidden = np.where(RANDOM.random(truth.shape) < 0.3, unknown, truth)
    known = hidden != unknown
    assert score_classes([(hidden, found)], 3)["accuracy"] == pytest.approx(
        (truth == found)[known].mean()
    )
    assert confusion(hidden, found, 3).sum() == known.sum()


def test_a_class_that_occurs_nowhere_has_no_iou_and_is_not_in_the_mean():
    scores = score_classes([(np.array([[0, 0, 2, 2]]), np.array([[0, 2, 2, 2]]))], 4)
    assert np.isnan(scores["iou_1"]) and np.isnan(scores["iou_3"])
    assert scores["iou_mean"] == pytest.approx((1 / 2 + 2 / 3) / 2)
