"""OME-Zarr of NGFF 0.4 and 0.5 is opened by ome-zarr-py and found valid by ome-zarr-models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.unet.volumes.stacks import stack
from unet.errors import InputError
from unet.volumes import Calibration, open_volume, write_volume

zarr = pytest.importorskip("zarr")

NEWEST = 2 if zarr.__version__.startswith("2.") else 3
FORMATS = [2] if NEWEST == 2 else [2, 3]
NOTE = {"weights": "sha256:abc", "tile": [388, 388]}


def read_with_ome_zarr(path):
    """Return the node that ome-zarr-py makes of the image; its data are the levels, of Dask."""
    io, reader = pytest.importorskip("ome_zarr.io"), pytest.importorskip("ome_zarr.reader")
    (node,) = reader.Reader(io.parse_url(str(path)))()
    return node


def validate(path, kind):
    """Return what ome-zarr-models reads, which refuses what breaks the specification."""
    models = pytest.importorskip("ome_zarr_models")
    group = zarr.open_group(str(path), mode="r")
    version = models.v04 if group.metadata.zarr_format == 2 else models.v05
    return getattr(version, kind).from_zarr(group)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("axes", "stored", "steps", "units"),
    [
        ("ZYX", "zyx", [50, 4, 5], ["nanometer"] * 3),
        ("TYX", "tzyx", [1.5, 50, 4, 5], ["minute", *["nanometer"] * 3]),
        ("ZCYX", "czyx", [1, 50, 4, 5], [None, *["nanometer"] * 3]),
        ("TCYX", "tczyx", [1.5, 1, 50, 4, 5], ["minute", None, *["nanometer"] * 3]),
    ],
)
def test_axes_sizes_and_pixels(tmp_path, form, axes, stored, steps, units):
    values = stack((3, 2, 20, 31) if "C" in axes else (3, 20, 31), "float32")
    calibration = Calibration(axes, (50, 4, 5), "nm", 1.5, "min")
    write_volume(tmp_path / "a.zarr", values, calibration=calibration, zarr_format=form)
    validate(tmp_path / "a.zarr", "Image")
    node = read_with_ome_zarr(tmp_path / "a.zarr")
    assert [axis["name"] for axis in node.metadata["axes"]] == list(stored)
    assert [axis.get("unit") for axis in node.metadata["axes"]] == units
    assert node.metadata["coordinateTransformations"] == [[{"type": "scale", "scale": steps}]]
    expected = np.moveaxis(values, 1, 0) if stored == "czyx" else values
    expected = expected[..., None, :, :] if axes[0] == "T" else expected
    np.testing.assert_array_equal(node.data[0].compute(), expected)
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume[:], values)
        # Slices in depth have no interval.
        known = calibration if axes[0] == "T" else Calibration(axes, (50, 4, 5), "nm")
        assert volume.calibration == known


@pytest.mark.parametrize("form", FORMATS)
def test_time_points_of_unknown_depth_have_no_z(tmp_path, form):
    calibration = Calibration("TYX", (None, 4, 5), "nm", 1.5, "min")
    write_volume(tmp_path / "a.zarr", stack(), calibration=calibration, zarr_format=form)
    validate(tmp_path / "a.zarr", "Image")
    node = read_with_ome_zarr(tmp_path / "a.zarr")
    assert [axis["name"] for axis in node.metadata["axes"]] == ["t", "y", "x"]
    with open_volume(tmp_path / "a.zarr") as volume:
        assert volume.calibration == calibration


@pytest.mark.parametrize("form", FORMATS)
def test_a_pyramid_of_means(tmp_path, form):
    values = stack((2, 700, 601), "float32")
    calibration = Calibration("ZYX", (50, 4, 5), "nm")
    write_volume(tmp_path / "a.zarr", values, calibration=calibration, zarr_format=form)
    validate(tmp_path / "a.zarr", "Image")
    node = read_with_ome_zarr(tmp_path / "a.zarr")
    assert [level.shape for level in node.data] == [(2, 700, 601), (2, 350, 301), (2, 175, 151)]
    first = node.data[1].compute()
    means = values[:, :, :600].reshape(2, 350, 2, 300, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(first[..., :300], means, rtol=1e-6)
    edge = values[:, :, 600].reshape(2, 350, 2).mean(axis=2)
    np.testing.assert_allclose(first[..., 300], edge, rtol=1e-6)
    scale, shift = node.metadata["coordinateTransformations"][2]
    assert scale == {"type": "scale", "scale": [50, 16, 20]}
    # Four pixels of 4 nm have their middle 1.5 pixels behind that of the first.
    assert shift == {"type": "translation", "translation": [0, 6, 7.5]}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["bool", "uint16"])
def test_labels_are_labels_and_never_averaged(tmp_path, form, dtype):
    values = stack((2, 600, 300), "uint16")
    values = values > 100 if dtype == "bool" else values
    write_volume(tmp_path / "a.zarr", values, labels=True, zarr_format=form)
    validate(tmp_path / "a.zarr", "ImageLabel")
    node = read_with_ome_zarr(tmp_path / "a.zarr")
    assert "Label" in [type(spec).__name__ for spec in node.specs]
    # NGFF demands integers.
    assert node.data[0].dtype.kind == "u"
    np.testing.assert_array_equal(node.data[0].compute(), values)
    np.testing.assert_array_equal(node.data[1].compute(), values[:, ::2, ::2])


def test_means_of_integers_are_rounded(tmp_path):
    values = np.zeros((1, 600, 2), np.uint8)
    values[0, :2] = [[1, 2], [2, 2]]
    write_volume(tmp_path / "a.zarr", values)
    level = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["1"]
    assert level.dtype == np.uint8
    assert level[0, 0, 0] == 2


@pytest.mark.parametrize("form", FORMATS)
def test_chunks_are_blocks_of_one_channel_packed_by_zstd(tmp_path, form):
    values = np.zeros((2, 3, 600, 500), np.uint8)
    values[:, 0] = 1
    options = {"calibration": Calibration("ZCYX"), "blocks": (256, 512), "zarr_format": form}
    write_volume(tmp_path / "a.zarr", values, **options)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert [group[name].chunks for name in "012"] == [(1, 1, 256, 500), (1, 1, 256, 250)] + [
        (1, 1, 150, 125)
    ]
    folder = tmp_path / "a.zarr" / "0"
    packed = json.loads((folder / (".zarray" if form == 2 else "zarr.json")).read_text())
    if form == 2:
        assert packed["compressor"]["cname"] == "zstd"
        assert packed["dimension_separator"] == "/"
    else:
        (blosc,) = (codec for codec in packed["codecs"] if codec["name"] == "blosc")
        assert blosc["configuration"]["cname"] == "zstd"
        assert packed["dimension_names"] == ["c", "z", "y", "x"]
    files = [file for file in (tmp_path / "a.zarr" / "0").rglob("[0-9]*") if file.is_file()]
    # The channels of zeros are not stored; zarr 2 stores them.
    assert len(files) == (2 * 3 if NEWEST == 3 else 2 * 3 * 3)
    assert max(file.stat().st_size for file in files) < 256 * 500 // 20


@pytest.mark.parametrize("form", FORMATS)
def test_provenance_is_an_attribute(tmp_path, form):
    write_volume(tmp_path / "a.zarr", stack(), note=NOTE, zarr_format=form)
    attributes = dict(zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs)
    assert attributes["provenance"] == NOTE
    assert attributes["complete"] is True
    version = attributes["multiscales"][0] if form == 2 else attributes["ome"]
    assert version["version"] == {2: "0.4", 3: "0.5"}[form]


def test_the_newest_format_that_zarr_writes_is_the_default(tmp_path):
    write_volume(tmp_path / "a.zarr", stack())
    assert (tmp_path / "a.zarr" / "zarr.json").exists() == (NEWEST == 3)


def test_a_format_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match="Zarr has the formats 2 and 3, not 4"):
        write_volume(tmp_path / "a.zarr", stack(), zarr_format=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_until_it_is_whole_a_store_in_its_place_says_so(tmp_path, form):
    from unet.files.provenance import STACK, may_replace
    from unet.volumes.writers.layout import Layout
    from unet.volumes.writers.ome_zarr import create_store, note_complete, open_store, write_levels

    values = stack((2, 600, 500))
    path = tmp_path / "a.zarr"
    layout = Layout(path, values.shape, values.dtype, blocks=(256, 256), zarr_format=form)
    create_store(path, layout)
    open_store(path, layout)(1, slice(256, 512), slice(0, 256), values[1, 256:512, :256])
    # Another process.
    put = open_store(path, layout)
    put(0, slice(0, 600), slice(0, 500), values[0])
    validate(path, "Image")
    group = zarr.open_group(str(path), mode="r")
    assert group.attrs["complete"] is False
    assert list(group.array_keys()) == ["0"]
    np.testing.assert_array_equal(group["0"][0], values[0])
    np.testing.assert_array_equal(group["0"][1, 256:512, :256], values[1, 256:512, :256])
    assert may_replace(path, STACK)
    put(1, slice(0, 600), slice(0, 500), values[1])
    write_levels(path, layout)
    note_complete(path, layout)
    write_volume(tmp_path / "whole" / "a.zarr", values, blocks=(256, 256), zarr_format=form)
    whole, in_place = (
        {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
        for folder in (tmp_path / "whole" / "a.zarr", path)
    )
    assert whole == in_place
