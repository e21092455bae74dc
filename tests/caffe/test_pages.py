"""Pages of blobs that are gone serve those made after them, and nobody else sees the difference."""

import resource
import sys
import threading

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
    with pages.passed_on():
        tensor = pages.empty(shape)
    assert tensor.shape == shape
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor.data_ptr() % HUGE == 0


def test_pages_of_a_blob_serve_several_and_these_one_again():
    with pages.passed_on():
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
    with pages.passed_on():
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
    with pages.passed_on():
        blob(4, 0.0)
    before = mapped()
    with pages.passed_on():
        outlives = blob(64, 1.0)
        with pages.passed_on():
            blob(64, 2.0)
        blob(16, 3.0)
        del outlives
        assert mapped() - before > 60 * 2**20
    assert mapped() - before < 8 * 2**20


def test_outside_of_passes_and_for_small_blobs_the_allocator_is_asked(monkeypatch):
    monkeypatch.setattr(pages, "_mapped", lambda count: pytest.fail("pages were taken"))
    assert pages.empty((1, 16, 512, 512)).is_contiguous(memory_format=torch.channels_last)
    with pages.passed_on():
        assert pages.empty((1, 16, 8, 8)).shape == (1, 16, 8, 8)


@pytest.mark.parametrize("call", ["mmap", "mremap"])
def test_what_the_system_refuses_the_allocator_gives(monkeypatch, call):
    class Refusing:
        def __getattr__(self, name):
            return (lambda *_: pages._FAILED) if name == call else getattr(system, name)

    system = pages._system()
    with pages.passed_on():
        blob(8, 1.0)
        monkeypatch.setattr(pages, "_system", Refusing)
        assert float(blob(8, 2.0).sum()) == 2 * 8 * 2**18


def test_passes_in_several_threads_do_not_share_a_page():
    wrong = []

    def run(value):
        rng = np.random.default_rng(value)
        held = {}
        with pages.passed_on():
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
