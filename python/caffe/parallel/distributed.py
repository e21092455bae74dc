"""Train one net with several processes, one per GPU; what `caffe train -gpu all` does.

Not in genuine pycaffe, whose programs start the processes themselves, as in python/train.py. Nor by
torch.multiprocessing.spawn: that ends all processes with the message of the first one that fails,
which may only have lost the one that tells the cause; it waits for every process where process 0
alone says when training is done, and passes no signals on to it.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from caffe import common
from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.parallel.nccl import ENVIRONMENT, NCCL, LostError
from caffe.proto import caffe_pb2
from caffe.solvers.solver import Solver, get_solver

# Seconds: how often to look after the processes, how long one may take to end, and how long to wait
# for the cause when a process has lost another.
_LOOK, _END, _CAUSE = 1.0, 5.0, 10.0
_FORWARDED = (signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Rank:
    """Which process of a training this is: number `rank` of `count`, from 0.

    `local_rank` is its number among those on this machine.
    """

    rank: int
    count: int
    local_rank: int


def from_environment() -> Rank | None:
    """Return which process of several this is, if torchrun or its like has started it.

    None if RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are not all set, or for one process.

    Raises
    ------
    CaffeError
        If they are not numbers, or contradict each other.
    """
    given = {name: os.environ.get(name, "") for name in ENVIRONMENT}
    if not all(given.values()):
        return None
    rank, count = given["RANK"], given["WORLD_SIZE"]
    local = os.environ.get("LOCAL_RANK", rank)
    if not (rank.isdecimal() and count.isdecimal() and local.isdecimal()):
        raise CaffeError(
            f"RANK '{rank}', WORLD_SIZE '{count}' and LOCAL_RANK '{local}' must be whole numbers, "
            "as torchrun sets them; unset them to train without it"
        )
    if int(rank) >= int(count):
        raise CaffeError(
            f"RANK {rank} does not exist with WORLD_SIZE {count}; unset both to train without "
            "torchrun"
        )
    return Rank(int(rank), int(count), int(local)) if int(count) > 1 else None


@dataclass(frozen=True)
class _Training:
    """What is to be trained; travels to the processes."""

    # A file, or a SolverParameter, serialised.
    solver: str | bytes
    snapshot: str | None
    weights: str | None
    prepare: Callable[[Solver], None] | None

    def make_solver(self) -> Solver:
        if isinstance(self.solver, str):
            return get_solver(self.solver)
        return get_solver(caffe_pb2.SolverParameter.FromString(self.solver))

    def run(
        self,
        rank: int,
        count: int,
        where: int | str,
        uid: bytes,
        prepared: Callable[[], None] = lambda: None,
    ) -> None:
        """Train in this process; call `prepared` when `prepare` has been called."""
        common.set_solver_count(count)
        common.set_solver_rank(rank)
        if where == "cpu":
            common.set_mode_cpu()
        else:
            common.set_device(where)
            common.set_mode_gpu()
        solver = self.make_solver()
        if self.snapshot:
            solver.restore(self.snapshot)
        elif self.weights and common.is_root():
            for path in self.weights.split(","):
                solver.net.copy_from(path)
        if count > 1:
            nccl = NCCL(solver, uid)
            nccl.bcast()
            solver.add_callback(nccl)
            if solver.param.layer_wise_reduce:
                solver.net.after_backward(nccl)
        if common.is_root():
            if self.prepare is not None:
                self.prepare(solver)
                prepared()
            solver.solve()
        else:
            solver.step(solver.param.max_iter - solver.iter)


def train(
    solver: str | os.PathLike | caffe_pb2.SolverParameter,
    devices: Sequence[int | str] | None = None,
    snapshot: str | os.PathLike | None = None,
    weights: str | None = None,
    prepare: Callable[[Solver], None] | None = None,
) -> None:
    """Train a net up to max_iter, one process per device; each step is that of all their batches.

    With one device, and in a process that torchrun has started, training goes on in this process.

    Parameters
    ----------
    solver : path or caffe_pb2.SolverParameter
    devices : sequence of int or "cpu", optional
        A GPU's number, or "cpu" for a process on the CPU; by default all GPUs, or the CPU if there
        is none. Under torchrun a process takes the one of its number on this machine, and ("cpu",)
        serves them all.
    snapshot : path, optional
        A .solverstate to go on from.
    weights : str, optional
        Files of parameters to begin with, commas between them.
    prepare : callable, optional
        Called with solver 0 in its process before training, to set up what is to happen there on
        SIGINT and SIGHUP, which then are its own to answer: they are passed on to that process. It
        must be a function that pickle finds by name, or a functools.partial of one. Without it
        SIGINT ends all processes.

    Raises
    ------
    CaffeError
        If training fails in a process, with the message from there; all others are ended.

    Notes
    -----
    N processes make the steps of one with N times the iter_size. Data and HDF5Data layers share out
    their items; process r draws from random_seed + r. Only process 0 displays, tests and snapshots.
    When it has finished, also before max_iter, the others are ended. Where no OMP_NUM_THREADS is
    set, processes on the CPU share its cores.
    """
    if devices is None:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = tuple(range(gpus)) or ("cpu",)
    if not devices:
        raise CaffeError("there is no device to train on: give at least one")
    whole = isinstance(solver, caffe_pb2.SolverParameter)
    if not whole:
        # A mistake in the file is told before any process starts.
        prototxt.read_solver(solver)
    training = _Training(
        solver.SerializeToString() if whole else os.fspath(solver),
        None if snapshot is None else os.fspath(snapshot),
        weights,
        prepare,
    )
    own = from_environment()
    if own is not None:
        training.run(own.rank, own.count, _own_device(own, devices), "")
    elif len(devices) == 1:
        training.run(0, 1, devices[0], "")
    else:
        _train_in_processes(training, tuple(devices))


def _own_device(own: Rank, devices: Sequence[int | str]) -> int | str:
    if tuple(devices) == ("cpu",):
        return "cpu"
    if own.local_rank >= len(devices):
        raise CaffeError(
            f"process {own.local_rank} on this machine has no device of its own, there are "
            f"{len(devices)}: let torchrun start as many processes as there are devices"
        )
    return devices[own.local_rank]


# -- the process that starts the others ------------------------------------------------------------


@dataclass(frozen=True)
class _Started:
    """A process, and where it says how it ended."""

    process: BaseProcess
    report: Connection
    where: str


def _train_in_processes(training: _Training, devices: tuple[int | str, ...]) -> None:
    context = multiprocessing.get_context("spawn")
    uid = NCCL.new_uid()
    started: list[_Started] = []
    patience = 0.0
    try:
        # A process begins with the signals ignored that its parent ignores: they are the parent's
        # to answer, also those that a terminal sends to all.
        with _answering(signal.SIG_IGN):
            for rank, where in enumerate(devices):
                report, told = context.Pipe(duplex=False)
                process = context.Process(
                    target=_run, args=(training, rank, len(devices), where, uid, told)
                )
                process.start()
                told.close()
                name = "on the CPU" if where == "cpu" else f"on GPU {where}"
                started.append(
                    _Started(process, report, f"solver {rank} of {len(devices)}, {name}")
                )
        _look_after(started)
        patience = _END
    finally:
        _end([one.process for one in started], patience)


def _look_after(started: list[_Started]) -> None:
    """Wait until process 0 has finished; raise a `CaffeError` if another one fails first."""
    running = list(started)
    lost, deadline = "", math.inf
    with contextlib.ExitStack() as signals:
        while time.monotonic() < deadline and running:
            wait([one.report for one in running] + [one.process.sentinel for one in running], _LOOK)
            for one in list(running):
                if one.process.exitcode is None and not one.report.poll():
                    continue
                kind, message, details = _said(one)
                if kind == "prepared":
                    signals.enter_context(_answering(_passing_on_to(one.process)))
                    continue
                running.remove(one)
                if kind == "done" and one is started[0]:
                    return
                if kind == "failed":
                    cause = RuntimeError(f"\n{details}") if details else None
                    raise CaffeError(f"{message} ({one.where})") from cause
                if kind == "lost" and not lost:
                    # Another one has failed, and will say of what.
                    lost, deadline = f"{message} ({one.where})", time.monotonic() + _CAUSE
    raise CaffeError(lost)


def _passing_on_to(process: BaseProcess) -> Callable[[int, object], None]:
    def pass_on(number: int, frame: object) -> None:
        if process.exitcode is None:
            os.kill(process.pid, number)

    return pass_on


def _said(one: _Started) -> tuple[str, str, str]:
    with contextlib.suppress(EOFError, OSError):
        if one.report.poll():
            return one.report.recv()
    one.process.join()
    status = one.process.exitcode
    if status >= 0:
        return "failed", f"the process ended with exit status {status}", ""
    hint = ", probably out of memory" if status == -signal.SIGKILL else ""
    return "failed", f"the process was killed by {signal.Signals(-status).name}{hint}", ""


def _end(processes: list[BaseProcess], patience: float) -> None:
    """End processes: let them come to their end, ask, force."""
    for seconds, stop in ((patience, BaseProcess.terminate), (_END, BaseProcess.kill)):
        deadline = time.monotonic() + seconds
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
            if process.exitcode is None:
                stop(process)
    for process in processes:
        process.join()


@contextlib.contextmanager
def _answering(handler: signal.Handlers | Callable[[int, object], None]) -> Iterator[None]:
    """Answer SIGINT and SIGHUP in another way for a while, where Python lets that be changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


# -- each of the others ----------------------------------------------------------------------------


def _run(
    training: _Training, rank: int, count: int, where: int | str, uid: bytes, told: Connection
) -> None:
    threading.Thread(target=_follow, daemon=True).start()
    if where == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    try:
        training.run(rank, count, where, uid, lambda: told.send(("prepared", "", "")))
        said = ("done", "", "")
    except CaffeError as error:
        said = ("lost" if isinstance(error, LostError) else "failed", str(error), "")
    except Exception as error:
        said = ("failed", f"{type(error).__name__}: {error}", traceback.format_exc())
    told.send(said)
    if said[0] != "done":
        sys.exit(1)


def _follow() -> None:
    """End with the process that started this one, also if that was killed."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
