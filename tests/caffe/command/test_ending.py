"""How Caffe's programs end: signals, kills, full disks, and terminals that have gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import caffe
from caffe.errors import CaffeError
from caffe.files.atomic import atomic_path
from caffe.log import log_info
from caffe.solvers.solver import get_solver
from tests.caffe.small_net import NET

SOLVER = (
    'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 snapshot_prefix: "snap" '
    "display: 1 snapshot: 2"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with a net and a solver."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def run(*words: str, lines: str = "", **streams) -> subprocess.CompletedProcess:
    """Run the `caffe` program, after some lines of Python, in a process of its own."""
    program = f"import sys; sys.argv = ['caffe', *sys.argv[1:]]\n{lines}\n"
    program += "from caffe.command import main; main()"
    environment = {**os.environ, "GLOG_minloglevel": "0"}
    return subprocess.run([sys.executable, "-c", program, *words], env=environment, **streams)


def gone() -> int:
    """Return the end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("stderr", [gone, full])
def test_a_training_whose_log_nobody_reads_is_trained(folder, stderr):
    done = run("train", "-solver", "solver.prototxt", stderr=stderr())
    assert done.returncode == 0
    assert (folder / "snap_iter_4.solverstate").exists()


def test_a_closed_log_is_no_error_and_no_snapshot_takes_its_place(folder):
    command = f'"{sys.executable}" -m caffe train -solver solver.prototxt <&- >&- 2>&-'
    assert subprocess.run(command, shell=True).returncode == 0
    caffe.Net("net.prototxt", caffe.TRAIN).copy_from("snap_iter_4.caffemodel")


@pytest.mark.parametrize(("stderr", "status"), [(gone, 128 + signal.SIGPIPE), (full, 2)])
def test_a_test_whose_log_nobody_reads_ends(folder, stderr, status):
    caffe.Net("net.prototxt", caffe.TRAIN).save("w.caffemodel")
    words = ["test", "-model", "net.prototxt", "-weights", "w.caffemodel", "-iterations", "9999999"]
    assert run(*words, stderr=stderr()).returncode == status


class Broken:
    """A stream that nobody reads."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    flush = write


def test_scripts_log_without_a_reader_as_well(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    for stream in (Broken(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        log_info("to nobody")
        solver = get_solver("solver.prototxt")
        solver.solve()
        assert solver.iter == 4


# What is half written when the process gets a signal.
IN_THE_MIDST = """
import os, signal
from caffe.files import caffemodel, wire
real = os.fsync
def fsync(handle):
    if len(os.listdir(".")) > 4:
        os.kill(os.getpid(), signal.{name})
    real(handle)
os.fsync = fsync
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_snapshot_that_is_cut_short_leaves_nothing_for_long(folder, name):
    number = getattr(signal, name)
    words = ["train", "-solver", "solver.prototxt"]
    done = run(*words, lines=IN_THE_MIDST.format(name=name), capture_output=True, text=True)
    assert done.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert (folder / "snap_iter_2.caffemodel").exists()
    assert any(".part" in entry for entry in os.listdir()) == (number == signal.SIGKILL)
    # From the start, with snapshots at other iterations.
    (folder / "solver.prototxt").write_text(SOLVER.replace("snapshot: 2", "snapshot: 3"))
    assert run(*words, stderr=subprocess.DEVNULL).returncode == 0
    assert not [entry for entry in os.listdir() if entry.startswith(".")]


def test_a_snapshot_that_another_process_writes_stays(folder):
    with atomic_path("snap_iter_9.caffemodel") as temporary:
        temporary.write_text("theirs")
        get_solver("solver.prototxt").solve()
        assert temporary.read_text() == "theirs"


@pytest.mark.parametrize("kind", ["BINARYPROTO", "HDF5"])
def test_snapshots_on_a_full_disk_are_a_sentence_and_the_older_ones_stay(small_disk, kind):
    net = NET.replace("dim: 2 dim: 3", "dim: 2 dim: 20000").replace("output: 3", "output: 1")
    net = net.replace("shape {", "shape { dim: 2 dim: 20000 } shape {", 1)
    net = net.replace("dim: 2 dim: 20000 } data_filler", "dim: 2 dim: 1 } data_filler")
    with open("net.prototxt", "w") as file:
        file.write(net)
    with open("solver.prototxt", "w") as file:
        file.write(
            SOLVER.replace('"snap"', f'"{small_disk}/snap" snapshot_format: {kind}')
            .replace("snapshot: 2", "snapshot: 1")
            .replace("base_lr: 0.01", "base_lr: 1e-9")
        )
    done = run("train", "-solver", "solver.prototxt", capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"caffe: {small_disk}/snap_iter_2.")
    assert "cannot be written: the disk is full" in last
    assert "Traceback" not in done.stderr
    suffix = ".h5" if kind == "HDF5" else ""
    names = {f"snap_iter_1.caffemodel{suffix}", f"snap_iter_1.solverstate{suffix}"}
    assert names <= set(os.listdir(small_disk))
    assert not [name for name in os.listdir(small_disk) if name.startswith(".")]
    solver = get_solver("solver.prototxt")
    solver.restore(f"{small_disk}/snap_iter_1.solverstate{suffix}")
    assert solver.iter == 1


def test_a_read_only_disk_is_a_sentence(small_disk):
    with (
        small_disk.read_only(),
        pytest.raises(CaffeError, match="cannot be written: the file system is read-only"),
    ):
        caffe.Net("net.prototxt", caffe.TRAIN).save(small_disk / "w.caffemodel")
