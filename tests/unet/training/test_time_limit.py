"""A training ends in time whatever the machine does, its rate at the end of the schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from caffe.proto import caffe_pb2
from unet.training.time_limit import TimeLimit


def iterate(
    total: int,
    seconds: float,
    pace: Callable[[float], float],
    start: int = 0,
    policy: str = "poly",
    power: float = 1.0,
    between: Callable[[int], float] = lambda iteration: 0,
) -> tuple[float, list[float]]:
    """Return when a training ends whose iterations take pace(now), and the rates it learnt at."""
    param = caffe_pb2.SolverParameter(
        base_lr=1, lr_policy=policy, power=power, max_iter=total, gamma=0.5
    )
    now = 0.0
    limit = TimeLimit(param, start, seconds, lambda: now)
    iteration, rates = start, []
    while iteration < limit.end:
        # As Caffe computes the rate of "poly".
        falls = (1 - iteration / total) ** power if policy == "poly" else 1.0
        rates.append(limit.base_rate(iteration) * falls)
        now += pace(now)
        iteration += 1
        limit.passed(iteration)
        now += between(iteration)
    return now, rates


def test_with_time_for_all_the_schedule_is_the_solvers_own():
    now, rates = iterate(10, 10, lambda now: 1)
    assert now == 10
    assert rates == [1 - i / 10 for i in range(10)]


def test_what_does_not_fit_is_left_out_and_the_rate_falls_evenly_to_its_end():
    now, rates = iterate(1000, 100, lambda now: 1)
    assert now == 100
    assert len(rates) == 100
    # The first two iterations show the pace; then equal steps, the last one before 0.
    steps = [a - b for a, b in zip(rates[2:], rates[3:] + [0])]
    assert steps == pytest.approx([rates[2] / 98] * 98)


def test_a_long_test_between_iterations_does_not_change_the_schedule_where_there_is_time():
    now, rates = iterate(100, 200, lambda now: 1, between=lambda i: 80 if i == 50 else 0)
    assert now == 180
    assert rates == [1 - i / 100 for i in range(100)]


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_a_power_of_the_schedule_is_kept(power):
    _, straight = iterate(1000, 100, lambda now: 1)
    _, bent = iterate(1000, 100, lambda now: 1, power=power)
    assert bent == pytest.approx([rate**power for rate in straight])


@pytest.mark.parametrize(
    ("pace", "fewest"),
    [
        # Half of the time is over, three quarters, nearly all.
        (lambda now: 1 if now < 150 else 4, 150 + 160 // 4),
        (lambda now: 1 if now < 225 else 4, 225 + 85 // 4),
        (lambda now: 1 if now < 280 else 4, 280 + 30 // 4),
    ],
)
def test_a_machine_that_becomes_slower_still_ends_in_time_and_uses_it(pace, fewest):
    now, rates = iterate(300, 310, pace)
    # To an iteration.
    assert 306 <= now <= 314
    assert fewest <= len(rates) < 300
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.08


def test_after_a_pause_in_which_it_was_slow_the_time_is_used_again():
    now, rates = iterate(300, 310, lambda now: 3 if 100 <= now < 130 else 1)
    assert 309 <= now <= 311
    assert len(rates) == 100 + 10 + 180
    assert 0 < rates[-1] < 0.05


def test_a_training_that_goes_on_has_its_time_from_there():
    now, rates = iterate(300, 50, lambda now: 1, start=200)
    assert now == 50
    assert rates[0] == pytest.approx(1 / 3)
    assert 0 < rates[-1] < 0.01


def test_a_policy_that_does_not_know_the_end_keeps_its_rates():
    _, rates = iterate(1000, 100, lambda now: 1, policy="fixed")
    assert rates == [1] * 100


def test_two_iterations_are_done_in_any_case():
    assert len(iterate(1000, 1e-9, lambda now: 1)[1]) == 2
    assert len(iterate(1000, 100, lambda now: 0)[1]) == 1000
