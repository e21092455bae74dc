"""A stack of time points with depths comes out as one, however it was computed."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import caffe
import unet.model.model
from tests.unet.command.test_segment_resumed import content, one_worker, stopped_after  # noqa: F401
from tests.unet.watched import watch
from unet.command import segment
from unet.network import nets
from unet.volumes import open_volume, read_volume

SHAPE = (2, 3, 40, 50)
OUTPUTS = ["-o", "out.tif", "--classes", "classes.h5", "--instances", "cells.zarr"]
ZARR = ["-o", "out.zarr", "--instances", "cells.tif", "--classes", "classes"]


def pixels(channels: int = 1) -> np.ndarray:
    shape = SHAPE if channels == 1 else (*SHAPE[:2], channels, *SHAPE[2:])
    return np.random.default_rng(0).random(shape, np.float32)


def model_of(channels: int, folder: Path) -> Path:
    """Return a model folder of a network of two maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nets.WIDTHS, "tiny", 2)
        text = str(nets.deploy_net("tiny"))
    if channels > 1:
        text = text.replace("dim: 1\n", f"dim: {channels}\n", 2).replace(
            f"dim: {channels}\n", "dim: 1\n", 1
        )
    (folder / "deploy.prototxt").write_text(text)
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    assert net.blobs["data"].shape[1] == channels
    net.save(str(folder / "weights.caffemodel"))
    return folder


@pytest.fixture(scope="module", params=[1, 3], ids=["TZYX", "TZCYX"])
def channels(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def model(channels, tmp_path_factory) -> Path:
    return model_of(channels, tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(model, channels, tmp_path, monkeypatch):
    """Return what runs the program here, on a stack of OME; gives how many slices it computed."""
    monkeypatch.chdir(tmp_path)
    metadata = {"axes": "TZYX" if channels == 1 else "TZCYX", "TimeIncrement": 2.5}
    metadata.update(PhysicalSizeZ=0.5, PhysicalSizeY=0.1, PhysicalSizeX=0.1)
    tifffile.imwrite("stack.ome.tif", pixels(channels), ome=True, metadata=metadata)
    computed = []
    watch(monkeypatch, computed.append)

    def call(*words: str) -> int:
        computed.clear()
        fixed = ["--weights", str(model), "--device", "cpu", "--grey", "0", "1"]
        stack = [] if words and words[0].endswith((".tif", ".h5")) else ["stack.ome.tif"]
        segment.main([*stack, *words, *fixed])
        return len(computed)

    return call


def test_all_outputs_have_the_axes_and_steps_of_the_stack(run):
    run(*OUTPUTS)
    with tifffile.TiffFile("out.tif") as tiff:
        assert (tiff.series[0].axes, tiff.series[0].shape) == ("TZYX", SHAPE)
        assert tiff.imagej_metadata["spacing"] == 0.5
        assert tiff.imagej_metadata["finterval"] == 2.5
        probabilities = tiff.asarray()
    with h5py.File("classes.h5") as file:
        assert file["volume"].shape == SHAPE
        np.testing.assert_array_equal(file["volume"][()], probabilities > 0.5)
    for name in ("out.tif", "classes.h5", "cells.zarr"):
        with open_volume(name) as volume:
            known = volume.calibration
            assert (known.times, known.interval) == (2, 2.5)
            assert known.pixel_size == pytest.approx((0.5, 0.1, 0.1))


def test_they_are_those_of_the_slices_one_by_one(run, channels):
    run(*OUTPUTS)
    axes = "ZYX" if channels == 1 else "ZCYX"
    slices = pixels(channels).reshape(-1, *pixels(channels).shape[2:])
    tifffile.imwrite("run.tif", slices, ome=True, metadata={"axes": axes})
    run("run.tif", "-o", "one.tif", "--classes", "one.h5", "--instances", "one.zarr")
    for name, other in (
        ("out.tif", "one.tif"),
        ("classes.h5", "one.h5"),
        ("cells.zarr", "one.zarr"),
    ):
        np.testing.assert_array_equal(read_volume(name), read_volume(other))
    assert read_volume("cells.zarr").max() > 0


@pytest.mark.parametrize(
    ("slices", "axes", "shape"),
    [("3:6", "ZYX", SHAPE[1:]), ("0:2", "ZYX", (2, 40, 50)), ("1:5", "ZYX", (4, 40, 50))],
)
def test_slices_count_through_all_time_points(run, slices, axes, shape):
    run("-o", "all.tif")
    run("-o", "out.tif", "--slices", slices)
    with tifffile.TiffFile("out.tif") as tiff:
        assert (tiff.series[0].axes, tiff.series[0].shape) == (axes, shape)
    first, stop = map(int, slices.split(":"))
    np.testing.assert_array_equal(read_volume("out.tif"), read_volume("all.tif")[first:stop])
    with open_volume("out.tif") as volume:
        # From one time point to the next it is no step in z.
        assert (volume.calibration.pixel_size[0] is None) == (slices == "1:5")


@pytest.mark.parametrize("words", [OUTPUTS, ZARR], ids=["files", "zarr"])
@pytest.mark.parametrize("how", ["whole", "in blocks", "by workers"])
def test_stopped_and_gone_on_with_it_is_the_same(run, one_worker, monkeypatch, words, how):  # noqa: F811
    if how == "in blocks":
        monkeypatch.setattr(unet.model.model, "choose_block", lambda *_: (32, 32))
    run(*words)
    whole = [content(name) for name in words[1::2]]
    Path("whole").mkdir()
    for name in words[1::2]:
        os.replace(name, Path("whole", name))
    stopped_after(4, monkeypatch, run, *words)
    more = ["--workers", "2"] if how == "by workers" else []
    total = SHAPE[0] * SHAPE[1] * (4 if how == "in blocks" else 1)
    computed = run(*words, *more)
    assert computed == total - 4
    assert [content(name) for name in words[1::2]] == whole


def test_names_of_pictures_say_time_and_depth(run):
    run("-o", "out", "--overlay", "drawn")
    names = [f"slice_t{t:04d}_z{z:04d}.png" for t in range(2) for z in range(3)]
    assert sorted(name for name in os.listdir("out") if name[0] != ".") == names
    assert sorted(os.listdir("drawn")) == names
