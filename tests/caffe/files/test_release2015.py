"""The authors' networks of 2015: their files, made anew by other means, are read and run."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from caffe.files.prototxt import parse_net, read_net
from caffe.programs.upgrade_protos import upgrade_net_proto_text
from tests import release2015
from tests.conftest import unavailable

WIDTH = 4
SHAPE = (204, 188)


@pytest.fixture(scope="module")
def weights() -> release2015.Weights:
    return release2015.random_weights(WIDTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights) -> Path:
    """Return a folder with test.prototxt and phseg_v5.caffemodel of a narrow net."""
    place = tmp_path_factory.mktemp("release")
    (place / "test.prototxt").write_text(release2015.test_text(SHAPE, WIDTH))
    (place / "phseg_v5.caffemodel").write_bytes(release2015.caffemodel(weights, WIDTH))
    return place


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).random((1, 1, *SHAPE)).astype(np.float32)


def scores(net: caffe.Net, picture: np.ndarray) -> np.ndarray:
    net.blobs["data"].data[...] = picture
    return net.forward()["score"].copy()


def current_text(folder: Path) -> Path:
    """Return the file that the upgrade program makes of the authors' text."""
    new = folder / "current.prototxt"
    upgrade_net_proto_text([str(folder / "test.prototxt"), str(new)])
    return new


def test_the_files_open_as_the_authors_scripts_opened_them(folder, weights):
    net = caffe.Net(str(folder / "test.prototxt"), str(folder / "phseg_v5.caffemodel"), caffe.TEST)
    assert net.inputs == ["data"]
    assert net.outputs == ["score"]
    assert net.blobs["score"].data.shape == (1, 2, 20, 4)
    assert list(net.params) == list(weights)
    for name, arrays in weights.items():
        for blob, array in zip(net.params[name], arrays):
            assert np.array_equal(blob.data, array), name


def test_the_net_has_the_published_number_of_parameters(tmp_path):
    (tmp_path / "test.prototxt").write_text(release2015.test_text((188, 188)))
    net = caffe.Net(str(tmp_path / "test.prototxt"), caffe.TEST)
    assert sum(blob.count for blobs in net.params.values() for blob in blobs) == 31_100_354


def test_crops_are_given_the_offsets_of_the_papers_figure():
    net = parse_net(release2015.test_text(SHAPE, WIDTH))
    offsets = {layer.name: layer.crop_param for layer in net.layer if layer.type == "Crop"}
    assert {name: (param.axis, list(param.offset)) for name, param in offsets.items()} == {
        "crop_d3c-d3cc": (2, [4]),
        "crop_d2c-d2cc": (2, [16]),
        "crop_d1c-d1cc": (2, [40]),
        "crop_d0c-d0cc": (2, [88]),
    }


@pytest.mark.parametrize("number", [40, 41, 1000])
def test_any_number_of_the_type_crop_is_passed_over(tmp_path, folder, weights, picture, number):
    (tmp_path / "net.caffemodel").write_bytes(release2015.caffemodel(weights, WIDTH, number))
    nets = [
        caffe.Net(str(folder / "test.prototxt"), str(path), caffe.TEST)
        for path in (tmp_path / "net.caffemodel", folder / "phseg_v5.caffemodel")
    ]
    first, second = (scores(net, picture) for net in nets)
    assert np.array_equal(first, second)


def test_genuine_caffe_scores_the_same(folder, picture, reference):
    """It reads the V1 weights as they are, and the text once it is upgraded."""
    script = """
import sys, numpy as np, caffe
given = np.load(sys.argv[1])
net = caffe.Net(str(given["net"]), caffe.TEST, weights=str(given["weights"]))
net.blobs["data"].data[...] = given["picture"]
np.savez(sys.argv[2], score=net.forward()["score"])
"""
    weights = folder / "phseg_v5.caffemodel"
    theirs = reference.run(
        script, dict(net=str(current_text(folder)), weights=str(weights), picture=picture)
    )["score"]
    ours = scores(caffe.Net(str(folder / "test.prototxt"), str(weights), caffe.TEST), picture)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_opencv_scores_the_same(folder, picture):
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        unavailable(
            f"OpenCV {cv2.__version__} does not read Caffe nets: install opencv-python-headless<5"
        )
    weights, deploy = folder / "phseg_v5.caffemodel", folder / "deploy.prototxt"
    net = read_net(current_text(folder))
    # OpenCV knows no phases.
    for layer in [layer for layer in net.layer if layer.include]:
        net.layer.remove(layer)
    deploy.write_text(str(net))
    net = cv2.dnn.readNetFromCaffe(str(deploy), str(weights))
    net.setInput(picture, "data")
    theirs = net.forward("score")
    ours = scores(caffe.Net(str(folder / "test.prototxt"), str(weights), caffe.TEST), picture)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


# -- training --------------------------------------------------------------------------------------


