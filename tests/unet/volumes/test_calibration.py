"""Pixel size, unit, interval and axes are what other programs' metadata say."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import tifffile

from tests.unet.volumes.stacks import stack
from unet.volumes import Calibration, as_volume, open_volume
from unet.volumes.units import length_unit, time_unit


def known(path, **options):
    with open_volume(path, **options) as volume:
        return volume.calibration


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m", "µm"])
def test_of_imagej(tmp_path, unit):
    metadata = {"axes": "ZYX", "spacing": 2.5, "unit": unit}
    if unit == "µm":
        metadata["unit"] = "\\u00B5m"
    tifffile.imwrite(tmp_path / "a.tif", stack(), imagej=True, resolution=(4, 2), metadata=metadata)
    assert known(tmp_path / "a.tif") == Calibration("ZYX", (2.5, 0.5, 0.25), "µm")


def test_of_imagej_in_time(tmp_path):
    metadata = {"axes": "TYX", "finterval": 1.5, "tunit": "min", "unit": "nm"}
    tifffile.imwrite(
        tmp_path / "a.tif", stack(), imagej=True, resolution=(0.25, 0.25), metadata=metadata
    )
    expected = Calibration("TYX", (None, 4.0, 4.0), "nm", 1.5, "min")
    assert known(tmp_path / "a.tif") == expected


def test_of_imagej_in_pixels_is_none(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(), imagej=True, metadata={"axes": "ZYX"})
    assert known(tmp_path / "a.tif") == Calibration()


def test_of_ome(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"}
    metadata.update(PhysicalSizeY=5.0, PhysicalSizeYUnit="nm")
    # In another unit than the others, which is the default.
    metadata.update(PhysicalSizeZ=0.05)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack(), metadata=metadata)
    calibration = known(tmp_path / "a.ome.tif")
    assert calibration.pixel_size == pytest.approx((50.0, 5.0, 4.0))
    assert (calibration.axes, calibration.unit) == ("ZYX", "nm")


def test_of_ome_in_time(tmp_path):
    metadata = {"axes": "TCYX", "TimeIncrement": 250.0, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack((5, 2, 20, 31)), metadata=metadata)
    assert known(tmp_path / "a.ome.tif") == Calibration("TCYX", None, None, 250.0, "ms")
    assert known(tmp_path / "a.ome.tif", channel=0).axes == "TYX"


def test_of_plain_tiff_and_not_of_its_size_on_paper(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", stack(), resolution=(2e6, 1e6), resolutionunit="CENTIMETER"
    )
    assert known(tmp_path / "a.tif") == Calibration("ZYX", (None, 0.01, 0.005), "µm")
    tifffile.imwrite(tmp_path / "b.tif", stack(), resolution=(300, 300), resolutionunit="INCH")
    assert known(tmp_path / "b.tif") == Calibration()


def test_of_ilastik(tmp_path):
    tags = [
        {"key": "t", "typeFlags": 8, "resolution": 0, "description": ""},
        {"key": "y", "typeFlags": 2, "resolution": 0, "description": ""},
        {"key": "x", "typeFlags": 2, "resolution": 0, "description": ""},
        {"key": "c", "typeFlags": 1, "resolution": 0, "description": ""},
    ]
    written = stack((5, 20, 31, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exported_data"] = written
        file["exported_data"].attrs["axistags"] = json.dumps({"axes": tags})
    with open_volume(tmp_path / "a.h5") as volume:
        assert np.array_equal(volume[:], np.moveaxis(written, -1, 1))
        assert volume.calibration == Calibration("TCYX")
        part = volume.region(2, slice(1, 5), slice(3, 9))
        assert np.array_equal(part, np.moveaxis(written[2, 1:5, 3:9], -1, 0))
    with open_volume(tmp_path / "a.h5", channel=1) as volume:
        assert np.array_equal(volume[:], written[..., 1])


def test_of_hdf5_as_fiji_writes_it(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = stack()
        file["data"].attrs["element_size_um"] = (0.05, 0.004, 0.004)
    assert known(tmp_path / "a.h5") == Calibration("ZYX", (0.05, 0.004, 0.004), "µm")


def test_axistags_that_are_no_json_tell_nothing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = stack()
        file["data"].attrs["axistags"] = "{"
    assert known(tmp_path / "a.h5") == Calibration()


def test_a_volume_given_on_keeps_it(tmp_path):
    metadata = {"axes": "ZYX", "spacing": 2.5, "unit": "nm"}
    tifffile.imwrite(tmp_path / "a.tif", stack(), imagej=True, resolution=(4, 4), metadata=metadata)
    with open_volume(tmp_path / "a.tif") as volume, as_volume(volume, "stack") as again:
        assert again.calibration == volume.calibration != Calibration()
        part = again.region(1, slice(2, 5), slice(0, 31))
    assert np.array_equal(part, stack()[1, 2:5])


def test_units_as_people_write_them():
    lengths = ("micron", "\u03bcm", "micrometers", "nanometre", "Angstrom", "pixel", "")
    assert [length_unit(one) for one in lengths] == ["µm", "µm", "µm", "nm", "Å", None, None]
    times = ("sec", "seconds", "minute", "hrs", "msec", "frame")
    assert [time_unit(one) for one in times] == ["s", "s", "min", "h", "ms", None]
