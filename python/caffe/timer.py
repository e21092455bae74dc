"""A stop watch that waits for the GPU."""

from __future__ import annotations

import time

import torch

from caffe import common
from caffe.log import Log

_log = Log("benchmark.cpp")


class Timer:
    """Measures how long the engine computes; as pycaffe's Timer.

    Its time is 0 before the first start. Reading it stops it; starting a running one goes on with
    its first start.

    Examples
    --------
    >>> timer = Timer()
    >>> timer.start()
    >>> timer.ms > 0
    True
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._seconds: float | None = None

    def start(self) -> None:
        """Start, unless it is running."""
        if self._begun is None:
            _wait()
            self._begun = time.perf_counter()

    def stop(self) -> None:
        """Stop, if it is running."""
        if self._begun is not None:
            _wait()
            self._seconds = time.perf_counter() - self._begun
            self._begun = None

    @property
    def ms(self) -> float:
        """The time between the last start and stop, in milliseconds."""
        self.stop()
        if self._seconds is None:
            _log.warning("Timer has never been run before reading time.")
            return 0.0
        return 1e3 * self._seconds


def _wait() -> None:
    where = common.current_device()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
