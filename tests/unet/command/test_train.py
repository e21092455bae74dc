"""tools/train.py as a process: killed, stopped, resumed, and on genuine Caffe."""

from __future__ import annotations

import os
import random
import runpy
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.proto import caffe_pb2
from tests.unet.small_net import write_training
from unet.errors import InputError
from unet.training import snapshots
from unet.training.history import read_history

REPOSITORY = Path(__file__).resolve().parents[3]
train = runpy.run_path(str(REPOSITORY / "tools" / "train.py"))["main"]
ENGINES = ["ours", pytest.param("reference", marks=pytest.mark.reference)]


def command(engine, *arguments: object) -> list[str]:
    return [*engine.command, str(REPOSITORY / "tools" / "train.py"), *map(str, arguments)]


def start(engine, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        command(engine, *arguments, "--device", "cpu"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=1800)
    assert process.returncode == status, f"exit status {process.returncode}\n{out}\n{err}"
    return out, err


def wait_for_iteration(process: subprocess.Popen, folder: Path, number: int) -> None:
    deadline = time.monotonic() + 1800
    while not any(s.iteration >= number for s in snapshots.find(str(folder / "small"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def final(folder: Path, iteration: int) -> tuple[list[bytes], list[bytes]]:
    """Return parameters and momentum at the end of a run."""
    prefix = folder / f"small_iter_{iteration}"
    net = caffe_pb2.NetParameter.FromString(Path(f"{prefix}.caffemodel").read_bytes())
    state = caffe_pb2.SolverState.FromString(Path(f"{prefix}.solverstate").read_bytes())
    return (
        [blob.SerializeToString() for layer in net.layer for blob in layer.blobs],
        [blob.SerializeToString() for blob in state.history],
    )


# A snapshot at every step: most of the time is spent in writing them.
SOLVER = dict(snapshot=1, test_interval=10, lr_policy="fixed")
# Of a training that is to be disturbed: it is never over before, however late that comes.
ENDLESS = ("--iterations", 1_000_000)
# Steps after the last disturbance.
MORE = 10


@pytest.fixture
def engine(request):
    return request.getfixturevalue(request.param)


def undisturbed(engine, folder: Path, steps: int) -> Path:
    """Return the folder of a run that nothing disturbs."""
    finish(start(engine, write_training(folder, **SOLVER), "--iterations", steps))
    return folder / "run"


def rows(folder: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_history(folder / "curve.csv")
    ]


def test_killed_at_any_moment_and_resumed_is_bit_identical(ours, tmp_path):
    solver, folder = write_training(tmp_path, workers=1, **SOLVER), tmp_path / "run"
    for seed, reached in enumerate((3, 15)):
        process = start(ours, solver, "--resume", *ENDLESS)
        wait_for_iteration(process, folder, reached)
        time.sleep(random.Random(seed).uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        for snapshot in snapshots.find(str(folder / "small")):
            caffe_pb2.SolverState.FromString(Path(snapshot.state).read_bytes())
            caffe_pb2.NetParameter.FromString(Path(snapshot.model).read_bytes())
    steps = snapshots.find(str(folder / "small"))[0].iteration + MORE
    out, err = finish(start(ours, solver, "--resume", "--iterations", steps))
    assert "goes on from" in out
    assert "passed over" not in err
    other = undisturbed(ours, tmp_path / "other", steps)
    assert final(folder, steps) == final(other, steps)
    assert rows(folder) == rows(other)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("ours", signal.SIGTERM),
        pytest.param("reference", signal.SIGINT, marks=pytest.mark.reference),
    ],
    indirect=["engine"],
)
def test_interrupted_and_resumed_is_bit_identical(engine, number, tmp_path):
    solver, folder = write_training(tmp_path, workers=1, **SOLVER), tmp_path / "run"
    process = start(engine, solver, *ENDLESS)
    wait_for_iteration(process, folder, 7)
    # Ctrl-C in a terminal reaches the workers too.
    os.killpg(process.pid, number)
    out, err = finish(process, 128 + number)
    assert "solverstate is written" in out + err
    steps = snapshots.find(str(folder / "small"))[0].iteration + MORE
    finish(start(engine, solver, "--resume", "--iterations", steps))
    assert final(folder, steps) == final(undisturbed(engine, tmp_path / "other", steps), steps)


def test_a_torn_snapshot_is_passed_over_on_genuine_caffe_too(reference, tmp_path):
    solver = write_training(tmp_path, max_iter=8, snapshot=4)
    finish(start(reference, solver))
    newest = Path(snapshots.find(str(tmp_path / "run" / "small"))[0].model)
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    out, err = finish(start(reference, solver, "--resume"))
    assert "small_iter_4.solverstate" in out
    assert "passed over" in err
    assert newest.read_bytes() == whole


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_training_that_diverges_ends_with_one_sentence(engine, tmp_path):
    solver = write_training(tmp_path, base_lr=1e30, lr_policy="fixed")
    _, err = finish(start(engine, solver), 2)
    last = err.strip().splitlines()[-1]
    assert last.startswith("train.py: ")
    assert "there is no snapshot yet" in last
    assert "Traceback" not in err
    assert not list((tmp_path / "run").glob("small_iter_*"))


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(base_lr=0), "solver.prototxt: no parameter has changed, for the learning rate was 0"),
        (None, "data.h5: in the slices 0 to 1 no pixel is annotated and weighs more than 0"),
    ],
)
def test_a_training_that_learns_nothing_ends_with_one_sentence(engine, change, message, tmp_path):
    steps = dict(max_iter=2, snapshot=0, lr_policy="fixed", weight_decay=0)
    solver = write_training(tmp_path, **{**steps, **(change or {})})
    if change is None:
        with h5py.File(tmp_path / "data.h5", "r+") as file:
            file["weights"][:2] = 0
    out, err = finish(start(engine, solver), 2)
    assert message in err.strip().splitlines()[-1]
    assert "trained" not in out and "Traceback" not in err
    assert not list((tmp_path / "run").glob("small_iter_*"))


