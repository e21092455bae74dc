"""The same work on many parts, on several threads."""

import os
import threading

import pytest
import torch

from caffe.layers.winograd.threads import parallel_for


@pytest.fixture(params=[1, 2, 5])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_part_is_done_once_and_several_at_a_time(count):
    done, together = [], threading.Barrier(count)

    def work(first, second):
        together.wait(timeout=1800)
        done.append(first * second)

    parallel_for(work, [(number, 3) for number in range(20 * count)])
    assert sorted(done) == [3 * number for number in range(20 * count)]


def test_an_error_reaches_the_caller_and_the_threads_go_on(count):
    def work(number):
        if number == 7:
            raise ValueError("part 7")

    with pytest.raises(ValueError, match="part 7"):
        parallel_for(work, [(number,) for number in range(10)])
    parallel_for(work, [(number,) for number in range(5)])


def test_a_part_computes_with_one_thread(count):
    seen = []
    parallel_for(lambda _: seen.append(torch.get_num_threads()), [(n,) for n in range(8)])
    assert set(seen) == {1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
def test_a_forked_process_has_threads_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parallel_for(lambda _: None, [(0,), (1,)])
        child = os.fork()
        if child == 0:
            done = []
            parallel_for(done.append, [(0,), (1,)])
            os._exit(0 if sorted(done) == [0, 1] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)
