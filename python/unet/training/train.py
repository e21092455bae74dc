"""Run a solver in a loop of our own, not Caffe's, so that every iteration can be the last.

Each is seeded, noted and looked at, and a stop, a test or a snapshot finds it whole. The solver's
own display, tests and snapshots are switched off and done here: Caffe's cannot be seen from
outside, average tests over a fixed number of tiles and keep every snapshot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import numpy as np
from tqdm import tqdm

from unet.errors import InputError
from unet.files.hdf5 import check_weights
from unet.files.names import path_in_prototxt
from unet.machine.engine import open_engine
from unet.machine.signals import Stopped, noting
from unet.model.open_net import find_weights
from unet.training import snapshots
from unet.training.averaging import Averaging
from unet.training.history import History
from unet.training.idle import IdleWatch, refuse_idle_net
from unet.training.time_limit import TimeLimit
from unet.training.training_guard import guard_run
from unet.training.validation import Validation

# The curve on disk, and its picture, follow the training at these distances, in seconds.
_FLUSH_SECONDS = 15.0
_DRAW_SECONDS = 60.0
# What a log file gets of the progress bar, in seconds between two lines.
_LOG_SECONDS = 30.0


def iteration_seed(seed: int, iteration: int) -> int:
    """Return the engine's random seed for one iteration: 31 bits of a hash of both numbers.

    Seeding every iteration makes drop-out a function of (seed, iteration), so that a resumed
    training goes on exactly as the uninterrupted one, on either engine.
    """
    digest = hashlib.sha256(f"{seed}:{iteration}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def read_solver(path: str) -> Any:
    """Read a solver prototxt as it is; an InputError names the line that is wrong."""
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such solver prototxt") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the solver prototxt in it") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text; name a solver prototxt") from None
    try:
        return text_format.Parse(text, caffe_pb2.SolverParameter())
    except text_format.ParseError as error:
        if _is_net(text):
            raise InputError(
                f"{path}: is a network, not a solver; name the solver prototxt, whose train_net or "
                f"net is this one"
            ) from None
        raise InputError(f"{path}: is no solver prototxt: line {error}") from None


def _is_net(text: str) -> bool:
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    with contextlib.suppress(text_format.ParseError):
        text_format.Parse(text, caffe_pb2.NetParameter())
        return True
    return False


class Diverged(InputError):
    """The loss or a parameter is NaN or infinite."""


def train(
    solver: str,
    output: str | None = None,
    weights: str | None = None,
    *,
    resume: bool | str = False,
    iterations: int | None = None,
    rate: float | None = None,
    seconds: float | None = None,
    average: float | None = None,
    device: str = "auto",
    precision: str = "fp32",
    overwrite: bool = False,
) -> str:
    """Train a network, and tell on standard output what is trained and where it goes.

    Parameters
    ----------
    solver : str
        Any solver prototxt. One without random_seed is given the seed 1, so that a run can be
        repeated.
    output : str, optional
        Folder for snapshots and curves; by default that of the solver's snapshot_prefix.
    weights : str, optional
        Start from these parameters: a .caffemodel, HDF5 or a model folder; by default from fillers.
    resume : bool or str
        Go on from this .solverstate; True: from the run's newest whole snapshot if it has one.
    iterations : int, optional
        In place of the solver's max_iter.
    rate : float, optional
        In place of the solver's base_lr.
    seconds : float, optional
        Of wall clock, from the first iteration to the last: as many iterations as fit into them,
        see `unet.training.time_limit`; a snapshot and a test come after.
    average : float, optional
        Average the parameters over this part of the iterations, the last, above 0 and at most 1,
        see `unet.training.averaging`: PREFIX_iter_N_averaged.caffemodel lies beside the last
        snapshot then, which is the same as without.
    device : str
        auto, cpu or the number of a GPU.
    precision : {"fp32", "tf32", "bf16"}
        Of convolutions; bf16 where the hardware has it, else fp32.
    overwrite : bool
        Begin in a folder with files of these names that no training has left there.

    Returns
    -------
    str
        Path of the newest .caffemodel.

    Raises
    ------
    InputError
        If the solver cannot be run, or a file that is there would be damaged; if nothing is learnt:
        the loss stays 0, or no parameter changes.
    Diverged
        If the loss or a parameter is NaN or infinite; the snapshots stay as they are.
    unet.machine.signals.Stopped
        After Ctrl-C, SIGTERM or SIGHUP, once the iteration that is running is done and a snapshot
        is written. A second one does not hurry that: nothing that was learnt is lost.

    Examples
    --------
    >>> model = train("runs/mine/solver.prototxt", resume=True)        # doctest: +SKIP

    References
    ----------
    Ronneberger et al. 2015, Sec. 3.
    """
    if weights and isinstance(resume, str):
        raise InputError("--weights and --resume STATE both say where to start: give one of them")
    caffe = open_engine(device, precision, graphs=True)
    with Training(caffe, solver, output, iterations, rate, seconds, average) as training:
        state = None
        if resume:
            state = training.resume(None if resume is True else resume, overwrite)
        if state is None:
            training.begin(weights, overwrite)
        begins = f"goes on from {state}" if state else f"starts from {weights or 'fillers'}"
        print(f"{solver}: {training.parameters:,} parameters; {begins}")
        begin, end = training.solver.iter, training.max_iter
        print(f"iterations {begin} to {end}")
        if begin >= end:
            print("nothing is left to train: --iterations asks for more")
        print(f"snapshots, curve.csv, curves.png, tensorboard: {training.folder}", flush=True)
        training.run()
        if training.solver.iter < end:
            print(f"ended at iteration {training.solver.iter}: {seconds:g} s are over")
        if average is not None:
            print(f"averaged: {training.averaged}")
        return training.model


class Training:
    """A training that can be stopped at any moment and taken up again; a context manager.

    Its options are those of `train`; `caffe` is the engine, its device chosen. Paths in the solver
    and its net count from `root`, by default the working folder. `shown` is called when the curves
    have been drawn. A solver that cannot be run is an InputError, and so is, on entering the
    context, a folder that another training works in.
    """

    def __init__(
        self,
        caffe: ModuleType,
        solver_path: str,
        output: str | None = None,
        iterations: int | None = None,
        rate: float | None = None,
        seconds: float | None = None,
        average: float | None = None,
        *,
        root: Path | None = None,
        shown: Callable[[], None] = lambda: None,
    ) -> None:
        self.caffe = caffe
        self.path = solver_path
        param = self.param = read_solver(solver_path)
        if root is not None:
            _count_from(root, param)
        self._shown = shown
        if rate is not None:
            if not 0 <= rate <= np.finfo(np.float32).max:
                raise InputError(f"a rate of {rate} is none: give a number of at least 0")
            param.base_lr = rate
        if iterations is not None:
            param.max_iter = iterations
        if param.max_iter < 1:
            raise InputError(
                f"{solver_path}: {param.max_iter} iterations are too few; set max_iter, or "
                "--iterations"
            )
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"{seconds} seconds are no time to train in: give more than 0")
        self.seconds = seconds
        _check_nets(solver_path, param)
        prefix = param.snapshot_prefix or os.path.splitext(solver_path)[0]
        if output is not None:
            prefix = os.path.join(output, os.path.basename(prefix) or "net")
        self.prefix = prefix = path_in_prototxt(prefix)
        self.folder = Path(os.path.dirname(prefix) or ".")
        self.max_iter = param.max_iter
        self.test_interval = param.test_interval if param.test_iter else 0
        self.test_first = param.test_initialization
        self.snapshot_interval = param.snapshot
        self.smooth = max(param.average_loss, 20)
        self.iter_size = max(1, param.iter_size)
        self.seed = param.random_seed if param.random_seed >= 0 else 1
        test_iter = list(param.test_iter)
        param.display = 0
        param.snapshot = 0
        param.snapshot_prefix = prefix
        param.random_seed = self.seed
        if test_iter:
            param.test_interval = 2**31 - 1
            param.test_initialization = False
        self.solver = self._make_solver(param)
        refuse_idle_net(self.solver.net, solver_path)
        self._averaging = None
        if average is not None:
            self._averaging = Averaging(self.solver.net, average, self.max_iter, solver_path)
        names = ["test"] if len(test_iter) == 1 else [f"test{k}" for k in range(len(test_iter))]
        self._tests = {
            name: Validation(net, passes)
            for name, net, passes in zip(names, self.solver.test_nets, test_iter)
        }
        # The signals that have come, and ask the training to stop.
        self._asked: list[int] = []
        # The iteration of the newest snapshot that this run has written.
        self._saved: int | None = None

    def _make_solver(self, param: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "solver.prototxt")
            Path(path).write_text(str(param), encoding="utf-8")
            solver = self.caffe.get_solver(path)
        # Nobody looks at intermediate blobs (genuine Caffe keeps them regardless).
        solver.net.retain_data = False
        return solver

    def __enter__(self) -> Training:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.folder)
        snapshots.sweep(self.prefix)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(blob.count for blobs in self.solver.net.params.values() for blob in blobs)

    def begin(self, weights: str | None = None, overwrite: bool = False) -> None:
        """Start anew, from fillers or from the parameters in a file or model folder.

        An earlier run's snapshots under the same prefix are an InputError, and what
        `unet.training.training_guard.guard_run` refuses.
        """
        old = snapshots.find(self.prefix)
        if old:
            raise InputError(
                f"{old[0].state} is from an earlier run: add --resume to go on from it, or name "
                "another folder with --output to start anew"
            )
        if weights is not None:
            weights = str(find_weights(weights))
        guard_run(self.prefix, self.path, self.param, weights, overwrite)
        if weights is not None:
            check_weights(weights)
            self.solver.net.copy_from(weights)

    def resume(self, state: str | None = None, overwrite: bool = False) -> str | None:
        """Go on from a snapshot, by default from the newest that is whole.

        Returns the solver state that was restored; None if the run has no snapshot yet. One that
        cannot be used, or later ones that would be overwritten, are an InputError; for one of
        another folder that is guarded as by `begin`.
        """
        if state is None:
            snapshot, passed = snapshots.newest_whole(self.prefix, self.solver)
            for why in passed:
                print(f"passed over: {why}", file=sys.stderr)
            if snapshot is None:
                return None
            self._saved = self.solver.iter
            self._resume_average(snapshot.state)
            return snapshot.state
        snapshot = snapshots.given(state)
        if not os.path.samefile(os.path.dirname(state) or ".", self.folder):
            for path in (snapshot.state, snapshot.model):
                guard_run(self.prefix, self.path, self.param, path, overwrite)
        snapshots.restore(snapshot, self.solver)
        later = [old for old in snapshots.find(self.prefix) if old.iteration > self.solver.iter]
        if later:
            raise InputError(
                f"{later[0].state} is later than {state} and would be overwritten: remove the "
                "later snapshots, or name another folder with --output"
            )
        self._resume_average(state)
        return state

    def _resume_average(self, state: str) -> None:
        if self._averaging is not None:
            self._averaging.resume(state, self.solver.iter, self.max_iter)

    def run(self) -> None:
        """Train up to max_iter; errors are those of `train`."""
        solver = self.solver
        for layer in solver.net.layers:
            if hasattr(layer, "seek"):
                layer.seek(solver.iter * self.iter_size)
        for net in solver.test_nets:
            net.share_with(solver.net)
        self._history = History(self.folder, solver.iter)
        self._bar = tqdm(
            total=self.max_iter,
            initial=solver.iter,
            unit="it",
            smoothing=0.05,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else _LOG_SECONDS,
            maxinterval=10 if sys.stderr.isatty() else _LOG_SECONDS,
        )
        with noting() as self._asked, contextlib.closing(self._history), self._bar:
            self._loop()

    def _loop(self) -> None:
        solver, bar, history = self.solver, self._bar, self._history
        limit = None
        if self.seconds is not None:
            limit = TimeLimit(self.param, solver.iter, self.seconds)
        recent: list[float] = []
        notes: dict[str, str] = {}
        idle = IdleWatch(solver.net, self.path)
        flushed = drawn = time.monotonic()
        while solver.iter < self.max_iter:
            iteration = solver.iter
            if self._test_is_due(iteration):
                notes.update(self._test())
                self._stop_if_asked()
            if limit is not None:
                solver.param.base_lr = limit.base_rate(iteration)
            # Caffe keeps rates in single precision.
            rate = float(f"{solver.lr:.7g}")
            self.caffe.set_random_seed(iteration_seed(self.seed, iteration))
            solver.step(1)
            loss = self._loss()
            history.training(iteration, loss, rate)
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at iteration {iteration}")
            idle.note(loss, rate)
            recent = (recent + [loss])[-self.smooth :]
            notes["loss"] = f"{sum(recent) / len(recent):.4f}"
            if limit is not None:
                limit.passed(solver.iter)
                self.max_iter = bar.total = limit.end
            if self._averaging is not None:
                self._averaging.note(solver.iter, self.max_iter)
            bar.set_postfix(notes, refresh=False)
            bar.update(1)
            self._stop_if_asked()
            if self.snapshot_interval and solver.iter % self.snapshot_interval == 0:
                self._snapshot()
            now = time.monotonic()
            if now - drawn > _DRAW_SECONDS:
                history.draw()
                self._shown()
                # What that takes is not waited for again at once.
                drawn = flushed = time.monotonic()
            elif now - flushed > _FLUSH_SECONDS:
                history.flush()
                flushed = now
        idle.finish()
        # Before the test: what was learnt counts more than its score.
        self._snapshot()
        if self._averaging is not None:
            self._averaging.write(self.model, solver.iter)
        if self._tests:
            bar.set_postfix({**notes, **self._test()})
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._asked:
            self._snapshot()
            self._bar.write(
                f"stopped; {self.prefix}_iter_{self.solver.iter}.solverstate is written"
            )
            raise Stopped(self._asked[0])

    def _test_is_due(self, iteration: int) -> bool:
        return bool(
            self.test_interval
            and iteration % self.test_interval == 0
            and (iteration > 0 or self.test_first)
        )

    def _loss(self) -> float:
        net = self.solver.net
        return float(
            sum(
                weight * np.sum(net.blobs[name].data)
                for name, weight in net.blob_loss_weights.items()
                if weight
            )
        )

    def _test(self) -> dict[str, str]:
        """Score the held-out tiles, unless asked to stop; return what the progress bar shows."""
        notes = {}
        for name, test in self._tests.items():
            found = test(lambda: bool(self._asked))
            if found is None:
                # A resumed training makes the whole test again.
                return notes
            scores = {f"{name}_{key}": value for key, value in found.items()}
            self._history.test(self.solver.iter, scores)
            notes.update({key: f"{value:.4f}" for key, value in scores.items()})
        return notes

    def _snapshot(self) -> None:
        for name, blobs in self.solver.net.params.items():
            if not all(np.isfinite(blob.data).all() for blob in blobs):
                raise self._diverged(
                    f"layer '{name}' has parameters that are no finite numbers at iteration "
                    f"{self.solver.iter}"
                )
        if self._saved == self.solver.iter:
            return
        # History first: a resumed training drops rows too many, but cannot make up missing ones.
        self._history.flush()
        # A snapshot is there when its last file is: without the sums it would not be all of it.
        if self._averaging is not None:
            self._averaging.save(f"{self.prefix}_iter_{self.solver.iter}.solverstate")
        self.solver.snapshot()
        self._saved = self.solver.iter
        snapshots.prune(self.prefix, self.snapshot_interval, self._history.done())

    def _diverged(self, what: str) -> Diverged:
        old = snapshots.find(self.prefix)
        last = f"the last good snapshot is {old[0].state}" if old else "there is no snapshot yet"
        return Diverged(f"{what}; {last}; a lower rate (--rate, base_lr) may help")

    @property
    def model(self) -> str:
        """The newest .caffemodel."""
        return snapshots.find(self.prefix)[0].model

    @property
    def averaged(self) -> str:
        """The averaged network beside it, which `run` has written."""
        return snapshots.averaged_model_of(self.model)


def _check_nets(solver_path: str, param: Any) -> None:
    """Refuse net files that are not there: genuine Caffe would end the process."""
    for path in [param.net, param.train_net] + list(param.test_net):
        if path and not os.path.isfile(path):
            raise InputError(
                f"{solver_path}: names the net {path}, which is not there; paths count from the "
                "working folder"
            )


def _count_from(root: Path, param: Any) -> None:
    """Put the net into a solver in place of its name, and let their paths count from a folder."""
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    path = root / param.net
    try:
        net = text_format.Parse(path.read_text(encoding="utf-8"), caffe_pb2.NetParameter())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except text_format.ParseError as error:
        raise InputError(f"{path}: is no network: line {error}") from None
    for layer in net.layer:
        if layer.python_param.layer == "TrainingTiles":
            config = json.loads(layer.python_param.param_str)
            config["file"] = path_in_prototxt(root / config["file"])
            layer.python_param.param_str = json.dumps(config)
    param.ClearField("net")
    param.net_param.CopyFrom(net)
    param.snapshot_prefix = path_in_prototxt(root / param.snapshot_prefix)


def lock_folder(folder: Path) -> int:
    """Keep other trainings out of a folder until the returned handle is closed."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{folder}: another training is at work in this folder") from None
    except OSError:
        # A file system without locks: train all the same.
        pass
    return handle
