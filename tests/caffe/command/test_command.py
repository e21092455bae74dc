"""The `caffe` program: flags, devices, signals. Its log is compared in tests/parity."""

import os
import pickle
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from caffe import CaffeError, common
from caffe.command import run
from caffe.command.arguments import FlagError, parse
from caffe.log import INFO, configure_log
from caffe.parallel import distributed
from caffe.proto import caffe_pb2
from caffe.solvers.signal_handler import SignalHandler, SolverAction
from caffe.solvers.solver import get_solver
from tests.caffe.small_net import NET

SOLVER = (
    'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 snapshot_prefix: "snap" '
    "display: 1 test_iter: 3 test_interval: 2"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with a net and a solver; leave signals, log and device as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLOG_minloglevel", "0")
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(common, "_mode", "cpu")
    monkeypatch.setattr(common, "_device_id", 0)
    yield tmp_path
    configure_log(None, INFO)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def texts(log: str) -> list[str]:
    """Return the texts of a log's lines."""
    return re.findall(r"^[IWE]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] (.*)$", log, re.MULTILINE)


# -- flags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("-solver x", "solver", "x"),
        ("--solver x", "solver", "x"),
        ("-solver=x", "solver", "x"),
        ("--solver=x=y", "solver", "x=y"),
        ("-solver=", "solver", ""),
        ("-solver a -solver b", "solver", "b"),
        ("", "iterations", 50),
        ("-iterations 7", "iterations", 7),
        ("-iterations -7", "iterations", -7),
        ("-iterations=0x1F", "iterations", 31),
        ("-iterations 010", "iterations", 10),
        ("-iterations 2147483647", "iterations", 2**31 - 1),
        ("-version", "version", True),
        ("-version=F", "version", False),
        ("-version=yes", "version", True),
        ("-noalsologtostderr", "alsologtostderr", False),
        ("-version -noversion", "version", False),
        ("", "sigint_effect", "stop"),
        ("", "sighup_effect", "snapshot"),
    ],
)
def test_flags_have_one_dash_or_two(line, name, value):
    flags, others = parse(["one", *line.split(), "two"])
    assert (getattr(flags, name), others) == (value, ["one", "two"])


def test_all_is_no_flag_after_two_dashes():
    flags, others = parse(["-", "-level", "3", "--", "-level", "4"])
    assert (flags.level, others) == (3, ["-", "-level", "4"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-zzz", "unknown command line flag 'zzz'"),
        ("--aaa=3", "unknown command line flag 'aaa'"),
        ("-sol x", "unknown command line flag 'sol'"),
        ("-nosolver", "unknown command line flag 'nosolver'"),
        ("-iterations 3x", "--iterations: '3x' is not a whole number of 32 bits"),
        ("-level=2147483648", "--level: '2147483648' is not a whole number of 32 bits"),
        ("-version=3", "--version: '3' is neither true nor false"),
        ("train -solver", "--solver: expected one argument"),
    ],
)
def test_a_mistaken_flag_is_told(line, told, capsys):
    with pytest.raises(FlagError, match=told):
        parse(line.split())
    assert run(line.split()) == 1
    assert capsys.readouterr().err.startswith("ERROR: ")


def test_glogs_variables_are_flags_too(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    monkeypatch.setenv("GLOG_log_dir", "logs")
    monkeypatch.setenv("GLOG_logtostderr", "1")
    flags, _ = parse(["-minloglevel=1"])
    assert (flags.minloglevel, flags.log_dir, flags.logtostderr) == (1, "logs", True)


def test_help_names_every_flag(capsys):
    assert run(["-help"]) == 1
    said = capsys.readouterr().out
    for name in vars(parse([])[0]).keys() - {"given"}:
        assert f"--{name} " in said
    assert run(["-helpshort"]) == 1
    assert capsys.readouterr().out == said


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("test -model net.prototxt -weights x -iterations 0", "-iterations 0: give a positive"),
        ("time -model net.prototxt -iterations -1", "-iterations -1: give a positive"),
        ("train -solver solver.prototxt -gpu 0,", "-gpu 0,: give numbers of GPUs"),
        ("train -solver solver.prototxt -gpu -1", "-gpu -1: give numbers of GPUs"),
        ("train -solver solver.prototxt -sighup_effect x", "-sighup_effect x: the effect is one"),
        ("time -model net.prototxt -log_dir none", "none: no log can be written there"),
    ],
)
def test_what_makes_no_sense_is_refused(line, said):
    with pytest.raises(CaffeError, match=re.escape(said)):
        run(line.split())


