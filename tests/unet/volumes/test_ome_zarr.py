"""OME-Zarr is read by what its `multiscales` say, as ome-zarr-py writes them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unet.volumes.stacks import refused, stack
from unet.volumes import open_volume, read_volume, write_volume

zarr = pytest.importorskip("zarr", minversion="3")
format_of = pytest.importorskip("ome_zarr.format")
writer = pytest.importorskip("ome_zarr.writer")

UNITS = {"t": "second", "z": "nanometer", "y": "nanometer", "x": "nanometer"}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def axes_of(names):
    return [
        {"name": name, "type": KINDS[name], **({"unit": UNITS[name]} if name in UNITS else {})}
        for name in names
    ]


def write(path, levels, axes, version="0.5", scale=None):
    form = {"0.4": format_of.FormatV04, "0.5": format_of.FormatV05}[version]()
    group = zarr.open_group(str(path), mode="w", zarr_format=form.zarr_format)
    step = scale or {}
    changes = [
        [
            {
                "type": "scale",
                "scale": [step.get(axis, 1.0) * (2**k if axis in "yx" else 1) for axis in axes],
            }
        ]
        for k in range(len(levels))
    ]
    writer.write_multiscale(
        levels, group, fmt=form, axes=axes_of(axes), coordinate_transformations=changes
    )
    return group


def pyramid(array, count=4):
    return [np.ascontiguousarray(array[..., :: 2**k, :: 2**k]) for k in range(count)]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_finest_level_of_a_pyramid_is_the_stack_and_others_are_chosen(tmp_path, version):
    levels = pyramid(stack((5, 64, 96)))
    write(tmp_path / "a.zarr", levels, "zyx", version, {"z": 50.0, "y": 4.0, "x": 4.0})
    for level in (None, 0, 2, 3):
        with open_volume(tmp_path / "a.zarr", level=level) as volume:
            assert np.array_equal(volume[:], levels[level or 0])
            step = 4.0 * 2 ** (level or 0)
            assert volume.calibration.pixel_size == (50.0, step, step)
            assert volume.calibration.unit == "nm"
    refused(tmp_path / "a.zarr", "--level 4: there is level 0 to 3", level=4)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_first_are_channels(tmp_path, version):
    array = stack((3, 1, 20, 31))
    write(tmp_path / "a.zarr", [array], "czyx", version)
    assert np.array_equal(read_volume(tmp_path / "a.zarr"), array[:, 0][None])
    with open_volume(tmp_path / "a.zarr", channel=2, channels=1) as volume:
        assert np.array_equal(volume[:], array[2])
    refused(tmp_path / "a.zarr", "has 3 channels.*--channel", channels=1)
    refused(tmp_path / "a.zarr", "--channel 3: there is channel 0 to 2", channel=3)


def test_one_channel_of_many_slices_has_no_channels(tmp_path):
    array = stack((1, 5, 20, 31))
    write(tmp_path / "a.zarr", [array], "czyx")
    with open_volume(tmp_path / "a.zarr", channels=1) as volume:
        assert np.array_equal(volume[:], array[0])
        assert volume.calibration.axes == "ZYX"


def test_time_points_follow_each_other_and_are_chosen(tmp_path):
    array = stack((2, 3, 4, 20, 31))
    write(tmp_path / "a.zarr", [array], "tczyx", scale={"t": 30.0, "z": 5.0, "y": 2.0, "x": 2.0})
    with open_volume(tmp_path / "a.zarr") as volume:
        assert np.array_equal(volume[:], np.moveaxis(array, 1, 2).reshape(8, 3, 20, 31))
        assert volume.calibration.times == 2
        assert volume.calibration.pixel_size == (5.0, 2.0, 2.0)
    with open_volume(tmp_path / "a.zarr", time=1, channel=2) as volume:
        assert np.array_equal(volume[:], array[1, 2])
        assert volume.calibration.pixel_size == (5.0, 2.0, 2.0)


def test_time_stays_time(tmp_path):
    write(tmp_path / "a.zarr", [stack((6, 20, 31))], "tyx", scale={"t": 30.0, "y": 2.0, "x": 2.0})
    with open_volume(tmp_path / "a.zarr") as volume:
        known = volume.calibration
    assert (known.axes, known.interval, known.interval_unit) == ("TYX", 30.0, "s")
    assert (known.pixel_size, known.unit) == ((None, 2.0, 2.0), "nm")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_no_rival_of_the_picture_and_are_named(tmp_path, version):
    array = stack((5, 64, 96))
    group = write(tmp_path / "a.zarr", pyramid(array, 2), "zyx", version)
    cells = (array > 100).astype(np.uint16)
    writer.write_multiscale_labels(pyramid(cells, 2), group, name="cells", axes=axes_of("zyx"))
    assert np.array_equal(read_volume(tmp_path / "a.zarr"), array)
    assert np.array_equal(read_volume(f"{tmp_path}/a.zarr:/labels/cells"), cells)
    assert np.array_equal(read_volume(f"{tmp_path}/a.zarr/labels/cells"), cells)
    assert np.array_equal(read_volume(f"{tmp_path}/a.zarr:/labels/cells/s1"), cells[:, ::2, ::2])


def test_a_level_that_is_named_has_the_axes_of_its_pyramid(tmp_path):
    array = stack((3, 1, 64, 96))
    write(tmp_path / "a.zarr", pyramid(array, 2), "czyx", scale={"y": 4.0, "x": 4.0})
    for name in (f"{tmp_path}/a.zarr:/s1", f"{tmp_path}/a.zarr/s1"):
        with open_volume(name) as volume:
            assert np.array_equal(volume[:], array[:, 0, ::2, ::2][None])
            assert volume.calibration.pixel_size[1:] == (8.0, 8.0)


def test_several_pictures_are_asked_for_and_chosen_by_number_or_name(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name, seed in (("0", 0), ("1", 1)):
        write(tmp_path / "a.zarr" / name, [stack((5, 20, 31), seed=seed)], "zyx")
    refused(tmp_path / "a.zarr", "holds 2 pictures .*--scene")
    for scene in (1, "1"):
        with open_volume(tmp_path / "a.zarr", scene=scene) as volume:
            assert np.array_equal(volume[:], stack((5, 20, 31), seed=1))
    refused(tmp_path / "a.zarr", "--scene well: there is scene 0 to 1", scene="well")


def test_axes_that_zarr_itself_names(tmp_path):
    array = stack((3, 2, 20, 31))
    stored = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=array.shape,
        dtype="u1",
        chunks=(1, 1, 20, 31),
        dimension_names=("c", "z", "y", "x"),
    )
    stored[...] = array
    assert np.array_equal(read_volume(tmp_path / "a.zarr"), np.moveaxis(array, 0, 1))


def test_levels_without_metadata_are_asked_for(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for k, level in enumerate(pyramid(stack((5, 64, 96)), 3)):
        group.create_array(f"s{k}", data=level)
    refused(tmp_path / "a.zarr", r"several stacks \(/s0, /s1, /s2\); name one: .*:/s0")


def test_a_part_of_a_slice_reads_the_chunks_it_touches(tmp_path, monkeypatch):
    array = stack((4, 64, 96))
    stored = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=array.shape, dtype="u1", chunks=(2, 16, 16)
    )
    stored[...] = array
    asked = []
    get = zarr.storage.LocalStore.get

    async def count(self, key, *args, **options):
        asked.append(key)
        return await get(self, key, *args, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", count)
    with open_volume(tmp_path / "a.zarr") as volume:
        asked.clear()
        for z in (0, 1):
            part = volume.region(z, slice(10, 20), slice(33, 47))
            assert np.array_equal(part, array[z, 10:20, 33:47])
    # Both slices lie in the same chunks, which are decoded once.
    assert sorted(key for key in asked if "/c/" in f"/{key}") == ["c/0/0/2", "c/0/1/2"]


@pytest.mark.parametrize("form", [2, 3])
def test_a_picture_stays_where_it_lies(tmp_path, form):
    levels = pyramid(stack((5, 64, 96)), 2)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=form)
    for k, level in enumerate(levels):
        group.create_array(str(k), data=level)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [2.0, 0.5 * 2**k, 0.5 * 2**k]},
                {"type": "translation", "translation": [10.0, 20.0 + 0.25 * k, 30.0 + 0.25 * k]},
            ],
        }
        for k in range(2)
    ]
    # Those of all levels come after those of each.
    moved = [{"type": "translation", "translation": [1.0, 0.0, 0.0]}]
    entry = {"axes": axes, "datasets": datasets, "coordinateTransformations": moved}
    named = {"multiscales": [{"version": "0.4", **entry}]}
    group.attrs.update(named if form == 2 else {"ome": {"version": "0.5", "multiscales": [entry]}})
    for level, origin in enumerate([(11.0, 20.0, 30.0), (11.0, 20.25, 30.25)]):
        with open_volume(tmp_path / "a.zarr", level=level) as volume:
            assert volume.calibration.origin == origin
            part = volume.calibration.of_slices(range(2, 5), 5)
            out = tmp_path / f"{level}.zarr"
            write_volume(out, volume[2:5], calibration=part, zarr_format=form)
        reader = pytest.importorskip("ome_zarr.reader")
        (image,) = reader.Reader(pytest.importorskip("ome_zarr.io").parse_url(str(out)))()
        first = image.metadata["coordinateTransformations"][0]
        assert first[1] == {"type": "translation", "translation": [15.0, *origin[1:]]}
