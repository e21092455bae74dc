"""A run that begins as a trained network: with its shape, its weights, and further than without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
import unet
from caffe.proto import caffe_pb2
from tests.plain_caffe_unet import PluginModel
from tests.unet.model.test_adapt import write_model
from unet.datasets.phantom import phantom
from unet.errors import InputError

STACK, LABELS = phantom(slices=4, size=64, seed=2)
HOW = dict(iterations=4, device="cpu", precision="fp32")
NEEDLESS = (
    ("unet.training.history.draw_curves", lambda rows, path: None),
    ("unet.experiment.run.write_report", lambda path: None),
    ("unet.experiment.settle.with_preview", lambda summary, *_: summary),
    ("unet.experiment.judge.save_overlay", lambda *_: None),
)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Spare the seconds that pictures take."""
    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in NEEDLESS:
            patch.setattr(name, stand_in)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a model folder of a small network that is drawn at random."""
    return write_model(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "mine"
    return unet.train(STACK, LABELS, output, from_model=model, **HOW)


def test_few_steps_from_a_trained_network_beat_as_many_from_nothing(tmp_path):
    how = dict(HOW, iterations=2)
    tuned = unet.train(STACK, LABELS, tmp_path / "tuned", from_model="isbi2012_slim", **how)
    scratch = unet.train(STACK, LABELS, tmp_path / "scratch", levels=4, **how)
    assert tuned.choices["net"] == scratch.choices["net"]
    assert tuned.scores["pixel_error"] < 0.5 * scratch.scores["pixel_error"]


def test_its_shape_is_the_models_and_what_was_done_is_said(model, trained):
    net = {key: trained.choices["net"][key] for key in ("levels", "maps", "padded")}
    assert net == {"levels": 2, "maps": 2, "padded": False}
    said = "model: layer 'conv_d0a-b' is kept; layer 'conv_u0d-score' is kept"
    folder = Path(trained.folder)
    for name in ("README.md", "run.log"):
        assert said in (folder / name).read_text()
    assert json.loads((folder / "choices.json").read_text())["from"]["model"] == str(model)


def test_the_model_as_it_is_is_judged_beside_what_it_became(trained):
    networks = dict(trained.choices["networks"])
    score = networks.pop("score")
    assert next(iter(networks)) == "model as it is"
    assert trained.scores[score] == min(networks.values())
    assert networks[trained.choices["kept"]] == trained.scores[score]


def test_a_model_that_training_made_worse_is_kept_as_it_is_and_that_is_said(tmp_path):
    # So high a rate leaves nothing of what it knew.
    how = dict(HOW, iterations=2, from_model="isbi2012_slim", rate=0.3)
    tuned = unet.train(STACK, LABELS, tmp_path / "mine", **how)
    assert tuned.choices["kept"] == "isbi2012_slim as it is"
    kept, shipped = (unet.load(one, device="cpu") for one in (tmp_path / "mine", "isbi2012_slim"))
    given, wanted = (one.segment(STACK[:1], tta="none") for one in (kept, shipped))
    np.testing.assert_allclose(given, wanted, atol=1e-6)
    said = "note: isbi2012_slim as it is was better on what was held out (rand_error"
    assert said in (tmp_path / "mine" / "run.log").read_text()
    # Gone on with, there is nothing left to do, and nothing else is kept.
    assert unet.train(STACK, LABELS, tmp_path / "mine", **how).scores == tuned.scores


def test_other_channels_and_classes_are_trained_and_told(model, tmp_path):
    stack = np.stack([STACK, 255 - STACK], axis=1)
    classes = np.where(LABELS > 0, 1 + (np.arange(64) > 31), 0).astype(np.uint8)
    how = dict(HOW, iterations=1, from_model=model, label_kind="classes")
    trained = unet.train(stack, classes, tmp_path / "mine", **how)
    assert trained.choices["from"]["first"] == (
        "layer 'conv_d0a-b' takes 2 channels in place of 1: the filters, divided by 2, for each"
    )
    assert trained.choices["from"]["last"] == (
        "layer 'conv_u0d-score' gives 3 classes in place of 2: it begins anew"
    )
    # A last layer that begins anew is not worth a score.
    assert "model as it is" not in trained.choices["networks"]
    assert unet.load(tmp_path / "mine", device="cpu").segment(stack[:1]).shape == (1, 3, 64, 64)


def test_a_network_of_the_plugins_editor_is_trained_on(tmp_path):
    plugin = PluginModel(tmp_path, (2, 2))
    how = dict(HOW, iterations=1, from_model=plugin.path)
    trained = unet.train(STACK, LABELS, tmp_path / "mine", **how)
    assert trained.choices["net"]["levels"] == 2
    assert trained.choices["from"]["first"].endswith(
        "is kept ('trafo_data3-d0a' is in its weights)"
    )
    assert "cells.modeldef.h5 as it is" in trained.choices["networks"]


def test_it_goes_on_when_the_model_is_gone_and_can_be_moved(model, trained, tmp_path, monkeypatch):
    shutil.copytree(model, tmp_path / "model")

    def killed(*_, **__):
        raise KeyboardInterrupt

    options = dict(from_model=tmp_path / "model", **HOW)
    with monkeypatch.context() as patch:
        patch.setattr("unet.experiment.run.Training", killed)
        with pytest.raises(KeyboardInterrupt):
            unet.train(STACK, LABELS, tmp_path / "killed", **options)
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "killed").rename(tmp_path / "moved")
    assert unet.train(STACK, LABELS, tmp_path / "moved", **options).scores == trained.scores


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(levels=3), "--levels 3: .*model has 2 levels"),
        (dict(maps=16), "--maps 16: .*model has 2 maps"),
        (dict(padded=True), "--padded: .*model pads no convolution"),
    ],
)
def test_another_shape_is_refused_before_anything_is_made(model, tmp_path, asked, said):
    with pytest.raises(InputError, match=said):
        unet.train(STACK, LABELS, tmp_path / "mine", from_model=model, **HOW, **asked)
    assert not (tmp_path / "mine").exists()


def test_slices_are_normalised_as_the_model_knows_them(model, trained, tmp_path):
    # Nothing beside the model says that its slices were.
    assert trained.choices["normalise"] is False
    assert json.loads(Path(trained.folder, "input.json").read_text()) == {"normalise": False}
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "input.json").write_text('{"normalise": true}')
    options = dict(from_model=tmp_path / "model", normalise=False, **HOW)
    with pytest.raises(InputError, match=r"--no-normalise: .*model has learnt from normalised"):
        unet.train(STACK, LABELS, tmp_path / "mine", **options)


def test_a_run_does_not_replace_the_model_that_it_begins_as(model):
    with pytest.raises(InputError, match="would be damaged"):
        unet.train(STACK, LABELS, model, from_model=model, overwrite=True, **HOW)
    assert (model / "weights.caffemodel").is_file()


def test_weights_that_are_missing_are_told_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no such file with weights"):
        unet.train(STACK, LABELS, tmp_path / "mine", from_model=tmp_path / "nowhere", **HOW)
    assert not (tmp_path / "mine").exists()


def test_a_network_with_batch_normalisation_is_trained_and_not_averaged(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    deploy = tmp_path / "model" / "deploy.prototxt"
    net = text_format.Parse(deploy.read_text(), caffe_pb2.NetParameter())
    place = next(k for k, layer in enumerate(net.layer) if layer.type == "ReLU")
    top = net.layer[place].bottom[0]
    norm = caffe_pb2.LayerParameter(name="norm", type="BatchNorm", bottom=[top], top=[top])
    net.layer.insert(place, norm)
    deploy.write_text(str(net))
    weights = tmp_path / "model" / "weights.caffemodel"
    caffe.Net(str(deploy), caffe.TEST, weights=str(weights)).save(str(weights))
    trained = unet.train(STACK, LABELS, tmp_path / "run", from_model=tmp_path / "model", **HOW)
    assert list(trained.choices["networks"]) == ["score", "model as it is", "stage 1, plain"]
    assert not list(Path(trained.folder).rglob("*average*"))
    said = "nothing is averaged: statistics of layers of type BatchNorm would not fit"
    assert said in Path(trained.folder, "run.log").read_text()
