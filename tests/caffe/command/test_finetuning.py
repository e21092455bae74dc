"""`caffe train` as the Fiji plugin calls it: lines, cancelling, resuming, other classes."""

from __future__ import annotations

import os
import re
import signal

import h5py
import numpy as np
import pytest

import caffe
from caffe.command import run
from caffe.files import prototxt
from caffe.solvers.solver import Solver
from tests import finetuning

# As the plugin looks for them in each line.
ITERATION = re.compile(r"^.*Iteration ([0-9]+) .* loss = (.*)$", re.MULTILINE)
TESTED = re.compile(r"^.*Iteration ([0-9]+), Testing net.*$", re.MULTILINE)
OUTPUT = r"^.*Test net output #[0-9]*: {} = (\S+)"
SNAPSHOT = re.compile(r"^.* Snapshotting to HDF5 file (.*)$", re.MULTILINE)


def per_class(log: str, what: str) -> list[list[float]]:
    return [
        [float(value) for value in found.split(" ")]
        for found in re.findall(rf"^.*{what}: (.*)$", log, re.MULTILINE)
    ]


@pytest.fixture(autouse=True)
def leave_as_it_was(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    caffe.set_mode_cpu()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def train(solver, *more: str) -> int:
    return run(["train", "-solver", str(solver), *more, "-sigint_effect", "stop"])


def test_the_log_of_a_finetuning_is_what_the_plugin_reads(tmp_path, capfd):
    assert train(finetuning.write_files(tmp_path, iterations=4, interval=2)) == 0
    out, log = capfd.readouterr()
    # By which it can be cancelled.
    assert out == f"{os.getpid()}\n"
    iterations = [(int(n), float(loss)) for n, loss in ITERATION.findall(log)]
    assert [number for number, _ in iterations] == [0, 1, 2, 3]
    assert [int(number) for number in TESTED.findall(log)] == [0, 2, 4]
    for name in ("loss_valid", "IoU", "F1_detection", "F1_segmentation"):
        values = [float(found) for found in re.findall(OUTPUT.format(name), log, re.MULTILINE)]
        assert len(values) == 3
        assert np.isfinite(values).all()
    # 3 tests of 2 tiles, one class but the background.
    intersections, unions = (
        np.array(per_class(log, f"IoU - Per class {what}")) for what in ("intersection", "union")
    )
    assert intersections.shape == unions.shape == (6, 1)
    assert (intersections <= unions).all()
    for name in ("F1_detection", "F1_segmentation"):
        true, predictions, objects = (
            np.array(per_class(log, f"{name} - Per class {what} count"))
            for what in ("true positive", "prediction", "object")
        )
        assert (true <= np.minimum(predictions, objects)).all()
        # The same tiles in each test.
        assert (objects[:2] == objects[2:4]).all()
        assert objects.min() > 0
    assert SNAPSHOT.findall(log) == [f"{tmp_path}/job-snapshot_iter_4.caffemodel.h5"]
    assert (tmp_path / "job-snapshot_iter_4.solverstate.h5").exists()


@pytest.mark.parametrize(
    ("levels", "tile", "steps"), [((2, 2), (44, 44), 12), ((0, 1, 1), (9, 28, 28), 16)]
)
def test_finetuning_learns_in_2_d_and_3_d(tmp_path, capfd, levels, tile, steps):
    solver = finetuning.write_files(tmp_path, steps, steps, levels, tile, rate=1e-2)
    train(solver)
    losses = re.findall(OUTPUT.format("loss_valid"), capfd.readouterr().err, re.MULTILINE)
    first, last = map(float, losses)
    assert last < 0.8 * first


def test_one_seed_gives_one_finetuning(tmp_path, capfd):
    runs = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        train(finetuning.write_files(folder, iterations=3, interval=3))
        runs.append(ITERATION.findall(capfd.readouterr().err))
    assert [loss for _, loss in runs[0]] == [loss for _, loss in runs[1]]


def test_a_cancelled_finetuning_goes_on_from_the_state_beside_its_snapshot(
    tmp_path, capfd, monkeypatch
):
    solver = finetuning.write_files(tmp_path, iterations=1000, interval=1000)
    display = Solver._display

    def cancel(self: Solver) -> None:
        display(self)
        if self.iter == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Solver, "_display", cancel)
        assert train(solver) == 0
    (snapshot,) = SNAPSHOT.findall(capfd.readouterr().err)
    assert snapshot == f"{tmp_path}/job-snapshot_iter_4.caffemodel.h5"
    state = snapshot.replace("caffemodel.h5", "solverstate.h5")
    solver.write_text(solver.read_text().replace("max_iter: 1000", "max_iter: 6"))
    assert train(solver, "-snapshot", state) == 0
    assert [number for number, _ in ITERATION.findall(capfd.readouterr().err)] == ["4", "5"]


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_a_net_for_other_classes_begins_with_those_that_both_have(tmp_path, capfd, before, after):
    for name, classes in (("old", before), ("new", after)):
        (tmp_path / name).mkdir()
        finetuning.write_files(tmp_path / name, 1, 1, classes=classes, rate=0)
    train(tmp_path / "old/job-solver.prototxt")
    old = tmp_path / "old/job-snapshot_iter_1.caffemodel.h5"
    capfd.readouterr()
    assert train(tmp_path / "new/job-solver.prototxt", "-weights", str(old)) == 0
    told = rf"'conv_u0d-score'.*has {after} outputs, {before} in {old}: those that both have"
    assert re.search(told, capfd.readouterr().err)
    with h5py.File(old) as a, h5py.File(tmp_path / "new/job-snapshot_iter_1.caffemodel.h5") as b:
        both = min(before, after)
        for index in "01":
            values = [file[f"data/conv_u0d-score/{index}"][:] for file in (a, b)]
            assert [len(value) for value in values] == [before, after]
            np.testing.assert_array_equal(values[0][:both], values[1][:both])
        np.testing.assert_array_equal(a["data/conv_d0a-d0b/0"][:], b["data/conv_d0a-d0b/0"][:])


