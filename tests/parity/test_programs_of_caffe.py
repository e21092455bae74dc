"""Programs that come with genuine Caffe run here as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from tests.caffe.parallel.test_distributed import parameters, write_case, write_data
from tests.parity.harness import Engine

# What is run in place of the engine's Python: multiprocessing has to find the program by its file.
# With no GPU the two names that ask for one do nothing; all else of the program is as it was.
WITHOUT_GPU = """
import multiprocessing
import runpy
import sys

import caffe

caffe.set_device = caffe.set_mode_gpu = lambda *_: None
multiprocessing.set_start_method("fork")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

PROGRAMS = ("classify", "draw_net", "train")
NET = """
name: "classifier"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 10 dim: 3 dim: 8 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture(scope="module")
def genuine(reference: Engine) -> tuple[str, ...]:
    """Return what runs a command where genuine Caffe is."""
    return reference.command[:1]


@pytest.fixture(scope="module")
def programs(genuine, tmp_path_factory) -> Path:
    """Return a folder with genuine Caffe's programs in Python."""
    folder = tmp_path_factory.mktemp("programs")
    there = "/usr/share/doc/python3-caffe/examples"
    copied = run(*genuine, "cp", *(f"{there}/{name}.py" for name in PROGRAMS), folder)
    assert sorted(path.stem for path in folder.iterdir()) == sorted(PROGRAMS), copied
    return folder


def run(*words: object) -> subprocess.CompletedProcess:
    """Run a program; its output comes back as text."""
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "0"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.parametrize("options", [[], ["--timing"]])
def test_train_comes_to_the_parameters_of_one_solver(programs, tmp_path, options):
    write_data(tmp_path)
    fields = 'type: "SGD" base_lr: 0.05 snapshot: 5 display: 2'
    several, alone = (write_case(tmp_path, "case", fields, count) for count in (2, 1))
    given = ["--solver", several, "--gpus", "0", "1", *options]
    done = run(sys.executable, "-c", WITHOUT_GPU, programs / "train.py", *given)
    solver = caffe.SGDSolver(alone)
    solver.step(5)
    got = parameters(tmp_path / "case, 2 solvers_iter_5.caffemodel")
    assert len(got) == 7
    for layer, blobs in solver.net.params.items():
        for place, blob in enumerate(blobs):
            np.testing.assert_allclose(
                got[f"{layer} {place}"], blob.data.ravel(), atol=1e-6, err_msg=layer
            )
    # It calls init_log(), after which only errors are shown.
    assert "Iteration" not in done.stderr


@pytest.mark.parametrize("options", [[], ["--center_only", "--channel_swap", ""]])
def test_classify_gives_genuine_caffes_scores(genuine, programs, tmp_path, options):
    random = np.random.default_rng(4)
    (tmp_path / "net.prototxt").write_text(NET)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.normal(0, 0.1, blob.data.shape)
    net.save(str(tmp_path / "net.caffemodel"))
    np.save(tmp_path / "mean.npy", random.uniform(100, 150, (3, 8, 9)))
    # Of the size that is asked for: releases of scikit-image resize a little differently.
    np.save(tmp_path / "in.npy", random.uniform(0, 1, (3, 12, 13, 3)))
    scores = {}
    for name, python in {"ours": [sys.executable], "genuine": [*genuine, "python3"]}.items():
        run(
            *(*python, programs / "classify.py", tmp_path / "in.npy", tmp_path / f"{name}.npy"),
            *("--model_def", tmp_path / "net.prototxt", "--images_dim", "12,13"),
            *("--pretrained_model", tmp_path / "net.caffemodel"),
            *("--mean_file", tmp_path / "mean.npy", "--input_scale", 0.01, *options),
        )
        scores[name] = np.load(tmp_path / f"{name}.npy")
    assert scores["genuine"].shape == (3, 5)
    assert np.ptp(scores["genuine"]) > 0.1
    np.testing.assert_allclose(scores["ours"], scores["genuine"], rtol=1e-4)


@pytest.mark.parametrize("phase", ["ALL", "TEST"])
def test_draw_net_draws_what_the_program_here_draws(programs, tmp_path, phase):
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" include { phase: TRAIN } }'
    (tmp_path / "net.prototxt").write_text(NET + loss)
    drawn = []
    for program in ([programs / "draw_net.py"], ["-m", "caffe.programs.draw_net"]):
        picture = tmp_path / "net.raw"
        words = ["--rankdir", "TB", "--phase", phase, "--display_lrm"]
        run(sys.executable, *program, tmp_path / "net.prototxt", picture, *words)
        drawn.append(picture.read_text())
        picture.unlink()
    assert drawn[0] == drawn[1]
    assert "Convolution" in drawn[0]
    assert ("SoftmaxWithLoss" in drawn[0]) == (phase == "ALL")
