"""Files that are not what they seem, or of formats that are not read: asked or told what helps."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from tests.unet.volumes.stacks import refused, stack
from unet.volumes import open_volume


def read(path, **options):
    with open_volume(path, **options) as volume:
        return volume[:]


@pytest.mark.parametrize(
    "name", ["img_z{z:02d}_ch{c:02d}.tif", "img_t000z{z}c{c}.tif", "s01_C{c}-Z{z}.tif"]
)
def test_a_folder_whose_names_tell_channels_asks_for_one(tmp_path, name):
    planes = stack((3, 2, 20, 31))
    for z, c in np.ndindex(3, 2):
        tifffile.imwrite(tmp_path / name.format(z=z, c=c), planes[z, c])
    refused(tmp_path, r"holds 2 channels of each slice.*0: .*1: .*--channel")
    for c in range(2):
        assert np.array_equal(read(tmp_path, channel=c), planes[:, c])
    refused(tmp_path, "there is channel 0 to 1", channel=2)


@pytest.mark.parametrize(
    ("names", "channel"),
    [
        (("exp_w1DAPI_t{t}.TIF", "exp_w2GFP_t{t}.TIF"), "w1DAPI, 1: w2GFP"),
        (("img_{t:09d}_DAPI_000.tif", "img_{t:09d}_GFP 5_000.tif"), "DAPI, 1: GFP 5"),
    ],
)
def test_channels_that_microscopes_name_by_words(tmp_path, names, channel):
    planes = stack((3, 2, 20, 31))
    for t, c in np.ndindex(3, 2):
        tifffile.imwrite(tmp_path / names[c].format(t=t), planes[t, c])
    refused(tmp_path, rf"holds 2 channels of each slice, .*\(0: {channel}\)")
    assert np.array_equal(read(tmp_path, channel=1), planes[:, 1])


@pytest.mark.parametrize("name", ["case{z}_c{c}.tif", "img_z{z}.{c}.tif", "z{z}_c{z}{c}.tif"])
def test_names_that_tell_no_channels_are_slices(tmp_path, name):
    planes = stack((6, 20, 31))
    for z, c in np.ndindex(3, 2):
        tifffile.imwrite(tmp_path / name.format(z=z, c=c), planes[2 * z + c])
    assert np.array_equal(read(tmp_path), planes)


def test_time_points_of_a_chosen_channel_keep_their_depths(tmp_path):
    for t, z, c in np.ndindex(2, 3, 2):
        tifffile.imwrite(tmp_path / f"a_t{t}z{z}c{c}.tif", stack((20, 31), seed=t * 6 + z * 2 + c))
    with open_volume(tmp_path, channel=1) as volume:
        assert volume.calibration.times == 2
        assert np.array_equal(volume[4], stack((20, 31), seed=9))


@pytest.mark.parametrize("shape", [(4, 70, 90, 1), (1, 4, 70, 90, 1), (1, 1, 4, 70, 90, 1)])
def test_one_channel_behind_the_columns_is_no_column(tmp_path, shape):
    # As Keras has pictures, and ilastik where its tags are lost.
    written = stack(shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volume"] = written
    zarr.save_array(str(tmp_path / "a.zarr"), written)
    for name in ("a.h5", "a.zarr"):
        with open_volume(tmp_path / name, channels=1) as volume:
            assert np.array_equal(volume[:], written.reshape(4, 70, 90))
            part = volume.region(2, slice(3, 9), slice(5, 6))
            assert np.array_equal(part, written.reshape(4, 70, 90)[2, 3:9, 5:6])


def test_two_channels_behind_the_columns_are_asked_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volume"] = stack((4, 70, 90, 2))
    refused(tmp_path / "a.h5", "whether the last axis is the 2 channels .*name the axes")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.mrc", "make a TIFF of it .mrc2tif of IMOD"),
        ("a.zarr.zip", "unpack it into a folder"),
        ("a.tif.gz", "unpack it"),
        ("a.mp4", "save its frames as PNG in a folder"),
        ("a.npz", r"save one of its arrays as \.npy"),
        ("a.nrrd", "save it as TIFF"),
    ],
)
def test_other_formats_are_told_what_helps(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"something else" * 9)
    refused(tmp_path / name, f"is neither TIFF, PNG, JPEG, HDF5, Zarr nor .npy; {remedy}")


def test_folders_of_other_things_are_told_what_helps(tmp_path):
    (tmp_path / "attributes.json").write_text('{"n5": "2.5.1"}')
    refused(tmp_path, "is N5, which is not read; save it as OME-Zarr or TIFF")
    (tmp_path / "attributes.json").unlink()
    refused(tmp_path, "no PNG, TIFF or JPEG files .*: save its pictures as one of these")


def test_a_filter_that_hdf5_does_not_bring_along_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((3, 70, 90))
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, 70, 90))
        # Zstandard's; optional, so that a file can be made without it.
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"volume", h5py.h5t.STD_U8LE, space, made)
    refused(tmp_path / "a.h5", r":/volume is compressed by the HDF5 filter 32015 .*hdf5plugin")


def planes_of(path, metadata_file):
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<BinaryOnly MetadataFile="{metadata_file}" UUID="urn:uuid:a"/></OME>'
    )
    with tifffile.TiffWriter(path) as tiff:
        for number, plane in enumerate(stack()):
            tiff.write(plane, description=None if number else text, metadata=None)


def test_pages_that_another_file_tells_of_are_not_guessed(tmp_path):
    planes_of(tmp_path / "a.ome.tif", "all.companion.ome")
    refused(tmp_path / "a.ome.tif", "tells in another file, all.companion.ome, which slices")
    tifffile.imwrite(tmp_path / "first.ome.tif", stack(), ome=True)
    planes_of(tmp_path / "b.ome.tif", "first.ome.tif")
    refused(tmp_path / "b.ome.tif", "is part of a stack: name .*first.ome.tif")


def test_a_whole_slide_has_scenes(tmp_path):
    colours = stack((128, 128, 3))
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        options = {"photometric": "rgb", "metadata": None}
        tiff.write(colours, tile=(64, 64), description="Aperio Image Library v11", **options)
        tiff.write(colours[::4, ::4], **options)
        tiff.write(colours[::2, ::2], tile=(64, 64), **options)
    refused(tmp_path / "a.svs", "0: Baseline 128x128x3, 1: .*--scene")
    assert np.array_equal(read(tmp_path / "a.svs", scene=0)[0], colours.transpose(2, 0, 1))


@pytest.mark.parametrize("address", ["https://host/a.zarr", "s3://bucket/a.zarr"])
def test_addresses_are_told_to_be_copied(address):
    refused(address, f"{address}: is an address, .*ome_zarr download {address}")
