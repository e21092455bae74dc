"""How long the device computes: a stop watch, and which of several ways is the fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

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


# Times that each of several ways is run, in each of two rounds, to find the fastest.
_TRIALS = 10


def fastest(*ways: Callable[[], object]) -> int:
    """Return which of several ways to compute the same takes the current GPU the least time.

    One that cuDNN has not got counts as slowest. The host waits until all are tried.
    """
    stream = torch.cuda.current_stream(common.current_device())
    times = [math.inf] * len(ways)
    for _ in range(2):
        for number, way in enumerate(ways):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            try:
                # The first time cuDNN searches.
                way()
                begin.record(stream)
                for _ in range(_TRIALS):
                    way()
            except RuntimeError:
                continue
            end.record(stream)
            end.synchronize()
            times[number] = min(times[number], begin.elapsed_time(end))
    return times.index(min(times))
