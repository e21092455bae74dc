"""Labels are scored as what they are: membranes, cells or classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import unet
from unet.experiment.truth import kind_of, likely_kind, truth_of
from unet.preparation.prepare import TrainingSetOptions, opened


def kind(labels: np.ndarray, folder: Path, **options: object) -> str:
    raw = np.random.default_rng(0).integers(0, 255, labels.shape).astype(np.uint8)
    return kind_of(unet.prepare(raw, labels, folder / "set.h5", w0=0, **options))


@pytest.fixture
def discs() -> np.ndarray:
    """Numbers of 12 round cells on background."""
    rows, columns = np.mgrid[:96, :120]
    labels = np.zeros((1, 96, 120), np.uint16)
    for number in range(12):
        y, x = 18 + 30 * (number // 4), 15 + 30 * (number % 4)
        labels[0][(rows - y) ** 2 + (columns - x) ** 2 < 190] = number + 1
    return labels


@pytest.mark.parametrize("invert", [False, True])
def test_tissue_of_isbi_2012_is_membranes_of_either_polarity(isbi_dir, tmp_path, invert):
    labels = tifffile.imread(isbi_dir / "train-labels.tif")[:1]
    assert kind(255 - labels if invert else labels, tmp_path) == "membranes"


def test_cells_on_background_are_cells_also_where_they_are_most_of_it(discs, tmp_path):
    assert np.mean(discs > 0) > 0.5
    assert kind((discs > 0).astype(np.uint8), tmp_path) == "cells"


def test_numbers_are_of_cells_and_classes_of_classes(discs, tmp_path):
    assert kind(discs, tmp_path, label_kind="instances") == "cells"
    assert kind(discs % 3, tmp_path, label_kind="classes") == "classes"


def test_true_cells_are_those_that_were_drawn_and_unknown_where_nobody_did(discs):
    labels = discs.copy()
    labels[0, :, 60:] = 99
    options = TrainingSetOptions(label_kind="instances", ignore_label=99)
    with opened(np.zeros(labels.shape, np.uint8), labels, options) as pair:
        truth = truth_of(pair, 0, "cells", "instances")
        inside = truth_of(pair, 0, "membranes", "instances")
    np.testing.assert_array_equal(truth == -1, labels[0] == 99)
    np.testing.assert_array_equal(truth > 0, (labels[0] > 0) & (labels[0] < 99))
    pairs = {(int(a), int(b)) for a, b in zip(truth.ravel(), labels[0].ravel()) if a > 0}
    assert len(pairs) == len(dict(pairs)) == len(np.unique(discs[0, :, :60])) - 1
    assert set(np.unique(inside)) == {-1, 0, 1}


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0, 1, 2, 3], {}, "cells"),
        ([0, 255], {}, "membranes"),
        ([0, 1, 9], {"ignore_label": 9}, "membranes"),
        ([0, 128, 255], {"classes": (0, 128, 255)}, "classes"),
    ],
)
def test_what_is_likely_scored_is_told_by_the_middle_slice(values, options, expected):
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[1] = np.resize(np.repeat(values, 100), (20, 20))
    given = TrainingSetOptions(unannotated="none", **options)
    with opened(np.zeros(labels.shape, np.uint8), labels, given) as pair:
        assert likely_kind(pair) == expected
