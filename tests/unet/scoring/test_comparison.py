"""Two results of the same frames: how far they agree, and which ground truth is theirs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.unet.ctc_cases import write_picture
from unet.errors import InputError
from unet.scoring.comparison import agreement, find_truth
from unet.tracking.ctc_format import write_masks


def test_agreement_counts_pixels_and_cells(tmp_path):
    first = np.zeros((2, 10, 10), np.uint16)
    first[:, :4, :5] = 1
    second = np.zeros((2, 10, 10), np.uint16)
    second[:, :5, :5] = 7
    for name, masks in (("first", first), ("second", second), ("none", 0 * first)):
        write_masks(tmp_path / name, masks)
    found = agreement(tmp_path / "first", tmp_path / "second")
    # 20 of 25 pixels are in both; 5 of 100 differ.
    assert found == {"pixels": pytest.approx(0.95), "SEG": pytest.approx(0.8)}
    assert np.isnan(agreement(tmp_path / "none", tmp_path / "first")["SEG"])
    write_masks(tmp_path / "later", first, numbers=[1, 2])
    with pytest.raises(InputError, match="later: only one of them has frames 0, 2"):
        agreement(tmp_path / "first", tmp_path / "later")


def test_truth_of_other_frames_is_not_used(tmp_path, capsys):
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 20, 20)).astype(np.uint8)
    for name, stack in zip(("release", "dataset"), frames):
        for t, frame in enumerate(stack):
            write_picture(tmp_path / name / "01" / f"t{t:03d}.tif", frame)
    truth = tmp_path / "dataset" / "01_GT"
    truth.mkdir()
    assert find_truth(tmp_path / "release" / "01", tmp_path / "dataset") is None
    assert "is of other frames" in capsys.readouterr().out
    assert find_truth(tmp_path / "dataset" / "01", tmp_path / "dataset") == truth
    shutil.copytree(tmp_path / "dataset" / "01", tmp_path / "same" / "01")
    assert find_truth(tmp_path / "same" / "01", tmp_path / "dataset") == truth