def test_what_it_does_is_told_in_a_few_lines(tmp_path, capsys):
    solver = write_training(tmp_path, max_iter=3)
    train([str(solver), "--device", "cpu"])
    model = tmp_path / "run" / "small_iter_3.caffemodel"
    assert capsys.readouterr().out.splitlines() == [
        f"{solver}: 98 parameters; starts from fillers",
        "iterations 0 to 3",
        f"snapshots, curve.csv, curves.png, tensorboard: {tmp_path / 'run'}",
        f"trained: {model}",
    ]
    train([str(solver), "--device", "cpu", "--resume"])
    assert "nothing is left to train: --iterations asks for more" in capsys.readouterr().out
    fine = ["--weights", str(model), "--rate", "0.125", "-o", str(tmp_path / "fine")]
    train([str(solver), *fine, "--iterations", "2"])
    assert f"starts from {model}" in capsys.readouterr().out
    assert (tmp_path / "fine" / "small_iter_2.caffemodel").exists()
    rates = [row.get("rate", np.nan) for row in read_history(tmp_path / "fine" / "curve.csv")]
    assert np.nanmax(rates) == 0.125


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_what_does_not_fit_into_the_time_is_left_out_and_said_so(engine, tmp_path):
    solver = write_training(tmp_path, max_iter=1000)
    out, _ = finish(start(engine, solver, "--seconds", "1e-6"))
    # Two iterations tell how long one takes.
    assert "iterations 0 to 1000\n" in out
    assert "ended at iteration 2: 1e-06 s are over\n" in out
    assert f"trained: {tmp_path / 'run' / 'small_iter_2.caffemodel'}\n" in out


def test_a_network_is_averaged_on_genuine_caffe_too(reference, tmp_path):
    solver, folder = write_training(tmp_path, **SOLVER), tmp_path / "run"
    process = start(reference, solver, *ENDLESS, "--average", 1)
    wait_for_iteration(process, folder, 7)
    os.killpg(process.pid, signal.SIGINT)
    finish(process, 128 + signal.SIGINT)
    newest = snapshots.find(str(folder / "small"))[0]
    steps = newest.iteration + 2
    out, err = finish(start(reference, solver, "--resume", "--iterations", steps, "--average", 1))
    averaged = folder / f"small_iter_{steps}_averaged.caffemodel"
    assert f"averaged: {averaged}\n" in out
    # Of a training of a million iterations the sums were over every 10,000th.
    assert f"averaged from iteration {newest.iteration} on, not from 1" in err
    one, two, mean = (
        caffe_pb2.NetParameter.FromString(path.read_bytes()).layer
        for path in (
            folder / f"small_iter_{steps - 1}.caffemodel",
            folder / f"small_iter_{steps}.caffemodel",
            averaged,
        )
    )
    for a, b, c in zip(one, two, mean):
        for first, second, found in zip(a.blobs, b.blobs, c.blobs):
            halves = (np.float64(first.data) + np.float64(second.data)) / 2
            np.testing.assert_array_equal(np.float32(halves), np.float32(found.data))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.prototxt"], "absent.prototxt: no such solver"),
        (["SOLVER"], "--resume"),
        (["SOLVER", "--resume", "absent.solverstate"], "absent.solverstate: no such file"),
        (["SOLVER", "--weights", "a", "--resume", "b"], "give one of them"),
        (["SOLVER", "-o", "NEW", "--weights", "absent.caffemodel"], "absent.caffemodel"),
        (["SOLVER", "-o", "NEW", "--iterations", "0"], "0 iterations"),
        (["SOLVER", "-o", "NEW", "--seconds", "0"], "0.0 seconds are no time to train in"),
        (["SOLVER", "-o", "NEW", "--seconds", "nan"], "nan seconds are no time to train in"),
        (["SOLVER", "-o", "NEW", "--average", "0"], "--average 0: give the part"),
        (["SOLVER", "-o", "NEW", "--rate", "nan"], "a rate of nan is none"),
        (["SOLVER", "--device", "gpu"], "'gpu' is neither"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path, arguments, message):
    solver = write_training(tmp_path, max_iter=1)
    (tmp_path / "run").mkdir()
    for kind in ("solverstate", "caffemodel"):
        (tmp_path / "run" / f"small_iter_1.{kind}").touch()
    places = {"SOLVER": str(solver), "NEW": str(tmp_path / "new")}
    with pytest.raises(InputError, match=message):
        train([places.get(argument, argument) for argument in arguments])
