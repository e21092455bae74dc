"""Blocks by several processes: each block once, and one that dies costs its block only."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest

from unet.errors import InputError
from unet.segmentation.blocks import blocks_of
from unet.segmentation.workers import MOST_DEATHS, compute_by_workers, devices_of

BLOCKS = blocks_of(range(12), (8, 8), (8, 8))


def note(folder: Path, device: str):
    """Return what leaves a file for each block: who computed it, where and with which cores."""

    def compute(block):
        said = f"{os.getpid()} {device} {os.environ['OMP_NUM_THREADS']}"
        (folder / f"{block.z}.{os.getpid()}").write_text(said)

    return compute


def die_once(folder: Path, device: str):
    """The same, but the first process that meets block 3 is killed."""
    compute = note(folder, device)

    def compute_or_die(block):
        if block.z == 3 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        compute(block)

    return compute_or_die


def always_die(folder: Path, device: str):
    def compute(block):
        if block.z == 3:
            with open(folder / "deaths", "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)

    return compute


def mistake(folder: Path, device: str):
    def compute(block):
        raise InputError(f"stack.tif: slice {block.z}: is damaged")

    return compute


def fault(folder: Path, device: str):
    raise KeyError("a fault of the program")


def computed(folder: Path) -> list[int]:
    return sorted(int(path.name.split(".")[0]) for path in folder.glob("*.*"))


def test_each_block_is_computed_once_by_a_process_for_each_device(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    compute_by_workers(partial(note, tmp_path), BLOCKS, ["0", "2"])
    assert computed(tmp_path) == list(range(12))
    said = [path.read_text().split() for path in tmp_path.iterdir()]
    assert {device for _, device, _ in said} == {"0", "2"}
    assert len({pid for pid, _, _ in said}) == 2 and str(os.getpid()) not in said
    assert {int(cores) for _, _, cores in said} == {max(1, len(os.sched_getaffinity(0)) // 2)}
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_process_that_dies_costs_its_block_only(tmp_path):
    compute_by_workers(partial(die_once, tmp_path), BLOCKS, ["cpu"] * 4)
    assert (tmp_path / "died").exists()
    assert computed(tmp_path) == list(range(12))


def test_a_block_that_kills_each_process_is_told(tmp_path):
    with pytest.raises(MemoryError, match=r"slice 3 has killed 3 processes.*fewer --workers"):
        compute_by_workers(partial(always_die, tmp_path), BLOCKS, ["cpu"])
    assert len((tmp_path / "deaths").read_text()) == MOST_DEATHS


@pytest.mark.parametrize(
    ("opener", "error", "told"),
    [
        (mistake, InputError, "^stack.tif: slice [0-9]: is damaged$"),
        (fault, RuntimeError, "a fault of the program"),
    ],
)
def test_errors_come_from_the_process_and_none_is_left(tmp_path, opener, error, told):
    with pytest.raises(error, match=told):
        compute_by_workers(partial(opener, tmp_path), BLOCKS, ["cpu"] * 2)
    children = psutil.Process().children(recursive=True)
    assert [one for one in children if "spawn_main" in " ".join(one.cmdline())] == []


def test_no_blocks_need_no_process(tmp_path):
    compute_by_workers(partial(fault, tmp_path), [], ["cpu"] * 2)


def test_a_gpu_takes_one_process():
    assert devices_of("auto", 3) == ["auto"] * 3
    assert devices_of("0,1,3", 2) == ["0", "1"]
    with pytest.raises(InputError, match=r"--workers 2 --device 0: a GPU takes one.*--device 0,1"):
        devices_of("0", 2)
