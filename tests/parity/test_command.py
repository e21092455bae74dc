"""The `caffe` program against genuine Caffe's: log lines, output, files, exit statuses, signals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe.files import caffemodel
from tests.parity import harness
from tests.parity.harness import NUMBER, Engine, assert_close, undated

NET = """
name: "small net"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN }
  hdf5_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
  hdf5_data_param { source: "list.txt" batch_size: 6 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.12345678 } } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc"
  include { phase: TEST } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" include { stage: "look" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" weights: "net.caffemodel"
base_lr: 0.05 lr_policy: "step" gamma: 0.5 stepsize: 5 momentum: 0.9 weight_decay: 0.001
max_iter: 12 display: 2 average_loss: 3 test_interval: 4 test_iter: 2 snapshot: 5
snapshot_prefix: "../ENGINE/snap"
"""
# A shared parameter, a loss without a name, a Split, layers that learn nothing.
DEBUG_NET = """
name: "debug net" debug_info: true
layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "first" type: "Convolution" bottom: "data" top: "conv"
  param { name: "shared" lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "second" type: "Convolution" bottom: "conv" top: "second" param { name: "shared" }
  param { lr_mult: 0 } propagate_down: true convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "score" type: "InnerProduct" bottom: "second" top: "ip"
  inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  loss_weight: 0.5 }
layer { name: "loss2" type: "EuclideanLoss" bottom: "ip" bottom: "ip" loss_weight: 0.25 }
layer { name: "sil" type: "Silence" bottom: "data" }
"""
DEBUG_SOLVER = """
train_net: "debug.prototxt" test_net: "debug.prototxt" test_iter: 1 test_interval: 3
debug_info: true iter_size: 2 display: 2 max_iter: 3 type: "Adam" clip_gradients: 0.1
base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.001
snapshot_format: HDF5 snapshot_prefix: "../ENGINE/debug"
"""
# Weights have layers that nets lack; the first test net lacks layers of the net that is trained.
NETS_SOLVER = f"""
net_param {{ {NET} }}
test_net_param {{ name: "other"
  layer {{ name: "data" type: "HDF5Data" top: "data" top: "label"
    hdf5_data_param {{ source: "list.txt" batch_size: 5 }} }}
  layer {{ name: "sum" type: "Reduction" bottom: "data" top: "sum"
    include {{ min_level: 4 }} include {{ not_stage: "a" }}
    include {{ min_level: 2 max_level: 5 stage: "a" not_stage: "b" }} }}
  layer {{ name: "mean" type: "Reduction" bottom: "label" top: "mean"
    exclude {{ max_level: 2 }} exclude {{ not_stage: "a" }}
    reduction_param {{ operation: MEAN }} }} }}
