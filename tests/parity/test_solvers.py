"""Solvers held against genuine Caffe: rules, variants, rate policies, states, test nets, logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.proto import caffe_pb2
from tests.parity import harness
from tests.parity.harness import Arrays, Engine, assert_close

STEPS, HALF = 20, 10
ITEMS = 6

NET = """
name: "two layers"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 6 dim: 5 } } }
layer { name: "target" type: "Input" top: "target" input_param { shape { dim: 6 dim: 3 } } }
layer { name: "below" type: "InnerProduct" bottom: "data" top: "below"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 7 } }
layer { name: "bent" type: "TanH" bottom: "below" top: "bent" }
layer { name: "above" type: "InnerProduct" bottom: "bent" top: "above"
  param { lr_mult: 0.5 decay_mult: 3 } param { lr_mult: 0 decay_mult: 1 }
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "above" bottom: "target" top: "loss" }
"""

KINDS = {
    "SGD": "base_lr: 0.02 momentum: 0.9",
    "Nesterov": "base_lr: 0.02 momentum: 0.9",
    "AdaGrad": "base_lr: 0.05 delta: 1e-3",
    "RMSProp": "base_lr: 0.01 rms_decay: 0.9 delta: 1e-3",
    "AdaDelta": "base_lr: 1 momentum: 0.95 delta: 1e-5",
    "Adam": "base_lr: 0.01 momentum: 0.9 momentum2: 0.99 delta: 1e-5",
}
VARIANTS = {
    "plain": "snapshot_format: HDF5",
    "l2": "weight_decay: 0.05",
    "l1": 'weight_decay: 0.05 regularization_type: "L1" snapshot_format: HDF5',
    "clipped": "weight_decay: 0.01 clip_gradients: 0.5",
    "batches": "weight_decay: 0.01 iter_size: 3 clip_gradients: 2 snapshot_format: HDF5",
}
POLICIES = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: 5",
    "exp": "gamma: 0.9",
    "inv": "gamma: 0.1 power: 0.75",
    "multistep": "gamma: 0.5 stepvalue: 3 stepvalue: 10 stepvalue: 17",
    "poly": "power: 1.5 max_iter: 20",
    "sigmoid": "gamma: 0.4 stepsize: 9",
}


def solvers() -> dict[str, str]:
    """Return the prototxt of all solvers."""
    cases = {}
    for kind, options in KINDS.items():
        for variant, more in VARIANTS.items():
            cases[f"{kind}_{variant}"] = f'type: "{kind}" lr_policy: "fixed" {options} {more}'
    for policy, options in POLICIES.items():
        cases[f"rate_{policy}"] = (
            f'type: "SGD" base_lr: 0.02 momentum: 0.5 weight_decay: 0.01 lr_policy: "{policy}" '
            f"{options}"
        )
    return {
        name: f'{text} snapshot_prefix: "PREFIX" train_net_param {{ {NET} }}'
        for name, text in cases.items()
    }


SOLVERS = solvers()


def batches() -> Arrays:
    """Draw a batch for each step."""
    random = np.random.default_rng(5)
    data = random.normal(0, 1, (STEPS, ITEMS, 5))
    target = np.sin(2 * data[..., :3]) + random.normal(1, 0.2, (STEPS, ITEMS, 3))
    return {"data": data.astype(np.float32), "target": target.astype(np.float32)}


def run(
    engine: Engine, folder: Path, own: str, other: str, names: Iterable[str] = tuple(SOLVERS)
) -> dict[str, Arrays]:
    """Run solvers on an engine, in one process."""
    solvers = {name: {"solver": SOLVERS[name]} for name in names}
    how = str(folder), own, other, str(HALF)
    return engine.run_each(harness.SCRIPTS / "run_solvers.py", solvers, *how, shared=batches())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return the folder that the engines write their files to."""
    return tmp_path_factory.mktemp("solvers")


@pytest.fixture(scope="module")
def trained(ours: Engine, reference: Engine, folder: Path) -> tuple[dict, dict, dict]:
    """Return what all solvers come to: see `exchange_files`."""
    return harness.exchange_files(run, ours, reference, folder)


def uninterrupted(results: Arrays) -> Arrays:
    """Return all but what was resumed."""
    return {key: value for key, value in results.items() if not key.startswith("resumed")}


def second_half(results: Arrays, prefix: str = "") -> Arrays:
    """Return parameters, losses and rates of the steps after the snapshot."""
    return {
        key[len(prefix) :]: value
        for key, value in results.items()
        if key.startswith(prefix or ("loss", "rate", "parameter")) and key.endswith(f"at {STEPS}")
    }


