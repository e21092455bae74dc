"""A training replaces nothing that it reads, and nothing that no training has left there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import caffe
from tests.unet.small_net import write_training
from unet.errors import InputError
from unet.training.history import History
from unet.training.train import Training, read_solver
from unet.training.training_guard import guard_run


@pytest.fixture
def solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the solver of a small training, whose prefix is `small`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = write_training(tmp_path)
    os.mkdir("run")
    return path


def guard(solver: Path, weights: str | None = None, overwrite: bool = False) -> None:
    guard_run("run/small", str(solver), read_solver(str(solver)), weights, overwrite)


def test_weights_that_a_snapshot_would_replace(solver):
    before = b"years of training"
    Path("run/small_iter_2.caffemodel").write_bytes(before)
    with (
        Training(caffe, str(solver), "run") as training,
        pytest.raises(InputError, match=r"run/small_iter_2.caffemodel: is, .* the input .*damaged"),
    ):
        training.begin("run/small_iter_2.caffemodel", overwrite=True)
    assert Path("run/small_iter_2.caffemodel").read_bytes() == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize(
    "name", ["small_iter_4.caffemodel", "small_iter_4.solverstate.h5", "curve.csv", "curves.png"]
)
def test_inputs_under_the_names_of_a_training(solver, link, name):
    Path("weights.caffemodel").write_bytes(b"weights")
    text = solver.read_text()
    sources = sorted({*Path().glob("*.prototxt"), *Path().glob("*.h5"), Path("weights.caffemodel")})
    assert len(sources) == 4
    for source in sources:
        link(source.resolve(), Path("run", name).resolve())
        with pytest.raises(InputError, match=rf"run/{name}: is, holds or lies in the input .*"):
            guard(solver, "weights.caffemodel", overwrite=True)
        Path("run", name).unlink()
    guard(solver, "weights.caffemodel")
    assert solver.read_text() == text


@pytest.mark.parametrize(
    "name", ["small_iter_4.caffemodel", "small_iter_4.solverstate", "curve.csv", "curves.png"]
)
def test_files_that_no_training_has_left(solver, name):
    Path("run", name).write_text("mine")
    with pytest.raises(InputError, match=f"run/{name}: exists, and no training .* --overwrite"):
        guard(solver)
    guard(solver, overwrite=True)


def test_other_files_in_the_folder_do_not_matter(solver):
    for name in ("notes.txt", "other_iter_4.caffemodel", "small_iter_4.caffemodel.old"):
        Path("run", name).write_text("mine")
    guard(solver)


def test_a_run_that_was_killed_before_its_first_whole_snapshot_begins_anew(solver):
    curve = History(Path("run"), 0)
    curve.training(0, 0.5, 0.1)
    curve.close()
    Path("run/small_iter_4.caffemodel").write_bytes(b"a model without a state")
    guard(solver)