test_net: "net.prototxt"
test_iter: 2 test_iter: 3 test_iter: 1 test_interval: 3
test_state {{ level: 3 stage: "a" }} test_state {{ stage: "look" }} test_state {{ }}
weights: " net.caffemodel , debug.caffemodel" weights: "net.caffemodel"
train_state {{ stage: "foo" }} test_compute_loss: true test_initialization: false
base_lr: 0.01 lr_policy: "multistep" stepvalue: 2 stepvalue: 4 gamma: 0.1 max_iter: 6 display: 1
snapshot_after_train: false
"""
ENDLESS_SOLVER = """
net: "net.prototxt" weights: "net.caffemodel" base_lr: 1e-6 lr_policy: "fixed" max_iter: 100000000
test_iter: 1 test_interval: 1000000 snapshot_prefix: "endless"
"""
FILES = {
    "net.prototxt": NET,
    "solver.prototxt": SOLVER,
    "debug.prototxt": DEBUG_NET,
    "debug_solver.prototxt": DEBUG_SOLVER,
    "nets_solver.prototxt": NETS_SOLVER,
    "endless_solver.prototxt": ENDLESS_SOLVER,
    "list.txt": "data.h5\n",
}
# Runs whose logs are compared line by line.
RUNS = {
    "train": "train -solver solver.prototxt",
    "debug": "-solver=debug_solver.prototxt train -weights debug.caffemodel",
    "nets": "train --solver=nets_solver.prototxt --level 7 -stage a,look",
    "test": "test --model net.prototxt -weights=net.caffemodel -iterations 0x3 -stage look",
    "time": "time -model=debug.prototxt -iterations 2 -phase TEST -level 1",
    "query": "device_query",
    "quiet": "test -minloglevel=1 -model net.prototxt -weights net.caffemodel",
    "files": "test -nologtostderr -alsologtostderr=f -log_dir . -model net.prototxt "
    "-weights net.caffemodel -iterations 1",
}
# What each signal does; the second one ends the run, or shows that the first one did not.
_READY = "Test net output #1"
SIGNALS = {
    "by default": ("", [("SIGHUP", _READY), ("SIGINT", "Snapshotting solver state")]),
    "exchanged": (
        "-sigint_effect snapshot -sighup_effect=stop",
        [("SIGINT", _READY), ("SIGHUP", "Snapshotting solver state")],
    ),
    "without effect": (
        "-sigint_effect=none -sighup_effect none",
        [("SIGINT", _READY), ("SIGHUP", ""), ("SIGKILL", "")],
    ),
}
# Command lines that gflags answers: the same status.
ANSWERED = {
    "no flag": "train -solvr x --alsono=3 -iterations= -solver solver.prototxt",
    "no value": "train -solver",
    "no number": "test -iterations 3x",
    "no int32": "test -iterations=3000000000",
    "no bool": "train -version=3",
    "negated text": "train -nosolver",
    "version": "train -version",
}
USAGES = {
    "nothing": "",
    "two commands": "train test -solver x -iterations 010 -level -3",
    "no command": "-- -solver x",
}
# Command lines that genuine Caffe aborts on.
REFUSED = {
    "unknown": ("nonsense", "unknown action 'nonsense'"),
    "no solver": ("train", "-solver FILE"),
    "no such solver": ("train -solver none", "none: no such file"),
    "no net": ("train -solver list.txt", "list.txt:1"),
    "both": ("train -solver solver.prototxt -weights a -snapshot b", "not both"),
    "no such state": ("train -solver solver.prototxt -snapshot none", "none: no such file"),
    "no such weights": ("train -solver solver.prototxt -weights net.caffemodel,none", "none"),
    "empty weights": ("train -solver solver.prototxt -weights net.caffemodel,", "no such file"),
    "other's state": ("train -solver debug_solver.prototxt -snapshot state", "history blobs"),
    "effect": ("train -solver solver.prototxt -sigint_effect foo", "-sigint_effect foo"),
    "GPU": ("train -solver solver.prototxt -gpu 9", "GPU 9 does not exist"),
    "GPU's name": ("train -solver solver.prototxt -gpu x", "-gpu x"),
    "GPU asked for": ("device_query -gpu 9", "GPU 9 does not exist"),
    "no model": ("test", "-model FILE"),
    "no weights": ("test -model net.prototxt", "-weights FILE"),
    "several weights": (
        "test -model net.prototxt -weights net.caffemodel,net.caffemodel",
        "no such file",
    ),
    "nothing to time": ("time", "-model FILE"),
    "phase": ("time -model net.prototxt -phase FOO", "-phase FOO"),
}

Results = dict[str, dict[str, object]]


def commands() -> dict[str, str]:
    """Return all command lines but those that go on from a snapshot."""
    lines = {**RUNS, **ANSWERED, **USAGES, **{name: line for name, (line, _) in REFUSED.items()}}
    for name, (options, _) in SIGNALS.items():
        lines[name] = f"train -solver endless_solver.prototxt {options}"
    return lines


def run(engine: Engine, folder: Path, lines: dict[str, str]) -> Results:
    """Run the program with each command line, in the folder of the engine."""
    given: dict[str, str] = {"folder": str(folder / engine.name)}
    for name, line in lines.items():
        given[f"{name}|arguments"] = json.dumps(line.split())
        given[f"{name}|signals"] = json.dumps(SIGNALS.get(name, ("", []))[1])
    found = engine.run(
        harness.SCRIPTS / "run_commands.py",
        given,
        # Genuine Caffe's log would go to files in /tmp as well, and names of functions to look up
        # are most of the time that it takes to abort.
        environment={
            "GLOG_minloglevel": "0",
            "GLOG_logtostderr": "1",
            "GLOG_symbolize_stacktrace": "0",
        },
    )
    results: Results = {name: {} for name in lines}
    for key, value in found.items():
        name, what = key.split("|")
        results[name][what] = value.item()
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with a folder of the same files for each engine."""
    folder = tmp_path_factory.mktemp("command")
    random = np.random.default_rng(0)
    data = random.normal(0, 1, (20, 2, 6, 6)).astype(np.float32)
    labels = random.integers(0, 4, (20, 1)).astype(np.float32)
    for engine in ("ours", "genuine"):
        place = folder / engine
        place.mkdir()
        for name, text in FILES.items():
            (place / name).write_text(text.replace("ENGINE", engine))
        with h5py.File(place / "data.h5", "w") as file:
            file["data"], file["label"] = data, labels
    made = folder / "ours"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        for name in ("net", "debug"):
            net = caffe.Net(f"{name}.prototxt", caffe.TRAIN)
            for blobs in net.params.values():
                for blob in blobs:
                    blob.data[...] = random.normal(0, 0.3, blob.data.shape)
            net.save(f"{name}.caffemodel")
        state = caffemodel.SolverState(3, "", [np.zeros(3, np.float32)], 0)
        caffemodel.write_solverstate("state", state)
    for name in ("net.caffemodel", "debug.caffemodel", "state"):
        (folder / "genuine" / name).write_bytes((made / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def ran(ours: Engine, reference: Engine, folder: Path) -> tuple[Results, Results]:
    """Return what the program does here and in genuine Caffe; each goes on from the other, too."""
    line = "train -solver {} -snapshot ../{}/{}_iter_{}.solverstate{}"

    def resumed(other: str) -> dict[str, str]:
        return {
            "resumed": line.format("solver.prototxt", other, "snap", 5, ""),
            "resumed HDF5": line.format("debug_solver.prototxt", other, "debug", 3, ".h5"),
        }

    found = run(ours, folder, commands())
    wanted = run(reference, folder, {**commands(), **resumed("ours")})
    return {**found, **run(ours, folder, resumed("genuine"))}, wanted


def lines_of(log: str) -> list[str]:
    """Return level, file and text of a log's lines, and the lines that go on from one.

    Left out: time, process and line number. "Datatype class", which genuine Caffe says of the first
    HDF5 file only. How fast it went: genuine Caffe counts whole milliseconds. The engines' names.
    """
    log = re.sub(r"\(\S+ iter/s, \S+s/(\d+) iters\)", r"(SPEED/\1)", undated(log))
    log = re.sub(r"\b\S+ ms\.$", "TIME", log, flags=re.MULTILINE)
    log = re.sub(r"\.\./(ours|genuine)/", "../ENGINE/", log)
    return [line for line in log.splitlines() if "Datatype class" not in line]


def assert_same_log(got: str, wanted: str) -> None:
    """Compare two logs: the same lines, numbers to 1e-4."""
    harness.assert_same_lines(lines_of(got), lines_of(wanted), atol=1e-6)


@pytest.mark.parametrize("name", [*RUNS, "resumed", "resumed HDF5"])
def test_the_log_is_genuine_caffes(ran, name):
    got, wanted = (results[name] for results in ran)
    assert got["status"] == wanted["status"] == 0
    assert got["out"] == wanted["out"] == ""
    assert bool(wanted["err"]) == (name not in ("quiet", "files"))
    assert_same_log(got["err"], wanted["err"])


def test_the_logs_hold_what_programs_look_for(ran):
    logs = "".join(ran[1][name]["err"] for name in [*RUNS, "resumed"])
    for text in (
        "Iteration 4, lr =",
        "Testing net (#2)",
        "Train net output #0: loss = ",
        "Test net output #1: loss = ",
        "Test loss: ",
        "[Forward] Layer first, param blob shared data",
        "[Backward] All net params",
        "MultiStep Status",
        "Gradient clipping",
        "Ignoring source layer",
        "Sharing parameters",
        "(automatic)",
        "(in-place)",
        "did not contain stage",
        "contained a not_stage",
        "above the min_level",
        "Resuming from ",
        "snapshot_prefix was not specified",
    ):
        assert text in logs, text


@pytest.mark.parametrize(
    "file", ["snap_iter_5.caffemodel", "snap_iter_12.caffemodel", "debug_iter_3.caffemodel.h5"]
)
def test_training_comes_to_genuine_caffes_parameters(ran, folder, file):
    got, wanted = (
        {
            f"{layer} {place}": blob
            for layer, blobs in caffemodel.read_layers(folder / engine / file).items()
            for place, blob in enumerate(blobs)
            if blob is not None
        }
        for engine in ("ours", "genuine")
    )
    assert_close(got, wanted)


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_do_what_they_do_in_genuine_caffe(ran, name):
    got, wanted = (results[name] for results in ran)
    assert got["status"] == wanted["status"] == (-9 if name == "without effect" else 0)
    ours, theirs = (
        [NUMBER.sub("#", re.sub(r"iter_\d+", "iter_N", line)) for line in lines_of(side["err"])]
        for side in (got, wanted)
    )
    assert ours == theirs
    assert ("stopped early" in theirs[-2]) == (name != "without effect")


def test_a_snapshot_on_a_signal_holds_its_iteration(ran, folder):
    for engine in ("ours", "genuine"):
        states = list((folder / engine).glob("endless_iter_*.solverstate"))
        assert states
        for path in states:
            state = caffemodel.read_solverstate(path)
            assert path.stem.endswith(f"_iter_{state.iteration}")
            assert state.learned_net == f"{path.stem}.caffemodel"
            assert (folder / engine / state.learned_net).exists()


def test_log_files_are_written_where_log_dir_says(ran, folder):
    logs = []
    for engine in ("ours", "genuine"):
        link = folder / engine / "caffe.INFO"
        name = Path(link.readlink())
        assert re.fullmatch(r"caffe\.[^.]+\.\w+\.log\.INFO\.\d{8}-\d{6}\.\d+", name.name)
        assert name.parent == Path(".")
        assert not (folder / engine / "caffe.WARNING").exists()
        first, second, third, *lines = link.read_text().splitlines()
        assert re.fullmatch(r"Log file created at: [\d/]{10} [\d:]{8}", first)
        logs.append("\n".join([second, third, *lines]))
    assert "Batch 0" in logs[1]
    assert_same_log(*logs)


@pytest.mark.parametrize("name", ANSWERED)
def test_flags_are_answered_as_by_gflags(ran, name):
    got, wanted = (results[name] for results in ran)
    assert got["status"] == wanted["status"] == (0 if name == "version" else 1)
    assert got["out"] == wanted["out"]
    assert got["err"].count("ERROR: ") == (name != "version")


@pytest.mark.parametrize("name", USAGES)
def test_the_usage_names_what_genuine_caffes_names(ran, name):
    got, wanted = (results[name] for results in ran)
    assert got["status"] == wanted["status"] == 0
    names = r"^    -(\w+)|^  ([a-z]\w* .*)$"
    for flag, command in re.findall(names, wanted["out"], re.MULTILINE):
        assert (f"--{flag} " if flag else command) in got["out"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_genuine_caffe_aborts_on_is_refused_in_one_sentence(ran, name):
    got, wanted = (results[name] for results in ran)
    assert wanted["status"] == -6
    assert (got["status"], got["out"]) == (2, "")
    last = got["err"].splitlines()[-1]
    assert last.startswith("caffe: ")
    assert REFUSED[name][1] in last
    assert "Traceback" not in got["err"]


COUNTING = """
import caffe

class Count(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        pass
    def backward(self, top, propagate_down, bottom):
        with open(self.param_str, "a") as file:
            file.write("%s\\n" % list(map(bool, propagate_down)))
"""


@pytest.mark.parametrize("loss", ["", "loss_weight: 1"])
@pytest.mark.parametrize("learns", ["", "param { lr_mult: 0 }"])
def test_time_runs_every_layer_backward_with_or_without_a_loss(tmp_path, reference, loss, learns):
    (tmp_path / "counting.py").write_text(COUNTING)
    calls = {}
    for engine, caffe_program in (
        ("ours", [str(Path(sys.executable).with_name("caffe"))]),
        ("genuine", [reference.command[0], "env", f"PYTHONPATH={tmp_path}:/opt/method", "caffe"]),
    ):
        calls[engine] = tmp_path / f"{engine}.txt"
        net = tmp_path / f"{engine}.prototxt"
        net.write_text(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
            f'layer {{ name: "a" type: "Python" bottom: "x" top: "a" {learns} python_param {{ '
            f'module: "counting" layer: "Count" param_str: "{calls[engine]}" }} }}\n'
            f'layer {{ name: "b" type: "Python" bottom: "a" top: "b" {learns} python_param {{ '
            f'module: "counting" layer: "Count" param_str: "{calls[engine]}" }} }}\n'
            f'layer {{ name: "end" type: "Reduction" bottom: "b" top: "end" {loss} }}\n'
        )
        done = subprocess.run(
            [*caffe_program, "time", "-model", str(net), "-iterations", "3"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
    got, wanted = (file.read_text() for file in calls.values())
    assert got == wanted
    assert len(wanted.splitlines()) >= 6
