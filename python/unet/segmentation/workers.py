"""Blocks of a stack, computed by several processes, of which each may die.

A process opens the model and the stack itself, and what it has computed of a block goes to disk,
into the run's `Progress`. So they share nothing but files, and one that dies costs its block.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Callable

from unet.errors import InputError
from unet.machine.cores import available_cores, follow_parent
from unet.segmentation.blocks import Block

# Processes that one block may cost before it counts as what kills them.
MOST_DEATHS = 3
# What computes a block, and what opens such a thing in a process of its own.
Compute = Callable[[Block], Any]
Open = Callable[[str], Compute]
Told = Callable[[], object]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def devices_of(device: str, workers: int) -> list[str]:
    """Return the device of each process.

    Parameters
    ----------
    device : str
        "cpu" or "auto", which all share, or the numbers of GPUs, "0,1,3": one process each.
    workers : int
        0: one, or one for each GPU.

    Raises
    ------
    InputError
        If there are more processes than GPUs.

    Examples
    --------
    >>> devices_of("cpu", 2), devices_of("0,2", 0), devices_of("3", 1)
    (['cpu', 'cpu'], ['0', '2'], ['3'])
    """
    devices = device.split(",")
    if not devices[0].isdigit():
        return [device] * max(workers, 1)
    if workers > len(devices):
        raise InputError(
            f"--workers {workers} --device {device}: a GPU takes one process; name {workers} GPUs, "
            f"as in --device {','.join(map(str, range(workers)))}"
        )
    return devices[: workers or len(devices)]


@contextlib.contextmanager
def _divided_cores(parts: int) -> Iterator[None]:
    """Have processes that are started take their share of the cores, unless that is set."""
    share = str(max(1, available_cores() // parts))
    given = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(given, share))
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)


def compute_by_workers(
    opener: Open, blocks: Sequence[Block], devices: Sequence[str], *, told: Told = lambda: None
) -> None:
    """Compute blocks, by a process for each device.

    Parameters
    ----------
    opener : callable
        Given a device it opens what computes, and puts away, a block; called in each process. It is
        sent there, so it is a function that can be imported, a `functools.partial` of one, or such.
    blocks : sequence of Block
    devices : sequence of str
        As of `devices_of`.
    told : callable
        Called after each block.

    Raises
    ------
    InputError, MemoryError
        As what is opened raises; also if a block has killed `MOST_DEATHS` processes.
    """
    waiting = deque(blocks)
    deaths: dict[str, int] = Counter()
    workers: list[_Worker] = []
    try:
        with _divided_cores(len(devices)):
            workers += [_Worker(opener, device) for device in devices[: len(blocks)]]
            for worker in workers:
                worker.take(waiting)
            while busy := {worker.pipe: worker for worker in workers if worker.block is not None}:
                for pipe in wait(list(busy)):
                    worker = busy[pipe]
                    try:
                        error = worker.answer()
                    except (EOFError, OSError):
                        # Slices within a block have no hash before Python 3.12.
                        name = str(worker.block)
                        deaths[name] += 1
                        if deaths[name] == MOST_DEATHS:
                            raise MemoryError(
                                f"slice {worker.block.z} has killed {MOST_DEATHS} processes, "
                                f"probably out of memory: use fewer --workers, or a smaller --tile"
                            ) from None
                        waiting.appendleft(worker.block)
                        worker.kill()
                        workers[workers.index(worker)] = worker = _Worker(opener, worker.device)
                    else:
                        if error is not None:
                            raise error
                        told()
                    worker.take(waiting)
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process that computes one block after the other."""

    def __init__(self, opener: Open, device: str) -> None:
        # Fresh interpreters: a copy of this process would copy the locks of its threads too.
        context = multiprocessing.get_context("spawn")
        self.device, self.block = device, None
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(opener, device, other), daemon=True)
        self._process.start()
        # Else its end would not be seen.
        other.close()

    def take(self, waiting: deque[Block]) -> None:
        """Give it the next block, if there is one."""
        self.block = waiting.popleft() if waiting else None
        # One that has died by now is told by its answer.
        with contextlib.suppress(OSError):
            self.pipe.send(self.block)

    def answer(self) -> BaseException | None:
        """Return the error that computing the block has ended with; EOFError if it has died."""
        return self.pipe.recv()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(opener: Open, device: str, pipe: Connection) -> None:
    follow_parent()
    compute: Compute | None = None
    for block in iter(pipe.recv, None):
        try:
            compute = compute or opener(device)
            compute(block)
            pipe.send(None)
        except (InputError, MemoryError) as error:
            # Plain: an error of another class may not be made again from its text.
            kind = MemoryError if isinstance(error, MemoryError) else InputError
            pipe.send(kind(str(error)))
        except Exception:
            pipe.send(RuntimeError(traceback.format_exc()))
