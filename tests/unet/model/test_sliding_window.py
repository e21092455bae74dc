"""A slice by sliding windows: mirrored edges, in tiles, pixel by pixel or all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from tests.unet.noise_set import ATTRIBUTES, write_noise_set
from unet.errors import InputError
from unet.model.sliding_window import SlidingWindow
from unet.network.nets import window_files, write_files
from unet.preparation.training_set import write_training_set
from unet.volumes.intensity import INPUT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, (2, 40, 40)).astype(np.uint8)
    attributes = {**ATTRIBUTES, "normalise": True}
    weights = np.ones(raw.shape, np.float32)
    data = str(tmp_path / "set.h5")
    write_training_set(data, raw, (raw > 99).astype(np.uint8), weights, attributes=attributes)
    write_files(window_files(data, str(tmp_path), window=23), tmp_path)
    caffe.set_random_seed(1)
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    # Else probabilities are 0 or 1.
    net.params["score"][0].data[...] *= 0.05
    net.save(str(tmp_path / "w.caffemodel"))
    return tmp_path


def test_all_pixels_by_windows_are_those_at_once_with_mirrored_edges(folder):
    network = SlidingWindow(caffe, folder, folder / "w.caffemodel")
    # More than one tile along one axis, less along the other.
    image = network.prepared(np.random.default_rng(1).integers(0, 256, (71, 30)))
    assert image.shape[0] > network._side - network.window + 1 > image.shape[1]
    places = np.argwhere(np.ones(image.shape, bool))
    whole = network.dense(image)
    assert whole.std() > 0.005
    np.testing.assert_allclose(network.windows(image, places).reshape(71, 30), whole, atol=1e-5)
    net = caffe.Net(
        str(folder / "deploy.prototxt"), caffe.TEST, weights=str(folder / "w.caffemodel")
    )
    mirrored = np.pad(image, 11, mode="reflect")
    for y, x in ((0, 0), (70, 29), (40, 3)):
        net.blobs["data"].data[0, 0] = mirrored[y : y + 23, x : x + 23]
        assert abs(net.forward()["prob"][0, 1, 0, 0] - whole[y, x]) < 1e-5


def test_multiply_adds_are_those_of_a_window_and_of_all(folder):
    network = SlidingWindow(caffe, folder, folder / "w.caffemodel")
    network.windows(np.zeros((9, 9), np.float32), np.zeros((5, 2), int))
    one, all_ = network.multiply_adds()
    assert one == 20**2 * 16 * 48 + 6**2 * 25 * 48**2 + 9 * 48 * 200 + 200 * 2
    assert one < all_ < one * 40 * 40 / 10


def test_what_is_missing_or_does_not_fit_is_one_sentence(folder, tmp_path):
    with pytest.raises(InputError, match=r"none.caffemodel: no such file"):
        SlidingWindow(caffe, folder, folder / "none.caffemodel")
    other = folder / "other"
    write_files(window_files(str(folder / "set.h5"), "x", window=9), other)
    for net, lacks in (
        (other, r"weights for layer 'conv2', which .*deploy"),
        (folder, "'conv2' of"),
    ):
        named = caffe.Net(str((folder if net == other else other) / "deploy.prototxt"), caffe.TEST)
        named.save(str(folder / "others.caffemodel"))
        with pytest.raises(InputError, match=lacks):
            SlidingWindow(caffe, net, folder / "others.caffemodel")
    (folder / INPUT).write_text('{"normalise": false}')
    with pytest.raises(InputError, match="make its training set with --normalise"):
        SlidingWindow(caffe, folder, folder / "w.caffemodel")
    coloured = tmp_path / "coloured"
    data = write_noise_set(tmp_path / "coloured.h5", channels=3)
    write_files(window_files(str(data), "x", window=9), coloured)
    (coloured / INPUT).write_text('{"normalise": true}')
    caffe.Net(str(coloured / "deploy.prototxt"), caffe.TEST).save(str(coloured / "w.caffemodel"))
    with pytest.raises(InputError, match="takes 3 channels of 9 x 9"):
        SlidingWindow(caffe, coloured, coloured / "w.caffemodel")
