"""Worker processes that cut training tiles ahead of need, into memory shared with the trainer.

A worker is a fresh interpreter, never a copy of the trainer: a fork of a process that has threads,
such as those of OpenMP, may hang; and multiprocessing's "spawn" runs the user's script anew in each
worker, which without a guard of `__main__`, as in most solve.py for Caffe, trains in all of them.
The shared memory has no name, so nothing can be left of it. A worker exits when its standard input
closes, so it dies with a trainer that was SIGKILLed.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np

from unet.augmentation.tile_sampler import Augmentation, Tile, TileSampler
from unet.machine.signals import ASKING
from unet.preparation.training_set import TrainingSet

# Tiles that each worker has in work or ready.
_AHEAD = 2
# Not `python -m`, which would look for modules in the working folder first, whatever lies there.
# Signals that a batch system sends to all processes of a job are the trainer's to answer: without
# its workers it could not end its iteration, and would lose those since the last snapshot.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    f"import signal; [signal.signal(n, signal.SIG_IGN) for n in {[*map(int, ASKING)]}]; "
    "from unet.augmentation.tile_workers import main; main()"
)


def slot_layout(sampler: TileSampler) -> np.dtype:
    """Return how data, label and weight of one tile lie in the shared memory."""
    inner = tuple(size - 2 * sampler.border for size in sampler.tile)
    return np.dtype(
        [
            ("data", np.float32, (sampler.set.channels, *sampler.tile)),
            ("label", np.uint8, inner),
            ("weight", np.float32, inner),
        ],
        align=True,
    )


@dataclass
class _Worker:
    process: subprocess.Popen
    complaints: IO[bytes]
    under_way: int = 0

    def tell(self, line: str) -> None:
        # The reply that does not come says of what a worker died.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def request(self, index: int) -> None:
        self.tell(str(index))
        self.under_way += 1

    def reply(self) -> None:
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError(self._death())
        self.under_way -= 1
        error = json.loads(line)["error"]
        if error:
            raise ChildProcessError(f"a tile worker failed: {error}")

    def _death(self) -> str:
        status = self.process.wait()
        if status < 0:
            hint = ", probably out of memory: use fewer workers" if status == -9 else ""
            return f"a tile worker was killed by {signal.Signals(-status).name}{hint}"
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        return f"a tile worker ended with exit status {status}: {last}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.complaints):
            with contextlib.suppress(BrokenPipeError):
                file.close()


class TileWorkers:
    """Deliver the tiles of a sampler, cut by other processes.

    The processes, `count` of them, each with a copy of the sampler, start at the first `fetch`, and
    anew at the next one after an error.
    """

    def __init__(self, sampler: TileSampler, count: int) -> None:
        self._sampler = sampler
        self._count = count
        self._workers: list[_Worker] = []
        self._next = 0
        self._requested = 0
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._workers, self._owner)

    def fetch(self, index: int) -> Tile:
        """Return tile number `index` and let the workers go on with those that follow.

        Its arrays are overwritten after the next call. A worker that failed or died is a
        ChildProcessError, in words that name the cause.
        """
        try:
            if not self._workers:
                self._start()
                self._next = self._requested = index
            elif index != self._next:
                for worker in self._workers:
                    while worker.under_way:
                        worker.reply()
                self._next = self._requested = index
            while self._requested < index + len(self._slots):
                self._workers[self._requested % self._count].request(self._requested)
                self._requested += 1
            self._workers[index % self._count].reply()
        except BaseException:
            self.close()
            raise
        self._next = index + 1
        slot = self._slots[index % len(self._slots)]
        return slot["data"], slot["label"], slot["weight"]

    def close(self) -> None:
        """End the processes."""
        _end(self._workers, self._owner)

    def _start(self) -> None:
        sampler = self._sampler
        layout = slot_layout(sampler)
        size = self._count * _AHEAD * layout.itemsize
        descriptor = os.memfd_create("tiles")
        try:
            os.ftruncate(descriptor, size)
            self._slots = np.frombuffer(mmap.mmap(descriptor, size), layout)
            order = {
                "parent": os.getpid(),
                "memory": descriptor,
                "size": size,
                "file": os.path.abspath(sampler.set.path),
                "slices": sampler.slices,
                "tile": sampler.tile,
                "border": sampler.border,
                "augmentation": asdict(sampler.augmentation),
                "seed": sampler.seed,
                "share": sampler.share,
            }
            for _ in range(self._count):
                self._workers.append(_start_worker(descriptor))
                self._workers[-1].tell(json.dumps(order))
        finally:
            os.close(descriptor)


def _start_worker(descriptor: int) -> _Worker:
    path = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
    process = subprocess.Popen(
        [sys.executable or "python3", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        pass_fds=[descriptor],
        # Ctrl-C goes to the whole terminal group; it is the trainer's to answer.
        start_new_session=True,
        env={
            **os.environ,
            **dict.fromkeys(threads, "1"),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        },
    )
    return _Worker(process, complaints)


def _end(workers: list[_Worker], owner: int) -> None:
    # A fork of the trainer has this list too, but the processes are not its own.
    if os.getpid() != owner:
        return
    while workers:
        workers.pop().kill()


def _follow(parent: int) -> None:
    # Standard input stays open when a fork of the trainer outlives it.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Cut the tiles whose numbers arrive on standard input, until it ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = sys.stdin.buffer.readline()
    if not order:
        return
    wanted = json.loads(order)
    threading.Thread(target=_follow, args=(wanted["parent"],), daemon=True).start()
    with TrainingSet(wanted["file"]) as training_set:
        sampler = TileSampler(
            training_set,
            wanted["slices"],
            tuple(wanted["tile"]),
            wanted["border"],
            Augmentation(**wanted["augmentation"]),
            wanted["seed"],
            wanted["share"],
        )
        memory = mmap.mmap(wanted["memory"], wanted["size"])
        slots = np.frombuffer(memory, slot_layout(sampler))
        for line in iter(sys.stdin.buffer.readline, b""):
            index, error = int(line), None
            try:
                slots[index % len(slots)] = sampler(index)
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem} (tile {index})"
            replies.write(json.dumps({"error": error}).encode() + b"\n")
            replies.flush()
