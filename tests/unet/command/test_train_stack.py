"""unet train STACK LABELS as a process: killed at any step it goes on; what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caffe.proto import caffe_pb2
from unet.command.train import main
from unet.datasets.phantom import phantom
from unet.errors import InputError
from unet.training import snapshots
from unet.volumes import write_volume

# Two stages, a snapshot every 50 iterations.
ITERATIONS = 200


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stacks")
    for name, pixels in zip(("stack.tif", "labels.tif"), phantom(slices=4, size=64)):
        write_volume(folder / name, pixels)
    return [str(folder / "stack.tif"), str(folder / "labels.tif")]


def words(stacks: list[str], output: Path, *more: str) -> list[str]:
    return [*stacks, "-o", str(output), "--iterations", str(ITERATIONS), "--device", "cpu", *more]


def start(stacks: list[str], output: Path) -> subprocess.Popen:
    # Not into pipes, which processes that outlive a killed one for a moment keep open.
    with open(said_by(output), "w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "unet.command", "train", *words(stacks, output)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def said_by(output: Path) -> Path:
    return output.with_suffix(".txt")


def kill_when(process: subprocess.Popen, is_time) -> None:
    deadline = time.monotonic() + 600
    while not is_time():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finish(process: subprocess.Popen, output: Path) -> str:
    assert process.wait(timeout=600) == 0, said_by(output).read_text()
    return said_by(output).read_text()


def result(folder: Path) -> tuple[dict, dict]:
    last = snapshots.find(str(folder / "training-2" / "unet"))[0]
    assert last.iteration == ITERATIONS // 8
    # The file also holds the path of the training set.
    net = caffe_pb2.NetParameter.FromString(Path(last.model).read_bytes())
    parameters = {layer.name: [blob.data for blob in layer.blobs] for layer in net.layer}
    return parameters, json.loads((folder / "scores.json").read_text())


@pytest.mark.slow
def test_killed_at_every_step_it_goes_on_and_comes_to_the_same_network(stacks, tmp_path):
    undisturbed = start(stacks, tmp_path / "whole")
    said = finish(undisturbed, tmp_path / "whole")
    assert "Held out: slice 2 (spread through the stack)" in said
    folder = tmp_path / "killed"
    moments = [
        lambda: (folder / "choices.json").exists(),
        lambda: snapshots.find(str(folder / "training-1" / "unet")),
        lambda: (folder / "training-1" / "scores.json").exists(),
        lambda: (folder / "training-2").exists(),
    ]
    for is_time in moments:
        kill_when(start(stacks, folder), is_time)
    finish(start(stacks, folder), folder)
    assert result(folder) == result(tmp_path / "whole")
    assert (folder / "README.md").is_file()
    # Nothing half-written is left.
    assert [path for path in folder.rglob("*.part")] == []


def test_a_solver_takes_no_options_of_a_stack_nor_the_other_way_round(stacks, tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "none"\n')
    with pytest.raises(InputError, match="--levels is for STACK LABELS"):
        main([str(solver), "--levels", "3"])
    with pytest.raises(InputError, match="--seconds is for a solver prototxt"):
        main(words(stacks, tmp_path / "out", "--seconds", "3"))
    with pytest.raises(InputError, match="name its labels as well"):
        main([stacks[0], "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_minutes_and_iterations_are_not_both_given(stacks, tmp_path):
    with pytest.raises(InputError, match="--minutes and --iterations both say how long"):
        main(words(stacks, tmp_path / "out", "--minutes", "1"))


def test_an_input_in_the_folder_is_not_replaced(stacks, tmp_path):
    shutil.copy(stacks[0], tmp_path / "stack.tif")
    with pytest.raises(InputError, match="would be damaged"):
        main(words([str(tmp_path / "stack.tif"), stacks[1]], tmp_path))
