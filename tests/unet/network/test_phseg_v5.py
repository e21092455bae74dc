"""The authors' network in the current format: the same layers, names and scores as their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe.proto import caffe_pb2
from tests import release2015
from unet.network import phseg_v5
from unet.network.u_net import u_net

WIDTH = 4
SHAPE = (188, 204)


def test_checked_in_files_are_what_is_written(repository):
    written = phseg_v5.phseg_v5_files()
    folder = repository / "prototxt" / phseg_v5.NAME
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    for file, content in written.items():
        found = text_format.Parse((folder / file).read_text(), caffe_pb2.NetParameter())
        assert found == content, f"{file} differs; run unet nets"


def test_layers_and_blobs_are_called_and_joined_as_in_the_release():
    published = {layer[1]: layer for layer in release2015.layers()}
    ours = [
        layer
        for layer in phseg_v5.phseg_v5_train_val().layer
        if not layer.include or layer.include[0].phase == caffe.TRAIN
    ]
    assert [layer.name for layer in ours] == list(published)
    for layer in ours:
        _, _, bottoms, tops, _ = published[layer.name]
        assert (list(layer.bottom), list(layer.top)) == (bottoms, tops), layer.name


def narrow_deploy(path: Path) -> None:
    n = NetSpec()
    n["data"] = L.Input(shape=dict(dim=[1, 1, *SHAPE]))
    u_net(n, WIDTH, 2, as_published=True)
    path.write_text(str(n.to_proto()))


def score(text: Path, weights: Path) -> np.ndarray:
    net = caffe.Net(str(text), caffe.TEST, weights=str(weights))
    net.blobs["data"].reshape(1, 1, *SHAPE)
    net.blobs["data"].data[...] = np.random.default_rng(3).random(SHAPE)
    return net.forward(["score"])["score"].copy()


def test_scores_are_those_of_the_original_text(tmp_path):
    weights = tmp_path / "phseg_v5.caffemodel"
    weights.write_bytes(release2015.caffemodel(release2015.random_weights(WIDTH), WIDTH))
    original, current = tmp_path / "original.prototxt", tmp_path / "current.prototxt"
    original.write_text(release2015.test_text(SHAPE, WIDTH))
    narrow_deploy(current)
    scores = score(original, weights)
    assert np.ptp(scores) > 0.1
    assert np.array_equal(score(current, weights), scores)


GENUINE = """
import sys, numpy as np, caffe
from unet.network import phseg_v5
given = np.load(sys.argv[1])
net = caffe.Net("prototxt/phseg_v5/deploy.prototxt", caffe.TEST, weights=str(given["weights"]))
net.blobs["data"].reshape(1, 1, 188, 204)
net.blobs["data"].data[...] = given["picture"]
net.forward()
np.savez(
    sys.argv[2],
    score=net.blobs["score"].data,
    parameters=sum(blob.count for blobs in net.params.values() for blob in blobs),
    **{
        name: np.frombuffer(message.SerializeToString(), np.uint8)
        for name, message in phseg_v5.phseg_v5_files().items()
    }
)
"""


@pytest.mark.slow
def test_the_whole_net_scores_the_same_on_genuine_caffe(tmp_path, repository, reference):
    weights = tmp_path / "phseg_v5.caffemodel"
    weights.write_bytes(release2015.caffemodel(release2015.random_weights()))
    original = tmp_path / "original.prototxt"
    original.write_text(release2015.test_text(SHAPE))
    published = score(original, weights)
    current = score(repository / "prototxt" / "phseg_v5" / "deploy.prototxt", weights)
    assert np.array_equal(current, published)
    picture = np.random.default_rng(3).random(SHAPE).astype(np.float32)
    theirs = reference.run(GENUINE, dict(weights=str(weights), picture=picture))
    assert theirs["parameters"] == 31_100_354
    np.testing.assert_allclose(
        theirs["score"], published, rtol=0, atol=1e-4 * np.abs(published).max()
    )
    for name, message in phseg_v5.phseg_v5_files().items():
        assert theirs[name].tobytes() == message.SerializeToString(), name
