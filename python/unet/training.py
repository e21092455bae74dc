"""Run a solver: progress, curves, held-out scores, snapshots, resume."""

from __future__ import annotations

import hashlib
import math
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from tqdm import tqdm

from unet.curve import Curve
from unet.errors import InputError

# Snapshots of one run that stay on disk: the newest, and one to fall back on.
KEPT_SNAPSHOTS = 2
# The curves on disk follow the training at this distance, in seconds.
_FLUSH_SECONDS = 15.0


def iteration_seed(seed: int, iteration: int) -> int:
    """Return the engine's random seed for one iteration: 31 bits of a hash of both numbers.

    Seeding every iteration makes drop-out a function of (seed, iteration), so that a resumed training
    goes on exactly as the uninterrupted one, on either engine.
    """
    digest = hashlib.sha256(f"{seed}:{iteration}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def read_solver(path: str) -> Any:
    """Read a solver prototxt as it is.

    Returns
    -------
    caffe_pb2.SolverParameter

    Raises
    ------
    InputError
        If there is no such file or it is no solver; names the line.
    """
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    try:
        text = Path(path).read_text(encoding="utf-8")
        return text_format.Parse(text, caffe_pb2.SolverParameter())
    except FileNotFoundError:
        raise InputError(f"{path}: no such solver prototxt") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path}: is no solver prototxt ({error})") from None
    except text_format.ParseError as error:
        raise InputError(f"{path}: is no solver prototxt: line {error}") from None


def snapshots(prefix: str) -> List[Tuple[int, str]]:
    """Return (iteration, path of the solver state) of the snapshots with a prefix, newest first.

    A state whose .caffemodel is missing does not count.
    """
    folder, name = os.path.split(prefix)
    pattern = re.compile(re.escape(name) + r"_iter_(\d+)\.solverstate(\.h5)?$")
    found = []
    if os.path.isdir(folder or "."):
        for entry in os.listdir(folder or "."):
            match = pattern.match(entry)
            if match:
                state = os.path.join(folder, entry)
                if os.path.exists(_model_of(state)):
                    found.append((int(match.group(1)), state))
    return sorted(found, reverse=True)


def _model_of(state: str) -> str:
    return state.replace(".solverstate", ".caffemodel")


