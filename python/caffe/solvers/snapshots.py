"""Snapshots of a training: its parameters, and the state to go on from."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from caffe.errors import CaffeError
from caffe.files import atomic, caffemodel
from caffe.log import Log
from caffe.net.net import Net
from caffe.proto import caffe_pb2
from caffe.solvers.update_rules import current_step

_log = Log("solver.cpp")
_sgd_log = Log("sgd_solver.cpp")


def _path(param: caffe_pb2.SolverParameter, iteration: int, suffix: str) -> str:
    hdf5 = param.snapshot_format == caffe_pb2.SolverParameter.HDF5
    return f"{param.snapshot_prefix}_iter_{iteration}{suffix}{'.h5' if hdf5 else ''}"


def write(
    param: caffe_pb2.SolverParameter, net: Net, iteration: int, history: Sequence[torch.Tensor]
) -> None:
    """Write PREFIX_iter_N.caffemodel and .solverstate (in HDF5 with .h5), whole or not at all.

    `history` is what the update rule remembers.
    """
    folder, prefix = os.path.split(param.snapshot_prefix)
    # What killed processes left of this training's snapshots, of whatever iteration.
    atomic.sweep(folder or ".", lambda name: name.startswith(f"{prefix}_iter_"))
    model, state = (_path(param, iteration, end) for end in (".caffemodel", ".solverstate"))
    hdf5 = param.snapshot_format == caffe_pb2.SolverParameter.HDF5
    kind = "HDF5" if hdf5 else "binary proto"
    _log.info(f"Snapshotting to {kind} file {model}")
    if hdf5:
        net.save_hdf5(model, param.snapshot_diff)
    else:
        net.save(model)
    _sgd_log.info(f"Snapshotting solver state to {kind} file {state}")
    arrays = [entry.cpu().contiguous().numpy() for entry in history]
    step = current_step(param, iteration)
    caffemodel.write_solverstate(state, caffemodel.SolverState(iteration, model, arrays, step))


def read(
    path: str | os.PathLike, rule: str, history: Sequence[torch.Tensor]
) -> caffemodel.SolverState:
    """Read a .solverstate that fits a solver: its type is `rule`, and it remembers `history`."""
    path = os.fspath(path)
    state = caffemodel.read_solverstate(path)
    if len(state.history) != len(history):
        raise CaffeError(
            f"{path}: has {len(state.history)} history blobs, this solver ({rule}) needs "
            f"{len(history)}"
        )
    for index, (mine, theirs) in enumerate(zip(history, state.history)):
        if mine.numel() != theirs.size:
            raise CaffeError(
                f"{path}: history blob {index} has shape {theirs.shape}, "
                f"this solver's {tuple(mine.shape)}"
            )
    return state
