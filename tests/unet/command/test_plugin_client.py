"""The Fiji plugin's work for segmentation and detection, by a client that runs the programs."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy import ndimage

from tests import plugin_client as plugin
from tests.plain_caffe_unet import PluginModel, grid_tile, tiled


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> PluginModel:
    folder = tmp_path_factory.mktemp("model with spaces")
    model = PluginModel(folder, (2, 2), 1, element_size_um=(0.5, 0.5))
    # Without a bias to one class, there are some of both.
    scores = model.network(np.random.default_rng(0).random((1, 1, 64, 64)))
    model.net.params["conv_u0d-score"][1].data[...] -= np.median(scores, axis=(0, 2, 3))
    model.net.save_hdf5(str(model.weights))
    return model


def test_both_programs_are_found():
    assert plugin.is_found(plugin.CAFFE_UNET)
    assert plugin.is_found(plugin.CAFFE)


def test_model_and_weights_are_checked(model, capfd):
    assert plugin.check(capfd, model.path, model.weights, 1).status == 0
    refused = plugin.check(capfd, model.path, model.weights, 3)
    assert refused.status == 2 and "images of 1 channel, and not of 3" in refused.error
    assert refused.complaint == "Unknown caffe error."


def test_segmentation_and_detection_are_those_of_plain_arithmetic(tmp_path, model):
    frames = ndimage.gaussian_filter(np.random.default_rng(1).random((2, 1, 30, 24)), (0, 0, 2, 2))
    frames = (frames * 60000).astype(np.uint16)
    job = tmp_path / "job 1.h5"
    blob = plugin.write_job(job, frames, (1.0, 0.75), (0.5, 0.5), 1)
    assert blob.shape == (2, 1, 60, 36)
    outcome, told = plugin.segment(job, model.path, model.weights, "-n_tiles", "2x1")
    assert outcome.status == 0, outcome.error
    tile = grid_tile((2, 2), (60, 36), (2, 1))
    results = [tiled(one, tile, "mirror", model.network) for one in blob]
    assert told == [
        (b + 1, 2, t + 1, tiles) for b, (_, tiles) in enumerate(results) for t in range(tiles)
    ]
    ((classes, softmax),) = plugin.read_segmentation(job).values()
    scores = np.stack([one for one, _ in results])
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, expected, atol=1e-5)
    certain = np.abs(scores[:, 0] - scores[:, 1]) > 1e-4
    np.testing.assert_array_equal(classes[certain], scores.argmax(axis=1)[certain])
    assert 0.1 < classes.mean() < 0.9
    # Detections are of the same arithmetic, where no pixel is undecided.
    found = plugin.detect(classes, softmax, (0.5, 0.5))
    wanted = plugin.detect(classes, expected, (0.5, 0.5))
    assert len(found) == len(wanted) > 3
    for one, other in zip(found, wanted):
        assert one.frame == other.frame
        np.testing.assert_allclose(one.position, other.position, atol=1e-4)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_a_gpu_that_is_not_there_is_told_in_the_plugins_words(tmp_path, model, capfd):
    job = tmp_path / "job.h5"
    plugin.write_job(job, np.ones((1, 1, 9, 9)), (1, 1), (1, 1), 0)
    words = ("-infileH5", job, "-outfileH5", job, "-model", model.path, "-weights", model.weights)
    outcome = plugin.execute_here(capfd, "tiled_predict", *words, "-n_tiles", 1, "-gpu", 99)
    assert outcome.status == 2 and outcome.complaint == "Requested GPU does not exist."
    with h5py.File(job, "r") as file:
        assert list(file) == ["data"]


def test_a_cancelled_job_leaves_what_was_there(tmp_path, model):
    job = tmp_path / "job.h5"
    plugin.write_job(job, np.random.default_rng(2).random((100, 1, 60, 60)), (1, 1), (1, 1), 0)
    before = job.read_bytes()
    outcome, told = plugin.segment(
        job, model.path, model.weights, "-tile_size", "4x4", cancel_after=3
    )
    assert outcome.status in (130, 143, -15) and 3 <= len(told) < 100 * 225
    assert not outcome.error.count("Traceback")
    assert job.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["job.h5"]
