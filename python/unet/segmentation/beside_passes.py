"""What other threads do while the network computes: read the next slice, write the last one.

Passes stay in the thread that asks for them: genuine Caffe keeps its mode and device for each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield what an iterable yields, taken by another thread one item ahead.

    An error comes in the place of the item that could not be taken. Two items are in memory: the
    one that was yielded, and the next.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, iterator, _END)
            yield item


@contextlib.contextmanager
def behind(function: Callable[..., Any]) -> Iterator[Callable[..., None]]:
    """Have a function called by another thread, in the order of the calls.

    Yields what stands for the function. A call returns when the one before it is done, and raises
    the error of that; the context ends when the last one is done. After an error nothing more is
    called.
    """
    last: Future | None = None

    def call(*arguments: Any) -> None:
        nonlocal last
        if last is not None:
            last.result()
        last = thread.submit(function, *arguments)

    with ThreadPoolExecutor(1, "behind") as thread:
        yield call
        if last is not None:
            last.result()
