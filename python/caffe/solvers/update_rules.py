"""The six update rules and the seven rate policies of Caffe, as tables of functions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from caffe.errors import CaffeError
from caffe.files import forks
from caffe.log import Log, number
from caffe.proto import caffe_pb2

_log = Log("solver.cpp")
_sgd_log = Log("sgd_solver.cpp")

Param = caffe_pb2.SolverParameter
# A rule takes the parameters of the solver, gradients (which it may change), their common rate, the
# histories of these parameters, kind by kind, and the iteration; it returns what is to be
# subtracted from the data. Each operation goes through all parameters: one launch on a GPU.
Tensors = Sequence[torch.Tensor]
Rule = Callable[[Param, Tensors, float, Sequence[Tensors], int], Tensors]


def _power(base: float, exponent: float) -> float:
    """Return what C's pow does: infinity or NaN where Python raises or turns to complex numbers."""
    with np.errstate(all="ignore"):
        return float(np.power(np.float64(base), np.float64(exponent)))


def _sgd(param, gradients, rate, histories, iteration):
    # The rate is inside the history: h = m h + rate g; w -= h.
    (history,) = histories
    torch._foreach_mul_(history, param.momentum)
    torch._foreach_add_(history, gradients, alpha=rate)
    return history


def _nesterov(param, gradients, rate, histories, iteration):
    (history,) = histories
    updates = torch._foreach_mul(history, -param.momentum)
    torch._foreach_mul_(history, param.momentum)
    torch._foreach_add_(history, gradients, alpha=rate)
    torch._foreach_add_(updates, history, alpha=1 + param.momentum)
    return updates


def _adagrad(param, gradients, rate, histories, iteration):
    (squares,) = histories
    torch._foreach_addcmul_(squares, gradients, gradients)
    return _over_roots(param, gradients, rate, squares)


def _rmsprop(param, gradients, rate, histories, iteration):
    (squares,) = histories
    torch._foreach_mul_(squares, param.rms_decay)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - param.rms_decay)
    return _over_roots(param, gradients, rate, squares)


def _over_roots(param, gradients, rate, squares):
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, param.delta)
    torch._foreach_div_(gradients, roots)
    torch._foreach_mul_(gradients, rate)
    return gradients


def _adadelta(param, gradients, rate, histories, iteration):
    of_gradients, of_updates = histories
    keep = param.momentum
    torch._foreach_mul_(of_gradients, keep)
    torch._foreach_addcmul_(of_gradients, gradients, gradients, value=1 - keep)
    ratios = torch._foreach_add(of_updates, param.delta)
    torch._foreach_div_(ratios, torch._foreach_add(of_gradients, param.delta))
    torch._foreach_sqrt_(ratios)
    torch._foreach_mul_(gradients, ratios)
    torch._foreach_mul_(of_updates, keep)
    torch._foreach_addcmul_(of_updates, gradients, gradients, value=1 - keep)
    torch._foreach_mul_(gradients, rate)
    return gradients


def _adam_correction(param, iteration):
    step = iteration + 1
    return _power(1 - _power(param.momentum2, step), 0.5) * _power(
        1 - _power(param.momentum, step), -1
    )


def _adam(param, gradients, rate, histories, iteration):
    means, squares = histories
    torch._foreach_mul_(means, param.momentum)
    torch._foreach_add_(means, gradients, alpha=1 - param.momentum)
    torch._foreach_mul_(squares, param.momentum2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - param.momentum2)
    # delta is added to the root that is not yet corrected.
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, param.delta)
    updates = torch._foreach_div(means, roots)
    torch._foreach_mul_(updates, rate * _adam_correction(param, iteration))
    return updates


def adam_in_one(
    param: Param,
    data: Tensors,
    gradients: Tensors,
    rate: float,
    decay: float,
    histories: Sequence[Tensors],
    iteration: int,
) -> list[Callable[[], torch.Tensor]]:
    """Regularise and update parameters by Adam in one launch, in place of a dozen.

    Returns what makes the update of each, until the next one.
    """
    means, squares = histories
    # PyTorch corrects the root before it adds delta. After so many steps it corrects no more.
    steps = [_endless(data[0].device)] * len(data)
    scaled = rate * _adam_correction(param, iteration)
    torch._fused_adam_(
        data,
        gradients,
        means,
        squares,
        [],
        steps,
        lr=scaled,
        beta1=param.momentum,
        beta2=param.momentum2,
        weight_decay=decay,
        eps=param.delta,
        amsgrad=False,
        maximize=False,
    )
    return [
        lambda mean=mean, square=square: mean.div(square.sqrt().add_(param.delta)).mul_(scaled)
        for mean, square in zip(means, squares)
    ]


@functools.cache
def _endless(where: torch.device) -> torch.Tensor:
    return torch.full((), 1e30, device=where)


def goes_in_one(rule: str, param: Param, decay: float) -> bool:
    """Tell whether `adam_in_one` can take the place of a rule."""
    plain = decay == 0 or param.regularization_type == "L2"
    return rule == "Adam" and plain and 0 <= param.momentum < 1 and 0 <= param.momentum2 < 1


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
REGULARISERS: dict[str, Callable[[Tensors, Tensors, float], None]] = {
    "L2": lambda gradients, data, decay: torch._foreach_add_(gradients, data, alpha=decay),
    "L1": lambda gradients, data, decay: torch._foreach_add_(
        gradients, torch._foreach_sign(data), alpha=decay
    ),
}


def clip(gradients: Sequence[torch.Tensor], limit: float) -> None:
    """Scale gradients down, in place, so that their common L2 norm is at most `limit`."""
    norm = float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
    if norm > limit:
        _sgd_log.info(
            f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > "
            f"{number(limit)}) by scale factor {number(limit / norm)}"
        )
        for gradient in gradients:
            gradient.mul_(limit / norm)


def regularise(param: Param, gradients: Tensors, data: Tensors, decay: float) -> None:
    """Add the weight decay of parameters to their gradients, in place."""
    if decay:
        REGULARISERS[param.regularization_type](gradients, data, decay)


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
    """Refuse a solver, `source` in errors, whose numbers and names make no sense."""
    if param.iter_size < 1:
        raise CaffeError(f"{source}: iter_size {param.iter_size} must be positive")
    if param.weight_decay and param.regularization_type not in REGULARISERS:
        raise CaffeError(
            f"{source}: unknown regularization_type '{param.regularization_type}'; "
            f"there are {', '.join(REGULARISERS)}"
        )
    if not param.HasField("base_lr"):
        # Genuine Caffe says nothing.
        _log.warning(f"{source}: base_lr is missing: with a learning rate of 0 nothing is learnt")
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
