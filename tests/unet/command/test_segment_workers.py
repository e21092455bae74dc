"""`unet segment` by several processes and on a Dask cluster: the same files, also if one dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from unet.command.segment import main
from unet.errors import InputError
from unet.segmentation.progress import progress_folder
from unet.volumes import open_volume, read_volume, write_volume

SLICES = 16
# Seconds after which what should have come has not.
LONG = 600


@pytest.fixture(scope="module")
def stack(tmp_path_factory, isbi_dir):
    """Slices of ISBI 2012, cut small."""
    path = tmp_path_factory.mktemp("stack") / "stack.tif"
    with open_volume(isbi_dir / "test-volume.tif") as volume:
        write_volume(path, volume[0:SLICES][:, :220, :180])
    return path


def segment(stack: Path, output: Path, *options: str) -> None:
    cells = output.with_name(f"cells-{output.name}")
    named = ["--weights", "isbi2012_slim", "--device", "cpu"]
    main([str(stack), *named, "-o", str(output), "--instances", str(cells), *options])


@pytest.fixture(scope="module")
def alone(stack, tmp_path_factory):
    """What one process writes."""
    output = tmp_path_factory.mktemp("alone") / "out.tif"
    segment(stack, output)
    return output


def check_same(output: Path, alone: Path) -> None:
    for one, other in (
        (output, alone),
        (output.with_name(f"cells-{output.name}"), alone.with_name(f"cells-{alone.name}")),
    ):
        np.testing.assert_array_equal(read_volume(one), read_volume(other))
    assert not progress_folder(output).exists()


class Killer(threading.Thread):
    """Kills one of some processes when the first block of a run is on the disk."""

    def __init__(self, output: Path, processes) -> None:
        super().__init__(daemon=True)
        self._blocks = progress_folder(output) / "blocks"
        self._processes = processes
        # Blocks that were done then.
        self.done = 0
        self.start()

    def run(self) -> None:
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            self.done = len(list(self._blocks.glob("[0-9]*")))
            if self.done:
                os.kill(self._processes()[0], signal.SIGKILL)
                return
            time.sleep(0.002)


def test_several_processes_write_what_one_does_and_say_the_same(stack, alone, tmp_path, capsys):
    segment(stack, tmp_path / "one.tif")
    one = capsys.readouterr().out.splitlines()
    segment(stack, tmp_path / "two.tif", "--workers", "2")
    two = capsys.readouterr().out.replace("two.tif", "one.tif").splitlines()
    check_same(tmp_path / "two.tif", alone)
    # But for the time that it took.
    assert [line for line in one if " s a slice" not in line] == [
        line for line in two if " s a slice" not in line
    ]


def test_a_process_that_is_killed_costs_nothing_but_its_block(stack, alone, tmp_path):
    def workers() -> list[int]:
        children = psutil.Process().children()
        return [one.pid for one in children if "spawn_main" in " ".join(one.cmdline())]

    killer = Killer(tmp_path / "out.tif", workers)
    segment(stack, tmp_path / "out.tif", "--workers", "2")
    killer.join()
    assert 0 < killer.done < SLICES
    check_same(tmp_path / "out.tif", alone)


@pytest.mark.slow
def test_a_cluster_of_four_of_which_one_is_killed_writes_what_one_process_does(
    stack, alone, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    monkeypatch.chdir(tmp_path)
    with distributed.LocalCluster(
        n_workers=4, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(4, timeout=LONG)
            pids = list(client.run(os.getpid).values())
        killer = Killer(tmp_path / "out.zarr", lambda: pids)
        # A name that the workers, which run elsewhere, do not know.
        segment(stack, Path("out.zarr"), "--scheduler", cluster.scheduler_address)
        killer.join()
    assert 0 < killer.done < SLICES
    check_same(tmp_path / "out.zarr", alone)


def test_a_scheduler_that_does_not_answer_is_told(stack, tmp_path):
    pytest.importorskip("distributed", reason="needs dask.distributed")
    with pytest.raises(InputError, match=r"--scheduler tcpp://nowhere: no scheduler answers"):
        segment(stack, tmp_path / "out.tif", "--scheduler", "tcpp://nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--workers", "2", "--scheduler", "tcp://a:1"), "--workers and --scheduler: give one"),
        (("--workers", "2", "--device", "0"), "--device 0,1"),
        (("--workers", "4000"), "fewer, or a smaller --tile"),
        (("--workers", "4000", "--device", "auto"), "fewer, or a smaller --tile"),
    ],
)
def test_processes_that_cannot_be_are_refused(stack, tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        segment(stack, tmp_path / "out.tif", *options)
    assert list(tmp_path.iterdir()) == []
