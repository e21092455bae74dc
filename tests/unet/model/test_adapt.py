"""A network begins as another: what it computes stays the same where nothing has to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import caffe
from tests import caffe_unet, release2015
from tests.plain_caffe_unet import PluginModel
from tests.unet.model.test_open_net import write_plugin_model
from unet.errors import InputError
from unet.model.adapt import Pretrained, open_pretrained, write_adapted
from unet.model.open_modeldef import open_definition
from unet.model.open_net import load_net
from unet.network import nets

SIZE = 92


def write_model(folder: Path, **shape: int) -> Path:
    """Write a model folder: two levels of few maps, drawn at random."""
    folder.mkdir(exist_ok=True)
    net = nets.deploy_net("unet", **{"maps": 2, "levels": 2, "tile": SIZE, **shape})
    (folder / "deploy.prototxt").write_text(str(net))
    caffe.set_random_seed(3)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "weights.caffemodel"))
    return folder


def begin(folder: Path, pretrained: Pretrained, channels: int, classes: int) -> str:
    """Write the network of a training that begins so; return what was done to its ends."""
    folder.mkdir(exist_ok=True)
    net = nets.deploy_net(
        *("unet",),
        **dict(channels=channels, classes=classes, tile=pretrained.geometry.input_size(20)),
        body=pretrained.body(classes),
    )
    (folder / "deploy.prototxt").write_text(str(net))
    weights = folder / "weights.caffemodel"
    said = write_adapted(caffe, pretrained, folder / "deploy.prototxt", weights, 1)
    return f"{said.first}; {said.last}"


def scores(folder: Path, prototxt: str = "deploy.prototxt", weights: str = "weights.caffemodel"):
    """Return the scores of one picture, the same in each channel."""
    net, geometry = load_net(caffe, folder / prototxt, folder / weights)
    size = geometry.input_size(20)
    picture = np.random.RandomState(0).rand(size, size)
    net.blobs["data"].reshape(1, net.blobs["data"].shape[1], size, size)
    net.blobs["data"].data[...] = picture
    return net.forward(["score"])["score"].copy()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_equal_channels_give_the_answer_that_they_gave(tmp_path, before, after):
    model = write_model(tmp_path / "model", channels=before)
    said = begin(tmp_path / "new", open_pretrained(caffe, model), after, 2)
    assert f"'conv_d0a-b' takes {after} channel" in said
    assert f"in place of {before}" in said
    assert "'conv_u0d-score' is kept" in said
    given, wanted = scores(tmp_path / "new"), scores(model)
    np.testing.assert_allclose(given, wanted, atol=1e-5 * np.abs(wanted).max())


def test_other_classes_begin_anew_and_the_rest_is_kept(tmp_path):
    pretrained = open_pretrained(caffe, write_model(tmp_path / "model"))
    said = begin(tmp_path / "new", pretrained, 1, 3)
    assert "'conv_d0a-b' is kept" in said
    assert "'conv_u0d-score' gives 3 classes in place of 2: it begins anew" in said
    net, _ = load_net(caffe, *(tmp_path / "new" / name for name in
                               ("deploy.prototxt", "weights.caffemodel")))  # fmt: skip
    for name, blobs in net.params.items():
        if name != "conv_u0d-score":
            for blob, values in zip(blobs, pretrained.weights[name]):
                np.testing.assert_array_equal(blob.data, values)
    filters, biases = (blob.data for blob in net.params["conv_u0d-score"])
    assert filters.shape == (3, 2, 1, 1)
    assert not biases.any()
    np.testing.assert_array_equal(filters, pretrained.adapted(1, 3, 1).weights["conv_u0d-score"][0])
    assert not np.array_equal(filters, pretrained.adapted(1, 3, 2).weights["conv_u0d-score"][0])


@pytest.mark.parametrize("padded", [False, True])
def test_its_shape_is_read(tmp_path, padded):
    shape = dict(levels=3, maps=5, padded=padded, classes=4, channels=2, tile=96 if padded else 92)
    model = write_model(tmp_path / "model", **shape)
    found = open_pretrained(caffe, model)
    assert (found.geometry.levels, found.maps, found.padded) == (3, 5, padded)
    assert (found.channels, found.classes) == (2, 4)


@pytest.mark.parametrize("said", [True, False])
def test_how_it_was_given_intensities_is_read(tmp_path, said):
    model = write_model(tmp_path / "model")
    assert open_pretrained(caffe, model).normalised is False
    (model / "input.json").write_text(f'{{"normalise": {str(said).lower()}}}')
    assert open_pretrained(caffe, model).normalised is said


def test_the_authors_network_begins_with_its_drop_out_in_the_current_format(tmp_path):
    release = release2015.write_release(tmp_path, 2, np.zeros((1, 20, 20), np.uint8))
    pretrained = open_pretrained(caffe, release)
    begin(tmp_path / "new", pretrained, 1, 2)
    wanted = scores(release, "phseg_v5-train.prototxt", "phseg_v5.caffemodel")
    np.testing.assert_array_equal(scores(tmp_path / "new"), wanted)
    assert [one.name for one in pretrained.layers if one.type == "Dropout"] == [
        "dropout_d3c", "dropout_d4c",
    ]  # fmt: skip
    # Their rates of learning are kept, too.
    rates = [[one.lr_mult for one in layer.param] for layer in pretrained.layers if layer.param]
    assert rates == [[1, 2]] * len(pretrained.weights)


def test_a_network_of_the_plugin_keeps_its_leaky_activation(tmp_path):
    write_plugin_model(tmp_path, channels=1)
    pretrained = open_pretrained(caffe, tmp_path / "cells.modeldef.h5")
    assert pretrained.normalised is None
    begin(tmp_path / "new", pretrained, 1, 2)
    wanted = scores(tmp_path, "cells.modeldef.h5", "cells.caffemodel.h5")
    np.testing.assert_array_equal(scores(tmp_path / "new"), wanted)
    assert {one.relu_param.negative_slope for one in pretrained.layers if one.type == "ReLU"} == {
        np.float32(0.1)
    }


@pytest.mark.parametrize(
    ("change", "channels"),
    [("offset { v: -0.5 }", 1), ("offset { v: -0.5 v: 0.25 } scale { v: 2 v: 3 }", 2)],
)
def test_what_the_plugins_editor_puts_before_the_network_becomes_a_part_of_it(
    tmp_path, change, channels
):
    text = caffe_unet.editor_text((2, 2), 2).replace("offset { v: -0.5 }", change)
    plugin = PluginModel(tmp_path, (2, 2), channels, model_prototxt=text)
    pretrained = open_pretrained(caffe, plugin.path)
    assert (pretrained.geometry.levels, pretrained.channels, pretrained.classes) == (2, channels, 2)
    said = begin(tmp_path / "new", pretrained, channels, 2)
    assert "is kept ('trafo_data3-d0a' is in its weights)" in said
    # No layer of caffe_unet's own: genuine Caffe trains it.
    assert {one.type for one in pretrained.layers} == {
        "Convolution", "ReLU", "Pooling", "Deconvolution", "Concat",
    }  # fmt: skip
    new, _ = load_net(
        caffe, tmp_path / "new" / "deploy.prototxt", tmp_path / "new" / "weights.caffemodel"
    )
    picture = np.random.default_rng(0).random(new.blobs["data"].shape, np.float32)
    new.blobs["data"].data[...] = picture
    net, _ = open_definition(caffe, plugin.path, plugin.weights)
    net.blobs["data3"].reshape(*picture.shape)
    net.blobs["data3"].data[...] = picture
    wanted = net.forward()["score"]
    np.testing.assert_allclose(
        new.forward(["score"])["score"], wanted, atol=1e-5 * np.abs(wanted).max()
    )


def test_a_network_of_volumes_is_refused(tmp_path):
    plugin = PluginModel(tmp_path, (1, 1, 1))
    with pytest.raises(InputError, match="is of 3 dimensions; only a network of pictures"):
        open_pretrained(caffe, plugin.path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'bottom: "u0d"\n  top: "score"',
            'bottom: "u0d"\n  top: "score_"',
            r"'score' is made by 'last' \(Power\), not by one convolution",
        ),
        (
            'name: "conv_d0a-b"\n  type: "Convolution"\n  bottom: "data"',
            'name: "conv_d0a-b"\n  type: "Convolution"\n  bottom: "scaled"',
            r"'data' is read by 'first' \(Power\), not by one convolution",
        ),
    ],
)
def test_what_does_not_begin_and_end_with_a_convolution_is_refused(tmp_path, old, new, said):
    model = write_model(tmp_path / "model")
    text = (model / "deploy.prototxt").read_text()
    assert old in text
    text = text.replace(old, new)
    first = 'layer { name: "first" type: "Power" bottom: "data" top: "scaled" }'
    last = 'layer { name: "last" type: "Power" bottom: "score_" top: "score" }'
    if "scaled" in new:
        text = text.replace(
            'layer {\n  name: "conv_d0a-b"', f'{first}\nlayer {{\n  name: "conv_d0a-b"'
        )
    else:
        text = text.replace('layer {\n  name: "prob"', f'{last}\nlayer {{\n  name: "prob"')
    (model / "deploy.prototxt").write_text(text)
    with pytest.raises(InputError, match=rf"deploy\.prototxt: {said}"):
        open_pretrained(caffe, model)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = write_model(tmp_path / "model")
    net = caffe.Net(*(str(model / name) for name in ("deploy.prototxt", "weights.caffemodel")), 1)
    net.params["conv_d0a-b"][0].data[0] = np.nan
    shutil.rmtree(tmp_path / "model")
    write_model(tmp_path / "model")
    net.save(str(model / "weights.caffemodel"))
    with pytest.raises(InputError, match=r"NaN, for layer 'conv_d0a-b'"):
        open_pretrained(caffe, model)
