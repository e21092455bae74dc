"""What other threads do while the network computes: read the next slice, write the last one.

Passes stay in the thread that asks for them: genuine Caffe keeps its mode and device for each.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, TypeVar

S = TypeVar("S")
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


def following(function: Callable[[S], T], items: Iterable[S], late: int) -> Iterator[T]:
    """Yield a function of each item, computed by another thread while the next items are taken.

    Results come `late` items later; an error of the items, or of the function, when all results
    before it have come.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, "following") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(function, item))
                if len(waiting) > late:
                    yield waiting.popleft().result()
        except Exception:
            while waiting:
                yield waiting.popleft().result()
            raise
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def behind(function: Callable[[list[S]], Any], late: int = 1) -> Iterator[Callable[[S], None]]:
    """Have a function called by another thread, with all items that wait, in their order.

    Yields what takes an item. It returns when no more than `late` items, its own with them, are
    not done, and raises the error of the call that it waited for; the context ends when the last
    item is done. After an error nothing more is called.

    So an item is done at once where the function keeps up, and together with others where not.
    """
    calls: deque[Future] = deque()
    waiting: deque[S] = deque()
    failed = False

    def run() -> None:
        nonlocal failed
        # An earlier call may have had the item.
        items = [waiting.popleft() for _ in range(len(waiting))]
        if failed or not items:
            return
        try:
            function(items)
        except BaseException:
            failed = True
            raise

    def put(item: S) -> None:
        waiting.append(item)
        calls.append(thread.submit(run))
        while len(calls) > late:
            calls.popleft().result()

    with ThreadPoolExecutor(1, "behind") as thread:
        yield put
        while calls:
            calls.popleft().result()