@pytest.mark.parametrize(
    "line", ["time -gpu all", "time -gpu 0", "train -gpu all", "train -gpu 0,1", "train"]
)
def test_a_gpu_that_is_not_there_is_told(line, monkeypatch, folder):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (folder / "solver.prototxt").write_text(SOLVER + " solver_mode: GPU device_id: 3")
    files = ["-model", "net.prototxt", "-solver", "solver.prototxt"]
    with pytest.raises(CaffeError, match=r"PyTorch finds (no|0) CUDA device"):
        run([*line.split(), *files])
    assert sorted(path.name for path in folder.iterdir()) == ["net.prototxt", "solver.prototxt"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("time -model /nowhere/net", "Could not open file /nowhere/net: no such file"),
        (
            "train -solver solver.prototxt -gpu all",
            "-gpu all: there is no GPU, PyTorch finds no CUDA device here",
        ),
    ],
)
def test_the_program_ends_with_one_sentence_and_status_2(line, said):
    done = subprocess.run(
        [sys.executable, "-m", "caffe", *line.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "GLOG_minloglevel": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"caffe: {said}\n"


# -- several processes -----------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are three GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU of number {number}")
    properties = SimpleNamespace(name="A GPU", major=9, minor=1, total_memory=2**33)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)


@pytest.fixture
def trained(monkeypatch) -> list:
    """Return what `distributed.train` is called with."""
    calls = []
    monkeypatch.setattr(distributed, "train", lambda *given, **named: calls.append((given, named)))
    return calls


@pytest.mark.parametrize(("text", "numbers"), [("2,0", [2, 0]), ("all", [0, 1, 2])])
def test_several_gpus_train_in_a_process_each(gpus, trained, capsys, text, numbers):
    line = f"train -solver solver.prototxt -gpu {text} -level 3 -stage a,b -weights x,y"
    run([*line.split(), "-sigint_effect", "snapshot"])
    (((param, devices, snapshot), named),) = trained
    assert (devices, snapshot) == (numbers, None)
    assert list(param.weights) == ["x,y"]
    assert param.device_id == numbers[0]
    assert param.train_state == caffe_pb2.NetState(level=3, stage=["a", "b"])
    asked = pickle.loads(pickle.dumps(named["prepare"])).keywords
    snapshot = SolverAction.SNAPSHOT
    assert asked == {"effects": {signal.SIGINT: snapshot, signal.SIGHUP: snapshot}}
    assert texts(capsys.readouterr().err) == [
        f"Using GPUs {', '.join(map(str, numbers))}",
        *(f"GPU {number}: GPU of number {number}" for number in numbers),
        "Starting Optimization",
        "Optimization Done.",
    ]


@pytest.mark.parametrize(("snapshot", "iteration"), [(0, 4), (2, 2), (2, 4)])
def test_no_snapshot_takes_the_place_of_the_weights(folder, trained, snapshot, iteration):
    text = SOLVER + f" snapshot: {snapshot}"
    (folder / "solver.prototxt").write_text(text)
    weights = folder / f"snap_iter_{iteration}.caffemodel"
    weights.write_bytes(b"years of training")
    (folder / "w.caffemodel").hardlink_to(weights)
    for given in (weights.name, weights, "w.caffemodel", f"other.caffemodel,{weights}"):
        with pytest.raises(CaffeError, match=f"{weights.name}: is the input .* would be lost"):
            run(["train", "-solver", "solver.prototxt", "-weights", str(given)])
    (folder / "solver.prototxt").write_text(f'{text} weights: "w.caffemodel"')
    with pytest.raises(CaffeError, match=r"is the input w.caffemodel, which would be lost"):
        run(["train", "-solver", "solver.prototxt"])
    assert weights.read_bytes() == b"years of training"


def test_weights_that_no_snapshot_replaces_are_taken(gpus, folder, trained):
    (folder / "solver.prototxt").write_text(SOLVER + " snapshot: 2")
    for iteration in (1, 3, 5, 6):
        (folder / f"snap_iter_{iteration}.caffemodel").write_bytes(b"weights")
        weights = f"snap_iter_{iteration}.caffemodel"
        run(["train", "-solver", "solver.prototxt", "-gpu", "all", "-weights", weights])
        assert list(trained[-1][0][0].weights) == [weights]


def test_a_snapshot_takes_the_place_of_weights(gpus, trained, folder):
    (folder / "solver.prototxt").write_text(SOLVER + ' weights: "a" solver_mode: GPU device_id: 1')
    run(["train", "-solver", "solver.prototxt", "-snapshot", "s", "-gpu", "0,2"])
    (((param, devices, snapshot), _),) = trained
    assert (list(param.weights), devices, snapshot) == ([], [0, 2], "s")


def test_a_process_of_torchruns_is_one_of_several(trained, monkeypatch):
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29999",
    }.items():
        monkeypatch.setenv(name, value)
    run(["train", "-solver", "solver.prototxt"])
    assert [given[1] for given, _ in trained] == [("cpu",)]


