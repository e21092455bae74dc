"""The six update rules and the seven rate policies of Caffe, as tables of functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from caffe import forks, solver_log
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

Param = caffe_pb2.SolverParameter
# A rule takes the parameters of the solver, the gradient (which it may change), the rate, the
# histories of this parameter and the iteration; it returns what is to be subtracted from the data.
Rule = Callable[[Param, torch.Tensor, float, list[torch.Tensor], int], torch.Tensor]


def _power(base: float, exponent: float) -> float:
    """Return what C's pow does: infinity or NaN where Python raises or turns to complex numbers."""
    with np.errstate(all="ignore"):
        return float(np.power(np.float64(base), np.float64(exponent)))


def _sgd(param, gradient, rate, history, iteration):
    # The rate is inside the history: h = m h + rate g; w -= h.
    return history[0].mul_(param.momentum).add_(gradient, alpha=rate)


def _nesterov(param, gradient, rate, history, iteration):
    before = history[0].clone()
    after = history[0].mul_(param.momentum).add_(gradient, alpha=rate)
    return before.mul_(-param.momentum).add_(after, alpha=1 + param.momentum)


def _adagrad(param, gradient, rate, history, iteration):
    history[0].addcmul_(gradient, gradient)
    return gradient.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


def _rmsprop(param, gradient, rate, history, iteration):
    history[0].mul_(param.rms_decay).addcmul_(gradient, gradient, value=1 - param.rms_decay)
    return gradient.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


def _adadelta(param, gradient, rate, history, iteration):
    of_gradients, of_updates = history
    keep = param.momentum
    of_gradients.mul_(keep).addcmul_(gradient, gradient, value=1 - keep)
    ratio = (of_updates + param.delta).div_(of_gradients + param.delta)
    update = gradient.mul_(ratio.sqrt_())
    of_updates.mul_(keep).addcmul_(update, update, value=1 - keep)
    return update.mul_(rate)


def _adam(param, gradient, rate, history, iteration):
    mean, square = history
    mean.mul_(param.momentum).add_(gradient, alpha=1 - param.momentum)
    square.mul_(param.momentum2).addcmul_(gradient, gradient, value=1 - param.momentum2)
    step = iteration + 1
    correction = _power(1 - _power(param.momentum2, step), 0.5) * _power(
        1 - _power(param.momentum, step), -1
    )
    # delta is added to the root that is not yet corrected.
    return mean.div(square.sqrt().add_(param.delta)).mul_(rate * correction)


# Type of the solver -> its rule and how many histories each parameter has.
RULES: dict[str, tuple[Rule, int]] = {
    "SGD": (_sgd, 1),
    "Nesterov": (_nesterov, 1),
    "AdaGrad": (_adagrad, 1),
    "RMSProp": (_rmsprop, 1),
    "AdaDelta": (_adadelta, 2),
    "Adam": (_adam, 2),
}

# Rules whose returned update is the history itself, which must not be handed out for writing.
RETURNS_HISTORY = {"SGD"}


def _multistep(param: Param, iteration: int) -> int:
    return sum(iteration >= value for value in param.stepvalue)


# regularization_type -> what adds the decay to the gradient.
REGULARISERS: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "L2": lambda gradient, data, decay: gradient.add_(data, alpha=decay),
    "L1": lambda gradient, data, decay: gradient.add_(data.sign(), alpha=decay),
}


def clip(gradients: Sequence[torch.Tensor], limit: float) -> None:
    """Scale gradients down, in place, so that their common L2 norm is at most `limit`."""
    norm = float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
    if norm > limit:
        solver_log.clipped(norm, limit)
        for gradient in gradients:
            gradient.mul_(limit / norm)


def regularise(param: Param, gradient: torch.Tensor, data: torch.Tensor, decay_mult: float) -> None:
    """Add the weight decay of a parameter to its gradient, in place."""
    decay = param.weight_decay * decay_mult
    if decay:
        REGULARISERS[param.regularization_type](gradient, data, decay)


POLICIES: dict[str, Callable[[Param, int], float]] = {
    "fixed": lambda p, i: p.base_lr,
    "step": lambda p, i: p.base_lr * _power(p.gamma, i // p.stepsize),
    "exp": lambda p, i: p.base_lr * _power(p.gamma, i),
    "inv": lambda p, i: p.base_lr * _power(1 + p.gamma * i, -p.power),
    "multistep": lambda p, i: p.base_lr * _power(p.gamma, _multistep(p, i)),
    "poly": lambda p, i: p.base_lr * _power(1 - i / p.max_iter, p.power),
    "sigmoid": lambda p, i: p.base_lr / (1 + _power(math.e, -p.gamma * (i - p.stepsize))),
}


def check(param: Param, source: str) -> None:
    """Refuse a solver whose numbers and names make no sense.

    Raises
    ------
    CaffeError
        Begins with `source`.
    """
    if param.iter_size < 1:
        raise CaffeError(f"{source}: iter_size {param.iter_size} must be positive")
    if param.weight_decay and param.regularization_type not in REGULARISERS:
        raise CaffeError(
            f"{source}: unknown regularization_type '{param.regularization_type}'; "
            f"there are {', '.join(REGULARISERS)}"
        )
    if not param.HasField("base_lr"):
        solver_log.no_rate(source)
    try:
        learning_rate(param, 0)
    except CaffeError as error:
        raise CaffeError(f"{source}: {error}") from None


def learning_rate(param: Param, iteration: int) -> float:
    """Return the rate at an iteration.

    Raises
    ------
    CaffeError
        If there is no such policy, or it lacks a number that it needs.
    """
    policy = param.lr_policy
    if policy not in POLICIES:
        told = forks.about_policy(policy) or "is unknown"
        told = f"lr_policy '{policy}' {told}" if policy else "lr_policy is missing"
        raise CaffeError(f"{told}; there are {', '.join(sorted(POLICIES))}")
    if policy == "step" and param.stepsize < 1:
        raise CaffeError("lr_policy 'step' needs a positive stepsize")
    if policy == "poly" and param.max_iter < 1:
        raise CaffeError("lr_policy 'poly' needs a positive max_iter")
    if policy == "poly" and iteration > param.max_iter:
        return 0.0
    return POLICIES[policy](param, iteration)


def current_step(param: Param, iteration: int) -> int:
    """Return how often a stepping policy had lowered the rate of the last of so many iterations."""
    last = max(iteration - 1, 0)
    if param.lr_policy == "step":
        return last // param.stepsize
    return _multistep(param, last) if param.lr_policy == "multistep" else 0
