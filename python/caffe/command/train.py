"""`caffe train`: train a net, or go on with it, until max_iter or a signal."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import signal
import sys

import torch

from caffe import common
from caffe.command import arguments
from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.files.atomic import refuse_own_input
from caffe.log import Log
from caffe.parallel import distributed
from caffe.proto import caffe_pb2
from caffe.solvers.signal_handler import SignalHandler, SolverAction
from caffe.solvers.solver import Solver, get_solver

_log = Log("caffe.cpp")


def train(flags: argparse.Namespace) -> None:
    """Train what -solver names; on several GPUs in a process each, whose log is standard error."""
    path = arguments.required(flags, "solver", "a solver definition to train")
    if flags.snapshot and flags.weights:
        raise CaffeError(
            "give a -snapshot to resume training or -weights to finetune, but not both"
        )
    effects = {
        signal.SIGINT: _action(flags, "sigint_effect"),
        signal.SIGHUP: _action(flags, "sighup_effect"),
    }
    if "sigint_effect" in flags.given:
        _tell_process()
    param = prototxt.read_solver(path)
    param.train_state.level = flags.level
    param.train_state.stage.extend(arguments.stages(flags))
    if flags.weights or flags.snapshot:
        param.ClearField("weights")
    if flags.weights:
        param.weights.append(flags.weights)
    _refuse_own_weights(param)
    gpus = _gpus(flags, param)
    if len(gpus) > 1 or distributed.from_environment():
        _log.info("Starting Optimization")
        distributed.train(
            param,
            gpus or ("cpu",),
            flags.snapshot or None,
            prepare=functools.partial(_answer_signals, effects=effects),
        )
    else:
        arguments.compute_on(gpus[0] if gpus else None)
        solver = get_solver(param, path)
        _answer_signals(solver, effects)
        if flags.snapshot:
            _log.info(f"Resuming from {flags.snapshot}")
            solver.restore(flags.snapshot)
        _log.info("Starting Optimization")
        solver.solve()
    _log.info("Optimization Done.")


def _tell_process() -> None:
    """Tell a program that reads standard output which process it may send SIGINT to.

    The Fiji plugin "U-Net Segmentation" takes its first line for that. Of a process that Java 9 or
    later started it knows no other number, so that without it "Cancel" would end the training
    without a snapshot. A terminal has Ctrl-C, and is told nothing.
    """
    if sys.stdout is not None and not sys.stdout.isatty():
        # Nobody may be reading.
        with contextlib.suppress(OSError):
            print(os.getpid(), flush=True)


def _answer_signals(solver: Solver, effects: dict[signal.Signals, SolverAction]) -> None:
    """Have a solver do what signals are to effect, after the iteration that is running."""
    solver.set_action_function(SignalHandler(effects))


def _refuse_own_weights(param: caffe_pb2.SolverParameter) -> None:
    """Refuse weights whose place a snapshot of this training takes; genuine Caffe loses them."""
    folder, name = os.path.split(param.snapshot_prefix)
    suffix = ".h5" if param.snapshot_format == param.HDF5 else ""
    pattern = re.compile(rf"{re.escape(name)}_iter_(\d+)\.(caffemodel|solverstate){suffix}")
    for entry in os.listdir(folder or ".") if os.path.isdir(folder or ".") else ():
        found = pattern.fullmatch(entry)
        iteration = int(found[1]) if found else 0
        due = bool(param.snapshot) and iteration % param.snapshot == 0
        last = param.snapshot_after_train and iteration == param.max_iter
        if found and 0 < iteration <= param.max_iter and (due or last):
            for weights in ",".join(param.weights).split(","):
                refuse_own_input(os.path.join(folder, entry), weights)


def _action(flags: argparse.Namespace, name: str) -> SolverAction:
    try:
        return SolverAction(getattr(flags, name))
    except ValueError:
        effects = ", ".join(action.value for action in SolverAction)
        raise CaffeError(
            f"-{name} {getattr(flags, name)}: the effect is one of {effects}"
        ) from None


def _gpus(flags: argparse.Namespace, param: caffe_pb2.SolverParameter) -> list[int]:
    """Return the GPUs to train on, and enter the first one in `param`."""
    text = flags.gpu
    if not text and param.HasField("solver_mode") and param.solver_mode == param.GPU:
        text = str(param.device_id)
    gpus = arguments.gpus(text)
    if not gpus:
        _log.info("Use CPU.")
        return gpus
    _log.info(f"Using GPUs {', '.join(map(str, gpus))}")
    for gpu in gpus:
        common.set_device(gpu)
        _log.info(f"GPU {gpu}: {torch.cuda.get_device_name(gpu)}")
    param.device_id = gpus[0]
    return gpus