def test_device_query_tells_what_pytorch_knows(gpus, capsys):
    run(["device_query", "-gpu", "0,2"])
    one = [
        "Major revision number:         9",
        "Minor revision number:         1",
        "Name:                          A GPU",
        "Total global memory:           8589934592",
    ]
    assert texts(capsys.readouterr().err) == [
        "Querying GPUs 0,2",
        "Device id:                     0",
        *one,
        "Device id:                     2",
        *one,
    ]


@pytest.mark.gpu
def test_a_gpu_comes_to_what_the_cpu_comes_to(capsys, folder):
    logs = {}
    for where in ("", "-gpu 0"):
        for line in (
            "train -solver solver.prototxt",
            "test -model net.prototxt -weights snap_iter_4.caffemodel -iterations 2",
            "time -model net.prototxt -iterations 2",
        ):
            run([*line.split(), *where.split()])
        said = re.sub(r"\(.* iters\)|\S+ ms", "", capsys.readouterr().err)
        logs[where] = [text for text in texts(said) if "GPU" not in text and "CPU" not in text]
    assert logs[""] == logs["-gpu 0"]
    assert any("Batch 1, loss" in text for text in logs[""])
    run(["device_query", "-gpu", "all"])
    said = texts(capsys.readouterr().err)
    assert f"Name:                          {torch.cuda.get_device_name(0)}" in said


# -- signals ---------------------------------------------------------------------------------------


def test_a_signal_is_answered_once_and_sigint_comes_first():
    asked = SignalHandler({signal.SIGINT: SolverAction.STOP, signal.SIGHUP: SolverAction.SNAPSHOT})
    assert asked() is SolverAction.NONE
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert [asked(), asked(), asked()] == [
        SolverAction.STOP,
        SolverAction.SNAPSHOT,
        SolverAction.NONE,
    ]


def test_a_signal_without_effect_has_none():
    asked = SignalHandler({signal.SIGINT: SolverAction.NONE, signal.SIGHUP: SolverAction.STOP})
    os.kill(os.getpid(), signal.SIGINT)
    assert asked() is SolverAction.NONE
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGHUP)
    assert asked() is SolverAction.STOP


def test_a_test_answers_too(capsys, folder):
    solver = get_solver("solver.prototxt")
    # Asked in the second test (at iteration 2): first a snapshot, later the end.
    passes = []
    solver.test_nets[0].after_forward(lambda index: passes.append(solver.iter))

    # It is asked until it asks for nothing more.
    answers = iter([SolverAction.STOP])

    def action() -> SolverAction:
        seen = passes.count(2)
        if seen and not (folder / "snap_iter_2.caffemodel").exists():
            return SolverAction.SNAPSHOT
        done = seen > len(solver.test_nets[0].layers)
        return next(answers, SolverAction.NONE) if done else SolverAction.NONE

    solver.set_action_function(action)
    capsys.readouterr()
    solver.solve()
    said = texts(capsys.readouterr().err)
    first = said.index("Iteration 2, Testing net (#0)")
    assert [re.sub(r"file .*", "", text) for text in said[first + 1 :]] == [
        "Snapshotting to binary proto ",
        "Snapshotting solver state to binary proto ",
        "Test interrupted.",
        "Snapshotting to binary proto ",
        "Snapshotting solver state to binary proto ",
        "Optimization stopped early.",
    ]
    assert (folder / "snap_iter_2.solverstate").exists()


def test_training_stops_in_the_first_test(folder):
    solver = get_solver("solver.prototxt")
    solver.set_action_function(lambda: SolverAction.STOP)
    solver.solve()
    assert solver.iter == 0
    assert (folder / "snap_iter_0.caffemodel").exists()
