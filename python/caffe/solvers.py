"""The solvers: iterate forward, backward and update, test at intervals, snapshot, restore."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from caffe import device, glog, prototxt, ranks, weights_io
from caffe.errors import CaffeError
from caffe.net import TEST, TRAIN, Net
from caffe.proto import caffe_pb2
from caffe.update_rules import RETURNS_HISTORY, RULES, current_step, learning_rate

if TYPE_CHECKING:
    from caffe.nccl import NCCL


class Solver:
    """A solver, as pycaffe shows it.

    Parameters
    ----------
    solver_file : path or caffe_pb2.SolverParameter

    Attributes
    ----------
    net : Net
        The net that is trained.
    test_nets : list of Net
    iter : int
        Iterations done.
    param : caffe_pb2.SolverParameter

    Raises
    ------
    CaffeError
        If solver or nets cannot be made as written.
    """

    rule = "SGD"

    def __init__(self, solver_file: str | os.PathLike | caffe_pb2.SolverParameter) -> None:
        if isinstance(solver_file, caffe_pb2.SolverParameter):
            self.param, self.source = solver_file, "<solver>"
        else:
            self.source = os.fspath(solver_file)
            self.param = prototxt.read_solver(solver_file)
            self._complete_prefix()
        param = self.param
        if param.random_seed >= 0:
            device.set_random_seed(param.random_seed + ranks.solver_rank())
        if param.iter_size < 1:
            raise CaffeError(f"{self.source}: iter_size {param.iter_size} must be positive")
        learning_rate(param, 0)
        self.iter = 0
        self.net = self._train_net()
        # Nobody looks at intermediate diffs as a rule; whoever does gets them all the same.
        self.net.retain_diffs = False
        self.test_nets = self._make_test_nets()
        histories = RULES[self.rule][1]
        self._history = [
            torch.zeros(blob.shape) for _ in range(histories) for blob in self.net.learnable
        ]
        self._losses: deque[float] = deque(maxlen=max(1, param.average_loss))
        self._callbacks: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._updated_already: set[int] = set()
        self._stop = False
        self._last_time: tuple[float, int] | None = None

    def _complete_prefix(self) -> None:
        stem = Path(self.source).stem
        if not self.param.snapshot_prefix:
            self.param.snapshot_prefix = str(Path(self.source).with_suffix(""))
        elif Path(self.param.snapshot_prefix).is_dir():
            self.param.snapshot_prefix = str(Path(self.param.snapshot_prefix) / stem)

    def _train_net(self) -> Net:
        param = self.param
        given = [
            field
            for field in ("train_net_param", "train_net", "net_param", "net")
            if param.HasField(field)
        ]
        train = [field for field in given if field.startswith("train")] or given
        if len(train) != 1:
            raise CaffeError(
                f"{self.source}: give exactly one of net, net_param, train_net, train_net_param; "
                f"found {', '.join(train) or 'none'}"
            )
        return self._net(train[0], getattr(param, train[0]), param.train_state, TRAIN)

    def _make_test_nets(self) -> list[Net]:
        param = self.param
        sources = [("test_net_param", value) for value in param.test_net_param]
        sources += [("test_net", value) for value in param.test_net]
        for field in ("net_param", "net"):
            if param.HasField(field):
                # One net file serves all the tests that no test net is named for.
                missing = len(param.test_iter) - len(sources)
                sources += [(field, getattr(param, field))] * max(0, missing)
                break
        if len(sources) != len(param.test_iter):
            raise CaffeError(
                f"{self.source}: {len(sources)} test net(s) need as many test_iter, "
                f"there are {len(param.test_iter)}"
            )
        if sources and param.test_interval < 1:
            raise CaffeError(f"{self.source}: test nets need a positive test_interval")
        states = list(param.test_state) or [caffe_pb2.NetState()] * len(sources)
        if len(states) != len(sources):
            raise CaffeError(f"{self.source}: give one test_state per test net, or none")
        nets = []
        for (field, value), state in zip(sources, states):
            nets.append(self._net(field, value, state, TEST))
        return nets

    def _net(self, field: str, value, state: caffe_pb2.NetState, phase: int) -> Net:
        net_param = value if field.endswith("param") else prototxt.read_net(value)
        copy = caffe_pb2.NetParameter()
        copy.CopyFrom(net_param)
        copy.state.MergeFrom(state)
        net = Net(copy, phase, level=copy.state.level, stages=list(copy.state.stage))
        net.source = value if isinstance(value, str) else net.source
        return net

    # -- what scripts use ----------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the next iteration."""
        return learning_rate(self.param, self.iter)

    def add_callback(
        self,
        on_start: Callable[[], None] | NCCL,
        on_gradients_ready: Callable[[], None] | None = None,
    ) -> None:
        """Have functions called before each iteration and when its gradients are ready.

        Or an NCCL alone, which has both.
        """
        if on_gradients_ready is None:
            on_start, on_gradients_ready = on_start.on_start, on_start.on_gradients_ready
        self._callbacks.append((on_start, on_gradients_ready))

    def share_weights(self, net: Net) -> None:
        """Let `net` use the parameters of the trained net."""
        net.share_with(self.net)

    def solve(self, resume_file: str | os.PathLike | None = None) -> None:
        """Train up to max_iter, from a .solverstate if one is given; for solver 0 of several."""
        self._must_be_root("solve")
        glog.info(f"Solving {self.net.name}")
        glog.info(f"Learning Rate Policy: {self.param.lr_policy}")
        if resume_file:
            glog.info(f"Restoring previous solver status from {os.fspath(resume_file)}")
            self.restore(resume_file)
        self._stop = False
        self._losses.clear()
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and (
            not self.param.snapshot or self.iter % self.param.snapshot
        ):
            self.snapshot()
        if self._stop:
            glog.info("Optimization stopped early.")
            return
        if self.param.display and self.iter % self.param.display == 0:
            loss = self.net._forward(0, len(self.net.layers) - 1)
            self._update_smoothed_loss(loss)
            glog.info(f"Iteration {self.iter}, loss = {_g(self._smoothed_loss())}")
        if self.param.test_interval and self.iter % self.param.test_interval == 0:
            self.test_all()
        glog.info("Optimization Done.")

    def step(self, iterations: int) -> None:
        """Train for a number of iterations.

        Each: clear the gradients, test if it is time, `iter_size` passes, update, snapshot if due.
        """
        param = self.param
        stop = self.iter + iterations
        self._losses.clear()
        self._last_time = (time.monotonic(), self.iter)
        while self.iter < stop:
            self.net.clear_param_diffs()
            if (
                param.test_interval
                and self.iter % param.test_interval == 0
                and (self.iter > 0 or param.test_initialization)
                and ranks.is_root()
            ):
                self.test_all()
                if self._stop:
                    break
            for on_start, _ in self._callbacks:
                on_start()
            last = len(self.net.layers) - 1
            loss = 0.0
            at_once = self._update_at_once()
            for _ in range(param.iter_size):
                loss += self.net._forward(0, last)
                self.net._backward(last, 0, not self.net.retain_diffs, at_once)
            self._update_smoothed_loss(loss / param.iter_size)
            if param.display and self.iter % param.display == 0 and ranks.is_root():
                self._display()
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self.apply_update()
            self.iter += 1
            if param.snapshot and self.iter % param.snapshot == 0 and ranks.is_root():
                self.snapshot()
            if self._stop:
                break

    def stop(self) -> None:
        """Leave `step` and `solve` after the iteration that is running."""
        self._stop = True

    def _update_at_once(self) -> Callable[[int], None] | None:
        """Return what updates parameters as soon as backward is done with them, if that may be.

        The gradients then never lie in memory all together. Not so where something is to be done
        with all of them before the update, or somebody looks at them.
        """
        param, net = self.param, self.net
        together = param.iter_size > 1 or param.clip_gradients >= 0 or self._callbacks
        together = together or net._callbacks["after_backward"]
        if together or net.retain_diffs or any(b.diff_side.is_held() for b in net.learnable):
            return None
        rate = learning_rate(param, self.iter)

        def update(layer: int) -> None:
            for place in net.last_used_by.get(layer, ()):
                self._update(place, rate)
                self._updated_already.add(place)

        return update

    def apply_update(self) -> None:
        """Clip, normalise, regularise and apply the gradients that the parameters' diffs hold."""
        param, net = self.param, self.net
        rate = learning_rate(param, self.iter)
        if param.display and self.iter % param.display == 0 and ranks.is_root():
            glog.info(f"Iteration {self.iter}, lr = {_g(rate)}")
        self._clip()
        for place in range(len(net.learnable)):
            if place not in self._updated_already:
                self._update(place, rate)
        self._updated_already.clear()
        net._updated = True

    @torch.no_grad()
    def _update(self, place: int, rate: float) -> None:
        param, net, blob = self.param, self.net, self.net.learnable[place]
        rule, histories = RULES[self.rule]
        gradient, data = blob.diff_side.tensor(), blob.data_side.tensor()
        if param.iter_size > 1:
            gradient.mul_(1 / param.iter_size)
        self._regularise(gradient, data, param.weight_decay * net.decay_mults[place])
        history = []
        for which in range(histories):
            entry = self._history[which * len(net.learnable) + place]
            if entry.device != data.device:
                entry = entry.to(data.device)
                self._history[which * len(net.learnable) + place] = entry
            history.append(entry)
        update = rule(param, gradient, rate * net.lr_mults[place], history, self.iter)
        data.sub_(update)
        # The diff now is the update, as in genuine Caffe; SGD's lies in the history, and is copied
        # only if somebody looks.
        if self.rule in RETURNS_HISTORY:
            blob.diff_side.defer(update.clone)
        else:
            blob.diff_side.set(update)

    def _clip(self) -> None:
        limit = self.param.clip_gradients
        if limit < 0:
            return
        diffs = [blob.diff_side.tensor() for blob in self.net.learnable]
        norm = float(torch.stack([diff.square().sum() for diff in diffs]).sum().sqrt())
        if norm > limit:
            glog.info(
                f"Gradient clipping: scaling down gradients (L2 norm {_g(norm)} > {_g(limit)}) "
                f"by scale factor {_g(limit / norm)}"
            )
            for diff in diffs:
                diff.mul_(limit / norm)

    def _regularise(self, gradient: torch.Tensor, data: torch.Tensor, decay: float) -> None:
        if not decay:
            return
        kind = self.param.regularization_type
        if kind == "L2":
            gradient.add_(data, alpha=decay)
        elif kind == "L1":
            gradient.add_(data.sign(), alpha=decay)
        else:
            raise CaffeError(f"{self.source}: unknown regularization_type '{kind}': L1 or L2")

    # -- telling how it goes -------------------------------------------------------------------

    def _update_smoothed_loss(self, loss: float) -> None:
        self._losses.append(loss)

    def _smoothed_loss(self) -> float:
        return sum(self._losses) / len(self._losses) if self._losses else 0.0

    def _display(self) -> None:
        now, done = time.monotonic(), self.iter
        then, before = self._last_time or (now, done)
        seconds = max(now - then, 1e-9)
        speed = (done - before) / seconds
        glog.info(
            f"Iteration {done} ({_g(speed)} iter/s, {_g(seconds)}s/{self.param.display} iters), "
            f"loss = {_g(self._smoothed_loss())}"
        )
        self._last_time = (now, done)
        number = 0
        for name in self.net.outputs:
            weight = self.net.blob_loss_weights[name]
            for value in self.net.blobs[name].data.ravel():
                tail = f" (* {_g(weight)} = {_g(weight * value)} loss)" if weight else ""
                glog.info(f"    Train net output #{number}: {name} = {_g(value)}{tail}")
                number += 1

    def test_all(self) -> None:
        """Run every test net and write its mean outputs to the log."""
        for which, net in enumerate(self.test_nets):
            glog.info(f"Iteration {self.iter}, Testing net (#{which})")
            net.share_with(self.net)
            sums: dict[str, torch.Tensor] = {}
            passes = self.param.test_iter[which]
            loss = 0.0
            for _ in range(passes):
                loss += net._forward(0, len(net.layers) - 1)
                for name in net.outputs:
                    values = net.blobs[name].data_side.tensor().to(torch.float64).flatten()
                    sums[name] = sums[name] + values if name in sums else values
            if self.param.test_compute_loss:
                glog.info(f"Test loss: {_g(loss / passes)}")
            number = 0
            for name, total in sums.items():
                weight = net.blob_loss_weights[name]
                for value in (total / passes).tolist():
                    tail = f" (* {_g(weight)} = {_g(weight * value)} loss)" if weight else ""
                    glog.info(f"    Test net output #{number}: {name} = {_g(value)}{tail}")
                    number += 1

    def _must_be_root(self, what: str) -> None:
        if not ranks.is_root():
            raise CaffeError(
                f"{self.source}: only solver 0 of several may {what}, this is solver "
                f"{ranks.solver_rank()}; the others step"
            )

    # -- snapshots -----------------------------------------------------------------------------

    def _snapshot_name(self, suffix: str) -> str:
        hdf5 = self.param.snapshot_format == caffe_pb2.SolverParameter.HDF5
        return f"{self.param.snapshot_prefix}_iter_{self.iter}{suffix}{'.h5' if hdf5 else ''}"

    def snapshot(self) -> None:
        """Write the parameters, and the state to go on from; each file whole or not at all."""
        self._must_be_root("snapshot")
        model, state = self._snapshot_name(".caffemodel"), self._snapshot_name(".solverstate")
        hdf5 = self.param.snapshot_format == caffe_pb2.SolverParameter.HDF5
        if hdf5:
            glog.info(f"Snapshotting to HDF5 file {model}")
            self.net.save_hdf5(model, self.param.snapshot_diff)
        else:
            glog.info(f"Snapshotting to binary proto file {model}")
            self.net.save(model)
        glog.info(f"Snapshotting solver state to {'HDF5' if hdf5 else 'binary proto'} file {state}")
        weights_io.write_solverstate(
            state,
            self.iter,
            model,
            [entry.cpu().numpy() for entry in self._history],
            current_step(self.param, self.iter),
        )

    def restore(self, state_file: str | os.PathLike) -> None:
        """Go on from a .solverstate, and the parameters that it names.

        Raises
        ------
        CaffeError
            If the file cannot be read or belongs to another net.
        """
        path = os.fspath(state_file)
        state = weights_io.read_solverstate(path)
        if len(state.history) != len(self._history):
            raise CaffeError(
                f"{path}: has {len(state.history)} history blobs, this solver "
                f"({self.rule}, {len(self.net.learnable)} parameters) needs {len(self._history)}"
            )
        for place, (mine, theirs) in enumerate(zip(self._history, state.history)):
            if mine.numel() != theirs.size:
                raise CaffeError(
                    f"{path}: history blob {place} has shape {theirs.shape}, "
                    f"this solver's {tuple(mine.shape)}"
                )
        if state.learned_net:
            self.net.copy_from(state.learned_net)
        for mine, theirs in zip(self._history, state.history):
            mine.copy_(torch.from_numpy(theirs).view(mine.shape))
        self.iter = state.iteration


def _g(value: float) -> str:
    return f"{float(value):g}"


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    rule = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    rule = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad."""

    rule = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp."""

    rule = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta."""

    rule = "AdaDelta"


class AdamSolver(Solver):
    """Adam."""

    rule = "Adam"


SOLVERS: dict[str, type[Solver]] = {
    cls.rule: cls
    for cls in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
}


def get_solver(solver_file: str | os.PathLike | caffe_pb2.SolverParameter) -> Solver:
    """Make the solver whose `type` the file names.

    Raises
    ------
    CaffeError
        If there is no such type.
    """
    given = isinstance(solver_file, caffe_pb2.SolverParameter)
    param = solver_file if given else prototxt.read_solver(solver_file)
    kinds = {name.lower(): cls for name, cls in SOLVERS.items()}
    if param.type.lower() not in kinds:
        raise CaffeError(
            f"{'<solver>' if given else os.fspath(solver_file)}: unknown solver type "
            f"'{param.type}'; "
            f"there are {', '.join(SOLVERS)}"
        )
    return kinds[param.type.lower()](solver_file)