class Training:
    """A training that can be stopped at any moment and taken up again.

    Parameters
    ----------
    caffe : module
        The engine, its device chosen.
    solver_path : str
        Any solver prototxt.
    output : str, optional
        Folder for snapshots and curves; by default that of the solver's snapshot_prefix.
    iterations : int, optional
        In place of the solver's max_iter.
    """

    def __init__(
        self,
        caffe: ModuleType,
        solver_path: str,
        output: Optional[str] = None,
        iterations: Optional[int] = None,
    ) -> None:
        self.caffe = caffe
        param = read_solver(solver_path)
        if iterations is not None:
            if iterations < 1:
                raise InputError(f"{iterations} iterations are too few: at least 1")
            param.max_iter = iterations
        if not param.max_iter:
            raise InputError(f"{solver_path}: has no max_iter; add one or give the iterations")
        prefix = param.snapshot_prefix or os.path.splitext(solver_path)[0]
        if output is not None:
            prefix = os.path.join(output, os.path.basename(prefix) or "net")
        self.prefix = prefix
        self.folder = Path(os.path.dirname(prefix) or ".")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.max_iter = param.max_iter
        self.test_interval = param.test_interval
        self.test_first = param.test_initialization
        self.test_iter = list(param.test_iter)
        self.snapshot_interval = param.snapshot
        self.smooth = max(param.average_loss, 20)
        self.iter_size = max(1, param.iter_size)
        self.seed = param.random_seed if param.random_seed >= 0 else 1
        # Testing, display and snapshots are done here, so that they can be seen, kept and resumed.
        param.display = 0
        param.snapshot = 0
        param.snapshot_prefix = prefix
        if self.test_iter:
            param.test_interval = 2**31 - 1
            param.test_initialization = False
        param.random_seed = self.seed
        self.solver = self._make_solver(param)
        self._stop_signal: Optional[int] = None

    def _make_solver(self, param: Any) -> Any:
        handle, name = tempfile.mkstemp(suffix=".prototxt", dir=str(self.folder))
        try:
            with os.fdopen(handle, "w") as file:
                file.write(str(param))
            solver = self.caffe.get_solver(name)
        finally:
            os.unlink(name)
        # Nobody looks at the diffs of intermediate blobs here (genuine Caffe keeps them regardless).
        solver.net.retain_diffs = False
        return solver

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(blob.count for blobs in self.solver.net.params.values() for blob in blobs)

    def begin(self, weights: Optional[str] = None) -> None:
        """Start anew, from fillers or from the parameters in a file.

        Raises
        ------
        InputError
            If an earlier run has left snapshots under the same prefix.
        """
        old = snapshots(self.prefix)
        if old:
            raise InputError(
                f"{old[0][1]} is from an earlier run: add --resume to go on from it, or remove "
                f"{self.folder} or name another folder to start anew"
            )
        if weights is not None:
            if not os.path.isfile(weights):
                raise InputError(f"{weights}: no such file of weights")
            self.solver.net.copy_from(weights)

    def resume(self, state: Optional[str] = None) -> str:
        """Go on from a snapshot, by default from the newest that can be read.

        Returns
        -------
        str
            The solver state that was restored.

        Raises
        ------
        InputError
            If there is none.
        """
        error = getattr(self.caffe, "CaffeError", InputError)
        if state is not None:
            if not os.path.isfile(state):
                raise InputError(f"{state}: no such solver state")
            self.solver.restore(state)
            return state
        found = snapshots(self.prefix)
        if not found:
            raise InputError(f"no snapshot {self.prefix}_iter_N.solverstate to go on from")
        for _, candidate in found:
            try:
                self.solver.restore(candidate)
                return candidate
            except error as problem:
                tqdm.write(f"passed over: {problem}")
        raise InputError(f"none of the snapshots {self.prefix}_iter_N.solverstate can be read")

    def run(self) -> None:
        """Train up to max_iter.

        Raises
        ------
        InputError
            If the loss is no number any more; the snapshots stay as they are.
        KeyboardInterrupt
            After Ctrl-C or SIGTERM, once a snapshot is written.
        """
        solver = self.solver
        for layer in solver.net.layers:
            if hasattr(layer, "seek"):
                layer.seek(solver.iter * self.iter_size)
        curve = Curve(self.folder, solver.iter)
        handlers = {
            number: signal.signal(number, self._note_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            with tqdm(
                total=self.max_iter, initial=solver.iter, unit="it", smoothing=0.05, dynamic_ncols=True
            ) as bar:
                self._loop(curve, bar)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            curve.close()

    def _loop(self, curve: Curve, bar: tqdm) -> None:
        solver = self.solver
        recent: List[float] = []
        flushed = time.monotonic()
        notes: Dict[str, str] = {}
        while solver.iter < self.max_iter:
            iteration = solver.iter
            if self._test_is_due(iteration):
                notes.update(self._test(curve))
            rate = getattr(solver, "lr", math.nan)
            self.caffe.set_random_seed(iteration_seed(self.seed, iteration))
            solver.step(1)
            loss = self._loss()
            if not math.isfinite(loss):
                raise InputError(self._lost(f"the loss is {loss} at iteration {iteration}"))
            recent = (recent + [loss])[-self.smooth :]
            curve.training(iteration, loss, rate)
            notes["loss"] = f"{sum(recent) / len(recent):.4f}"
            bar.set_postfix(notes, refresh=False)
            bar.update(1)
            if self._stop_signal is not None:
                self._snapshot()
                raise KeyboardInterrupt
            if self.snapshot_interval and solver.iter % self.snapshot_interval == 0:
                curve.flush()
                self._snapshot()
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                curve.flush()
                flushed = time.monotonic()
        if self.test_iter and self.test_interval:
            self._test(curve)
        self._snapshot()

    def _note_signal(self, number: int, _frame: Any) -> None:
        if self._stop_signal is not None:
            # Asked twice: stop at once; the last snapshot is whole.
            raise KeyboardInterrupt
        self._stop_signal = number

    def _test_is_due(self, iteration: int) -> bool:
        return bool(
            self.test_iter
            and self.test_interval
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

    def _test(self, curve: Curve) -> Dict[str, str]:
        """Run the test nets over their slices; return what the progress bar shows."""
        notes = {}
        for number, (net, passes) in enumerate(zip(self.solver.test_nets, self.test_iter)):
            net.share_with(self.solver.net)
            for layer in net.layers:
                if hasattr(layer, "seek"):
                    layer.seek(0)
                    passes = getattr(layer, "tiles_per_epoch", passes)
            sums: Dict[str, float] = {}
            for _ in range(passes):
                for name, values in net.forward().items():
                    sums[name] = sums.get(name, 0.0) + float(np.mean(values))
            means = {name: total / passes for name, total in sums.items()}
            if "accuracy" in means:
                means["pixel_error"] = 1.0 - means.pop("accuracy")
            prefix = "test" if len(self.test_iter) == 1 else f"test{number}"
            curve.test(self.solver.iter, {f"{prefix}_{name}": v for name, v in means.items()})
            notes.update({f"{prefix}_{name}": f"{value:.4f}" for name, value in means.items()})
        curve.flush()
        return notes

    def _snapshot(self) -> None:
        for name, blobs in self.solver.net.params.items():
            if not all(np.isfinite(blob.data).all() for blob in blobs):
                raise InputError(self._lost(f"layer '{name}' has parameters that are no numbers"))
        self.solver.snapshot()
        for _, state in snapshots(self.prefix)[KEPT_SNAPSHOTS:]:
            # The state first: a model without its state is no snapshot to resume from.
            os.unlink(state)
            os.unlink(_model_of(state))

    def _lost(self, what: str) -> str:
        old = snapshots(self.prefix)
        last = f"the last good snapshot is {old[0][1]}" if old else "there is no snapshot yet"
        return f"{what}: {last}; lower base_lr and go on from there"

    @property
    def model(self) -> str:
        """The newest .caffemodel."""
        return _model_of(snapshots(self.prefix)[0][1])
