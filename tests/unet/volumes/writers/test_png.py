"""PNG holds pixels a metre, and the provenance as text; parts wait until a slice is whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.unet.volumes.stacks import stack
from unet.volumes import Calibration, VolumeWriter, write_volume

NOTE = {"weights": "sha256:abc"}


def test_pixel_size_and_provenance(tmp_path):
    calibration = Calibration("ZYX", (50, 4, 5), "µm")
    write_volume(tmp_path / "folder", stack(), calibration=calibration, note=NOTE)
    with Image.open(tmp_path / "folder" / "slice_0004.png") as picture:
        # Pillow tells pixels an inch of 0.0254 m.
        per_metre = [value / 0.0254 for value in picture.info["dpi"]]
        assert json.loads(picture.info["Provenance"]) == NOTE
    assert per_metre == pytest.approx([200_000, 250_000])


@pytest.mark.parametrize("size", [(50, None, 4), (50, 1e-7, 1e-7), (1, 1e9, 1e9)])
def test_a_pixel_size_that_png_cannot_hold_is_left_out(tmp_path, size):
    calibration = Calibration("ZYX", size, "µm")
    write_volume(tmp_path / "a.png", stack((1, 20, 31)), calibration=calibration)
    with Image.open(tmp_path / "a.png") as picture:
        assert not {"dpi", "Provenance"} & set(picture.info)


def test_a_slice_appears_when_its_last_part_is_put(tmp_path):
    values = stack((2, 20, 31))
    with VolumeWriter(tmp_path / "folder", values.shape, values.dtype) as writer:
        writer.put(1, slice(0, 20), slice(0, 16), values[1, :, :16])
        assert list(tmp_path.rglob("*.png")) == []
        writer.put(1, slice(0, 20), slice(16, 31), values[1, :, 16:])
        assert [path.name for path in tmp_path.rglob("*.png")] == ["slice_0001.png"]
        writer.write(values[0])
    with Image.open(tmp_path / "folder" / "slice_0001.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), values[1])
