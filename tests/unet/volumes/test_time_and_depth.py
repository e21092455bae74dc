"""Time points of several depths stay both, T and Z, in and out, as other programs read them."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
import tifffile

from unet.volumes import Calibration, VolumeWriter, open_volume, read_volume, write_volume

CALIBRATION = Calibration("ZYX", (50.0, 4.0, 5.0), "nm", 2.5, "s", times=3)
SHAPE = (3, 4, 20, 31)


def pixels(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, shape).astype(np.uint16)


def run_of(array: np.ndarray) -> np.ndarray:
    """Return the slices one after the other."""
    return array.reshape(-1, *array.shape[2:])


@pytest.fixture(params=["imagej", "ome"])
def written(request, tmp_path):
    """Return a TIFF that tifffile has written, in one dialect after the other."""
    path = tmp_path / "stack.tif"
    if request.param == "imagej":
        metadata = {"axes": "TZYX", "spacing": 50.0, "unit": "nm", "finterval": 2.5}
        tifffile.imwrite(path, pixels(), imagej=True, resolution=(0.2, 0.25), metadata=metadata)
        return path
    metadata = {"axes": "TZYX", "TimeIncrement": 2.5, "TimeIncrementUnit": "s"}
    for axis, size in zip("ZYX", (50.0, 4.0, 5.0)):
        metadata.update({f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"})
    tifffile.imwrite(path, pixels(), ome=True, metadata=metadata)
    return path


def test_both_are_known_with_their_steps(written):
    with open_volume(written) as volume:
        assert volume.calibration == CALIBRATION
        np.testing.assert_array_equal(volume[:], run_of(pixels()))
    with open_volume(written, time=1) as volume:
        assert volume.calibration.times == 1
        assert volume.calibration.pixel_size == (50.0, 4.0, 5.0)
        np.testing.assert_array_equal(volume[:], pixels()[1])


@pytest.mark.parametrize("stored", ["ZTYX", "YXZT", "TZCYX", "CTZYX"])
def test_in_whatever_order_they_are_stored(tmp_path, stored):
    array = pixels((*SHAPE[:2], 2, *SHAPE[2:])) if "C" in stored else pixels()
    axes = "TZCYX" if "C" in stored else "TZYX"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        order = [axes.index(axis) for axis in stored]
        dataset = file.create_dataset("volume", data=array.transpose(order))
        for axis, dimension in zip(stored.lower(), dataset.dims):
            dimension.label = axis
    with open_volume(tmp_path / "a.h5") as volume:
        assert (volume.calibration.axes, volume.calibration.times) == (axes[1:], 3)
        np.testing.assert_array_equal(volume[:], run_of(array))


@pytest.mark.parametrize("shape", [(1, 4, 20, 31), (3, 1, 20, 31), (1, 1, 20, 31)])
def test_one_time_point_or_one_depth_is_no_axis(tmp_path, shape):
    tifffile.imwrite(tmp_path / "a.tif", pixels(shape), imagej=True, metadata={"axes": "TZYX"})
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.calibration.times == 1
        assert volume.calibration.axes == ("TYX" if shape[0] > 1 else "ZYX")


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.bool_])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_tiff_has_both(tmp_path, dtype, channels):
    ome_types = pytest.importorskip("ome_types")
    array = pixels((*SHAPE[:2], *channels, *SHAPE[2:])).astype(dtype)
    axes = "ZCYX" if channels else "ZYX"
    calibration = Calibration(axes, (50.0, 4.0, 5.0), "nm", 2.5, "s", times=3)
    write_volume(tmp_path / "a.tif", run_of(array), calibration=calibration)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        (series,) = tiff.series
        assert (series.axes, series.shape) == ("T" + axes, array.shape)
        np.testing.assert_array_equal(series.asarray() > 0, array > 0)
        if tiff.is_ome:
            (image,) = ome_types.from_xml(tiff.ome_metadata).images
            assert (image.pixels.size_t, image.pixels.size_z) == SHAPE[:2]
            assert (image.pixels.physical_size_z, image.pixels.time_increment) == (50.0, 2.5)
        else:
            said = tiff.imagej_metadata
            assert (said["frames"], said["slices"]) == SHAPE[:2]
            assert (said["spacing"], said["finterval"], said["unit"]) == (50.0, 2.5, "nm")
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.calibration == calibration


def test_hdf5_has_both(tmp_path):
    write_volume(tmp_path / "a.h5", run_of(pixels()), calibration=CALIBRATION)
    with h5py.File(tmp_path / "a.h5") as file:
        array = file["volume"]
        np.testing.assert_array_equal(array[()], pixels())
        assert [dimension.label for dimension in array.dims] == list("tzyx")
        np.testing.assert_allclose(array.attrs["element_size_um"], (0.05, 0.004, 0.005))
    with open_volume(tmp_path / "a.h5") as volume:
        assert (volume.calibration.times, volume.calibration.interval) == (3, 2.5)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_ome_zarr_has_both(tmp_path, form, channels):
    reader = pytest.importorskip("ome_zarr.reader")
    location = pytest.importorskip("ome_zarr.io")
    array = pixels((*SHAPE[:2], *channels, *SHAPE[2:]))
    calibration = Calibration("ZCYX" if channels else "ZYX", (50.0, 4.0, 5.0), "nm", 2.5, "s", 3)
    write_volume(tmp_path / "a.zarr", run_of(array), calibration=calibration, zarr_format=form)
    (node, *_) = reader.Reader(location.parse_url(str(tmp_path / "a.zarr")))()
    # NGFF has channels before depth.
    stored = np.moveaxis(array, 2, 1) if channels else array
    np.testing.assert_array_equal(np.asarray(node.data[0]), stored)
    names = [axis["name"] for axis in node.metadata["axes"]]
    (change,) = node.metadata["coordinateTransformations"][0]
    assert dict(zip(names, change["scale"])) == {
        "t": 2.5,
        "z": 50.0,
        "y": 4.0,
        "x": 5.0,
        **({"c": 1.0} if channels else {}),
    }
    with open_volume(tmp_path / "a.zarr") as volume:
        assert volume.calibration == calibration
        np.testing.assert_array_equal(volume[:], run_of(array))


def test_names_of_pictures_say_both(tmp_path):
    write_volume(tmp_path / "a", run_of(pixels()), calibration=CALIBRATION)
    names = sorted(os.listdir(tmp_path / "a"))
    assert names[:5] == [f"slice_t0000_z{z:04d}.png" for z in range(4)] + ["slice_t0001_z0000.png"]
    np.testing.assert_array_equal(read_volume(tmp_path / "a"), run_of(pixels()))


def test_a_folder_of_such_names_has_both(tmp_path):
    write_volume(tmp_path / "a", run_of(pixels()), calibration=CALIBRATION)
    with open_volume(tmp_path / "a") as volume:
        assert volume.calibration.times == 3


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (["T1-Z1_raw", "T1-Z2_raw", "T2-Z1_raw", "T2-Z2_raw"], 2),
        # One is missing; the order is another; no depth; other words.
        (["t1z1", "t1z2", "t2z1", "t2z3"], 1),
        (["z1_t1", "z1_t2", "z2_t1", "z2_t2"], 1),
        (["t1_z1", "t2_z1", "t3_z1", "t4_z1"], 1),
        (["cat1_z1", "cat1_z2", "cat2_z1", "cat2_z2"], 1),
    ],
)
def test_other_names_have_both_where_they_say_so_of_all(tmp_path, names, times):
    for name, picture in zip(names, pixels()[0]):
        tifffile.imwrite(tmp_path / f"{name}.tif", picture)
    with open_volume(tmp_path) as volume:
        assert (len(volume), volume.calibration.times) == (4, times)


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.zarr"])
def test_parts_in_any_order_come_where_they_belong(tmp_path, name):
    array = run_of(pixels())
    with VolumeWriter(
        tmp_path / name, array.shape, array.dtype, calibration=CALIBRATION, blocks=(20, 16)
    ) as out:
        for z in (5, 11, 0, *(z for z in range(12) if z not in (5, 11, 0))):
            for columns in (slice(16, 31), slice(0, 16)):
                out.put(z, slice(0, 20), columns, array[z, :, columns])
    np.testing.assert_array_equal(read_volume(tmp_path / name), array)


@pytest.mark.parametrize(
    ("slices", "times", "z"),
    [
        (range(4, 12), 2, 50.0),
        (range(5, 7), 1, 50.0),
        (range(4), 1, 50.0),
        (range(3, 9), 1, None),
        (range(0, 12, 2), 1, None),
        (range(12), 3, 50.0),
    ],
)
def test_of_some_slices_both_stay_where_time_points_are_whole(slices, times, z):
    chosen = CALIBRATION.of_slices(slices, 12)
    assert (chosen.times, chosen.pixel_size[0]) == (times, z)
