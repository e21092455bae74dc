"""Checks of values on a GPU, looked at where the host waits for it anyway.

Looking at once would make the host wait in the middle of a pass, and leave the GPU without work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from caffe.errors import CaffeError


class Check(NamedTuple):
    """A 0-d bool tensor that is true where something is wrong, and what makes the error of it."""

    flag: torch.Tensor
    error: Callable[[], CaffeError]


# So many are looked at even if nobody waits: each holds memory.
_MOST = 1000

_remembered: list[Check] = []


def add(flag: torch.Tensor, error: Callable[[], CaffeError]) -> None:
    """Remember a check until `settle`; `error` may read tensors that it holds."""
    _remembered.append(Check(flag, error))
    if len(_remembered) > _MOST:
        settle()


def settle() -> None:
    """Look at all remembered checks, which waits for the GPU once, and forget them.

    Raises
    ------
    CaffeError
        That of the first check that found something wrong.
    """
    if _remembered:
        checks = _forget()
        _raise_first(checks, torch.stack([check.flag for check in checks]).cpu().tolist())


def read(values: torch.Tensor) -> list[float]:
    """Return the float32 values of a vector as numbers, and `settle`, both by one wait."""
    if values.device.type == "cpu" or not _remembered:
        settle()
        return values.cpu().tolist()
    checks = _forget()
    flags = torch.stack([check.flag for check in checks])
    found = torch.cat([values, flags.to(values.dtype)]).cpu().tolist()
    _raise_first(checks, found[len(values) :])
    return found[: len(values)]


def _forget() -> list[Check]:
    checks = _remembered.copy()
    _remembered.clear()
    return checks


def _raise_first(checks: Sequence[Check], wrong: Sequence[float]) -> None:
    for check, found in zip(checks, wrong):
        if found:
            raise check.error()


@contextmanager
def recorded() -> Iterator[list[Check]]:
    """Collect the checks added inside in a list, in place of remembering them.

    Each run of a CUDA graph computes the same flags anew: they are to be added after each.
    """
    global _remembered
    outer, inner = _remembered, []
    _remembered = inner
    try:
        yield inner
    finally:
        _remembered = outer
