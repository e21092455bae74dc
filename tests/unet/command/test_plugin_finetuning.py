"""Finetuning as the Fiji plugin does it, in one piece: trained, cancelled, gone on with, used."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy import ndimage

import caffe
from tests import plugin_client, plugin_finetuning
from tests.finetuning import cells
from tests.plain_caffe_unet import PluginModel, grid_tile, tiled
from tests.plugin_finetuning import Job

ITERATIONS, INTERVAL, TILE = 60, 20, (60, 60)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> PluginModel:
    return PluginModel(tmp_path_factory.mktemp("model with spaces"), (2, 2), 1)


@pytest.fixture(scope="module")
def cancelled(tmp_path_factory, model):
    """Return a job that was cancelled, how that ended, and its snapshot."""
    pictures = []
    for shapes in ([(60, 50), (60, 50)], [(44, 61)], [(30, 19)]):
        found = [cells(shape, seed) for seed, shape in enumerate(shapes)]
        numbered = [ndimage.label(labels)[0] for _, labels in found]
        pictures.append((np.stack([one for one, _ in found]), np.stack(numbered)))
    job = plugin_finetuning.prepare(
        tmp_path_factory.mktemp("work"),
        model,
        pictures[:2],
        pictures[2:],
        tile=TILE,
        iterations=ITERATIONS,
        interval=INTERVAL,
        rate=2e-2,
    )
    return job, *plugin_finetuning.train(job, cancel_after=3)


@pytest.fixture(scope="module")
def finetuned(cancelled) -> Job:
    job, _, snapshot = cancelled
    job = plugin_finetuning.resumed(job, snapshot)
    outcome, _ = plugin_finetuning.train(job)
    assert outcome.status == 0, outcome.error
    return job


def test_a_cancelled_job_leaves_a_snapshot_and_the_state_beside_it(cancelled):
    job, outcome, snapshot = cancelled
    assert outcome.status == 0, outcome.error
    assert not outcome.out
    begin = f"{job.prefix}-snapshot_iter_"
    number = int(str(snapshot)[len(begin) :].removesuffix(".caffemodel.h5"))
    assert 4 <= number < ITERATIONS
    assert (
        snapshot.exists()
        and snapshot.with_name(snapshot.name.replace("caffemodel", "solverstate")).exists()
    )
    assert np.isfinite(job.curves.train[:4]).all()


def test_it_goes_on_to_its_end_and_has_learnt(cancelled, finetuned):
    curves = finetuned.curves
    number = int(cancelled[2].name.split("_iter_")[1].split(".")[0])
    assert np.isfinite(curves.train[number:ITERATIONS]).all()
    assert np.isfinite(curves.valid).all() and len(curves.valid) == 4
    assert curves.valid[-1] < 0.8 * curves.valid[0]
    assert finetuned.result.exists()


def test_the_counts_of_the_last_validation_are_those_of_plain_arithmetic(model, finetuned):
    net = caffe.Net(str(model.path.with_name("net.prototxt")), caffe.TEST)
    net.copy_from(str(finetuned.result))
    intersection = union = 0
    for path in finetuned.tiles:
        with h5py.File(path, "r") as file:
            data, labels, weights = (file[name][()] for name in ("data3", "labels", "weights"))
        net.blobs["data3"].reshape(*data.shape)
        net.blobs["data3"].data[...] = data
        classes = net.forward()["score"].argmax(axis=1)[0]
        given, counts = labels[0, 0] == 1, weights[0, 0] > 0
        intersection += (given & (classes == 1) & counts).sum()
        union += ((given | (classes == 1)) & counts).sum()
    last = {name: values[0, -1] for name, values in finetuned.curves.counts.items()}
    assert last["intersection"] == intersection
    assert last["union"] == union > 0
    assert last["detection hits"] <= min(last["detection found"], last["detection all"])
    assert last["segmentation all"] > 0


def test_the_finetuned_model_segments(tmp_path, model, finetuned):
    image, _ = cells((40, 52), 7)
    path = tmp_path / "job.h5"
    blob = plugin_client.write_job(path, image[None, None], (1, 1), (1, 1), 1)
    outcome, _ = plugin_client.segment(path, finetuned.model, finetuned.result, "-n_tiles", 2)
    assert outcome.status == 0, outcome.error
    plain = PluginModel.__new__(PluginModel)
    plain.levels = model.levels
    plain.net = caffe.Net(str(model.path.with_name("net.prototxt")), caffe.TEST)
    plain.net.copy_from(str(finetuned.result))
    ((_, softmax),) = plugin_client.read_segmentation(path).values()
    scores, _ = tiled(blob[0], grid_tile((2, 2), (40, 52), (1, 2)), "mirror", plain.network)
    powers = np.exp(scores - scores.max(axis=0))
    np.testing.assert_allclose(softmax[0], powers / powers.sum(axis=0), atol=1e-5)
