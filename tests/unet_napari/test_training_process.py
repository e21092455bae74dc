"""What a training learns from is written beside its folder, and only when it is not there yet."""

from __future__ import annotations

import os
import time

import numpy as np
import psutil
import pytest
from napari.layers import Image, Labels

from unet import open_volume
from unet.errors import InputError
from unet_napari.layers import stack_of
from unet_napari.training_process import TrainingProcess, TrainingRequest, write_layers

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (2, 3, 20, 30, 3), np.uint8)
CELLS = RANDOM.integers(0, 9, (2, 3, 20, 30))


def written(request: TrainingRequest, image: np.ndarray, labels: np.ndarray) -> list[int]:
    place = dict(scale=(9, 5, 2, 2), units=("s", "um", "um", "um"))
    pair = Image(image, rgb=True, **place), Labels(labels)
    return list(write_layers(request, *map(stack_of, pair)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint32])
def test_files_hold_what_the_layers_show(tmp_path, dtype):
    request = TrainingRequest(tmp_path / "mine", 1)
    assert written(request, COLOUR, CELLS.astype(dtype)) == list(range(1, 13))
    with open_volume(request.files[0]) as image:
        np.testing.assert_array_equal(image[:], np.moveaxis(COLOUR.reshape(6, 20, 30, 3), -1, 1))
        assert (image.calibration.times, image.calibration.pixel_size) == (2, (5, 2, 2))
    with open_volume(request.files[1]) as labels:
        np.testing.assert_array_equal(labels[:], CELLS.reshape(6, 20, 30))


def test_files_change_with_the_layers_unless_a_run_has_learnt_from_them(tmp_path):
    folder = tmp_path / "mine"
    request = TrainingRequest(folder, 1)
    written(request, COLOUR, CELLS)
    for path in request.files:
        # However coarse the clock of the files is.
        os.utime(path, (1, 1))
    before = [path.stat().st_mtime_ns for path in request.files]
    assert written(request, COLOUR, CELLS)[-1] == 12
    assert [path.stat().st_mtime_ns for path in request.files] == before

    painted = CELLS.copy()
    painted[1, 2, 3, 4] += 1
    written(request, COLOUR, painted)
    after = [path.stat().st_mtime_ns for path in request.files]
    assert (after[0], after[1] > before[1]) == (before[0], True)

    folder.mkdir()
    (folder / "choices.json").write_text("{}")
    with pytest.raises(InputError, match="the labels layer has changed since this was begun"):
        written(request, COLOUR, CELLS)
    assert request.files[1].stat().st_mtime_ns == after[1]
    written(TrainingRequest(folder, 1, overwrite=True), COLOUR, CELLS)
    with open_volume(request.files[1]) as labels:
        np.testing.assert_array_equal(labels[:], CELLS.reshape(6, 20, 30))


def test_a_training_that_the_machine_ends_says_by_what(tmp_path):
    process = TrainingProcess(TrainingRequest(tmp_path / "mine", 1))
    (child,) = (one for one in psutil.Process().children() if "train" in one.cmdline())
    child.kill()
    while process.status is None:
        time.sleep(0.01)
    assert process.mistake.startswith("the training was ended by SIGKILL, as a machine does that")
    process.close()
