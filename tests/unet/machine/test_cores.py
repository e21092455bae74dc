"""Work spread over processes."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from unet.machine.cores import run_tasks


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    tasks = [(divmod, (number, 3)) for number in range(7)]
    assert list(run_tasks(tasks, workers)) == [divmod(number, 3) for number in range(7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_raised_and_no_process_left(workers):
    with pytest.raises(ZeroDivisionError):
        list(run_tasks([(divmod, (1, 1)), (divmod, (1, 0))], workers))
    assert not workers_of_this_process()


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(MemoryError, match="worker"):
        list(run_tasks([(os._exit, (9,)), (time.sleep, (0,))], 2))


def test_stopping_early_leaves_no_process():
    results = run_tasks([(divmod, (number, 3)) for number in range(50)], 2)
    next(results)
    results.close()
    assert not workers_of_this_process()


def test_stopping_does_not_wait_for_what_is_under_way():
    # Without end, if it did.
    results = run_tasks([(divmod, (1, 1)), (time.sleep, (10**6,)), (time.sleep, (10**6,))], 2)
    next(results)
    results.close()
    assert not workers_of_this_process()


def test_no_tasks_give_no_results():
    assert list(run_tasks([], 4)) == []


def workers_of_this_process() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
