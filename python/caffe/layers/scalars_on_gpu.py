"""Single numbers that layers compute: Python's own on the CPU, tensors that stay there on a GPU.

Reading one from a GPU would make the host wait, in the middle of a pass, for all it has to do.
"""

from __future__ import annotations

import math

import torch

Scalar = float | torch.Tensor


def on_host(tensor: torch.Tensor) -> bool:
    """Tell whether the host reads a tensor without waiting for a GPU."""
    return tensor.device.type == "cpu"


def scalar(tensor: torch.Tensor) -> Scalar:
    """Return the only value of a tensor: a float, or on a GPU a 0-d float32 tensor there."""
    if on_host(tensor):
        return float(tensor)
    return tensor.reshape(()).to(torch.float32)


def at_least(value: Scalar, least: float) -> Scalar:
    """Return the larger of both."""
    return value.clamp(min=least) if isinstance(value, torch.Tensor) else max(least, value)


def or_if_zero(value: Scalar, other: float) -> Scalar:
    """Return `value`, but `other` for 0."""
    if isinstance(value, torch.Tensor):
        return torch.where(value == 0, other, value)
    return value or other


def truncated(value: Scalar) -> Scalar:
    """Return `value` without what follows the point."""
    return value.trunc() if isinstance(value, torch.Tensor) else float(math.trunc(value))


def inverse_or_zero(value: Scalar) -> Scalar:
    """Return 1 / `value`, but 0 for 0."""
    if isinstance(value, torch.Tensor):
        return torch.where(value == 0, 0.0, 1 / value)
    return 1 / value if value else 0.0
