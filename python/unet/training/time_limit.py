"""A training that has to end in time: fewer iterations, over which the rate still falls to its end.

Nothing changes as long as all iterations fit. Where a machine is too slow for that, or becomes it,
the schedule of the learning rate is gone through faster.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

# Iterations over which the pace is measured, without the tests and snapshots between them.
_WINDOW = 50


class TimeLimit:
    """Tell an iterating training which rate it learns at, and when it is over.

    The schedule of n iterations is gone through from position 0 to n. An iteration takes it on by
    what is left of it, divided by the iterations for which there is time: by 1 while there is time
    for all.

    It begins at an iteration and has seconds of wall clock, from now to the end of the last one. Of
    Caffe's policies "poly" is the one that depends on the solver's `max_iter`; with others the
    training ends early, at the rates it would have had.
    """

    def __init__(
        self,
        param: Any,
        iteration: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base, self._total = param.base_lr, param.max_iter
        self._power = param.power if param.lr_policy == "poly" else 0.0
        self._clock = clock
        self._deadline = clock() + seconds
        self._position = float(iteration)
        self._took: deque[float] = deque(maxlen=_WINDOW)
        self._begun: float | None = None
        self._is_first = True
        # The iteration at which the training is over, as far as is known.
        self.end = self._total

    def base_rate(self, iteration: int) -> float:
        """Return the base_lr with which the solver's own policy comes to the rate of now.

        Called right before an iteration, whose pace is measured from here.
        """
        self._begun = self._clock()
        left, own = (1 - place / self._total for place in (self._position, iteration))
        return float(self._base * (left / own) ** self._power)

    def passed(self, iteration: int) -> None:
        """Note that an iteration is done, `iteration` in all."""
        now = self._clock()
        # The first one warms up.
        if not self._is_first:
            self._took.append(now - self._begun)
        self._is_first = False
        if self._took:
            pace = sum(self._took) / len(self._took)
            fit = int((self._deadline - now) / pace) if pace > 0 else self._total
            self.end = min(self._total, iteration + max(0, fit))
        # Of the iteration that is done: it was one of those that are left and itself.
        self._position += (self._total - self._position) / (self.end - iteration + 1)
