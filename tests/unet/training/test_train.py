"""Training: resumed bit for bit, stopped and killed without loss, and what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2
from tests.unet.small_net import write_training
from unet.errors import InputError
from unet.machine.signals import Stopped
from unet.training import snapshots
from unet.training.history import read_history
from unet.training.train import Diverged, Training, iteration_seed


def at_iteration(training: Training, number: int, what) -> None:
    """Do something while an iteration is computed."""
    solver = training.solver
    solver.add_callback(lambda: what() if solver.iter == number else None, lambda: None)


def train(solver: Path, output: Path, stop_at: int | None = None, resume: bool = False) -> Training:
    """Train to the end, or to a Ctrl-C during one iteration."""
    with Training(caffe, str(solver), str(output)) as training:
        if resume:
            training.resume()
        else:
            training.begin()
        if stop_at is None:
            training.run()
        else:
            at_iteration(training, stop_at, lambda: os.kill(os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                training.run()
    return training


def test_with_time_enough_nothing_changes(tmp_path):
    solver = write_training(tmp_path)
    whole = train(solver, tmp_path / "whole")
    with Training(caffe, str(solver), str(tmp_path / "limited"), seconds=1e9) as limited:
        limited.begin()
        limited.run()
    assert_same_parameters(whole.solver, limited.solver)
    rates = [
        [row.get("rate") for row in read_history(tmp_path / name / "curve.csv")]
        for name in ("whole", "limited")
    ]
    assert rates[0] == rates[1]


def parameters(solver) -> dict[str, np.ndarray]:
    return {
        f"{name} {place}": blob.data.copy()
        for name, blobs in solver.net.params.items()
        for place, blob in enumerate(blobs)
    }


def assert_same_parameters(a, b) -> None:
    first, second = parameters(a), parameters(b)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def state(training: Training) -> caffe_pb2.SolverState:
    path = Path(f"{training.prefix}_iter_{training.solver.iter}.solverstate")
    return caffe_pb2.SolverState.FromString(path.read_bytes())


def curve(folder: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_history(folder / "curve.csv")
    ]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Spare the second that each picture takes; the undisturbed run has one."""
    monkeypatch.setattr("unet.training.history.draw_curves", lambda rows, path: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a solver and the training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    solver = write_training(folder)
    return solver, train(solver, folder / "run")


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed_is_bit_identical_to_the_undisturbed_run(run, tmp_path, workers):
    _, whole = run
    solver = write_training(tmp_path, workers=workers)
    stopped = train(solver, tmp_path / "run", stop_at=5)
    assert stopped.solver.iter == 6
    assert [s.iteration for s in snapshots.find(stopped.prefix)] == [6, 4]
    resumed = train(solver, tmp_path / "run", resume=True)
    assert resumed.solver.iter == 12
    assert_same_parameters(resumed.solver, whole.solver)
    # The momentum too.
    assert state(resumed).history == state(whole).history
    assert curve(resumed.folder) == curve(whole.folder)


def in_test(training: Training, iteration: int, what) -> list[int]:
    """Do something in the third pass of the held-out test before an iteration; count the passes."""
    passes: list[int] = []
    net = training.solver.test_nets[0]
    real = net.forward

    def forward(*arguments):
        passes.append(training.solver.iter)
        if passes.count(iteration) == 3 and training.solver.iter == iteration:
            what()
        return real(*arguments)

    net.forward = forward
    return passes


@pytest.mark.parametrize(
    ("iteration", "numbers"),
    [(0, [signal.SIGTERM]), (6, [signal.SIGINT] * 3), (12, [signal.SIGHUP] * 2)],
)
def test_stopped_in_a_held_out_test_it_loses_nothing(run, tmp_path, iteration, numbers):
    solver = write_training(tmp_path)
    with Training(caffe, str(solver), str(tmp_path / "run")) as training:
        training.begin()
        passes = in_test(
            training, iteration, lambda: [os.kill(os.getpid(), number) for number in numbers]
        )
        with pytest.raises(Stopped) as stopped:
            training.run()
    assert stopped.value.number == numbers[0]
    # Of 30.
    assert passes.count(iteration) == 3
    assert snapshots.find(training.prefix)[0].iteration == iteration
    resumed = train(solver, tmp_path / "run", resume=True)
    assert_same_parameters(resumed.solver, run[1].solver)
    assert state(resumed).history == state(run[1]).history
    assert curve(resumed.folder) == curve(run[1].folder)


def test_the_last_snapshot_is_written_before_the_last_test(tmp_path):
    solver = write_training(tmp_path)
    with Training(caffe, str(solver), str(tmp_path / "run")) as training:
        training.begin()
        seen: list[int] = []
        in_test(training, 12, lambda: seen.extend(s.iteration for s in snapshots.find(prefix)))
        prefix = training.prefix
        training.run()
    assert seen[0] == 12


def test_a_signal_that_is_ignored_stops_nothing(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        solver = write_training(tmp_path)
        with Training(caffe, str(solver), str(tmp_path / "run")) as training:
            training.begin()
            at_iteration(training, 3, lambda: os.kill(os.getpid(), signal.SIGHUP))
            training.run()
        assert training.solver.iter == 12
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_killed_snapshot_leaves_is_removed_by_the_next_run(tmp_path):
    solver, folder = write_training(tmp_path), tmp_path / "run"
    left = folder / ".small_iter_5.caffemodel.0123abcd.part"
    left.mkdir(parents=True)
    (left / "small_iter_5.caffemodel").touch()
    train(solver, folder)
    assert not left.exists()


def test_a_full_disk_is_a_sentence_and_the_snapshots_before_stay(small_disk, tmp_path):
    solver = write_training(tmp_path, max_iter=4000, snapshot=1, test_interval=9999)
    folder = small_disk / "run"
    with Training(caffe, str(solver), str(folder)) as training:
        training.begin()
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        at_iteration(training, 5, lambda: (small_disk / "other").write_bytes(bytes(free - 16384)))
        with pytest.raises(InputError, match=r"run/\S+: cannot be written: the disk is full"):
            training.run()
    newest, older = snapshots.find(training.prefix)[:2]
    assert newest.iteration == older.iteration + 1
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    (small_disk / "other").unlink()
    with Training(caffe, str(solver), str(folder), iterations=newest.iteration + 1) as training:
        assert training.resume() == newest.state
        training.run()


def test_a_different_seed_trains_differently(run, tmp_path):
    _, whole = run
    other = train(write_training(tmp_path, random_seed=12), tmp_path / "run")
    assert not np.array_equal(
        parameters(other.solver)["maps 0"], parameters(whole.solver)["maps 0"]
    )


def test_dropout_of_an_iteration_depends_on_seed_and_iteration_alone():
    seeds = {iteration_seed(s, i) for s in (0, 1, 2) for i in range(1000)}
    assert len(seeds) == 3000
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    assert iteration_seed(1, 23) == iteration_seed(1, 23)


def test_curve_has_every_iteration_and_the_tests_at_their_interval(run):
    _, whole = run
    rows = curve(whole.folder)
    steps = [row for row in rows if "loss" in row]
    tests = [row for row in rows if "test_loss" in row]
    assert [row["iteration"] for row in steps] == list(range(12))
    assert [row["rate"] for row in steps] == pytest.approx([0.01 * (1 - i / 12) for i in range(12)])
    assert [row["iteration"] for row in tests] == [0, 3, 6, 9, 12]
    assert set(tests[0]) == {"iteration", "test_loss", "test_misclassified", "test_pixel_error"}
    assert (whole.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_held_out_loss_is_the_mean_over_all_tiles(run):
    _, whole = run
    net = whole.solver.test_nets[0]
    net.layers[0].seek(0)
    losses = [float(net.forward()["loss"]) for _ in range(net.layers[0].tiles_per_epoch)]
    # Tiles of 4 x 4 cover 18 x 22 pixels; the solver's own test_iter of 2 would not.
    assert len(losses) == 5 * 6
    assert curve(whole.folder)[-1]["test_loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_only_the_newest_snapshots_and_every_tenth_stay(tmp_path):
    solver = write_training(tmp_path, max_iter=24, snapshot=1, test_interval=100)
    train(solver, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").glob("small_iter_*"))
    kept = [10, 20, 23, 24]
    assert names == sorted(
        f"small_iter_{k}.{kind}" for k in kept for kind in ("caffemodel", "solverstate")
    )


def test_snapshots_that_another_program_has_written_stay(tmp_path):
    solver = write_training(tmp_path, max_iter=12, snapshot=1, test_interval=100)
    (tmp_path / "run").mkdir()
    other = caffe.get_solver(str(solver))
    for _ in range(5):
        other.step(1)
    theirs = {path.name: path.read_bytes() for path in tmp_path.rglob("small_iter_*")}
    assert len(theirs) == 10
    for path in list(tmp_path.rglob("small_iter_*")):
        path.rename(tmp_path / "run" / path.name)
    train(solver, tmp_path / "run", resume=True)
    left = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("small_iter_*")}
    own = [f"small_iter_{k}.{kind}" for k in (10, 11, 12) for kind in ("caffemodel", "solverstate")]
    assert sorted(left) == sorted([*theirs, *own])
    assert {name: left[name] for name in theirs} == theirs


def test_going_on_elsewhere_replaces_nobodys_files(run, tmp_path):
    solver, whole = run
    state = snapshots.find(whole.prefix)[-1].state
    weights = tmp_path / "small_iter_12.caffemodel"
    weights.write_bytes(b"years of training")
    with Training(caffe, str(solver), str(tmp_path)) as training:
        with pytest.raises(InputError, match=r"small_iter_12.caffemodel: exists, and no training"):
            training.resume(state)
        weights.unlink()
        weights.hardlink_to(snapshots.model_of(state))
        with pytest.raises(InputError, match=r"small_iter_12.caffemodel: is, .* the input .*"):
            training.resume(state, overwrite=True)
        weights.unlink()
        assert training.resume(state) == state


def test_a_torn_snapshot_is_passed_over(run, tmp_path, capsys):
    solver = write_training(tmp_path)
    train(solver, tmp_path / "run", stop_at=5)
    newest = snapshots.find(str(tmp_path / "run" / "small"))[0]
    assert newest.iteration == 6
    content = Path(newest.state).read_bytes()
    Path(newest.state).write_bytes(content[: len(content) // 2])
    resumed = train(solver, tmp_path / "run", resume=True)
    assert "passed over" in capsys.readouterr().err
    assert_same_parameters(resumed.solver, run[1].solver)


@pytest.mark.parametrize("kind", ["state", "model"])
def test_a_snapshot_cut_anywhere_is_refused_before_the_engine_reads_it(tmp_path, kind):
    solver = write_training(tmp_path, max_iter=1)
    done = train(solver, tmp_path / "run")
    snapshot = snapshots.find(done.prefix)[0]
    snapshots.check(snapshot, done.solver)
    path = Path(getattr(snapshot, kind))
    content = path.read_bytes()
    # Also where the cut leaves a valid, shorter message.
    last = content.rfind(b"score") if kind == "model" else len(content) - 40
    for length in (0, 1, len(content) // 3, last - 4, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="torn"):
            snapshots.check(snapshot, done.solver)


def test_when_no_snapshot_is_whole_nothing_is_started_anew(tmp_path):
    solver = write_training(tmp_path, max_iter=1)
    done = train(solver, tmp_path / "run")
    Path(snapshots.find(done.prefix)[0].model).write_bytes(b"")
    with (
        Training(caffe, str(solver), str(tmp_path / "run")) as training,
        pytest.raises(InputError, match=r"no snapshot of .* can be used"),
    ):
        training.resume()


def test_snapshots_of_another_net_are_refused(tmp_path):
    solver = write_training(tmp_path, max_iter=1)
    train(solver, tmp_path / "run")
    text = (tmp_path / "train_val.prototxt").read_text()
    (tmp_path / "train_val.prototxt").write_text(text.replace("num_output: 8", "num_output: 9"))
    with (
        Training(caffe, str(solver), str(tmp_path / "run")) as training,
        pytest.raises(InputError, match="layer 'maps'"),
    ):
        training.resume()


@pytest.mark.parametrize(("fields", "ending"), [({}, ""), (dict(snapshot_format=0), ".h5")])
def test_a_run_that_was_moved_resumes_bit_identically(run, tmp_path, fields, ending):
    solver = write_training(tmp_path, **fields)
    train(solver, tmp_path / "run", stop_at=5)
    assert list((tmp_path / "run").glob(f"*.solverstate{ending}"))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    resumed = train(solver, tmp_path / "elsewhere", resume=True)
    assert_same_parameters(resumed.solver, run[1].solver)


def test_going_back_to_an_earlier_snapshot_asks_for_another_folder(run, tmp_path):
    solver, whole = run
    state = f"{whole.prefix}_iter_8.solverstate"
    with (
        Training(caffe, str(solver), str(whole.folder)) as training,
        pytest.raises(InputError, match="would be overwritten"),
    ):
        training.resume(state)
    with Training(caffe, str(solver), str(tmp_path)) as training:
        training.resume(state)
        training.run()
    assert_same_parameters(training.solver, whole.solver)


def test_a_loss_that_is_no_number_stops_and_names_the_last_good_snapshot(tmp_path):
    solver = write_training(tmp_path)
    train(solver, tmp_path / "run", stop_at=4)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("small_iter_*")}
    with Training(caffe, str(solver), str(tmp_path / "run")) as training:
        training.resume()

        def spoil():
            training.solver.net.params["score"][1].data[...] = np.nan

        at_iteration(training, 7, spoil)
        with pytest.raises(Diverged, match=r"nan at iteration 7.*small_iter_5\.solverstate"):
            training.run()
    after = {path: path.read_bytes() for path in (tmp_path / "run").glob("small_iter_*")}
    assert after == before
    assert np.isnan(curve(tmp_path / "run")[-1]["loss"])


def test_parameters_that_are_no_numbers_are_not_snapshot(tmp_path):
    # The loss of the only iteration is fine; its update is not.
    solver = write_training(tmp_path, base_lr=1e38, lr_policy="fixed", max_iter=1)
    with Training(caffe, str(solver), str(tmp_path / "run")) as training:
        training.begin()
        training.solver.net.params["maps"][0].data[...] *= 30
        with pytest.raises(Diverged, match="no finite numbers at iteration 1"):
            training.run()
    assert not list((tmp_path / "run").glob("small_iter_*"))


def test_an_earlier_run_is_not_overwritten(run):
    solver, whole = run
    with (
        Training(caffe, str(solver), str(whole.folder)) as training,
        pytest.raises(InputError, match="--resume"),
    ):
        training.begin()


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    solver = write_training(tmp_path)
    with Training(caffe, str(solver)):
        second = Training(caffe, str(solver))
        with pytest.raises(InputError, match="another training is at work"), second:
            pass
    with Training(caffe, str(solver)):
        pass


def test_weights_of_another_training_are_where_a_new_one_starts(run, tmp_path):
    solver, whole = run
    with Training(caffe, str(solver), str(tmp_path)) as training:
        training.begin(whole.model)
        assert_same_parameters(training.solver, whole.solver)
        with pytest.raises(InputError, match="no such file with weights"):
            training.begin(str(tmp_path / "absent.caffemodel"))


def test_an_accumulating_solver_resumes_at_its_tile(tmp_path):
    whole = train(write_training(tmp_path / "a", iter_size=3), tmp_path / "a" / "run")
    solver = write_training(tmp_path / "b", iter_size=3)
    train(solver, tmp_path / "b" / "run", stop_at=6)
    resumed = train(solver, tmp_path / "b" / "run", resume=True)
    assert_same_parameters(resumed.solver, whole.solver)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train_val.prototxt", "absent.prototxt"), "absent.prototxt"),
        (("net:", 'test_net: "absent.b" train_net:'), r"absent\.b"),
        (("max_iter: 12", ""), "0 iterations"),
        (("max_iter: 12", "max_iters: 12"), r"line \d+:"),
        (b"\x00\x01", "is no solver prototxt"),
        (b"\x89HDF\r\n", r"solver\.prototxt: is not a text; name a solver prototxt"),
        (b'name: "a" layer { name: "b" }', "is a network, not a solver; name the solver"),
    ],
)
def test_a_solver_that_cannot_run_is_told_in_a_sentence(tmp_path, change, message):
    solver = write_training(tmp_path)
    if isinstance(change, bytes):
        solver.write_bytes(change)
    else:
        solver.write_text(solver.read_text().replace(*change))
    with pytest.raises(InputError, match=message):
        Training(caffe, str(solver))
    assert not (tmp_path / "run").exists()


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(InputError, match="is a folder; name the solver prototxt in it"):
        Training(caffe, str(tmp_path))
    with pytest.raises(InputError, match="no such solver"):
        Training(caffe, str(tmp_path / "absent.prototxt"))


def test_weights_may_be_a_model_folder(run, tmp_path):
    solver, whole = run
    (tmp_path / "model").mkdir()
    shutil.copy(whole.model, tmp_path / "model" / "weights.caffemodel")
    with Training(caffe, str(solver), str(tmp_path / "new")) as training:
        training.begin(str(tmp_path / "model"))
        assert_same_parameters(training.solver, whole.solver)
        (tmp_path / "a.modeldef.h5").touch()
        with pytest.raises(
            InputError, match=r"a\.modeldef\.h5: .* holds no weights; .* a\.caffemodel"
        ):
            training.begin(str(tmp_path / "a.modeldef.h5"))
