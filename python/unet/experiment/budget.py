"""How many iterations fit into a time: a few are measured, and the number is made of those."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from unet.training.train import Training, iteration_seed

# Iterations that only warm up: memory is claimed; on a GPU graphs are recorded, and tiles used up
# that were cut meanwhile.
_WARM, _WARM_ON_GPU = 3, 50
# Measured are at least so many iterations and seconds, but not for longer than these.
_LEAST, _SECONDS, _LONGEST = 10, 3.0, 30.0
# Of the time for iterations, what is planned with; the rest is for a machine that becomes slower.
_PLANNED = 0.85
#: What scores of a held-out slice cost beside its passes, in seconds for a million pixels: CPU time
#: on one core was 4 of membranes (most of it the warping error; four times that beside other work),
#: 7 of cells, most of it the splitting of those that touch.
SCORING = {"membranes": 15.0, "cells": 7.0, "classes": 1.0}
# The passes, likewise: four orientations of the narrowest network on two cores.
_PASSES = 8.0
# Of the time of a run, what its two judgements may take, about.
_JUDGING = 0.15
#: Below so many the result means nothing: V_rand of ISBI 2012 was 0.94 after 800, 0.81 after 100,
#: 0.43 after 40.
LEAST_ITERATIONS = 100


class Pace(NamedTuple):
    """What a machine takes, in seconds: an iteration, and a pass without learning."""

    iteration: float
    test_pass: float


def measure(caffe: ModuleType, solver: Path, root: Path, longest: float = _LONGEST) -> Pace:
    """Try a few iterations of a training, of which nothing stays.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it.
    solver, root : path
        As of `unet.training.train.Training`.
    longest : float
        Seconds after which no further iteration is begun.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = Training(caffe, str(solver), folder, root=root)
        net = training.solver.net
        began = time.monotonic()
        ends = [began]
        on_gpu = getattr(caffe, "get_mode", lambda: "cpu")() == "gpu"
        warm = _WARM_ON_GPU if on_gpu else _WARM
        while not _is_enough(ends, warm, longest):
            caffe.set_random_seed(iteration_seed(training.seed, training.solver.iter))
            training.solver.step(1)
            # A GPU may still be computing until its result is looked at.
            float(net.blobs["loss"].data)
            ends.append(time.monotonic())
        first = min(warm, len(ends) - 2)
        # The middle one: other programs that came in for a moment do not count.
        taken = sorted(after - before for before, after in zip(ends[first:], ends[first + 1 :]))
        iteration = taken[len(taken) // 2]
        test_pass = iteration / 3
        if len(training.solver.test_nets):
            training.solver.test_nets[0].share_with(net)
            for _ in range(2):
                begin = time.monotonic()
                for value in training.solver.test_nets[0].forward().values():
                    float(value.sum())
                test_pass = time.monotonic() - begin
        # Not to be in memory beside what follows, nor the processes that cut tiles.
        del training, net
        gc.collect()
    return Pace(iteration, test_pass)


def _is_enough(ends: list[float], warm: int, longest: float) -> bool:
    """Tell whether iterations that ended so have told their pace; `ends` holds the beginning."""
    done = len(ends) - 1
    if ends[-1] - ends[0] > longest:
        # The first one alone does not tell.
        return done > 1
    return done - warm >= _LEAST and ends[-1] - ends[warm] >= _SECONDS


def fitting(pace: Pace, seconds: float, rest: float) -> int:
    """Return how many iterations fit into seconds, of which `rest` are for what else is done.

    That is at most half of them: on a machine that was busy when it was measured more is guessed.
    """
    return max(1, int(_PLANNED * for_training(seconds, rest) / pace.iteration))


def for_training(seconds: float, rest: float) -> float:
    """Return the seconds that are left to train in, at least half of them."""
    return max(seconds - rest, seconds / 2)


def most_held_out(minutes: float, pixels: int, kind: str) -> int:
    """Return how many slices of so many pixels can be held out: those that there is time to judge.

    Parameters
    ----------
    minutes : float
        Of the run in all.
    pixels : int
        Of a slice.
    kind : {"membranes", "cells", "classes"}
        What they are scored as.

    Examples
    --------
    >>> most_held_out(5, 512 * 512, "membranes"), most_held_out(20, 512 * 512, "membranes")
    (4, 15)
    >>> most_held_out(12, 1024 * 1024, "membranes"), most_held_out(12, 1024 * 1024, "cells")
    (2, 3)
    """
    each = (SCORING[kind] + _PASSES) * pixels / 1e6
    return max(1, round(_JUDGING * 60 * minutes / (2 * each)))
