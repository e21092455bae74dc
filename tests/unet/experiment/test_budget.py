"""How many iterations fit into a time: the pace of an imagined machine, and of a real one."""

from __future__ import annotations

import pytest

import caffe
from tests.unet.small_net import write_training
from unet.experiment import budget
from unet.experiment.budget import Pace, fitting, measure, most_held_out


@pytest.mark.parametrize(
    ("seconds", "rest", "expected"),
    # 0.85 of what is left is planned with, which is half at least; one iteration is done in any
    # case.
    [(1000, 0, 1700), (1000, 400, 1020), (1000, 900, 850), (10, 400, 8), (0.1, 400, 1)],
)
def test_as_many_iterations_fit_as_take_the_time_that_is_left(seconds, rest, expected):
    assert fitting(Pace(0.5, 0.2), seconds, rest) == expected


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
@pytest.mark.parametrize("minutes", [4, 12, 60])
def test_so_many_slices_are_held_out_as_a_sixth_of_the_time_suffices_to_judge(kind, minutes):
    pixels = 1024 * 1024
    judging = 2 * (budget.SCORING[kind] + 8.0) * pixels / 1e6 / 60
    many = most_held_out(minutes, pixels, kind)
    assert many == 1 or (many - 0.5) * judging <= 0.15 * minutes
    assert (many + 0.5) * judging >= 0.15 * minutes


def paced(times: list[float], warm: int, longest: float) -> int:
    """Return how many iterations are tried that take such times."""
    ends = [0.0]
    for took in times:
        if budget._is_enough(ends, warm, longest):
            break
        ends.append(ends[-1] + took)
    return len(ends) - 1


def test_as_many_iterations_are_tried_as_tell_the_pace_and_no_longer_than_allowed():
    # Ten after those that warm up, and three seconds of them.
    assert paced([1.0] * 100, 3, 30) == 13
    assert paced([0.1] * 100, 3, 30) == 33
    # A machine so slow that even ten take too long; two are tried in any case.
    assert paced([5.0] * 100, 3, 30) == 7
    assert paced([50.0] * 100, 3, 30) == 2


def test_nothing_stays_of_iterations_that_were_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_SECONDS", 0.0)
    solver = write_training(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    pace = measure(caffe, solver, None)
    assert pace.iteration > 0
    assert pace.test_pass > 0
    assert sorted(tmp_path.rglob("*")) == before
