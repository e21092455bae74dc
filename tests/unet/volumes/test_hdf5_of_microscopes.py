"""HDF5 of Imaris and BigDataViewer, written by h5py as their formats say."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.unet.volumes.stacks import refused, stack
from unet.volumes import Calibration, open_volume


def letters(text):
    return np.array(list(str(text)), "S1")


@pytest.fixture
def imaris(tmp_path):
    """Return a file of two levels, time points and channels, in chunks that reach over its edge."""
    path = tmp_path / "a.ims"
    pixels = stack((2, 2, 5, 40, 50))
    with h5py.File(path, "w") as file:
        for level, t, c in np.ndindex(2, 2, 2):
            group = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint {t}/Channel {c}")
            inner = pixels[t, c, :, :: level + 1, :: level + 1]
            padded = np.pad(inner, [(0, 3), (0, 24), (0, 14)])
            group.create_dataset("Data", data=padded, chunks=(4, 16, 16), compression="gzip")
            group["Histogram"] = np.arange(256, dtype=np.uint64)
            for axis, size in zip("ZYX", inner.shape):
                group.attrs[f"ImageSize{axis}"] = letters(size)
        about = file.create_group("DataSetInfo/Image")
        for k, (low, high) in enumerate([(10, 20), (0, 8), (1, 2)]):
            about.attrs[f"ExtMin{k}"], about.attrs[f"ExtMax{k}"] = letters(low), letters(high)
        about.attrs["Unit"] = letters("um")
        when = file.create_group("DataSetInfo/TimeInfo")
        for k in (1, 2):
            when.attrs[f"TimePoint{k}"] = letters(f"2024-03-01 10:00:{5 * k:02d}.500")
    return path, pixels


def test_imaris_has_its_size_without_what_fills_the_chunks(imaris):
    path, pixels = imaris
    with open_volume(path) as volume:
        assert volume.calibration == Calibration("ZCYX", (0.2, 0.2, 0.2), "µm", 5.0, "s", times=2)
        assert np.array_equal(volume[:], pixels.transpose(0, 2, 1, 3, 4).reshape(10, 2, 40, 50))
        part = volume.region(6, slice(3, 40), slice(7, 50))
        assert np.array_equal(part, pixels[1, :, 1, 3:, 7:])


def test_imaris_by_level_time_and_channel(imaris):
    path, pixels = imaris
    with open_volume(path, level=1, time=1, channel=0) as volume:
        assert np.array_equal(volume[:], pixels[1, 0, :, ::2, ::2])
        assert volume.calibration.pixel_size == (0.2, 0.4, 0.4)
    refused(path, "there is level 0 to 1", level=2)
    inner = "/DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"
    refused(f"{path}:{inner}", "one of many parts of a picture: name the file alone")


def test_imaris_whose_levels_do_not_tell_their_size(imaris):
    path, pixels = imaris
    with h5py.File(path, "r+") as file:
        for level in range(2):
            group = file[f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel 0"]
            for axis in "ZYX":
                del group.attrs[f"ImageSize{axis}"]
        for axis, size in zip("ZYX", pixels.shape[2:]):
            file["DataSetInfo/Image"].attrs[axis] = letters(size)
    with open_volume(path, time=1, channel=1) as volume:
        assert np.array_equal(volume[:], pixels[1, 1])
    refused(path, "does not tell how large its picture is at level 1; save it", level=1)


def test_a_part_of_imaris_that_is_missing(imaris):
    path, _ = imaris
    with h5py.File(path, "r+") as file:
        del file["DataSet/ResolutionLevel 0/TimePoint 1/Channel 1/Data"]
    refused(path, "TimePoint 1/Channel 1/Data is missing")


def big_data_viewer(path, pixels):
    """Write the pixels (setup, time, z, y, x) with a coarser level, and the XML beside."""
    with h5py.File(path, "w") as file:
        for setup in range(len(pixels)):
            file[f"s{setup:02d}/resolutions"] = np.array([[1.0, 1, 1], [2, 2, 1]])
            file[f"s{setup:02d}/subdivisions"] = np.full((2, 3), 16)
            for t, level in np.ndindex(len(pixels[0]), 2):
                inner = pixels[setup][t][:, :: level + 1, :: level + 1]
                name = f"t{t:05d}/s{setup:02d}/{level}/cells"
                file.create_dataset(name, data=inner.view(np.int16), chunks=(4, 16, 16))
    views = "".join(
        f"<ViewSetup><id>{k}</id><voxelSize><unit>nm</unit><size>100.0 100.0 500.0</size>"
        f"</voxelSize></ViewSetup>"
        for k in range(len(pixels))
    )
    path.with_suffix(".xml").write_text(f"<SpimData><ViewSetups>{views}</ViewSetups></SpimData>")


def test_big_data_viewer_has_unsigned_numbers_and_its_voxels(tmp_path):
    pixels = stack((1, 3, 5, 40, 50), "uint16") + np.uint16(40_000)
    big_data_viewer(tmp_path / "a.h5", pixels)
    with open_volume(tmp_path / "a.h5") as volume:
        assert volume.dtype == np.uint16
        assert volume.calibration == Calibration("ZYX", (500.0, 100.0, 100.0), "nm", times=3)
        assert np.array_equal(volume[:], pixels.reshape(15, 40, 50))
    with open_volume(tmp_path / "a.h5", level=1, time=2) as volume:
        assert np.array_equal(volume[:], pixels[0, 2, :, ::2, ::2])
        assert volume.calibration.pixel_size == (500.0, 200.0, 200.0)
    refused(f"{tmp_path / 'a.h5'}:/t00000/s00/0/cells", "one of many parts of a picture")


def test_setups_of_big_data_viewer_are_chosen(tmp_path):
    pixels = stack((2, 1, 5, 40, 50), "uint16")
    big_data_viewer(tmp_path / "a.h5", pixels)
    refused(tmp_path / "a.h5", r"holds 2 setups, .*\(0: s00, 1: s01\); choose one with --scene")
    with open_volume(tmp_path / "a.h5", scene="s01") as volume:
        assert np.array_equal(volume[:], pixels[1, 0])