@pytest.mark.parametrize("name", SOLVERS)
def test_twenty_steps_equal_genuine_caffes(trained, name):
    ours, genuine, _ = (results[name] for results in trained)
    assert_close(uninterrupted(ours), uninterrupted(genuine))


@pytest.mark.parametrize("name", SOLVERS)
def test_training_goes_on_in_the_other_engine(trained, name):
    ours, genuine, resumed = (results[name] for results in trained)
    assert_close(second_half(genuine, "resumed "), second_half(ours))
    assert_close(second_half(resumed, "resumed "), second_half(genuine))


def state(folder: Path, engine: str, name: str, iteration: int) -> dict:
    """Return what a solver state holds, by the schemas of protobuf and HDF5 alone."""
    path = folder / f"{engine}_{name}_iter_{iteration}.solverstate"
    if path.exists():
        message = caffe_pb2.SolverState.FromString(path.read_bytes())
        arrays = [np.array(blob.data).reshape(blob.shape.dim) for blob in message.history]
        learned, numbers = message.learned_net, (message.iter, message.current_step)
    else:
        with h5py.File(f"{path}.h5") as file:
            history = file["history"]
            arrays = [history[str(index)][()] for index in range(len(history))]
            learned = file["learned_net"][()].decode()
            numbers = tuple(int(file[key][0]) for key in ("iter", "current_step"))
    return {
        "learned": Path(learned).name.replace(engine, "ENGINE"),
        "numbers": numbers,
        "history": {str(index): array for index, array in enumerate(arrays)},
    }


@pytest.mark.parametrize("name", SOLVERS)
def test_states_hold_the_same(trained, folder, name):
    for iteration in (HALF, STEPS):
        ours, genuine = (state(folder, who, name, iteration) for who in ("ours", "genuine"))
        assert ours["learned"] == genuine["learned"]
        assert ours["numbers"] == genuine["numbers"]
        assert_close(ours["history"], genuine["history"])


TESTED = """
import os
import sys
import numpy as np
import caffe
from exchange import draw_parameters, give, given, text_file

log = os.open(sys.argv[2] + ".log", os.O_CREAT | os.O_WRONLY)
solver = caffe.get_solver(text_file(str(given()["solver"])))
random = np.random.RandomState(3)
for net in [solver.net, *solver.test_nets]:
    draw_parameters(net)
    for blob in net.inputs:
        net.blobs[blob].data[...] = random.standard_normal(net.blobs[blob].data.shape)
sys.stderr.flush()
kept = os.dup(2)
os.dup2(log, 2)
solver.step(7)
solver.step(3)
os.dup2(kept, 2)
results = {"log": np.array(open(sys.argv[2] + ".log").read())}
for number, net in enumerate(solver.test_nets):
    results["inputs %d" % number] = np.array(net.inputs)
    for blob in net.outputs:
        results["test %d %s" % (number, blob)] = np.array(net.blobs[blob].data)
give(results)
"""


def log_lines(log: str) -> list[str]:
    """Return what the log says, without where, when and how fast."""
    lines = [line.split("] ", 1)[1] for line in log.splitlines() if re.match(r"I\d{4} ", line)]
    return [re.sub(r"\(.* iters\)", "(SPEED)", line) for line in lines]


def test_test_nets_and_mean_losses_are_logged_as_by_genuine_caffe(ours, reference):
    only_test = 'layer { name: "mean" type: "Reduction" bottom: "above" top: "mean" include { phase: TEST } reduction_param { operation: MEAN } }'  # fmt: skip # noqa: E501
    solver = f"""
    base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 4 momentum: 0.9 type: "SGD"
    display: 2 average_loss: 3 test_interval: 4 test_iter: 2 test_iter: 3 test_compute_loss: true
    snapshot_after_train: false clip_gradients: 0.5
    test_state {{ stage: "first" }} test_state {{ }}
    net_param {{ {NET} {only_test}
      layer {{ name: "abs" type: "AbsVal" bottom: "above" top: "abs" include {{ stage: "first" }} }}
    }}
    """
    found = [
        engine.run(TESTED, {"solver": solver}, environment={"GLOG_minloglevel": "0"})
        for engine in (ours, reference)
    ]
    got, wanted = (log_lines(str(results.pop("log"))) for results in found)
    assert any("Test net output #" in line for line in wanted)
    assert any("clipping" in line for line in wanted)
    names = [key for key in found[1] if key.startswith("inputs")]
    assert [found[0].pop(n).tolist() for n in names] == [found[1].pop(n).tolist() for n in names]
    assert_close(found[0], found[1])
    harness.assert_same_lines(got, wanted)
