"""A level, channel, time point or scene of a file that holds several: programs take it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

import caffe
import unet
from unet.command import prepare, score, segment, track, train
from unet.errors import InputError
from unet.experiment.options import ExperimentOptions
from unet.network import nets
from unet.preparation.prepare import opened
from unet.preparation.training_set import TrainingSet
from unet.segmentation import write

# Time points, slices, channels, height, width.
SHAPE = (3, 2, 2, 24, 28)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 250, SHAPE).astype(np.uint8)


@pytest.fixture
def labels():
    """Of each time point other cells."""
    truth = np.zeros((*SHAPE[:2], *SHAPE[-2:]), np.uint8)
    for t in range(SHAPE[0]):
        truth[t, :, 2 + t : 20, 3:25] = 255
        truth[t, :, :, 13 + t] = 0
    return truth


@pytest.fixture
def save(tmp_path):
    def write(name, stack, axes):
        metadata, path = {"axes": axes}, tmp_path / name
        tifffile.imwrite(path, stack, ome=True, metadata=metadata, photometric="minisblack")
        return str(path)

    return write


def taken(path):
    with TrainingSet(path) as got:
        raw = np.stack([got.raw(z) for z in range(got.shape[0])])
        return np.rint(raw * 255).astype(int), np.stack(
            [got.labels(z) for z in range(got.shape[0])]
        )


def pyramid(path, levels, axes):
    """Write an OME-Zarr by zarr alone."""
    zarr = pytest.importorskip("zarr", minversion="3")
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    entry = {"version": "0.4", "axes": [{"name": axis, "type": "space"} for axis in axes]}
    entry["datasets"] = [{"path": str(k)} for k in range(len(levels))]
    for k, level in enumerate(levels):
        root.create_array(str(k), data=level)
        scale = [1.0] * (len(axes) - 2) + [2.0**k] * 2
        change = {"type": "scale", "scale": scale}
        entry["datasets"][k]["coordinateTransformations"] = [change]
    root.attrs["multiscales"] = [entry]
    return str(path)


def test_a_training_set_of_one_channel_and_time_point(save, tmp_path, pictures, labels):
    stack = save("pictures.ome.tif", pictures, "TZCYX")
    truth = save("labels.tif", labels[1], "ZYX")
    flags = ["--channel", "1", "--time", "1"]
    prepare.main([stack, truth, "-o", str(tmp_path / "set.h5"), *flags])
    raw, classes = taken(tmp_path / "set.h5")
    assert np.array_equal(raw[:, 0], pictures[1, :, 1])
    assert np.array_equal(classes, labels[1] > 0)
    with TrainingSet(tmp_path / "set.h5") as got:
        assert (got.attributes["channel"], got.attributes["time"]) == (1, 1)


def test_labels_of_several_time_points_give_the_same_one(save, tmp_path, pictures, labels):
    stack = save("pictures.ome.tif", pictures, "TZCYX")
    truth = save("labels.ome.tif", labels, "TZYX")
    unet.prepare(stack, truth, tmp_path / "set.h5", channel=0, time=2)
    raw, classes = taken(tmp_path / "set.h5")
    assert np.array_equal(raw[:, 0], pictures[2, :, 0])
    assert np.array_equal(classes, labels[2] > 0)


def test_a_training_set_of_a_coarser_level(tmp_path, pictures, labels):
    levels = [pictures[0, :, 0], pictures[0, :, 0, ::2, ::2]]
    stack = pyramid(tmp_path / "pictures.zarr", levels, "zyx")
    truth = pyramid(tmp_path / "labels.zarr", [labels[0], labels[0, :, ::2, ::2]], "zyx")
    unet.prepare(stack, truth, tmp_path / "set.h5", level=1)
    raw, classes = taken(tmp_path / "set.h5")
    assert np.array_equal(raw[:, 0], levels[1])
    assert np.array_equal(classes, labels[0, :, ::2, ::2] > 0)


def test_a_training_set_of_one_scene(tmp_path, pictures, labels):
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, part in (("left", pictures[0, :, 0]), ("right", pictures[1, :, 1, :, :20])):
            tiff.write(part, metadata={"axes": "ZYX", "Name": name}, photometric="minisblack")
    truth = labels[0, :, :, :20]
    unet.prepare(path, truth, tmp_path / "set.h5", scene="right")
    raw, classes = taken(tmp_path / "set.h5")
    assert np.array_equal(raw[:, 0], pictures[1, :, 1, :, :20])
    assert np.array_equal(classes, truth > 0)


def test_train_takes_the_same_parts(save, tmp_path, pictures, labels, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "train", lambda *paths, **options: asked.append((paths, options)))
    stack = save("pictures.ome.tif", pictures, "TZCYX")
    truth = save("labels.ome.tif", labels, "TZYX")
    train.main([stack, truth, "-o", str(tmp_path / "run"), "--channel", "1", "--time", "2"])
    ((stack, truth, _), options) = asked[0]
    del options["command"]
    with opened(stack, truth, ExperimentOptions.of(**options).labels) as pair:
        assert np.array_equal(pair.raw[:], pictures[2, :, 1])
        assert np.array_equal(pair.labels[:], labels[2])


@pytest.mark.parametrize(
    "option, said",
    [
        ({"time": 3}, r"pictures\.ome\.tif: --time 3: there is time 0 to 2"),
        ({"level": 1}, r"pictures\.ome\.tif: --level 1: there is level 0 only"),
        ({"channel": 7}, r"--channel 7: there is channel 0 to 1"),
    ],
)
def test_parts_that_the_pictures_lack_are_refused(save, tmp_path, pictures, labels, option, said):
    stack = save("pictures.ome.tif", pictures, "TZCYX")
    with pytest.raises(InputError, match=said):
        unet.prepare(stack, labels[0], tmp_path / "set.h5", **option)
    assert not (tmp_path / "set.h5").exists()


def test_arrays_and_sequences_have_no_parts_to_choose(tmp_path, pictures, labels):
    with pytest.raises(InputError, match="--time is for files: choose a part by an index"):
        unet.prepare(pictures[0, :, 0], labels[0], tmp_path / "set.h5", time=0)
    (tmp_path / "01").mkdir()
    (tmp_path / "01_GT" / "SEG").mkdir(parents=True)
    with pytest.raises(InputError, match="--time is for stacks"):
        unet.prepare(tmp_path / "01", None, tmp_path / "set.h5", time=0)


def test_scores_are_those_of_the_part(save, tmp_path, labels):
    noise = np.random.default_rng(1).random(labels.shape)
    inside = (0.6 * (labels > 0) + 0.4 * noise).astype(np.float32)
    several = np.stack([1 - inside, inside], 2)
    expected = unet.score(labels[1], inside[1], warping=False)
    all_truth, all_found = save("truth.tif", labels, "TZYX"), save("all.tif", several, "TZCYX")
    one_truth, one_found = save("truth1.tif", labels[1], "ZYX"), save("one.tif", inside[1], "ZYX")
    for truth, found, part in (
        (all_truth, all_found, {"time": 1, "channel": 1}),
        (one_truth, all_found, {"time": 1, "channel": 1}),
        (all_truth, one_found, {"time": 1}),
    ):
        flags = [f"--{name}={one}" for name, one in part.items()]
        json_file = tmp_path / "scores.json"
        score.main([truth, found, "--no-warping", "--json", str(json_file), "--overwrite", *flags])
        written = json.loads(json_file.read_text())
        for key in ("rand_error", "pixel_error", "v_rand_thin", "slices"):
            assert written[key] == expected[key]
        assert {name: written[name] for name in part} == part


def test_scores_of_a_coarser_level_of_both(tmp_path, labels):
    inside = np.where(labels[0] > 0, 0.9, 0.2).astype(np.float32)
    inside[:, 5:9, 6:12] = 0.1
    truth = pyramid(tmp_path / "truth.zarr", [labels[0], labels[0, :, ::2, ::2]], "zyx")
    found = pyramid(tmp_path / "found.zarr", [inside, inside[:, ::2, ::2]], "zyx")
    got = unet.score(truth, found, level=1, warping=False)
    expected = unet.score(labels[0, :, ::2, ::2], inside[:, ::2, ::2], warping=False)
    assert (got["height"], got["width"]) == (12, 14)
    assert got["pixel_error"] == expected["pixel_error"] > 0


def test_what_neither_has_several_of_is_refused(save, labels):
    truth = save("truth.tif", labels[0], "ZYX")
    found = save("found.tif", (labels[0] > 0).astype(np.float32), "ZYX")
    with pytest.raises(InputError, match=r"--time 1: neither .*truth\.tif nor .*found\.tif has"):
        unet.score(truth, found, time=1)


def test_tracks_are_of_the_part(save, tmp_path):
    cells = np.zeros((2, 3, 24, 28), np.uint8)
    for t in range(3):
        cells[0, t, 4:9, 3 + t : 9 + t] = 3
        cells[1, t, 12:20, 9 + t : 19 + t] = 5
    several = save("cells.ome.tif", cells.swapaxes(0, 1), "TCYX")
    track.main([several, "-o", str(tmp_path / "RES"), "--channel", "1"])
    found = np.stack([tifffile.imread(tmp_path / "RES" / f"mask{t:03d}.tif") for t in range(3)])
    assert np.array_equal(found > 0, cells[1] > 0)
    levels = pyramid(tmp_path / "cells.zarr", [cells[0], cells[0, :, ::2, ::2]], "tyx")
    assert np.array_equal(unet.track(levels, level=1).masks > 0, cells[0, :, ::2, ::2] > 0)
    with pytest.raises(InputError, match=r"cells\.ome\.tif: --time 3: there is time 0 to 2"):
        unet.track(several, channel=0, time=3)


def test_tracks_through_several_depths_are_refused(save, labels):
    cells = save("cells.ome.tif", labels, "TZYX")
    with pytest.raises(InputError, match=r"holds 3 time points of 2 depths, and cells are"):
        unet.track(cells, label_kind="binary")


@pytest.mark.parametrize("several", [True, False], ids=["truth of all", "truth of one"])
def test_the_truth_in_an_overlay_is_of_the_same_part(
    save, tmp_path, pictures, labels, small_model, monkeypatch, several
):
    stack = save("pictures.ome.tif", pictures, "TZCYX")
    truth = save("truth.tif", labels if several else labels[1], "TZYX" if several else "ZYX")
    drawn = []
    monkeypatch.setattr(
        write,
        "save_overlay",
        lambda path, image, found, known: (drawn.append(known), path.write_bytes(b"PNG")),
    )
    part = ["--channel", "1", "--time", "1"]
    given = ["--weights", str(small_model), "--device", "cpu", "-o", str(tmp_path / "out.tif")]
    picture = ["--overlay", str(tmp_path / "drawn"), "--truth", truth]
    segment.main([stack, *given, *picture, *part])
    assert np.array_equal(np.stack(drawn), labels[1])


def test_a_truth_of_other_time_points_is_refused(save, tmp_path, pictures, labels, small_model):
    stack = save("pictures.ome.tif", pictures, "TZCYX")
    truth = save("truth.tif", labels[:2], "TZYX")
    given = ["--weights", str(small_model), "--device", "cpu", "-o", str(tmp_path / "out.tif")]
    picture = ["--overlay", str(tmp_path / "drawn"), "--truth", truth]
    with pytest.raises(InputError, match=r"truth\.tif: --time 2: there is time 0 to 1"):
        segment.main([stack, *given, *picture, "--channel", "1", "--time", "2"])


@pytest.fixture
def small_model(tmp_path, monkeypatch):
    """Return a model folder, of a network of two maps."""
    monkeypatch.setitem(nets.WIDTHS, "tiny", 2)
    (tmp_path / "model").mkdir()
    deploy = tmp_path / "model" / "deploy.prototxt"
    deploy.write_text(str(nets.deploy_net("tiny")))
    caffe.set_mode_cpu()
    caffe.Net(str(deploy), caffe.TEST).save(str(tmp_path / "model" / "weights.caffemodel"))
    return tmp_path / "model"
