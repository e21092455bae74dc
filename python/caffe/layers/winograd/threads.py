"""A loop whose parts run on several threads, in each of which PyTorch computes with one.

PyTorch's own threads share out each operation, and meet after it; parts that take many operations
keep their values in a core's cache when one thread does all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

_pool: tuple[int, ThreadPoolExecutor] | None = None


def parallel_for(function: Callable[..., None], parts: Iterable[tuple]) -> None:
    """Call a function with each part's arguments, on as many threads as PyTorch computes with.

    Parameters
    ----------
    function : callable
        Releases the interpreter's lock most of the time: calls PyTorch or compiled code.
    parts : iterable of tuple
        Independent of each other.
    """
    parts = list(parts)
    count = torch.get_num_threads()
    if count == 1 or len(parts) == 1:
        for part in parts:
            function(*part)
        return
    remaining = iter(parts)

    def run() -> None:
        for part in remaining:
            function(*part)

    # Each thread takes one part after the other: nobody is woken for a part alone.
    for result in [_threads(count).submit(run) for _ in range(min(count, len(parts)))]:
        result.result()


def _threads(count: int) -> ThreadPoolExecutor:
    """Return so many threads, the same ones as long as their number stays."""
    global _pool
    if _pool is None or _pool[0] != count:
        if _pool is not None:
            _pool[1].shutdown()
        made = ThreadPoolExecutor(count, "caffe", initializer=torch.set_num_threads, initargs=(1,))
        _pool = count, made
    return _pool[1]


def _forget() -> None:
    """Forget the threads: a forked process has none of its parent's."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
