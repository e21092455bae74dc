"""Held-out scores: counted pixel by pixel, equal to the challenge's pixel error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from unet.scoring import score_stack as metrics
from unet.scoring.score_stack import THRESHOLDS
from unet.training.validation import Validation, cell_counts, pixel_error

RANDOM = np.random.default_rng(8)


def probability(scores: np.ndarray) -> np.ndarray:
    """Return the soft-max probability of the cells, in double precision."""
    powers = np.exp(scores.astype(np.float64) - scores.max(0))
    return powers[1] / powers.sum(0)


class Net:
    """A test net that plays scores and labels back."""

    def __init__(self, scores, labels, accuracy=True):
        self._scores, self._labels = scores, labels
        self.place = 0
        feed = SimpleNamespace(type="Python", seek=self.seek, tiles_per_epoch=len(scores))
        kinds = [feed, SimpleNamespace(type="Convolution"), SimpleNamespace(type="Accuracy")]
        self.layers = kinds[: 3 if accuracy else 2]
        self._layer_names = ["tiles", "conv", "accuracy"][: len(self.layers)]
        self.bottom_names = {"accuracy": ["score", "label"]}
        self.top_names = {"accuracy": ["accuracy"]}

    def seek(self, index):
        self.place = index

    def forward(self):
        scores, labels = self._scores[self.place], self._labels[self.place]
        self.place += 1
        self.blobs = {
            "score": SimpleNamespace(data=scores[None]),
            "label": SimpleNamespace(data=labels[None, None].astype(np.float32)),
        }
        return {"loss": np.float32(scores.mean()), "accuracy": np.float32(0.5)}


def tiles(classes, count=3, known=0.7):
    scores = RANDOM.normal(0, 3, (count, classes, 6, 8)).astype(np.float32)
    labels = RANDOM.integers(0, classes, (count, 6, 8))
    # Tiles with few annotated pixels must not weigh as much as full ones.
    labels[RANDOM.random(labels.shape) > known] = 255
    labels[0, 1:] = 255
    return scores, labels


def test_pixel_error_is_that_of_the_definition():
    scores, labels = tiles(2, known=1.0)
    best = 0.0
    p = np.stack([probability(s) for s in scores]).astype(np.float32)
    for threshold in THRESHOLDS:
        tp = ((p > threshold) & (labels == 1)).sum()
        fp = ((p > threshold) & (labels == 0)).sum()
        fn = ((p <= threshold) & (labels == 1)).sum()
        best = max(best, 2 * tp / (2 * tp + fp + fn))
    counts = sum(cell_counts(*tile) for tile in zip(scores, labels))
    assert pixel_error(counts) == pytest.approx(1 - best, abs=1e-12)


def test_pixel_error_agrees_with_evaluate():
    scores = RANDOM.normal(0, 2, (2, 40, 40)).astype(np.float32)
    labels = (scores[1] + RANDOM.normal(0, 1, (40, 40)) > 0).astype(np.uint8)
    expected = metrics.pixel_error(labels[None], probability(scores).astype(np.float32)[None])
    assert pixel_error(cell_counts(scores, labels)) == pytest.approx(expected, abs=1e-12)


def test_scores_that_lie_far_apart_do_not_overflow():
    scores = np.array([[[0.0, 1e4]], [[1e4, 0.0]]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert pixel_error(cell_counts(scores, np.array([[1, 0]]))) == 0
        assert pixel_error(cell_counts(scores, np.array([[0, 1]]))) == pytest.approx(1)


@pytest.mark.parametrize("classes", [2, 3])
def test_every_annotated_pixel_counts_once(classes):
    scores, labels = tiles(classes)
    test = Validation(Net(scores, labels), passes=1)
    got = test()
    wrong = scores.argmax(1) != labels
    assert got["misclassified"] == pytest.approx(wrong[labels != 255].mean())
    assert got["loss"] == pytest.approx(scores.mean(axis=(1, 2, 3)).mean(), abs=1e-6)
    assert "accuracy" not in got
    assert ("pixel_error" in got) == (classes == 2)
    # From the first tile again, not from where the last test ended.
    assert test() == got


def test_a_net_without_accuracy_gives_its_outputs():
    scores, labels = tiles(2)
    got = Validation(Net(scores, labels, accuracy=False), passes=1)()
    assert set(got) == {"loss", "accuracy"}


def test_nothing_annotated_gives_no_error():
    scores, labels = tiles(2)
    labels[:] = 255
    assert set(Validation(Net(scores, labels), passes=1)()) == {"loss"}


def test_labels_below_0_are_not_annotated():
    scores, labels = tiles(3)
    other = np.where(labels == 255, -1, labels)
    assert Validation(Net(scores, other), 1)() == Validation(Net(scores, labels), 1)()


def test_tiles_without_an_annotated_pixel_are_told_once(capsys):
    scores, labels = tiles(2)
    test = Validation(Net(scores, np.full_like(labels, 255)), 1)
    assert set(test()) == set(test()) == {"loss"}
    assert capsys.readouterr().err.count("no pixel of the held-out tiles is annotated") == 1
