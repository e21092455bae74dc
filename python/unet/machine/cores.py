"""Independent pieces of work over the processor's cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable


def available_cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(tasks: Sequence[tuple[Callable, tuple]], workers: int) -> Iterator[Any]:
    """Yield function(*arguments) for every task, in their order, from that many processes.

    Functions must be importable by name. One worker or less works in this process; a worker that is
    killed is a MemoryError.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for function, arguments in tasks:
            yield function(*arguments)
        return
    # Fresh interpreters: a copy of this process would copy the locks of its threads too.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent)
    futures = [pool.submit(function, *arguments) for function, arguments in tasks]
    try:
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise MemoryError(
            "a worker process was killed, probably out of memory: use fewer workers"
        ) from error
    except BaseException:
        # Asked to stop, for one: nobody waits for what is still under way.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def follow_parent() -> None:
    """Have this process, a worker, leave signals of the terminal to its parent and end with it."""
    # What a terminal sends to all its programs is the parent's to handle, and a parent killed
    # outright must not leave workers behind.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
