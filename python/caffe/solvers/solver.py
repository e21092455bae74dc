"""The solvers: iterate forward, backward and update, test at intervals, snapshot, restore."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from caffe import common, late_checks
from caffe.argument_checks import PATH, WHOLE, refused, takes
from caffe.containers import Shown, Vector
from caffe.errors import CaffeError, memory_is_full
from caffe.files import prototxt
from caffe.log import Log, is_logged, number
from caffe.net.net import Net
from caffe.net.passes import log_parameters, read_losses
from caffe.proto import caffe_pb2
from caffe.solvers import snapshots, solver_nets, update_rules
from caffe.solvers.signal_handler import SolverAction
from caffe.solvers.update_rules import RETURNS_HISTORY, RULES, current_step, learning_rate

_log = Log("solver.cpp")
_sgd_log = Log("sgd_solver.cpp")

# Values of a parameter that is updated together with others on the CPU, too.
_SMALL = 2**14


class Callback(Protocol):
    """What is called before each iteration and when its gradients are ready, as an NCCL."""

    def on_start(self) -> None: ...

    def on_gradients_ready(self) -> None: ...


class NetVec(Vector[Net]):
    """The nets that a solver tests."""

    kind = Net


class Solver:
    """A solver, as pycaffe shows it.

    Parameters
    ----------
    solver_file : path or caffe_pb2.SolverParameter
    source : str
        What errors call a SolverParameter.

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

    @takes(solver_file=(*PATH, caffe_pb2.SolverParameter))
    def __init__(
        self,
        solver_file: str | os.PathLike | caffe_pb2.SolverParameter,
        source: str = "<solver>",
    ) -> None:
        if isinstance(solver_file, caffe_pb2.SolverParameter):
            self._param, self.source = solver_file, source
        else:
            self.source = os.fspath(solver_file)
            self._param = prototxt.read_solver(solver_file)
        param = self.param
        if is_logged():
            text = prototxt.to_text(param).rstrip()
            _log.info(f"Initializing solver from parameters: \n{text}")
        if param.random_seed >= 0:
            common.set_random_seed(param.random_seed + common.solver_rank())
        update_rules.check(param, self.source)
        self._iter = 0
        self._net = solver_nets.training_net(param, self.source)
        # Nobody looks at intermediate diffs as a rule; whoever does gets them all the same.
        self.net.retain_diffs = False
        self._test_nets = NetVec(solver_nets.test_nets(param, self.source))
        histories = RULES[self.rule][1]
        self._history = [
            torch.zeros(blob.shape) for _ in range(histories) for blob in self.net.learnable
        ]
        # Of the last iterations: terms of the loss, and how many passes they come from.
        self._losses: deque[tuple[list[torch.Tensor], int]] = deque(
            maxlen=max(1, param.average_loss)
        )
        self._callbacks: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._updated_already: set[int] = set()
        self._stop = False
        self._action: Callable[[], SolverAction] = lambda: SolverAction.NONE
        self._last_time = (time.monotonic(), 0)
        _log.info("Solver scaffolding done.")

    # -- what scripts use ----------------------------------------------------------------------

    @Shown
    def net(self) -> Net:
        """The net that is trained."""
        return self._net

    @Shown
    def test_nets(self) -> NetVec:
        """The nets that are tested."""
        return self._test_nets

    @Shown
    def iter(self) -> int:
        """Iterations done."""
        return self._iter

    @Shown
    def param(self) -> caffe_pb2.SolverParameter:
        """The solver's parameters."""
        return self._param

    @Shown
    def lr(self) -> float:
        """The learning rate of the next iteration."""
        return learning_rate(self.param, self.iter)

    def add_callback(
        self,
        on_start: Callable[[], None] | Callback,
        on_gradients_ready: Callable[[], None] | None = None,
    ) -> None:
        """Have functions called before each iteration and when its gradients are ready.

        Or an NCCL alone, which has both.
        """
        if on_gradients_ready is None:
            if not hasattr(on_start, "on_gradients_ready"):
                raise refused(
                    "Solver.add_callback",
                    (self, on_start),
                    "two functions are wanted, on_start and on_gradients_ready, or an NCCL",
                )
            on_start, on_gradients_ready = on_start.on_start, on_start.on_gradients_ready
        self._callbacks.append((on_start, on_gradients_ready))

    @takes(net=Net)
    def share_weights(self, net: Net) -> None:
        """Let `net` use the parameters of the trained net."""
        net.share_with(self.net)

    @takes(resume_file=PATH)
    def solve(self, resume_file: str | os.PathLike | None = None) -> None:
        """Train up to max_iter, from a .solverstate if one is given; for solver 0 of several."""
        self._must_be_root("solve")
        _log.info(f"Solving {self.net.name}")
        _log.info(f"Learning Rate Policy: {self.param.lr_policy}")
        if resume_file:
            _log.info(f"Restoring previous solver status from {os.fspath(resume_file)}")
            self.restore(resume_file)
        self._stop = False
        self._losses.clear()
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and (
            not self.param.snapshot or self.iter % self.param.snapshot
        ):
            self.snapshot()
        if self._stop:
            _log.info("Optimization stopped early.")
            return
        if self.param.display and self.iter % self.param.display == 0:
            self._losses.append((self.net.run_pass(), 1))
            _log.info(f"Iteration {self.iter}, loss = {number(self._smoothed_loss())}")
        if self.param.test_interval and self.iter % self.param.test_interval == 0:
            self.test_all()
        _log.info("Optimization Done.")

    @takes(iterations=WHOLE)
    def step(self, iterations: int) -> None:
        """Train for a number of iterations.

        Each: clear the gradients, test if it is time, `iter_size` passes, update, snapshot if due.
        A GPU may still be at it when this returns: whoever reads a blob waits for what that needs.
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
                and common.is_root()
            ):
                self.test_all()
                if self._stop:
                    break
            for on_start, _ in self._callbacks:
                on_start()
            displays = self._displays()
            self.net.debug_info = displays and param.debug_info
            terms: list[torch.Tensor] = []
            at_once = self._update_at_once()
            for _ in range(param.iter_size):
                terms += self.net.run_pass(backward=True, after_layer=at_once)
                if self.net.debug_info:
                    log_parameters(self.net.learnable)
            self._losses.append((terms, param.iter_size))
            if displays:
                self._display()
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self.apply_update()
            action = self._action()
            due = bool(param.snapshot) and self.iter % param.snapshot == 0 and common.is_root()
            if due or action is SolverAction.SNAPSHOT:
                self.snapshot()
            if self._stop or action is SolverAction.STOP:
                self._stop = True
                break
        # Only now: while a GPU computes one iteration, the host prepares the next.
        late_checks.settle()

    def set_action_function(self, action: Callable[[], SolverAction]) -> None:
        """Have a function asked after each iteration, and in tests, what is to be done.

        Parameters
        ----------
        action : callable
            Returns SolverAction.STOP to leave `step` and `solve`, SolverAction.SNAPSHOT for a
            snapshot, or SolverAction.NONE.
        """
        self._action = action

    def _displays(self) -> bool:
        display = self.param.display
        return bool(display) and self.iter % display == 0 and common.is_root()

    def _smoothed_loss(self) -> float:
        if not self._losses:
            return 0.0
        losses = [read_losses(terms) / passes for terms, passes in self._losses]
        return sum(losses) / len(losses)

    def _display(self) -> None:
        now, (then, before) = time.monotonic(), self._last_time
        seconds = max(now - then, 1e-9)
        _log.info(
            f"Iteration {self.iter} ({number((self.iter - before) / seconds)} iter/s, "
            f"{number(seconds)}s/{self.param.display} iters), "
            f"loss = {number(self._smoothed_loss())}"
        )
        outputs = {name: self.net.blobs[name].data.ravel().tolist() for name in self.net.outputs}
        self._log_outputs("Train", self.net, outputs)
        self._last_time = (now, self.iter)

    @staticmethod
    def _log_outputs(kind: str, net: Net, outputs: Mapping[str, Sequence[float]]) -> None:
        values = [(name, value) for name, entries in outputs.items() for value in entries]
        for index, (name, value) in enumerate(values):
            text = output_text(name, value, net.blob_loss_weights[name])
            _log.info(f"    {kind} net output #{index}: {text}")

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
        together = together or net.has_callbacks("after_backward") or net.debug_info
        # A GPU is faster with all of them at once.
        together = together or common.current_device().type != "cpu"
        if together or net.retain_diffs or any(b.diff_memory.is_exported for b in net.learnable):
            return None
        rate = learning_rate(param, self.iter)

        def update(layer: int) -> None:
            for index in net.last_used_by.get(layer, ()):
                if not self._is_small(index):
                    self._update([index], rate)
                    self._updated_already.add(index)

        return update

    def apply_update(self) -> None:
        """Clip, normalise, regularise and apply the gradients that the parameters' diffs hold.

        This ends an iteration: `iter` is the next one's number.
        """
        param, net = self.param, self.net
        rate = learning_rate(param, self.iter)
        self._tell_rate(rate)
        if param.clip_gradients >= 0:
            gradients = [blob.diff_tensor() for blob in net.learnable]
            update_rules.clip(gradients, param.clip_gradients)
        indices = [p for p in range(len(net.learnable)) if p not in self._updated_already]
        for group in self._groups(indices):
            try:
                self._update(group, rate)
            except torch.cuda.OutOfMemoryError as error:
                raise CaffeError(f"{self.source}: {memory_is_full(error)}") from error
        self._updated_already.clear()
        net.mark_updated()
        self._iter += 1

    def _groups(self, indices: list[int]) -> list[list[int]]:
        """Return which parameters are updated together: those with the same multipliers.

        On a CPU large ones are alone: what a rule makes on its way takes as much memory as they do.
        """
        on_cpu = common.current_device().type == "cpu"
        groups: dict[tuple[float, float, int], list[int]] = {}
        for index in indices:
            alone = index if on_cpu and not self._is_small(index) else -1
            mults = (self.net.lr_mults[index], self.net.decay_mults[index])
            groups.setdefault((*mults, alone), []).append(index)
        return list(groups.values())

    def _is_small(self, index: int) -> bool:
        return self.net.learnable[index].count <= _SMALL

    def _tell_rate(self, rate: float) -> None:
        param = self.param
        step = current_step(param, self.iter + 1)
        if param.lr_policy == "multistep" and step != current_step(param, self.iter):
            _sgd_log.info(f"MultiStep Status: Iteration {self.iter}, step = {step}")
        if self._displays():
            _sgd_log.info(f"Iteration {self.iter}, lr = {number(rate)}")

    @torch.no_grad()
    def _update(self, indices: list[int], rate: float) -> None:
        """Update parameters that have their multipliers in common."""
        param, net = self.param, self.net
        blobs = [net.learnable[index] for index in indices]
        rule, histories = RULES[self.rule]
        data = [blob.data_tensor() for blob in blobs]
        gradients = [_laid_out_as(blob.diff_tensor(), like) for blob, like in zip(blobs, data)]
        if param.iter_size > 1:
            torch._foreach_mul_(gradients, 1 / param.iter_size)
        history = [
            [
                self._history_of(which * len(net.learnable) + index, like)
                for index, like in zip(indices, data)
            ]
            for which in range(histories)
        ]
        rate *= net.lr_mults[indices[0]]
        decay = param.weight_decay * net.decay_mults[indices[0]]
        if self._goes_in_one(decay):
            makers = update_rules.adam_in_one(
                param, data, gradients, rate, decay, history, self.iter
            )
            for blob, make in zip(blobs, makers):
                blob.diff_memory.set_lazy(make)
            return
        update_rules.regularise(param, gradients, data, decay)
        updates = rule(param, gradients, rate, history, self.iter)
        torch._foreach_sub_(data, updates)
        # The diff now is the update, as in genuine Caffe; SGD's lies in the history, and is copied
        # only if somebody looks.
        for blob, update in zip(blobs, updates):
            if self.rule in RETURNS_HISTORY:
                blob.diff_memory.set_lazy(update.clone)
            else:
                blob.set_diff(update)

    def _goes_in_one(self, decay: float) -> bool:
        on_gpu = common.current_device().type != "cpu"
        return on_gpu and update_rules.goes_in_one(self.rule, self.param, decay)

    def _history_of(self, entry: int, data: torch.Tensor) -> torch.Tensor:
        """Return an entry of the history, on the device and in the layout of its parameter."""
        history = self._history[entry]
        if history.device != data.device:
            history = history.to(data.device)
        self._history[entry] = history = _laid_out_as(history, data)
        return history

    # -- tests -----------------------------------------------------------------------------------

    def test_all(self) -> None:
        """Run every test net and write its mean outputs to the log."""
        for which in range(len(self.test_nets)):
            if self._stop:
                break
            self._test(which)

    def _test(self, which: int) -> None:
        net, passes = self.test_nets[which], self.param.test_iter[which]
        _log.info(f"Iteration {self.iter}, Testing net (#{which})")
        net.share_with(self.net)
        sums: dict[str, torch.Tensor] = {}
        terms: list[torch.Tensor] = []
        for _ in range(passes):
            self._act_between_passes()
            if self._stop:
                _log.info("Test interrupted.")
                return
            terms += net.run_pass()
            for name in net.outputs:
                values = net.blobs[name].data_tensor().to(torch.float64).flatten()
                sums[name] = sums[name] + values if name in sums else values
        loss = read_losses(terms)
        if self.param.test_compute_loss:
            _log.info(f"Test loss: {number(loss / passes)}")
        means = {name: (total / passes).tolist() for name, total in sums.items()}
        self._log_outputs("Test", net, means)

    def _act_between_passes(self) -> None:
        while not self._stop and (action := self._action()) is not SolverAction.NONE:
            if action is SolverAction.SNAPSHOT:
                self.snapshot()
            else:
                self._stop = True

    # -- snapshots -----------------------------------------------------------------------------

    def _must_be_root(self, what: str) -> None:
        if not common.is_root():
            raise CaffeError(
                f"{self.source}: only solver 0 of several may {what}, this is solver "
                f"{common.solver_rank()}; the others step"
            )

    def snapshot(self) -> None:
        """Write the parameters, and the state to go on from; each file whole or not at all."""
        self._must_be_root("snapshot")
        # What was learnt from values that a layer refuses is not written.
        late_checks.settle()
        snapshots.write(self.param, self.net, self.iter, self._history)

    @takes(state_file=PATH)
    def restore(self, state_file: str | os.PathLike) -> None:
        """Go on from a .solverstate, and the parameters that it names.

        Raises
        ------
        CaffeError
            If the file cannot be read or belongs to another net.
        """
        state = snapshots.read(state_file, self.rule, self._history)
        if state.learned_net:
            self.net.copy_from(state.learned_net)
        if not os.fspath(state_file).endswith(".h5"):
            # Genuine Caffe does not say so of HDF5 files.
            _sgd_log.info("SGDSolver: restoring history")
        for mine, theirs in zip(self._history, state.history):
            mine.copy_(torch.from_numpy(theirs).view(mine.shape))
        self._iter = state.iteration


def output_text(name: str, value: float, weight: float) -> str:
    """Return what the log says of a value of an output, and of what it adds to the loss."""
    tail = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
    return f"{name} = {number(value)}{tail}"


def _laid_out_as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the same values in the layout of another tensor, where that counts.

    One launch goes through all parameters of a GPU only where gradients and history have the
    strides of the data.
    """
    if tensor.device.type == "cpu" or tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like).copy_(tensor)


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


@takes(solver_file=(*PATH, caffe_pb2.SolverParameter))
def get_solver(
    solver_file: str | os.PathLike | caffe_pb2.SolverParameter, source: str = "<solver>"
) -> Solver:
    """Make the solver whose `type` the file names; parameters as of `Solver`.

    Raises
    ------
    CaffeError
        If there is no such type.
    """
    if isinstance(solver_file, caffe_pb2.SolverParameter):
        param = solver_file
    else:
        param, source = prototxt.read_solver(solver_file), os.fspath(solver_file)
    kinds = {name.lower(): cls for name, cls in SOLVERS.items()}
    if param.type.lower() not in kinds:
        raise CaffeError(
            f"{source}: unknown solver type '{param.type}'; there are {', '.join(SOLVERS)}"
        )
    return kinds[param.type.lower()](param, source)
