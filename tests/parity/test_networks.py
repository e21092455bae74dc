"""Genuine Caffe loads, trains and tests every network and solver of prototxt/."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity.harness import REPOSITORY
from unet.preparation.training_set import TrainingSetWriter

SCRIPT = """
import os
import sys
import numpy as np
import caffe

os.chdir(sys.argv[3])
name = sys.argv[4]
results = {}
for split in ("holdout", "isbi", "holdout_adam", "isbi_adam"):
    solver = caffe.get_solver("prototxt/%s/solver_%s.prototxt" % (name, split))
    solver.step(2)
    results[split + " loss"] = solver.net.blobs["loss"].data
    results[split + " data"] = solver.net.blobs["data"].data
    results[split + " parameters"] = sum(
        blob.count for blobs in solver.net.params.values() for blob in blobs
    )
    for net in solver.test_nets:
        net.share_with(solver.net)
        for key, value in net.forward().items():
            results[split + " test " + key] = value
    solver.snapshot()
weights = "runs/%s_isbi/%s_iter_2.caffemodel" % (name, name)
deploy = caffe.Net("prototxt/%s/deploy.prototxt" % name, weights, caffe.TEST)
deploy.blobs["data"].reshape(1, 1, 188, 188)
deploy.blobs["data"].data[...] = np.linspace(0, 1, 188)
results["probabilities"] = deploy.forward()["prob"]
np.savez(sys.argv[2], **results)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with prototxt/ and a stack, where the solvers' paths count from."""
    shutil.copytree(REPOSITORY / "prototxt", tmp_path / "prototxt")
    # Small tiles, for time; the layers do not know of them.
    for path in (tmp_path / "prototxt").rglob("*.prototxt"):
        path.write_text(re.sub(r'(\\"tile\\": )(\d+)', r"\g<1>188", path.read_text()))
        (tmp_path / "runs" / f"{path.parent.name}_{path.stem[len('solver_') :]}").mkdir(
            parents=True, exist_ok=True
        )
    shape = (30, 64, 64)
    random = np.random.default_rng(2)
    attributes = dict(classes=2, grey_low=0.0, grey_high=255.0)
    data = tmp_path / "data" / "isbi2012" / "isbi2012.h5"
    with TrainingSetWriter(data, shape, np.uint8, attributes) as writer:
        for z in range(shape[0]):
            labels = (random.random(shape[1:]) > 0.3).astype(np.uint8)
            raw = (labels * 150 + random.integers(0, 100, shape[1:])).astype(np.uint8)
            writer.write(z, raw, labels, np.ones(shape[1:], np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("unet_slim", 1_940_834), pytest.param("unet", 31_030_658, marks=pytest.mark.slow)],
)
def test_every_file_loads_trains_and_tests_on_both_engines(
    ours, reference, place, name, parameters
):
    for engine in (ours, reference):
        got = engine.run(SCRIPT, {}, str(place), name)
        for split in ("holdout", "isbi", "holdout_adam", "isbi_adam"):
            assert got[f"{split} parameters"] == parameters
            assert got[f"{split} loss"].shape == ()
            assert 0 < got[f"{split} loss"] < 20
            assert got[f"{split} data"].shape == (1, 1, 188, 188)
            tested = {key for key in got if key.startswith(f"{split} test ")}
            if split.startswith("holdout"):
                assert tested == {f"{split} test loss", f"{split} test accuracy"}
                assert 0 < got[f"{split} test loss"] < 20
                assert 0 <= got[f"{split} test accuracy"] <= 1
            else:
                assert not tested
        assert got["probabilities"].shape == (1, 2, 4, 4)
        np.testing.assert_allclose(got["probabilities"].sum(axis=1), 1, rtol=1e-5)


def test_genuine_caffe_writes_the_same_networks(ours, reference):
    script = """
import sys
import numpy as np
from unet.network import nets

messages = {}
for name in nets.WIDTHS:
    for file, message in nets.isbi_files(name).items():
        content = message.encode() if isinstance(message, str) else message.SerializeToString()
        messages[name + "/" + file] = np.frombuffer(content, np.uint8)
np.savez(sys.argv[2], **messages)
"""
    got, wanted = ours.run(script), reference.run(script)
    assert got.keys() == wanted.keys()
    for file, message in wanted.items():
        np.testing.assert_array_equal(got[file], message, err_msg=file)
