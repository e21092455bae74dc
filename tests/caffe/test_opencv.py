"""OpenCV's reader of Caffe nets, a third implementation, computes what this engine computes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2
from tests.conftest import unavailable
from tests.parity.whole_nets import classification


@pytest.fixture(autouse=True)
def reader() -> None:
    """OpenCV 5 no longer reads Caffe nets."""
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        unavailable(
            f"OpenCV {cv2.__version__} does not read Caffe nets: install opencv-python-headless<5"
        )


def draw_parameters(net: caffe.Net) -> None:
    """Draw all parameters, variances among them, with He's standard deviation."""
    random = np.random.default_rng(4)
    for name, blobs in net.params.items():
        for blob in blobs:
            fan_in = max(blob.count / blob.shape[0], 4)
            blob.data[...] = random.normal(0, np.sqrt(2 / fan_in), blob.shape)
        if net.layer_dict[name].type == "BatchNorm":
            blobs[1].data[...] = 0.5 + np.abs(blobs[1].data)
            blobs[2].data[...] = 2


def deploy(spec: caffe.NetSpec) -> str:
    """Return the prototxt of a net without its labels, losses and accuracies."""
    net = spec.to_proto()
    kept = [
        layer
        for layer in net.layer
        if layer.name != "label" and layer.type not in ("SoftmaxWithLoss", "Accuracy")
    ]
    result = caffe_pb2.NetParameter(name="deploy")
    result.layer.extend(kept)
    return str(result)


def scores_of_both(folder: Path, text: str, net: caffe.Net, data: np.ndarray, blob: str):
    """Write a net's prototxt and parameters; return the blob as this engine and OpenCV see it."""
    prototxt, weights = folder / "deploy.prototxt", folder / "net.caffemodel"
    prototxt.write_text(text)
    net.save(weights)
    ours = caffe.Net(str(prototxt), caffe.TEST, weights=str(weights))
    ours.blobs["data"].data[...] = data
    theirs = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    theirs.setInput(data, "data")
    return ours.forward(blobs=[blob])[blob], theirs.forward(blob)


@pytest.mark.parametrize(
    ("make", "blob"), [(classification.alexnet, "prob"), (classification.residual, "fc")]
)
def test_small_nets_score_the_same(tmp_path, make, blob):
    whole = make()
    training = tmp_path / "training.prototxt"
    training.write_text(whole.net())
    net = caffe.Net(str(training), caffe.TRAIN)
    draw_parameters(net)
    ours, theirs = scores_of_both(tmp_path, deploy(whole.spec), net, whole.batches["data"][0], blob)
    assert np.ptp(ours) > 1e-2
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_the_trained_slim_unet_segments_the_same(tmp_path, repository):
    model = repository / "models" / "isbi2012_slim"
    text = (model / "deploy.prototxt").read_text()
    small = tmp_path / "small.prototxt"
    small.write_text(text.replace("dim: 572", "dim: 204", 1).replace("dim: 572", "dim: 188", 1))
    net = caffe.Net(str(small), caffe.TEST, weights=str(model / "weights.caffemodel"))
    y, x = np.mgrid[:204, :188]
    data = (0.5 + 0.4 * np.sin(x / 5) * np.sin(y / 7)).astype(np.float32)[None, None]
    ours, theirs = scores_of_both(tmp_path, small.read_text(), net, data, "prob")
    assert ours.shape == (1, 2, 20, 4)
    assert np.ptp(ours[:, 1]) > 0.1
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
