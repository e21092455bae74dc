"""Stacks are read as they were meant, slice by slice, and written whole or not at all."""

from __future__ import annotations

import os
import tracemalloc

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.unet.volumes.stacks import refused, stack
from unet.errors import InputError
from unet.volumes import VolumeWriter, intensity_range, open_volume, read_volume, write_volume

# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "compression"),
    [
        (dtype, compression)
        for dtype in ("uint8", "uint16", "int16", "uint32", "float32", "float64")
        for compression in (None, "zlib", "lzw")
    ]
    + [("uint8", "packbits")],
)
def test_tiff_of_any_depth_and_compression(tmp_path, dtype, compression):
    written = stack(dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", written, compression=compression)
    read = read_volume(tmp_path / "a.tif")
    assert read.dtype == dtype
    assert np.array_equal(read, written)


def test_tiff_of_one_bit_is_bool(tmp_path):
    written = stack() > 100
    tifffile.imwrite(tmp_path / "a.tif", written)
    assert np.array_equal(read_volume(tmp_path / "a.tif"), written)


def test_tiff_of_the_other_byte_order(tmp_path):
    written = stack(dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", written, byteorder=">")
    read = read_volume(tmp_path / "a.tif")
    assert read.dtype.isnative
    assert np.array_equal(read, written)


def test_plain_multi_page_tiff_of_another_program(tmp_path):
    written = stack()
    pages = [Image.fromarray(picture) for picture in written]
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    assert np.array_equal(read_volume(tmp_path / "a.tif"), written)


def test_imagej_hyperstack_of_time_depth_and_channels(tmp_path):
    written = stack((2, 3, 4, 20, 31), "uint16")
    for compression in (None, "zlib"):
        tifffile.imwrite(
            tmp_path / "a.tif",
            written,
            imagej=True,
            metadata={"axes": "TZCYX"},
            compression=compression,
        )
        assert np.array_equal(read_volume(tmp_path / "a.tif"), written.reshape(6, 4, 20, 31))


def test_ome_tiff_whose_channels_come_first(tmp_path):
    written = stack((3, 5, 20, 31))
    tifffile.imwrite(tmp_path / "a.ome.tif", written, metadata={"axes": "CZYX"})
    assert np.array_equal(read_volume(tmp_path / "a.ome.tif"), np.moveaxis(written, 0, 1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_tiff_has_three_channels(tmp_path, planar):
    written = stack((4, 20, 31, 3))
    stored = written if planar == "contig" else np.moveaxis(written, -1, 1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert np.array_equal(read_volume(tmp_path / "a.tif"), np.moveaxis(written, -1, 1))


def test_single_picture_is_one_slice(tmp_path):
    written = stack((20, 31))
    Image.fromarray(written).save(tmp_path / "a.png")
    assert np.array_equal(read_volume(tmp_path / "a.png"), written[None])
    Image.fromarray(written).save(tmp_path / "a.jpg", quality=100)
    assert read_volume(tmp_path / "a.jpg").shape == (1, 20, 31)
    Image.fromarray(stack((20, 31), "uint16")).save(tmp_path / "b.png")
    assert np.array_equal(read_volume(tmp_path / "b.png")[0], stack((20, 31), "uint16"))


def test_palette_png_gives_its_indices_as_labels(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    assert read_volume(tmp_path / "a.png").tolist() == [[[0, 1], [2, 1]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_folder_in_natural_order(tmp_path, suffix):
    for number in (10, 9, 1, 100, 2):
        Image.fromarray(np.full((4, 5), number, np.uint8)).save(tmp_path / f"z{number}.{suffix}")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert read_volume(tmp_path)[:, 0, 0].tolist() == [1, 2, 9, 10, 100]


def test_hdf5_dataset_named_or_the_only_3d_one(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/stack"] = stack()
        file["table"] = np.arange(6).reshape(2, 3)
        file["name"] = "x"
    path = str(tmp_path / "a.h5")
    assert np.array_equal(read_volume(path), stack())
    assert np.array_equal(read_volume(path + ":/group/stack"), stack())
    assert read_volume(path, "table").shape == (1, 2, 3)
    with h5py.File(path, "a") as file:
        file["other"] = stack((2, 3, 4))
    with pytest.raises(InputError, match=r"several stacks \(/group/stack, /other\)"):
        open_volume(path)
    with pytest.raises(InputError, match="no dataset of numbers /nothing; it has"):
        open_volume(path, "nothing")


def test_a_training_set_where_a_stack_is_wanted_is_told(tmp_path):
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        for name in ("raw", "labels", "weights"):
            file[name] = stack()
        file["slices"] = np.arange(5)
    with pytest.raises(InputError, match=rf"is a training set where .* {path}:/raw, or its labels"):
        open_volume(path)
    assert np.array_equal(read_volume(f"{path}:/raw"), stack())


@pytest.mark.parametrize("chunks", [None, (1, 20, 31), (4, 8, 8)])
def test_hdf5_chunked_across_slices(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=stack((9, 20, 31)), chunks=chunks)
    with open_volume(tmp_path / "a.h5") as volume:
        for z in (0, 8, 3, 4):
            assert np.array_equal(volume[z], stack((9, 20, 31))[z])


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_versions_array_and_group(tmp_path, version):
    written = stack((1, 1, 5, 20, 31))
    form = {"zarr_format": version}
    if zarr.__version__.startswith("2."):
        if version == 3:
            pytest.skip("zarr 2, the newest for Python 3.10, has no format 3")
        form = {}
    shape = {"shape": (5, 20, 31), "dtype": np.uint8, "chunks": (2, 8, 8)}
    zarr.open(str(tmp_path / "a.zarr"), mode="w", **shape, **form)[...] = stack()
    assert np.array_equal(read_volume(tmp_path / "a.zarr"), stack())
    zarr.open_group(str(tmp_path / "g.zarr"), mode="w", **form)
    shape = {"shape": written.shape, "dtype": np.uint8, "chunks": (1, 1, 1, 20, 31)}
    zarr.open(str(tmp_path / "g.zarr"), path="em/0", mode="w", **shape, **form)[...] = written
    assert np.array_equal(read_volume(tmp_path / "g.zarr"), written[0, 0])
    assert np.array_equal(read_volume(f"{tmp_path}/g.zarr:/em/0"), written[0, 0])


def test_only_the_slice_asked_for_is_read(tmp_path):
    for z in range(3):
        Image.fromarray(stack((20, 31), seed=z)).save(tmp_path / f"{z}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    with open_volume(tmp_path) as volume:
        assert volume.shape == (4, 20, 31)
        assert np.array_equal(volume[2], stack((20, 31), seed=2))
        assert np.array_equal(volume[0:2], [stack((20, 31), seed=z) for z in range(2)])
        with pytest.raises(InputError, match=r"3\.png"):
            volume[-1]
        with pytest.raises(IndexError):
            volume[4]


def test_the_real_stack(isbi_dir):
    with open_volume(isbi_dir / "train-volume.tif", channels=1) as volume:
        assert volume.shape == (30, 512, 512)
        assert volume.dtype == np.uint8
        assert intensity_range(volume) == (0, 255)


# --- what is refused --------------------------------------------------------------------------


def test_missing_and_empty_files(tmp_path):
    refused(tmp_path / "a.tif", "no such file")
    (tmp_path / "a.tif").write_bytes(b"")
    refused(tmp_path / "a.tif", "is empty")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "holds no PNG, TIFF or JPEG")
    (tmp_path / "a.txt").write_text("some text, no picture")
    refused(tmp_path / "a.txt", "neither TIFF, PNG, JPEG, HDF5, Zarr nor .npy")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"imagej": True, "compression": "zlib"},
        {"metadata": None},
        {"metadata": None, "compression": "lzw"},
        {"ome": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("part", [0.001, 0.03, 0.2, 0.5, 0.8, 0.99])
def test_truncated_tiff(tmp_path, options, part):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack((12, 40, 40), "uint16"), photometric="minisblack", **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(8, int(len(whole) * part))])
    refused(path)


@pytest.mark.parametrize("part", [0.002, 0.1, 0.5, 0.9, 0.995])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.h5", "lzw.tif"])
def test_truncated_files(tmp_path, name, part):
    path = tmp_path / name
    if name == "a.h5":
        write_volume(path, stack((12, 40, 40)))
    elif name == "lzw.tif":
        pages = [Image.fromarray(picture) for picture in stack((12, 40, 40))]
        pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")
    else:
        Image.fromarray(stack((200, 200))).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, int(len(whole) * part))])
    refused(path)


def test_pages_of_several_sizes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(stack((20, 31)), metadata=None)
        tiff.write(stack((10, 31)), metadata=None)
    refused(tmp_path / "a.tif", r"slice 1 is \(10, 31\), but slice 0 is \(20, 31\)")


def test_folders_of_mixed_content(tmp_path):
    Image.fromarray(stack((20, 31))).save(tmp_path / "0.png")
    Image.fromarray(stack((21, 31))).save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1\.png: is \(21, 31\), but 0\.png is \(20, 31\)"):
        read_volume(tmp_path)
    Image.fromarray(stack((20, 31), "uint16")).save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1\.png: is uint16, but 0\.png is uint8"):
        read_volume(tmp_path)
    tifffile.imwrite(tmp_path / "2.tif", stack((20, 31)))
    with pytest.raises(InputError, match=r"holds \.png and \.tif files"):
        read_volume(tmp_path)


def test_nan_names_its_slice(tmp_path):
    written = stack(dtype="float32")
    written[3, 4, 5] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", written)
    refused(tmp_path / "a.tif", "slice 3 holds NaN or infinite values")


def test_colour_where_grey_is_needed(tmp_path):
    Image.fromarray(stack((20, 31, 3))).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "has 3 channels .*, but grey pictures are needed", channels=1)
    write_volume(tmp_path / "a.h5", stack((2, 4, 20, 31)))
    refused(tmp_path / "a.h5", "has 4 channels", channels=1)
    assert open_volume(tmp_path / "a.h5", channels=4).channels == 4


def test_no_dataset_in_a_picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack())
    refused(f"{tmp_path}/a.tif:/raw", "has no datasets")


def test_arrays_that_are_no_stacks(tmp_path):
    for name, array in (
        ("zero", np.zeros((0, 4, 4))),
        ("line", np.zeros(7)),
        ("five", np.zeros((2, 2, 2, 4, 4))),
        ("complex", np.zeros((2, 4, 4), complex)),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = array
        refused(tmp_path / f"{name}.h5")


# --- what is written --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32"])
@pytest.mark.parametrize(
    "shape", [(5, 20, 31), (1, 20, 31), (3, 2, 20, 31), (2, 1, 1), (3, 7, 1), (3, 1, 7)]
)
@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.zarr"])
def test_written_and_read_again(tmp_path, name, shape, dtype):
    for seed in (0, 1):
        write_volume(tmp_path / name, stack(shape, dtype, seed))
        assert np.array_equal(read_volume(tmp_path / name), stack(shape, dtype, seed))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_folder_written_and_read_again(tmp_path, dtype):
    for count in (12, 3):
        write_volume(tmp_path / "out", stack((count, 20, 31), dtype))
        assert np.array_equal(read_volume(tmp_path / "out"), stack((count, 20, 31), dtype))
    assert os.listdir(tmp_path) == ["out"]
    write_volume(tmp_path / "one.png", stack((1, 20, 31)))
    assert np.array_equal(read_volume(tmp_path / "one.png"), stack((1, 20, 31)))


def test_imagej_opens_the_tiff(tmp_path):
    write_volume(tmp_path / "a.tif", stack((3, 2, 20, 31), "float32"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata["slices"] == 3
        assert tiff.imagej_metadata["channels"] == 2
    # Programs that know pages only.
    with Image.open(tmp_path / "a.tif") as picture:
        assert picture.n_frames == 6
        picture.seek(5)
        assert np.array_equal(np.asarray(picture), stack((3, 2, 20, 31), "float32")[2, 1])


def test_masks_become_visible(tmp_path):
    mask = stack() > 100
    for name in ("a.tif", "folder"):
        write_volume(tmp_path / name, mask)
        assert np.array_equal(read_volume(tmp_path / name), mask * np.uint8(255))


def test_bigtiff_from_4_gib_on(tmp_path):
    shape = (4300, 1000, 1000)
    with VolumeWriter(tmp_path / "a.tif", shape, np.uint8) as writer:
        # The slices before stay a hole in the file: nothing of them is on the disk.
        writer.written = shape[0] - 1
        writer.write(np.full(shape[1:], 7, np.uint8))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == shape
        assert volume[4299].min() == 7
        assert volume[4298].max() == 0


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.zarr", "folder", "a.png"])
def test_failure_leaves_what_was_there(tmp_path, name):
    shape = (1, 20, 31) if name == "a.png" else (2, 20, 31)
    write_volume(tmp_path / name, stack(shape))
    with pytest.raises(RuntimeError), VolumeWriter(tmp_path / name, shape, np.uint8) as writer:
        writer.write(stack((20, 31), seed=9))
        raise RuntimeError
    with pytest.raises(ValueError, match="0 of"), VolumeWriter(tmp_path / name, shape, np.uint8):
        pass
    assert np.array_equal(read_volume(tmp_path / name), stack(shape))
    assert os.listdir(tmp_path) == [name]


def test_formats_that_cannot_hold_the_stack(tmp_path):
    for name, shape, dtype, message in (
        ("folder", (2, 4, 4), "float32", "8 or 16 bit"),
        ("a.png", (2, 4, 4), "uint8", "name a folder"),
        ("folder", (2, 2, 4, 4), "uint8", "channels"),
        ("a.jpg", (1, 4, 4), "uint8", "not as .jpg"),
        ("a.tif", (2, 2, 4, 1), "uint8", "write .h5"),
    ):
        with pytest.raises(InputError, match=message):
            write_volume(tmp_path / name, np.zeros(shape, dtype))
    assert os.listdir(tmp_path) == []


def test_other_peoples_folders_are_not_overwritten(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("years of work")
    for name in ("folder", "a.zarr"):
        with pytest.raises(InputError, match="exists"):
            write_volume(tmp_path / name, stack())
        assert (tmp_path / name / "thesis.txt").read_text() == "years of work"


# --- grey values ------------------------------------------------------------------------------


def test_intensity_range_by_type():
    assert intensity_range(np.full((2, 4, 4), 7, np.uint8)) == (0, 255)
    assert intensity_range(np.zeros((2, 4, 4), bool)) == (0, 1)
    assert intensity_range(np.full((2, 4, 4), 7, np.uint16)) == (7, 8)
    ramp = np.arange(100 * 10 * 10, dtype=np.float32).reshape(100, 10, 10)
    chosen = ramp[np.linspace(0, 99, 16).round().astype(int)]
    assert intensity_range(ramp) == pytest.approx(
        tuple(np.percentile(chosen, (0.1, 99.9))), rel=1e-6
    )


def test_intensity_range_of_some_slices_only():
    volume = np.zeros((4, 10, 10), np.uint16)
    volume[2:] = np.arange(100).reshape(10, 10)
    assert intensity_range(volume, range(2)) == (0, 1)
    assert intensity_range(volume, [2, 3])[1] > 90


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.tif", "lzw.tif", "a.h5", "deep.h5", "a.zarr", "folder"])
def test_memory_does_not_grow_with_slices(tmp_path, name):
    # 60 slices of 250 kB, 15 MB in all; a few at a time are what copying may take.
    written = np.zeros((60, 500, 500), np.uint8)
    if name == "lzw.tif":
        pages = [Image.fromarray(picture) for picture in written]
        packed = {"compression": "tiff_lzw"}
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **packed)
    elif name == "deep.h5":
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("x", data=written, chunks=(4, 250, 500))
    else:
        write_volume(tmp_path / name, written)
    open_volume(tmp_path / name)[0]  # imports
    target = tmp_path / (name if name == "folder" else f"copy{os.path.splitext(name)[1]}")
    tracemalloc.start()
    try:
        source = open_volume(tmp_path / name)
        with source, VolumeWriter(target, source.shape, source.dtype) as writer:
            for picture in source:
                writer.write(picture)
        assert tracemalloc.get_traced_memory()[1] < 12 * 250_000
    finally:
        tracemalloc.stop()


def test_a_link_to_a_tiff_in_another_folder_is_read(tmp_path):
    (tmp_path / "there").mkdir()
    write_volume(tmp_path / "there" / "a.tif", np.zeros((2, 3, 4), np.uint8))
    (tmp_path / "a.tif").symlink_to("there/a.tif")
    assert read_volume(tmp_path / "a.tif").shape == (2, 3, 4)


def test_absurd_size_is_no_crash(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack((1, 20, 31)), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(2_000_000_000)
        tiff.pages[0].tags["ImageWidth"].overwrite(2_000_000_000)
    with pytest.raises((InputError, MemoryError)):
        read_volume(path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (1 << 40, 512, 512), "u1", chunks=(1, 512, 512))
    with open_volume(tmp_path / "a.h5") as volume:
        assert volume[1 << 39].max() == 0
