"""White is bright however it is stored, palettes are colours or indices, equal colours are grey."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.unet.volumes.stacks import refused, stack
from unet.volumes import open_volume, read_volume


def read(path, **options):
    with open_volume(path, **options) as volume:
        return volume[:]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}], ids=str)
def test_white_stored_as_zero_is_bright(tmp_path, dtype, options):
    stored = stack(dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", **options)
    assert np.array_equal(read_volume(tmp_path / "a.tif"), np.iinfo(dtype).max - stored)
    with open_volume(tmp_path / "a.tif") as volume:
        part = volume.region(2, slice(3, 17), slice(5, 30))
    assert np.array_equal(part, np.iinfo(dtype).max - stored[2, 3:17, 5:30])


def test_labels_stored_with_white_as_zero_have_the_share_that_a_viewer_shows(tmp_path):
    labels = np.zeros((1, 100, 100), np.uint8)
    labels[0, :82] = 255
    # Pillow inverts when it opens: what it shows is what is meant.
    tifffile.imwrite(tmp_path / "a.tif", 255 - labels, photometric="miniswhite", metadata=None)
    with Image.open(tmp_path / "a.tif") as shown:
        assert np.array_equal(np.asarray(shown), labels[0])
    assert (read_volume(tmp_path / "a.tif") > 0).mean() == 0.82


def test_one_bit_of_a_scanner_is_inverted_and_a_mask_of_numpy_is_not(tmp_path):
    mask = stack((20, 31)) > 100
    shown = Image.fromarray(mask)
    shown.save(tmp_path / "a.tif", compression="group4")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert int(tiff.pages[0].photometric) in (0, 1)
    assert np.array_equal(read_volume(tmp_path / "a.tif")[0], mask)
    tifffile.imwrite(tmp_path / "b.tif", mask, photometric="miniswhite", metadata=None)
    with Image.open(tmp_path / "b.tif") as shown:
        assert np.array_equal(read_volume(tmp_path / "b.tif")[0], np.asarray(shown))
    tifffile.imwrite(tmp_path / "c.tif", mask)
    assert np.array_equal(read_volume(tmp_path / "c.tif")[0], mask)


def test_white_as_zero_of_reals_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(dtype="float32"), photometric="miniswhite")
    refused(tmp_path / "a.tif", "white is 0 of float32")


def palette(folder, colours, name="a.png"):
    picture = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), mode="P")
    picture.putpalette(bytes(np.array(colours, np.uint8)))
    picture.save(folder / name)
    return folder / name


def test_a_palette_png_as_picture_has_its_colours_and_grey_ones_are_grey(tmp_path):
    path = palette(tmp_path, [[10, 10, 10], [90, 90, 90], [200, 200, 200]])
    assert read(path, colours=True).tolist() == [[[10, 90, 200], [200, 90, 10]]]
    assert read(path).tolist() == [[[0, 1, 2], [2, 1, 0]]]
    path = palette(tmp_path, [[255, 0, 0], [0, 90, 0], [0, 0, 7]])
    with Image.open(path) as shown:
        expected = np.moveaxis(np.asarray(shown.convert("RGB")), -1, 0)
    assert np.array_equal(read(path, colours=True), expected[None])


def test_a_palette_tiff_as_picture_has_its_colours(tmp_path):
    path = palette(tmp_path, [[255, 0, 0], [0, 90, 0], [0, 0, 7]], "a.tif")
    with Image.open(path) as shown:
        expected = np.moveaxis(np.asarray(shown.convert("RGB")), -1, 0)
    assert np.array_equal(read(path, colours=True), expected[None])
    assert read(path).tolist() == [[[0, 1, 2], [2, 1, 0]]]


def test_a_display_palette_of_imagej_leaves_the_measured_numbers(tmp_path):
    green = np.zeros((3, 256), np.uint16)
    green[1] = np.arange(256) * 257
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack((20, 31)),
        photometric="palette",
        colormap=green,
        description="ImageJ=1.54f\n",
        metadata=None,
    )
    assert np.array_equal(read(tmp_path / "a.tif", colours=True), stack((1, 20, 31)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
@pytest.mark.parametrize("kind", ["png", "tif", "folder"])
def test_grey_saved_as_colour_is_grey(tmp_path, mode, kind):
    grey = stack((1, 20, 31))
    (tmp_path / "folder").mkdir()
    path = tmp_path / ("folder/a.png" if kind == "folder" else f"a.{kind}")
    Image.fromarray(grey[0]).convert(mode).save(path)
    assert np.array_equal(read(tmp_path / "folder" if kind == "folder" else path), grey)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_grey_stack_saved_as_colour_is_grey_and_colour_where_that_is_needed(tmp_path, planar):
    grey = stack((4, 20, 31))
    stored = np.stack([grey] * 3, axis=-1 if planar == "contig" else 1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert np.array_equal(read(tmp_path / "a.tif"), grey)
    assert np.array_equal(read(tmp_path / "a.tif", channels=3), np.stack([grey] * 3, axis=1))
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.calibration.axes == "ZYX"
        assert np.array_equal(volume.region(1, slice(2, 9), slice(3, 4)), grey[1, 2:9, 3:4])


def test_a_coloured_slice_among_grey_ones_is_told(tmp_path):
    stored = np.stack([stack((6, 20, 31))] * 3, axis=-1)
    stored[4, 0, 0] = 1, 2, 3
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb")
    refused(tmp_path / "a.tif", "slice 4 is coloured.* --channel")
    assert np.array_equal(read(tmp_path / "a.tif", channel=1), stored[..., 1])


def test_white_pictures_say_nothing_about_colour(tmp_path):
    for z, colour in enumerate(((255, 255, 255), (250, 200, 220), (255, 255, 255))):
        Image.new("RGB", (8, 6), colour).save(tmp_path / f"{z}.png")
    assert read(tmp_path).shape == (3, 3, 6, 8)
    Image.new("RGB", (8, 6), (255, 255, 255)).save(tmp_path / "1.png")
    assert read(tmp_path).shape == (3, 3, 6, 8)


def test_transparency_is_left_out_where_colour_is_needed(tmp_path):
    colours = stack((20, 31, 4))
    Image.fromarray(colours, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", channels=3)[0], np.moveaxis(colours, -1, 0)[:3])
    assert read(tmp_path / "a.png").shape == (1, 4, 20, 31)


def test_pages_of_which_one_stores_white_as_zero_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for photometric in ("minisblack", "miniswhite"):
            tiff.write(stack((20, 31)), photometric=photometric, metadata=None, contiguous=False)
    refused(tmp_path / "a.tif", "slice 1 stores brightness as white is 0, but slice 0 black is 0")


@pytest.mark.parametrize("mode, name", [("CMYK", "a.tif"), ("CMYK", "a.jpg"), ("YCbCr", "a.tif")])
def test_grey_in_colours_for_printing_is_not_taken_for_its_negative(tmp_path, mode, name):
    grey = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    Image.fromarray(grey).convert("RGB").convert(mode).save(tmp_path / name)
    refused(tmp_path / name, f"has the colours of {mode}; save it as RGB or grey", channels=1)


def test_two_channels_that_nothing_calls_transparency_are_kept(tmp_path):
    written = stack((4, 20, 31, 2))
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", written, extrasamples=["unspecified"], **options)
    tifffile.imwrite(tmp_path / "b.tif", written, extrasamples=["unassalpha"], **options)
    assert np.array_equal(read(tmp_path / "a.tif"), written.transpose(0, 3, 1, 2))
    refused(tmp_path / "a.tif", "has 2 channels .*--channel", channels=1)
    assert np.array_equal(read(tmp_path / "b.tif", channels=1), written[..., 0])


def test_a_moving_png_is_not_its_first_picture(tmp_path):
    frames = [Image.fromarray(one) for one in stack((3, 20, 31))]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    refused(tmp_path / "a.png", "holds 3 pictures; save them as TIFF")
