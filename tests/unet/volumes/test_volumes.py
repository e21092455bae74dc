"""Stacks are read as they were meant, slice by slice, and written whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from unet.errors import InputError
from unet.volumes import VolumeWriter, grey_range, open_volume, read_volume, write_volume


def stack(shape=(5, 20, 31), dtype="uint8", seed=0):
    values = np.random.default_rng(seed).uniform(0, 250, shape)
    return values.astype(dtype)


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
        assert grey_range(volume) == (0, 255)


# --- what is refused --------------------------------------------------------------------------


def refused(path, message=None, **options):
    with pytest.raises(InputError, match=message) as caught, open_volume(path, **options) as volume:
        volume[:]
    assert str(path).split(":")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_empty_files(tmp_path):
    refused(tmp_path / "a.tif", "no such file")
    (tmp_path / "a.tif").write_bytes(b"")
    refused(tmp_path / "a.tif", "is empty")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "holds no PNG, TIFF or JPEG")
    (tmp_path / "a.txt").write_text("some text, no picture")
    refused(tmp_path / "a.txt", "neither TIFF, PNG, JPEG, HDF5 nor Zarr")


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


# --- TIFF that is not all there, or not all in one file ---------------------------------------


def end_after(path, pages):
    """Let the chain of pages end there, as when an acquisition was stopped."""
    with tifffile.TiffFile(path) as tiff:
        form, place = tiff.tiff, tiff.pages[pages - 1].offset
    with open(path, "r+b") as file:
        file.seek(place)
        tags = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
        file.seek(place + form.tagnosize + tags * form.tagsize)
        file.write(bytes(form.offsetsize))


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}, "bigtiff": True},
        {},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_a_stopped_acquisition_is_told_and_what_is_there_is_read(tmp_path, options):
    written = stack((12, 40, 40), "uint16")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, written, photometric="minisblack", compression="zlib", **options)
    end_after(path, 7)
    refused(path, "slice 7 is not there: .* promises 12 slices, .* holds 7; .* --slices 0:7")
    with open_volume(path) as volume:
        assert volume.missing == (7, 8, 9, 10, 11)
        assert np.array_equal(volume[0:7], written[:7])
        volume.demand(range(7))
        with pytest.raises(InputError, match="slice 8 is not there"):
            volume.demand([2, 8])
        assert grey_range(volume) == grey_range(written[:7])


@pytest.mark.parametrize(
    ("header", "shape", "missing"),
    [
        ("images=12\nslices=12\n", (12, 20, 31), range(5, 12)),
        ("images=12\n", (12, 20, 31), range(5, 12)),
        ("images=12\nchannels=2\nslices=3\nframes=2\n", (6, 2, 20, 31), range(2, 6)),
    ],
)
def test_a_stopped_acquisition_by_the_header_of_imagej(tmp_path, header, shape, missing):
    written = stack()
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for z, picture in enumerate(written):
            text = f"ImageJ=1.54f\n{header}" if z == 0 else None
            tiff.write(picture, contiguous=False, metadata=None, description=text)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == shape
        assert volume.missing == tuple(missing)
        assert np.array_equal(np.reshape(volume[0], (-1, 20, 31))[0], written[0])


def write_ome(folder, files, size=None):
    """Write a.ome.tif, the first file, whose header names one page of each file."""
    blocks = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{z}</UUID>'
        "</TiffData>"
        for z, file in enumerate(files)
    )
    header = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="uint8" SizeX="31" SizeY="20" SizeZ="{size or len(files)}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0" SamplesPerPixel="1"/>{blocks}</Pixels></Image></OME>'
    )
    tifffile.imwrite(folder / files[0], stack()[0], description=header, metadata=None)


def test_an_ome_tiff_of_several_files_in_a_folder_is_read(tmp_path):
    write_ome(tmp_path, ["a.ome.tif", "b.tif", "c.tif"])
    refused(tmp_path / "a.ome.tif", "slice 1 is not there")
    for z, name in ((1, "b.tif"), (2, "c.tif")):
        tifffile.imwrite(tmp_path / name, stack()[z], metadata=None)
    assert np.array_equal(read_volume(tmp_path / "a.ome.tif"), stack()[:3])


@pytest.mark.parametrize("name", ["../private/x.tif", "{}/private/x.tif"])
def test_an_ome_tiff_that_names_a_file_elsewhere_is_refused(tmp_path, name):
    for folder in ("mine", "private"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "private/x.tif", stack()[1], metadata=None)
    write_ome(tmp_path / "mine", ["a.ome.tif", name.format(tmp_path)])
    refused(tmp_path / "mine/a.ome.tif", "private/x.tif, which is in another folder")


def test_what_an_ome_header_claims_takes_no_memory(tmp_path):
    write_ome(tmp_path, ["a.ome.tif"], size=999_999_999)
    refused(tmp_path / "a.ome.tif", "promises .999999999, 1, 1. pages")


def write_ndtiff(folder, pages, name="a.tif", planes=()):
    """Write an NDTiff of Micro-Manager: a TIFF of so many pages, and the index of its planes."""
    summary = b"{}"
    head = struct.pack("<IIIII", 483729, 3, 0, 2355492, len(summary)) + summary
    data, offsets, at = bytearray(), [], 8 + len(head)
    for z in range(pages):
        offsets.append(at + len(data) + 126)
        following = offsets[z] + 620 if z < pages - 1 else 0
        tags = [(256, 31), (257, 20), (258, 8), (259, 1), (262, 1), (273, offsets[z])]
        tags += [(277, 1), (278, 20), (279, 620), (51123, ord(" "))]
        data += struct.pack("<H", len(tags))
        data += b"".join(
            struct.pack("<HHII", code, 2 if code > 999 else 4, 1, value) for code, value in tags
        )
        data += struct.pack("<I", following) + stack()[z].tobytes()
    (folder / "a.tif").write_bytes(struct.pack("<2sHI", b"II", 42, at) + head + data)
    index = b""
    for plane, z in planes:
        axes, file = json.dumps(plane).encode(), name.encode()
        index += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(file)) + file
        index += struct.pack("<8I", offsets[z], 31, 20, 0, 0, 0, 0, 0)
    (folder / "NDTiff.index").write_bytes(index)


def test_planes_of_an_ndtiff_that_were_not_written(tmp_path):
    write_ndtiff(tmp_path, 3, planes=[({"z": 0}, 0), ({"z": 1}, 1), ({"z": 4}, 2)])
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == (5, 20, 31)
        assert volume.missing == (2, 3)
        assert np.array_equal(volume[:2], stack()[:2])
        assert np.array_equal(volume[4], stack()[2])
    refused(tmp_path / "a.tif", "slice 2 is not there: .* 5 slices, .* holds 3; .* --slices 0:2")


def test_an_index_of_ndtiff_that_names_a_file_elsewhere_is_refused(tmp_path):
    for folder in ("mine", "private"):
        (tmp_path / folder).mkdir()
    write_ndtiff(tmp_path / "private", 1)
    write_ndtiff(tmp_path / "mine", 1, "../private/a.tif", [({"z": 0}, 0)])
    refused(tmp_path / "mine/a.tif", "private/a.tif, which is in another folder")


# --- Zarr that is not all in its directory ----------------------------------------------------


def make_zarr(path, written=None, **options):
    written = stack() if written is None else written
    if not zarr.__version__.startswith("2."):
        options = {"zarr_format": 2, **options}
    array = zarr.open(
        str(path), mode="w", shape=written.shape, dtype="u1", chunks=(1, 20, 31), **options
    )
    array[...] = written


@pytest.mark.parametrize("what", ["chunk", "array", "group", "metadata"])
def test_zarr_with_links_out_of_its_directory_is_refused(tmp_path, what):
    make_zarr(tmp_path / "other/group/x", compressor=None)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(620))
    store = tmp_path / "a.zarr"
    zarr.open_group(
        str(store), mode="w", **({} if zarr.__version__[0] == "2" else {"zarr_format": 2})
    )
    place = {"chunk": "x/1.0.0", "array": "x", "group": "group", "metadata": "x/.zarray"}[what]
    if what in ("chunk", "metadata"):
        make_zarr(store / "x", compressor=None)
        target = secret if what == "chunk" else tmp_path / "other/group/x/.zarray"
        (store / place).unlink()
    else:
        target = tmp_path / "other/group" / ("x" if what == "array" else "")
        (tmp_path / "other/group/.zgroup").write_text('{"zarr_format": 2}')
    (store / place).symlink_to(target)
    refused(store, "out of the directory")


def test_zarr_with_links_within_its_directory_is_read(tmp_path):
    make_zarr(tmp_path / "a.zarr", compressor=None)
    (tmp_path / "a.zarr/2.0.0").unlink()
    (tmp_path / "a.zarr/2.0.0").symlink_to("0.0.0")
    (tmp_path / "linked").symlink_to(tmp_path / "a.zarr")
    assert np.array_equal(read_volume(tmp_path / "linked"), stack()[[0, 1, 0, 3, 4]])


@pytest.mark.parametrize("key", ["compressor", "filters"])
def test_zarr_that_would_run_a_program_is_refused(tmp_path, key):
    make_zarr(tmp_path / "a.zarr", compressor=None)
    place = tmp_path / "a.zarr/.zarray"
    codec = {"id": "pickle", "protocol": 4}
    content = json.loads(place.read_text())
    content[key] = codec if key == "compressor" else [codec]
    place.write_text(json.dumps(content))

    class Program:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    for z in range(5):
        (tmp_path / f"a.zarr/{z}.0.0").write_bytes(pickle.dumps(Program()))
    refused(tmp_path / "a.zarr", "pickle")
    assert not (tmp_path / "made").exists()


def test_zarr_of_groups_in_groups(tmp_path):
    place = tmp_path / "a.zarr"
    for _ in range(150):
        place.mkdir()
        (place / ".zgroup").write_text('{"zarr_format": 2}')
        place = place / "g"
    make_zarr(place)
    assert np.array_equal(read_volume(tmp_path / "a.zarr"), stack())


@pytest.mark.parametrize(
    "damage",
    [
        {"dtype": "|O"},
        {"dtype": 7},
        {"shape": [-1, 20, 31]},
        {"shape": [1 << 62, 20, 31]},
        {"chunks": [0, 0, 0]},
        {"compressor": {"id": "none of these"}},
        {"zarr_format": 9},
        {"order": "Z"},
    ],
    ids=str,
)
def test_zarr_whose_metadata_are_damaged(tmp_path, damage):
    make_zarr(tmp_path / "a.zarr")
    place = tmp_path / "a.zarr/.zarray"
    place.write_text(json.dumps({**json.loads(place.read_text()), **damage}))
    with pytest.raises((InputError, MemoryError)):
        read_volume(tmp_path / "a.zarr")


def test_a_header_that_asks_for_more_pieces_than_there_are_costs_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack(), tile=(16, 16), metadata=None)
    whole = path.read_bytes()
    for page in (0, 1):
        path.write_bytes(whole)
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages[page].tags["ImageWidth"].overwrite(100_000_000)
        monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("is decoded"))
        with pytest.raises(InputError, match=rf"a\.tif: slice {page} is \(20, 100000000\)"):
            open_volume(path)[page]


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


def test_grey_range_by_type():
    assert grey_range(np.full((2, 4, 4), 7, np.uint8)) == (0, 255)
    assert grey_range(np.zeros((2, 4, 4), bool)) == (0, 1)
    assert grey_range(np.full((2, 4, 4), 7, np.uint16)) == (7, 8)
    ramp = np.arange(100 * 10 * 10, dtype=np.float32).reshape(100, 10, 10)
    chosen = ramp[np.linspace(0, 99, 16).round().astype(int)]
    assert grey_range(ramp) == pytest.approx(tuple(np.percentile(chosen, (0.1, 99.9))), rel=1e-6)


def test_grey_range_of_some_slices_only():
    volume = np.zeros((4, 10, 10), np.uint16)
    volume[2:] = np.arange(100).reshape(10, 10)
    assert grey_range(volume, range(2)) == (0, 1)
    assert grey_range(volume, [2, 3])[1] > 90


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
