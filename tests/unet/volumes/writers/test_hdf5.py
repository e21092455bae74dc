"""HDF5 carries axes and pixel size where Fiji, ilastik and h5py look, and is chunked by blocks."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from tests.unet.volumes.stacks import stack
from unet.volumes import Calibration, VolumeWriter, write_volume

NOTE = {"weights": "sha256:abc", "tile": [388, 388]}


def test_axes_sizes_and_provenance(tmp_path):
    calibration = Calibration("ZCYX", (50, 4, 5), "nm")
    write_volume(tmp_path / "a.h5", stack((3, 2, 20, 31)), calibration=calibration, note=NOTE)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        volume = file["volume"]
        assert [axis.label for axis in volume.dims] == ["z", "c", "y", "x"]
        np.testing.assert_allclose(volume.attrs["element_size_um"], [0.05, 0.004, 0.005])
        tags = json.loads(volume.attrs["axistags"])["axes"]
        assert json.loads(file.attrs["provenance"]) == NOTE
    # As vigra writes them: its AxisType has channels 1, space 2, time 8.
    assert [(tag["key"], tag["typeFlags"]) for tag in tags] == [
        ("z", 2),
        ("c", 1),
        ("y", 2),
        ("x", 2),
    ]
    assert [tag["resolution"] for tag in tags] == pytest.approx([0.05, 0, 0.004, 0.005])


def test_time(tmp_path):
    calibration = Calibration("TYX", None, None, 1.5, "min")
    write_volume(tmp_path / "a.h5", stack(), calibration=calibration)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        attributes = dict(file["volume"].attrs)
        assert "provenance" not in file.attrs
    tag = json.loads(attributes["axistags"])["axes"][0]
    assert (tag["key"], tag["typeFlags"], tag["resolution"]) == ("t", 8, 90.0)
    assert "element_size_um" not in attributes


@pytest.mark.parametrize(
    ("shape", "blocks", "chunk"),
    [
        ((3, 20, 31), None, (1, 20, 31)),
        ((3, 20, 31), (8, 16), (1, 8, 16)),
        ((3, 2, 20, 31), (8, 64), (1, 2, 8, 31)),
        ((1, 5000, 1000), None, (1, 1024, 1000)),
        ((2, 3, 1000, 1000), None, (1, 3, 1000, 1000)),
    ],
)
def test_chunks_are_blocks_and_by_default_a_slice_of_some_megabytes(tmp_path, shape, blocks, chunk):
    with VolumeWriter(tmp_path / "a.h5", shape, np.uint8, blocks=blocks) as writer:
        for _ in range(shape[0]):
            writer.write(np.zeros(shape[1:], np.uint8))
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file["volume"].chunks == chunk


def test_a_note_may_be_longer_than_an_attribute_of_numbers(tmp_path):
    note = {"slices": list(range(20_000))}
    write_volume(tmp_path / "a.h5", stack(), note=note)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert json.loads(file.attrs["provenance"]) == note
