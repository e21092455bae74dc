"""Pages of blobs that are gone serve those made after them, and nobody else sees the difference."""

import mmap
import resource
import sys
import threading
from collections import deque

import numpy as np
import pytest
import torch

from caffe import pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages move on Linux alone")
HUGE = 2 * 2**20


@pytest.fixture(autouse=True)
def from_one_page_on(monkeypatch):
    monkeypatch.setattr(pages, "_least", HUGE)


def made(megabytes):
    """Return a blob of so many MiB."""
    return pages.empty((1, 16, megabytes * 2**7, 2**7))


def blob(megabytes, value):
    """Return a blob of so many MiB, all of one value."""
    return made(megabytes).fill_(value)


def mapped():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@pytest.mark.parametrize("shape", [(1, 16, 181, 182), (2, 48, 77, 75)])
def test_a_blob_is_channels_last_and_of_its_shape(shape):
    with pages.passed_on(kept=False):
        tensor = pages.empty(shape)
    assert tensor.shape == shape
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor.data_ptr() % HUGE == 0


def test_pages_of_a_blob_serve_several_and_these_one_again():
    with pages.passed_on(kept=False):
        first = blob(24, 1.0)
        del first
        parts = [made(6), made(10), made(8)]
        # What the first has left is still there.
        assert all(bool((part == 1).all()) for part in parts)
        for value, part in enumerate(parts):
            part.fill_(value + 2)
        del part, parts[1]
        # Its 10 MiB are not enough, and fresh ones come to them.
        larger = made(12)
        assert int((larger == 3).sum()) == 10 * 2**18
        assert int((larger == 0).sum()) == 2 * 2**18
        assert bool((parts[0] == 2).all())
        assert bool((parts[1] == 4).all())


def test_a_view_or_an_array_keeps_the_pages():
    with pages.passed_on(kept=False):
        tensor = blob(4, 7.0)
        view, array = tensor[:, 3:5], tensor.permute(0, 2, 3, 1).numpy()
        del tensor
        others = [blob(4, 0.0) for _ in range(3)]
        assert bool((view == 7).all())
        del view, others
        blob(4, 0.0)
        assert (array == 7).all()
    # Also after the pass.
    assert (array == 7).all()


def test_after_the_last_pass_nothing_is_left_of_blobs_that_are_gone():
    with pages.passed_on(kept=False):
        blob(4, 0.0)
    before = mapped()
    with pages.passed_on(kept=False):
        outlives = blob(64, 1.0)
        with pages.passed_on(kept=False):
            blob(64, 2.0)
        blob(16, 3.0)
        del outlives
        assert mapped() - before > 60 * 2**20
    assert mapped() - before < 8 * 2**20


def test_pages_wait_for_the_next_pass_unless_they_are_asked_back():
    with pages.passed_on(kept=True):
        blob(32, 5.0)
    before = mapped()
    with pages.passed_on(kept=True):
        # Nobody was short of memory meanwhile.
        assert bool((made(20) == 5).all())
        assert mapped() - before < 4 * 2**20
    # A pass backward would come on top of them.
    with pages.passed_on(kept=False):
        blob(8, 6.0)
    assert before - mapped() > 28 * 2**20


def test_pages_that_the_system_cannot_take_do_not_wait(monkeypatch):
    class Refusing:
        def __getattr__(self, name):
            return self.refuse if name == "madvise" else getattr(system, name)

        @staticmethod
        def refuse(address, size, advice):
            return -1 if advice == mmap.MADV_FREE else 0

    system = pages._system()
    before = mapped()
    monkeypatch.setattr(pages, "_system", Refusing)
    with pages.passed_on(kept=True):
        blob(32, 5.0)
    assert mapped() - before < 8 * 2**20


def test_many_passes_hold_no_more_than_one():
    def run(seed):
        rng = np.random.default_rng(seed)
        held = deque(maxlen=3)
        with pages.passed_on(kept=True):
            for size in rng.integers(1, 16, 20):
                held.append(blob(int(size), float(size)))
                assert all(bool((b == b.shape[2] / 2**7).all()) for b in held)

    run(0)
    before = mapped()
    for seed in range(12):
        run(seed)
    assert mapped() - before < 48 * 2**20
    pages.give_back()
    assert not pages._idle


def test_outside_of_passes_and_for_small_blobs_the_allocator_is_asked(monkeypatch):
    monkeypatch.setattr(pages, "_mapped", lambda count: pytest.fail("pages were taken"))
    assert pages.empty((1, 16, 512, 512)).is_contiguous(memory_format=torch.channels_last)
    with pages.passed_on(kept=False):
        assert pages.empty((1, 16, 8, 8)).shape == (1, 16, 8, 8)


@pytest.mark.parametrize("call", ["mmap", "mremap"])
def test_what_the_system_refuses_the_allocator_gives(monkeypatch, call):
    class Refusing:
        def __getattr__(self, name):
            return (lambda *_: pages._FAILED) if name == call else getattr(system, name)

    system = pages._system()
    with pages.passed_on(kept=False):
        blob(8, 1.0)
        monkeypatch.setattr(pages, "_system", Refusing)
        assert float(blob(8, 2.0).sum()) == 2 * 8 * 2**18


def test_passes_in_several_threads_do_not_share_a_page():
    wrong = []

    def run(value):
        rng = np.random.default_rng(value)
        held = {}
        with pages.passed_on(kept=False):
            for step in range(12):
                number = int(rng.integers(4))
                held[number] = blob(int(rng.integers(2, 9)), 100.0 * value + step), step
                wrong.extend(s for t, s in held.values() if not bool((t == 100 * value + s).all()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
