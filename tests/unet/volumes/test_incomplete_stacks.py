"""Stacks that are not all there, or not all in one place: TIFF in pieces, Zarr with links."""

from __future__ import annotations

import json
import os
import pickle
import struct

import numpy as np
import pytest
import tifffile
import zarr

from tests.unet.volumes.stacks import refused, stack
from unet.errors import InputError
from unet.volumes import intensity_range, open_volume, read_volume

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
        assert intensity_range(volume) == intensity_range(written[:7])


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
    refused(
        tmp_path / "a.ome.tif", "slice 1 is not there.*; of the same stack are missing b.tif, c"
    )
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


def make_zarr(path):
    form = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
    shape = {"shape": stack().shape, "dtype": "u1", "chunks": (1, 20, 31), "compressor": None}
    zarr.open(str(path), mode="w", **shape, **form)[...] = stack()


@pytest.mark.parametrize("what", ["chunk", "array", "group", "metadata"])
def test_zarr_with_links_out_of_its_directory_is_refused(tmp_path, what):
    make_zarr(tmp_path / "other/group/x")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(620))
    store = tmp_path / "a.zarr"
    zarr.open_group(
        str(store), mode="w", **({} if zarr.__version__[0] == "2" else {"zarr_format": 2})
    )
    place = {"chunk": "x/1.0.0", "array": "x", "group": "group", "metadata": "x/.zarray"}[what]
    if what in ("chunk", "metadata"):
        make_zarr(store / "x")
        target = secret if what == "chunk" else tmp_path / "other/group/x/.zarray"
        (store / place).unlink()
    else:
        target = tmp_path / "other/group" / ("x" if what == "array" else "")
        (tmp_path / "other/group/.zgroup").write_text('{"zarr_format": 2}')
    (store / place).symlink_to(target)
    refused(store, "out of the directory")


def test_zarr_with_links_within_its_directory_is_read(tmp_path):
    make_zarr(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/2.0.0").unlink()
    (tmp_path / "a.zarr/2.0.0").symlink_to("0.0.0")
    (tmp_path / "linked").symlink_to(tmp_path / "a.zarr")
    assert np.array_equal(read_volume(tmp_path / "linked"), stack()[[0, 1, 0, 3, 4]])


@pytest.mark.parametrize("key", ["compressor", "filters"])
def test_zarr_that_would_run_a_program_is_refused(tmp_path, key):
    make_zarr(tmp_path / "a.zarr")
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


def test_what_an_ome_header_claims_takes_no_memory(tmp_path):
    write_ome(tmp_path, ["a.ome.tif"], size=999_999_999)
    refused(tmp_path / "a.ome.tif", "promises .999999999, 1, 1. pages")


def test_zarr_of_groups_in_groups(tmp_path):
    place = tmp_path / "a.zarr"
    for _ in range(150):
        place.mkdir()
        (place / ".zgroup").write_text('{"zarr_format": 2}')
        place = place / "g"
    make_zarr(place)
    assert np.array_equal(read_volume(tmp_path / "a.zarr"), stack())


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