def test_older_texts_with_offsets_from_a_range_are_trained_as_well(tmp_path, capfd):
    solver = finetuning.write_files(tmp_path, iterations=2, interval=2)
    path = tmp_path / "job-model.prototxt"
    net = prototxt.read_net(path)
    (create,) = (layer for layer in net.layer if layer.type == "CreateDeformation")
    del create.bottom[:]
    param = create.create_deformation_param
    param.ClearField("random_offset_range_from_pdf")
    for ends, sign in ((param.random_offset_from, -1), (param.random_offset_to, 1)):
        ends.v[:] = [10 * sign, 10 * sign]
    data = next(layer for layer in net.layer if layer.name == "loaddata")
    del data.top[3]
    net.force_backward = True
    prototxt.write_text(net, path)
    assert train(solver) == 0
    assert len(ITERATION.findall(capfd.readouterr().err)) == 2


def test_of_two_states_the_last_counts(tmp_path, capfd):
    # The plugin's command after what was resumed is cancelled, too.
    solver = finetuning.write_files(tmp_path, iterations=2, interval=2)
    assert train(solver) == 0
    state = str(tmp_path / "job-snapshot_iter_2.solverstate.h5")
    capfd.readouterr()
    assert train(solver, "-snapshot", "gone.solverstate.h5", "-snapshot", state) == 0
    assert f"Resuming from {state}" in capfd.readouterr().err


def test_pictures_of_one_grey_value_are_told(tmp_path, capfd):
    # The plugin divides by the difference of their grey values.
    solver = finetuning.write_files(tmp_path, iterations=2, interval=2)
    with h5py.File(tmp_path / "job_train_0.h5", "a") as file:
        file["data"][...] = np.nan
    with pytest.raises(caffe.CaffeError, match="NaN or infinite"):
        train(solver)


def test_a_gpu_that_is_not_there_is_told_in_words_that_the_plugin_knows(tmp_path):
    with pytest.raises(caffe.CaffeError, match="invalid device ordinal"):
        train(finetuning.write_files(tmp_path), "-gpu", "99")