def training_net(folder: Path, labels: np.ndarray) -> caffe.Net:
    """Make the net in phase TRAIN, on a picture of its smallest size."""
    with h5py.File(folder / "train.h5", "w") as file:
        file["data"] = np.random.default_rng(2).random((1, 1, 188, 188)).astype(np.float32)
        file["label"] = labels.astype(np.float32)
    (folder / "list.txt").write_text(f"{folder / 'train.h5'}\n")
    text = release2015.train_text(WIDTH).replace("trainfileList.txt", str(folder / "list.txt"))
    (folder / "train.prototxt").write_text(text)
    return caffe.Net(str(folder / "train.prototxt"), caffe.TRAIN)


def test_label_2_is_ignored(tmp_path):
    labels = np.full((1, 1, 4, 4), 2)
    labels[0, 0, 1, 1:3] = 0, 1
    net = training_net(tmp_path, labels)
    net.forward()
    score = net.blobs["score"].data[0].astype(np.float64)
    likely = np.exp(score) / np.exp(score).sum(axis=0)
    expected = -(np.log(likely[0, 1, 1]) + np.log(likely[1, 1, 2])) / 2
    assert net.blobs["loss"].data == pytest.approx(expected, rel=1e-5)
    net.backward()
    reached = np.abs(net.blobs["score"].diff[0]).sum(axis=0) > 0
    assert np.argwhere(reached).tolist() == [[1, 1], [1, 2]]


def kurtosis(values: np.ndarray) -> float:
    """Return 3 for a normal distribution, 1.8 for an even one."""
    return float((values**4).mean() / (values**2).mean() ** 2)


def test_xavier_of_the_release_is_normal_with_variance_2_over_n(tmp_path):
    caffe.set_random_seed(5)
    net = training_net(tmp_path, np.zeros((1, 1, 4, 4)))
    # N = count / num; the up-convolution's num is its number of inputs.
    for name, n in [("conv_d3b-c", 8 * WIDTH * 9), ("upconv_d4c_u3a", 8 * WIDTH * 4)]:
        values = net.params[name][0].data
        assert values.var() == pytest.approx(2 / n, rel=0.1), name
        assert kurtosis(values) == pytest.approx(3, abs=0.3), name


def test_xavier_elsewhere_is_even(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "data" input_dim: 1 input_dim: 32 input_dim: 3 input_dim: 3\n'
        'layers { bottom: "data" top: "score" name: "c" type: CONVOLUTION convolution_param {'
        ' num_output: 64 kernel_size: 3 weight_filler { type: "xavier" } } }'
    )
    values = caffe.Net(str(path), caffe.TEST).params["c"][0].data
    assert values.var() == pytest.approx(1 / (32 * 9), rel=0.1)
    assert kurtosis(values) == pytest.approx(1.8, abs=0.1)


# -- what cannot be run ----------------------------------------------------------------------------

CROP = "layers { name: 'cut' type: CROP %s top: 'cut' }"
INPUT = "input: 'data' input_dim: 1 input_dim: 1 input_dim: 9 input_dim: 9\n"
LAYER = "layers {{ name: '{1}' type: {2} bottom: '{0}' top: '{1}' {3} }}\n"
POOLED = LAYER.format("data", "pooled", "POOLING", "pooling_param { kernel_size: 2 stride: 2 }")
WIDE = LAYER.format("data", "wide", "CONVOLUTION", "convolution_param { kernel_size: 3 pad: 4 }")
EVEN = LAYER.format("data", "even", "CONVOLUTION", "convolution_param { kernel_size: 2 }")
STOOD = LAYER.format(
    "data", "stood", "DECONVOLUTION", "convolution_param { kernel_size: 2 stride: 0 }"
)
UNEVEN = LAYER.format(
    "data",
    "uneven",
    "CONVOLUTION",
    "convolution_param { kernel_size: 3 kernel_size: 3 pad: 1 pad: 1 pad: 1 }",
)
MIXED = LAYER.format("data", "mixed", "INNER_PRODUCT", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CROP % "bottom: 'data'", "not 1 bottom"),
        (CROP % "bottom: 'data' bottom: 'other'", "does not follow"),
        (POOLED + CROP % "bottom: 'data' bottom: 'pooled'", "does not follow"),
        (MIXED + CROP % "bottom: 'data' bottom: 'mixed'", "does not follow"),
        (STOOD + CROP % "bottom: 'stood' bottom: 'data'", "does not follow"),
        (UNEVEN + CROP % "bottom: 'data' bottom: 'uneven'", "does not follow"),
        (WIDE + CROP % "bottom: 'data' bottom: 'wide'", "would be at -3"),
        (EVEN + CROP % "bottom: 'data' bottom: 'even'", "would be at 0.5"),
    ],
)
def test_a_crop_at_no_place_is_refused(text, told):
    with pytest.raises(CaffeError, match=rf"net.prototxt:\d+:\d+: layer 'cut'.*{told}"):
        parse_net(INPUT + text, "net.prototxt")
