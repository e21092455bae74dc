"""TIFF as programs write it: page by page, three slices as colour, OME in a folder, thumbnails."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.unet.volumes.stacks import refused, stack
from unet.volumes import open_volume, read_volume


def read(path, **options):
    with open_volume(path, **options) as volume:
        return volume[:]


def test_pages_written_one_by_one_are_slices(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for image in stack():
            tiff.write(image)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.series) == 5
    with open_volume(tmp_path / "a.tif") as volume:
        assert np.array_equal(volume[:], stack())
        assert np.array_equal(volume.region(3, slice(1, 9), slice(2, 8)), stack()[3, 1:9, 2:8])


def test_several_stacks_of_one_file_are_asked_for_and_chosen(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(stack((5, 20, 31)), photometric="minisblack")
        tiff.write(stack((6, 20, 31), seed=1), photometric="minisblack")
    refused(tmp_path / "a.tif", r"holds 2 separate .*0: .*5x20x31, 1: .*6x20x31.*--scene")
    assert np.array_equal(read(tmp_path / "a.tif", scene=1), stack((6, 20, 31), seed=1))


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_three_or_four_slices_that_tifffile_stores_as_colour(tmp_path, count, dtype):
    written = stack((count, 20, 31), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tifffile.imwrite(tmp_path / "a.tif", written)
        tifffile.imwrite(tmp_path / "axes.tif", written, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].samplesperpixel == count
    assert np.array_equal(read(tmp_path / "a.tif", channels=1), written)
    assert np.array_equal(read(tmp_path / "a.tif", channels=count), written[None])
    assert np.array_equal(read(tmp_path / "axes.tif"), written)
    with open_volume(tmp_path / "axes.tif") as volume:
        assert np.array_equal(volume.region(1, slice(3, 9), slice(4, 5)), written[1, 3:9, 4:5])


@pytest.mark.parametrize("size", [(5, 7), (10, 16)])
@pytest.mark.parametrize("options", [{}, {"metadata": None}], ids=str)
def test_a_thumbnail_as_last_page_is_no_slice(tmp_path, options, size):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        if options:
            for image in stack():
                tiff.write(image, **options)
        else:
            tiff.write(stack(), photometric="minisblack")
        tiff.write(stack(size), **options)
    assert np.array_equal(read_volume(tmp_path / "a.tif"), stack())


def test_levels_of_a_pyramid_in_tiff_are_chosen(tmp_path):
    levels = [np.ascontiguousarray(stack((4, 64, 96))[:, :: 2**k, :: 2**k]) for k in range(3)]
    size = {"PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"}
    size.update(PhysicalSizeY=4.0, PhysicalSizeYUnit="nm", PhysicalSizeZ=50.0)
    size["PhysicalSizeZUnit"] = "nm"
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        options = {"tile": (16, 16), "photometric": "minisblack", "compression": "zlib"}
        tiff.write(levels[0], subifds=2, metadata={"axes": "ZYX", **size}, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    for k, level in enumerate(levels):
        with open_volume(tmp_path / "a.ome.tif", level=k) as volume:
            assert np.array_equal(volume[:], level)
            assert volume.calibration.pixel_size == (50.0, 4.0 * 2**k, 4.0 * 2**k)
    refused(tmp_path / "a.ome.tif", "--level 3: there is level 0 to 2", level=3)


def test_pages_of_a_pyramid_one_after_the_other_are_levels(tmp_path):
    image = stack((64, 96))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(image, tile=(16, 16), metadata=None)
        for k in (1, 2):
            smaller = np.ascontiguousarray(image[:: 2**k, :: 2**k])
            tiff.write(smaller, tile=(16, 16), metadata=None, subfiletype=1)
    assert np.array_equal(read(tmp_path / "a.tif"), image[None])
    assert np.array_equal(read(tmp_path / "a.tif", level=2), image[None, ::4, ::4])


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_and_time_points_are_chosen(tmp_path, kind):
    written = stack((2, 3, 4, 20, 31), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", written, **{kind: True}, metadata={"axes": "TZCYX"})
    assert np.array_equal(read(tmp_path / "a.tif", channel=3), written[:, :, 3].reshape(6, 20, 31))
    assert np.array_equal(read(tmp_path / "a.tif", time=1, channel=2), written[1, :, 2])
    refused(tmp_path / "a.tif", "--time 2: there is time 0 to 1", time=2)
    refused(tmp_path / "a.tif", "has 4 channels.*--channel", channels=1)


def write_plane(path, image, z, files):
    """Write one plane of an OME-TIFF of several files, which each name all."""
    planes = "".join(
        f'<TiffData FirstZ="{k}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{k}</UUID>'
        "</TiffData>"
        for k, name in enumerate(files)
    )
    header = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="uint8" SizeX="31" SizeY="20" SizeZ="{len(files)}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, image, description=header, metadata=None)


def test_a_folder_of_planes_of_an_ome_tiff_is_put_together_as_they_say(tmp_path):
    # Their order is not that of the names.
    files = ["e.ome.tif", "d.ome.tif", "c.ome.tif", "b.ome.tif", "a.ome.tif"]
    for z, name in enumerate(files):
        write_plane(tmp_path / name, stack()[z], z, files)
    assert np.array_equal(read_volume(tmp_path), stack())
    (tmp_path / "c.ome.tif").unlink()
    refused(tmp_path, "slice 2 is not there")


def test_a_folder_of_ome_tiffs_of_one_plane_each(tmp_path):
    for z, image in enumerate(stack()):
        tifffile.imwrite(tmp_path / f"z{z}.ome.tif", image, ome=True)
    assert np.array_equal(read_volume(tmp_path), stack())


def test_a_stopped_acquisition_without_a_page_for_each_promise(tmp_path):
    header = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="31" '
        'SizeY="20" SizeZ="8" SizeC="1" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>'
        "<TiffData/></Pixels></Image></OME>"
    )
    plain = {"photometric": "minisblack", "metadata": None, "description": header}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack(), **plain)
    refused(tmp_path / "a.ome.tif", "promises 8 slices, the file holds 5; .* --slices 0:5")
    with open_volume(tmp_path / "a.ome.tif") as volume:
        assert np.array_equal(volume[0:5], stack())


def test_one_folder_of_jpg_and_jpeg(tmp_path):
    for name in ("a1.jpg", "a2.jpeg", "a10.JPG"):
        Image.fromarray(np.full((8, 8), len(name) * 10, np.uint8)).save(
            tmp_path / name, "JPEG", quality=100
        )
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    assert read_volume(tmp_path)[:, 0, 0].tolist() == [60, 70, 70]


@pytest.mark.parametrize("name", ["10 \udcb5m.tif", "10 \udcb5m.png", "10 \udcb5m"])
def test_names_that_are_not_utf_8(tmp_path, name):
    path = os.path.join(str(tmp_path), name)
    if name.endswith("m"):
        os.mkdir(path)
        Image.fromarray(stack((20, 31))).save(os.path.join(path, "\udcb5.png"))
    elif name.endswith("png"):
        with open(path, "wb") as file:
            Image.fromarray(stack((20, 31))).save(file, "PNG")
    else:
        tifffile.imwrite(path, stack((1, 20, 31)), metadata={"axes": "ZYX"}, ome=True)
    assert np.array_equal(read_volume(path), stack((1, 20, 31)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (16, 32), "compression": "zlib"},
        {"rowsperstrip": 7, "compression": "lzw"},
        {"rowsperstrip": 3},
        {"tile": (32, 16), "compression": "zlib", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("photometric", ["minisblack", "rgb", "planar"])
def test_a_part_of_a_slice_is_that_part(tmp_path, options, photometric):
    shape = (3, 61, 83) if photometric == "minisblack" else (3, 61, 83, 3)
    written = expected = stack(shape, "uint16")
    colour = {"photometric": photometric}
    if photometric != "minisblack":
        expected = np.moveaxis(written, -1, 1)
        if photometric == "planar":
            written, colour = expected, {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(written), **colour, **options)
    with open_volume(tmp_path / "a.tif") as volume:
        for rows, columns in (
            (slice(0, 61), slice(0, 83)),
            (slice(15, 17), slice(31, 33)),
            (slice(60, 61), slice(82, 83)),
            (slice(3, 50), slice(0, 83)),
            (slice(-5, None), slice(None, 4)),
        ):
            for z in (0, 2, -1):
                part = volume.region(z, rows, columns)
                assert np.array_equal(part, expected[z][..., rows, columns])


def test_a_part_of_a_tiled_slice_decodes_its_tiles_alone(tmp_path, monkeypatch):
    image = stack((1, 256, 256))
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    with open_volume(tmp_path / "a.tif") as volume:
        monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("all is decoded"))
        part = volume.region(0, slice(70, 120), slice(10, 70))
    assert np.array_equal(part, image[0, 70:120, 10:70])


@pytest.mark.parametrize(
    "counts, shape", [("slices=7", (7, 20, 31)), ("channels=2\nslices=3", (3, 2, 20, 31))]
)
def test_a_stack_that_imagej_describes_by_one_page(tmp_path, counts, shape):
    # So ImageJ writes what has more than 4 GB: all pixels behind the first page's.
    planes = stack((int(np.prod(shape[:-2])), 20, 31), "uint16")
    text = f"ImageJ=1.53t\nimages={len(planes)}\n{counts}\nhyperstack=true\nloop=false\n"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes[0], byteorder=">", description=text, metadata=None)
    with open(path, "ab") as file:
        file.write(planes[1:].astype(">u2").tobytes())
    assert np.array_equal(read(path), planes.reshape(shape))


def test_a_page_of_another_type_is_not_wrapped_round(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(stack((20, 31)), metadata=None, contiguous=False)
        tiff.write(stack((20, 31), "uint16") + 256, metadata=None, contiguous=False)
    refused(tmp_path / "a.tif", "slice 1 holds uint16, but slice 0 uint8")


def test_a_part_of_a_page_that_holds_several_depths(tmp_path):
    written = stack((8, 64, 64))
    tifffile.imwrite(
        tmp_path / "a.tif", written, tile=(4, 32, 32), volumetric=True, photometric="minisblack"
    )
    with open_volume(tmp_path / "a.tif") as volume:
        assert np.array_equal(volume.region(5, slice(3, 40), slice(7, 9)), written[5, 3:40, 7:9])
