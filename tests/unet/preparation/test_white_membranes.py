"""A mask in which the membranes are white becomes the training set of its inverse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import unet
from unet.errors import InputError
from unet.preparation.training_set import TrainingSet


@pytest.fixture
def inside() -> np.ndarray:
    """Three slices of cells, 255, with membranes between them."""
    stack = np.full((3, 96, 90), 255, np.uint8)
    for z in range(3):
        stack[z, 10 + z :: 20] = stack[z, :, 8 + z :: 20] = 0
    return stack


@pytest.fixture
def raw() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, (3, 96, 90)).astype(np.uint8)


def test_it_is_that_of_its_inverse_and_says_so(tmp_path, raw, inside):
    black = unet.prepare(raw, inside, tmp_path / "black.h5")
    white = unet.prepare(raw, 255 - inside, tmp_path / "white.h5")
    with TrainingSet(black.output) as wanted, TrainingSet(white.output) as given:
        for z in range(3):
            np.testing.assert_array_equal(given.labels(z), wanted.labels(z))
            np.testing.assert_array_equal(given.weights(z), wanted.weights(z))
        assert given.attributes["label_kind"] == "membranes"
    assert (black.kind, white.kind, white.cells) == ("binary", "membranes", black.cells)
    assert (
        "255 is membrane, for it is a thin connected network, and 0 inside cells, which is class 1 "
        "(--label-kind binary if it is cells)"
    ) in str(white)


def test_a_picture_of_one_bit_says_1_and_not_true(tmp_path, raw, inside):
    told = unet.prepare(raw, inside == 0, tmp_path / "bits.h5")
    assert told.understood.startswith("1 is membrane, for it is a thin connected network")


def test_a_flag_says_otherwise(tmp_path, raw, inside):
    as_cells = unet.prepare(raw, 255 - inside, tmp_path / "a.h5", label_kind="binary")
    assert as_cells.understood == "255 inside cells, 0 is background"
    # The other way round: what is no network is membrane.
    told = unet.prepare(raw, inside, tmp_path / "b.h5", label_kind="membranes")
    assert told.understood == "255 is membrane, 0 inside cells, which is class 1"
    assert told.counts.tolist() == as_cells.counts.tolist()


def test_above_a_threshold_is_membrane(tmp_path, raw, inside):
    grey = np.where(inside == 0, 180, 40).astype(np.uint8)
    found = unet.prepare(raw, grey, tmp_path / "a.h5", label_threshold=100)
    assert found.kind == "membranes" and "above 100 is membrane" in found.understood
    cells = unet.prepare(raw, grey, tmp_path / "b.h5", label_threshold=100, label_kind="binary")
    assert cells.understood == "above 100 is inside cells"
    with pytest.raises(InputError, match="--label-threshold says that labels are binary, not inst"):
        unet.prepare(raw, grey, tmp_path / "c.h5", label_threshold=9, label_kind="instances")


def test_without_a_membrane_there_is_nothing_to_tell_apart(tmp_path, raw, inside):
    with pytest.raises(InputError, match=r"inside cells \(label 0\), and a network learns"):
        unet.prepare(raw, inside * 0, tmp_path / "a.h5", label_kind="membranes")


def test_isbi_2012_inverted_is_the_same_training_set(tmp_path, isbi_dir: Path):
    raw, labels = (
        tifffile.imread(isbi_dir / f"train-{name}.tif")[:2] for name in ("volume", "labels")
    )
    given = unet.prepare(raw, 255 - labels, tmp_path / "white.h5", w0=0)
    wanted = unet.prepare(raw, labels, tmp_path / "black.h5", w0=0)
    assert given.kind == "membranes"
    assert given.counts.tolist() == wanted.counts.tolist()
    assert given.cells == wanted.cells
