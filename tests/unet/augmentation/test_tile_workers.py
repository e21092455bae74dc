from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.unet.noise_set import write_noise_set
from unet.augmentation.tile_sampler import Augmentation, TileSampler
from unet.augmentation.tile_workers import TileWorkers
from unet.preparation.training_set import TrainingSet

TILE = (188, 204)

# A trainer of two workers that says who they are, then does what its last argument is.
TRAINER = """
import os, sys, time
import psutil
from unet.augmentation.tile_sampler import Augmentation, TileSampler
from unet.augmentation.tile_workers import TileWorkers
from unet.preparation.training_set import TrainingSet

training_set = TrainingSet(sys.argv[1])
workers = TileWorkers(TileSampler(training_set, [0, 1], (188, 204), 92, Augmentation(), 1), 2)
workers.fetch(0)
if sys.argv[2] == "fork and wait":
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    print(child)
print(*[worker.process.pid for worker in workers._workers], flush=True)
if sys.argv[2] == "raise":
    raise ValueError("a mistake")
while sys.argv[2] != "end":
    workers.fetch(workers._next)
    if sys.argv[2] == "fork and wait":
        time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_noise_set(tmp_path / "set.h5")


@pytest.fixture
def sampler(path: Path) -> TileSampler:
    with TrainingSet(path) as training_set:
        yield TileSampler(training_set, [0, 1], TILE, 92, Augmentation(gamma=0.3, noise=0.1), 5)


@contextlib.contextmanager
def running(sampler: TileSampler, count: int) -> TileWorkers:
    workers = TileWorkers(sampler, count)
    try:
        yield workers
    finally:
        workers.close()


def same(first, second) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second))


def wait_until_gone(pids: list[int], seconds: float = 1800) -> None:
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_trainer(path: Path, deed: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(path), deed],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("count", [1, 3, 8])
def test_tiles_are_those_of_the_sampler_in_any_order(sampler: TileSampler, count: int):
    with running(sampler, count) as workers:
        for i in (*range(20), 100, 101, 3, 4, 3, 3, 2**40, 0):
            assert same(workers.fetch(i), sampler(i)), f"tile {i}"


def test_no_process_starts_before_the_first_tile(sampler: TileSampler):
    before = psutil.Process().children()
    with running(sampler, 2) as workers:
        assert psutil.Process().children() == before
        workers.fetch(0)
        assert len(psutil.Process().children()) == len(before) + 2


def test_a_killed_worker_is_an_error_and_the_next_tile_starts_anew(sampler: TileSampler):
    with running(sampler, 2) as workers:
        workers.fetch(0)
        pids = [worker.process.pid for worker in workers._workers]
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=r"killed by SIGKILL, probably out of memory"):
            for i in range(1, 9):
                workers.fetch(i)
        wait_until_gone(pids)
        assert same(workers.fetch(2), sampler(2))


def test_workers_leave_signals_to_the_trainer(sampler: TileSampler):
    with running(sampler, 2) as workers:
        for i in range(4):
            workers.fetch(i)
            for worker in workers._workers:
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    worker.process.send_signal(number)
        assert same(workers.fetch(4), sampler(4))


def test_the_failure_of_a_worker_is_told(tmp_path: Path):
    with TrainingSet(write_noise_set(tmp_path / "nan.h5", weights=(np.nan, 1))) as training_set:
        sampler = TileSampler(training_set, [2], TILE, 92, Augmentation(), 1)
        with (
            running(sampler, 1) as workers,
            pytest.raises(ChildProcessError, match=r"failed: .*nan\.h5: slice 2 of /weights holds"),
        ):
            workers.fetch(0)
        assert not workers._workers


def test_a_file_that_has_gone_is_told(path: Path, sampler: TileSampler):
    path.rename(path.with_name("elsewhere.h5"))
    with running(sampler, 1) as workers, pytest.raises(ChildProcessError) as error:
        workers.fetch(0)
    assert "exit status 1" in str(error.value)
    assert "no such training set" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_worker_that_cannot_start_is_told(sampler: TileSampler, tmp_path: Path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho the cat ate it >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with (
        running(sampler, 2) as workers,
        pytest.raises(ChildProcessError, match="exit status 3: the cat ate it"),
    ):
        workers.fetch(0)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with running(sampler, 2) as workers, pytest.raises(FileNotFoundError):
        workers.fetch(0)


def test_modules_in_the_working_folder_are_not_taken(sampler: TileSampler, tmp_path: Path):
    (tmp_path / "types.py").write_text("raise SystemExit(9)")
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        with running(sampler, 1) as workers:
            assert same(workers.fetch(0), sampler(0))
    finally:
        os.chdir(here)


def test_forgotten_workers_end(sampler: TileSampler):
    workers = TileWorkers(sampler, 2)
    workers.fetch(0)
    pids = [worker.process.pid for worker in workers._workers]
    del workers
    gc.collect()
    wait_until_gone(pids)


def test_the_shared_memory_has_no_name(sampler: TileSampler):
    with running(sampler, 1) as workers:
        workers.fetch(0)
        names = [m.path for m in psutil.Process(workers._workers[0].process.pid).memory_maps()]
    shared = [name for name in names if "tiles" in name and name.startswith("/memfd:")]
    assert shared
    assert not any("/dev/shm" in name for name in names)


def test_workers_are_small():
    code = (
        "import sys, unet.augmentation.tile_workers; "
        "print(sorted({'torch', 'caffe', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("deed", ["end", "raise"])
def test_nothing_is_left_of_a_trainer_that_ends(path: Path, deed: str):
    trainer = start_trainer(path, deed)
    out, errors = trainer.communicate(timeout=1800)
    assert trainer.returncode == (1 if deed == "raise" else 0), errors
    assert errors == "" or errors.rstrip().endswith("ValueError: a mistake")
    # Its last deed, so that nothing has to be waited for.
    assert not any(alive(int(pid)) for pid in out.split())


@pytest.mark.parametrize(
    "number, deed",
    [
        (signal.SIGINT, "work"),
        (signal.SIGTERM, "work"),
        (signal.SIGKILL, "work"),
        (signal.SIGKILL, "fork and wait"),
    ],
)
def test_nothing_is_left_of_a_trainer_that_is_stopped(path: Path, number: int, deed: str):
    trainer = start_trainer(path, deed)
    fork = int(trainer.stdout.readline()) if deed == "fork and wait" else None
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(pids) == 2
    try:
        # Ctrl-C in a terminal reaches the whole group.
        os.kill(-trainer.pid if number == signal.SIGINT else trainer.pid, number)
        trainer.wait(timeout=1800)
        wait_until_gone(pids)
    finally:
        if fork:
            with contextlib.suppress(ProcessLookupError):
                os.kill(fork, signal.SIGKILL)
    _, errors = trainer.communicate(timeout=1800)
    if number == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
    else:
        assert errors == ""
