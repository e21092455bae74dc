"""caffe.parallel.distributed: how its processes start, fail and are stopped; none is left behind.

And `caffe train` under torchrun, which rests on it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import caffe
from tests.caffe.parallel.test_distributed import parameters, write_case, write_data

# Endless, until it is stopped; every process writes its number into a file of its own.
PROGRAM = """
import functools
import json
import os
import signal
import sys

import caffe
from caffe.parallel import distributed


class Feed(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(2, 3)
        top[1].reshape(2, 1)
        self.passes = 0

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.passes += 1
        rank = caffe.solver_rank()
        if self.passes == 3 and rank == 1 and "FAIL" in os.environ:
            raise ValueError("rank 1 cannot go on")
        if self.passes == 2:
            with open("%d.pid.part" % rank, "w") as file:
                file.write(str(os.getpid()))
            os.rename("%d.pid.part" % rank, "%d.pid" % rank)
        top[0].data[...] = self.passes + rank
        top[1].data[...] = 1

    def backward(self, top, propagate_down, bottom):
        pass


def stop_on(number, solver):
    signal.signal(number, lambda *_: solver.stop())


if __name__ == "__main__":
    prepare = functools.partial(stop_on, signal.SIGINT) if "STOP" in os.environ else None
    try:
        distributed.train("solver.prototxt", ["cpu", "cpu"], prepare=prepare)
    except caffe.CaffeError as error:
        print(error)
        sys.exit(2)
"""

NET = """
layer { name: "feed" type: "Python" top: "data" top: "target"
  python_param { module: "program" layer: "Feed" } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""

SOLVER = """
net: "net.prototxt" base_lr: 1e-9 lr_policy: "fixed" max_iter: 1000000000 snapshot_prefix: "s"
"""


def start(folder: Path, *command: str, solver: str = SOLVER, **environment: str):
    (folder / "program.py").write_text(PROGRAM)
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(solver)
    return subprocess.Popen(
        [sys.executable, *(command or ("program.py",))],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(folder),
            **environment,
        },
    )


def wait_until(condition, seconds: float = 1800) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def numbers(folder: Path, process) -> list[int]:
    """Wait until both solvers train; return their processes' numbers."""
    places = [folder / "0.pid", folder / "1.pid"]
    wait_until(lambda: process.poll() is not None or all(place.exists() for place in places))
    assert process.poll() is None, process.communicate()
    return [int(place.read_text()) for place in places]


def is_gone(number: int) -> bool:
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def ended():
    """End what a failing test would leave."""
    started = []
    yield started.append
    for process in started:
        process.kill()
        process.communicate()


def test_an_error_in_one_process_ends_all_with_its_message(tmp_path: Path, ended):
    process = start(tmp_path, FAIL="yes")
    ended(process)
    out, errors = process.communicate(timeout=1800)
    assert process.returncode == 2, errors
    assert out == "ValueError: rank 1 cannot go on (solver 1 of 2, on the CPU)\n"
    assert is_gone(int((tmp_path / "0.pid").read_text()))
    assert not list(tmp_path.glob("caffe-nccl-*"))


def test_a_stopped_solver_0_snapshots_and_ends_the_others(tmp_path: Path, ended):
    process = start(tmp_path, STOP="yes")
    ended(process)
    children = numbers(tmp_path, process)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=1800)
    assert (process.returncode, out) == (0, ""), errors
    assert "Optimization stopped early." in errors
    assert all(map(is_gone, children))
    assert len(list(tmp_path.glob("s_iter_*.solverstate"))) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_killed_or_interrupted_training(tmp_path: Path, ended, number: int):
    process = start(tmp_path)
    ended(process)
    children = numbers(tmp_path, process)
    process.send_signal(number)
    process.communicate(timeout=1800)
    assert process.returncode == -number
    wait_until(lambda: all(map(is_gone, children)))
    assert not list(tmp_path.glob("s_iter_*"))


@pytest.mark.parametrize("fields", ["", "layer_wise_reduce: false clip_gradients: 1"])
def test_torchrun_starts_the_program(tmp_path: Path, ended, fields: str):
    """Two processes of `caffe train` come to the parameters and the state of one with iter_size 2.

    The log is that of one solver: only the first one of several displays and snapshots.
    """
    write_data(tmp_path)
    said = {}
    for count in (2, 1):
        more = f'type: "SGD" base_lr: 0.05 display: 1 solver_mode: CPU {fields}'
        solver = write_case(tmp_path, "case", more, count)
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        launched = torchrun if count == 2 else ()
        process = start(tmp_path, *launched, "-m", "caffe", "train", "-solver", solver)
        ended(process)
        _, said[count] = process.communicate(timeout=1800)
        assert process.returncode == 0, said[count]
    alone, several = (f"{tmp_path}/case, {count} solvers_iter_5" for count in (1, 2))
    wanted, got = (parameters(f"{path}.caffemodel") for path in (alone, several))
    assert len(wanted) == 7
    for key, values in wanted.items():
        np.testing.assert_allclose(got[key], values, atol=1e-6, err_msg=key)
    states = [
        caffe.proto.caffe_pb2.SolverState.FromString(Path(f"{path}.solverstate").read_bytes())
        for path in (alone, several)
    ]
    assert [state.iter for state in states] == [5, 5]
    assert len(states[0].history) == len(states[1].history) == 6
    assert sum(np.any(blob.data) for blob in states[0].history) == 5
    for one, other in zip(*(state.history for state in states)):
        np.testing.assert_allclose(other.data, one.data, atol=1e-6)
    for count, log in said.items():
        assert log.count("] Iteration 4, lr = 0.05") == 1, count
        assert log.count("Snapshotting solver state to binary proto file") == 1, count
        assert "Optimization Done." in log
