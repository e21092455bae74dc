"""NCCL: what keeps solvers in several processes alike, on torch.distributed.

On GPUs the numbers travel by NVIDIA's NCCL, on CPUs by Gloo.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from multiprocessing.util import Finalize
from pathlib import Path

import torch
import torch.distributed as dist

from caffe import common
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.solvers.solver import Solver

# How torchrun tells each process which one it is, and where they meet.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The others wait while solver 0 tests or snapshots, however long that takes.
_PATIENCE = timedelta(days=7)
_PREFIX = "caffe-nccl-"

# Where this process met the others.
_met: str | None = None


class LostError(CaffeError):
    """The other solvers do not answer any more; the one that failed tells the cause."""


def has_nccl() -> bool:
    """Tell whether gradients can travel by NVIDIA's NCCL: this PyTorch has it, and a GPU is there.

    Without it solvers in several processes work as well, on CPUs, by Gloo.
    """
    return dist.is_available() and dist.is_nccl_available() and torch.cuda.is_available()


class NCCL:
    """Give all solvers the same parameters, and the mean of their gradients before each update.

    Parameters
    ----------
    solver : Solver
        This process's solver; `set_solver_count` and `set_solver_rank` say which of how many it is.
    uid : bytes
        From `NCCL.new_uid`, the same for all; a str will do. Processes that torchrun started, on
        one machine or on several, meet where it says instead.

    Raises
    ------
    CaffeError
        If the solvers cannot meet.

    Examples
    --------
    In each process, with one `uid`::

        caffe.set_solver_count(2)
        caffe.set_solver_rank(rank)
        solver = caffe.SGDSolver("solver.prototxt")
        nccl = caffe.NCCL(solver, uid)
        nccl.bcast()
        solver.add_callback(nccl)
        if solver.param.layer_wise_reduce:
            solver.net.after_backward(nccl)
        solver.step(solver.param.max_iter)

    Notes
    -----
    Gradients are summed and divided by the number of solvers, after `iter_size` passes and before
    they are clipped. With `net.after_backward(nccl)` those of a layer travel while the layers below
    compute theirs.
    """

    def __init__(self, solver: Solver, uid: bytes | str) -> None:
        self._solver = solver
        common.check_rank()
        _meet(os.fsdecode(uid))
        net = solver.net
        # Layer -> parameters whose gradients are whole once it has run backward.
        self._ready_after = {
            layer: [net.learnable[index] for index in indices]
            for layer, indices in net.last_used_by.items()
        }
        self._trained = [blob for blobs in self._ready_after.values() for blob in blobs]
        self._layer_wise = False
        self._under_way: list[tuple[dist.Work, torch.Tensor, torch.Tensor]] = []

    @staticmethod
    def new_uid() -> bytes:
        """Return what lets the solvers of one machine find each other.

        It names a folder that is removed when this process ends.
        """
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)
        return os.fsencode(folder)

    def bcast(self) -> None:
        """Give all solvers the parameters of solver 0."""
        for blob in self._solver.net.learnable:
            values = blob.data_tensor()
            # In the order of the elements: memory may be laid out differently elsewhere.
            sent = values.contiguous()
            with _others():
                dist.broadcast(sent, 0)
            if sent is not values:
                values.copy_(sent)

    def on_start(self) -> None:
        """Do nothing: what a solver calls before each iteration."""

    def on_gradients_ready(self) -> None:
        """Put the mean over all solvers in place of the gradients; called before each update."""
        if not self._layer_wise:
            self._send(self._trained)
        self._receive()
        self._layer_wise = False

    def __call__(self, layer: int) -> None:
        """Do the same for the gradients of one layer; what a net calls after its backward pass."""
        self._layer_wise = True
        self._send(self._ready_after.get(layer, ()))
        if layer == 0:
            # The next pass of iter_size adds to the gradients.
            self._receive()

    def _send(self, blobs: Sequence[Blob]) -> None:
        for blob in blobs:
            gradient = blob.diff_tensor()
            sent = gradient.contiguous()
            with _others():
                self._under_way.append((dist.all_reduce(sent, async_op=True), sent, gradient))

    def _receive(self) -> None:
        for work, sent, gradient in self._under_way:
            with _others():
                work.wait()
            sent.mul_(1 / common.solver_count())
            if sent is not gradient:
                gradient.copy_(sent)
        self._under_way.clear()


def _meet(uid: str) -> None:
    """Make this process one of torch.distributed's default group, unless it is already."""
    global _met
    if not dist.is_available():
        raise CaffeError("this PyTorch was built without torch.distributed: train in one process")
    count, rank = common.solver_count(), common.solver_rank()
    place = "env://" if _is_started_by_torchrun() else uid
    if _met is not None and _met != place:
        dist.destroy_process_group()
        _met = None
    if dist.is_initialized():
        if (dist.get_rank(), dist.get_world_size()) != (rank, count):
            raise CaffeError(
                f"torch.distributed runs with rank {dist.get_rank()} of {dist.get_world_size()}, "
                f"this is solver {rank} of {count}: set_solver_rank and set_solver_count must agree"
            )
        return
    if place == uid and not Path(uid).name.startswith(_PREFIX):
        raise CaffeError(f"'{uid}' does not come from caffe.NCCL.new_uid()")
    if place == uid and not Path(uid).is_dir():
        raise CaffeError(
            f"'{uid}' is gone: the process that called caffe.NCCL.new_uid() has ended, or runs on "
            "another machine, which needs torchrun"
        )
    where = common.current_device()
    on_gpu = where.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(where)
    backend = "nccl" if on_gpu and dist.is_nccl_available() else "gloo"
    with _others():
        if place == uid:
            store = dist.FileStore(os.path.join(uid, "store"), count)
            with _loopback():
                dist.init_process_group(
                    backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE
                )
        else:
            dist.init_process_group(backend, timeout=_PATIENCE)
    _met = place
    Finalize(None, _part, exitpriority=10)


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _is_started_by_torchrun() -> bool:
    # Such variables may also be meant for a process further up, which starts the solvers itself.
    here = {"RANK": str(common.solver_rank()), "WORLD_SIZE": str(common.solver_count())}
    return all(os.environ.get(name) for name in ENVIRONMENT) and all(
        os.environ[name] == value for name, value in here.items()
    )


@contextlib.contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Gloo appends generic advice.
        reason = str(error).partition("\n")[0].partition(". This is typically")[0]
        raise LostError(
            f"solver {common.solver_rank()} of {common.solver_count()} cannot reach the others: "
            f"{reason}"
        ) from error


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Have Gloo stay inside this machine: the address of its name may lead nowhere."""
    name = "GLOO_SOCKET_IFNAME"
    inner = [found for _, found in socket.if_nameindex() if found in ("lo", "lo0")]
    if name in os.environ or not inner:
        yield
        return
    os.environ[name] = inner[0]
    try:
        yield
    finally:
        del os.environ[name]
