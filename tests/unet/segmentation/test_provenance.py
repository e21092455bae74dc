"""What is written says which program, weights, command and tiling made it, and where pixels lie."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import tifffile

from unet.command.segment import main
from unet.volumes import Calibration, open_volume, write_volume

OUTPUTS = ("--output", "--classes", "--instances")


def segment(tmp_path, repository, *options):
    noise = np.random.default_rng(0).integers(0, 255, (1, 60, 70), np.uint8)
    calibration = Calibration("ZYX", (50, 4, 4), "nm")
    write_volume(tmp_path / "stack.tif", noise, calibration=calibration)
    main([str(tmp_path / "stack.tif"), "--weights", "isbi2012_slim", *map(str, options)])
    weights = repository / "models" / "isbi2012_slim" / "weights.caffemodel"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_segmentation_says_what_made_it(tmp_path, repository):
    out = tmp_path / "out.tif"
    options = ("-o", out, "--tta", "mirror", "--slices", "0:1", "--device", "cpu")
    checksum = segment(tmp_path, repository, *options)
    with tifffile.TiffFile(out) as tiff:
        metadata = tiff.imagej_metadata
    note = json.loads(metadata["Info"])
    assert note["weights_sha256"] == checksum
    assert note["command"] == (
        f"unet segment {tmp_path}/stack.tif --weights isbi2012_slim --tta mirror --slices 0:1"
    )
    assert note["averaging"] == "mirror"
    assert note["orientations"] == 4
    assert note["tiles_of_a_slice"] == 1
    assert note["stack"] == "stack.tif"
    assert note["grey"] == "each slice normalised"


def test_another_name_and_machine_make_the_same_file(tmp_path, repository):
    for name, memory in (("one.tif", "4"), ("two.tif", "5")):
        segment(tmp_path, repository, "-o", tmp_path / name, "--tile", 252, "--memory", memory)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


@pytest.mark.parametrize("suffix", [".tif", ".h5", ".zarr"])
def test_probabilities_classes_and_instances_are_calibrated(tmp_path, repository, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    outputs = {flag: tmp_path / f"{flag[2:]}{suffix}" for flag in OUTPUTS}
    segment(tmp_path, repository, *(part for pair in outputs.items() for part in pair))
    for path in outputs.values():
        with open_volume(path) as volume:
            assert volume.shape == (1, 60, 70)
            assert volume.calibration == Calibration("ZYX", (50, 4, 4), "nm") or (
                # Fiji's place in HDF5 is in micrometres.
                suffix == ".h5"
                and volume.calibration.unit == "µm"
                and volume.calibration.pixel_size == pytest.approx((0.05, 0.004, 0.004))
            )
