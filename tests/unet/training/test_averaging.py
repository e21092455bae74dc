"""The averaged network: the mean by its formula, the same through stops and kills."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import caffe
from tests.unet.small_net import write_training
from unet.errors import InputError
from unet.training import snapshots
from unet.training.averaging import Averaging
from unet.training.train import Training


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("unet.training.history.draw_curves", lambda rows, path: None)


def parameters(net) -> list[np.ndarray]:
    return [blob.data.copy() for blobs in net.params.values() for blob in blobs]


def stored(path: str, training: Training) -> list[np.ndarray]:
    """Return the parameters that a file gives a net."""
    training.solver.net.copy_from(path)
    return parameters(training.solver.net)


def train(
    solver: Path,
    folder: Path,
    share: float | None,
    stop_at: int | None = None,
    iterations: int | None = None,
) -> tuple[Training, list[list[np.ndarray]]]:
    """Begin or go on, to the end or a Ctrl-C in an iteration; return the parameters after each."""
    passed: list[list[np.ndarray]] = []
    with Training(caffe, str(solver), str(folder), iterations, average=share) as training:
        if training.resume() is None:
            training.begin()
        step = training.solver.step

        def watched(count):
            step(count)
            passed.append(parameters(training.solver.net))
            if training.solver.iter == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        training.solver.step = watched
        if stop_at is None:
            training.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                training.run()
    return training, passed


@pytest.mark.parametrize(("share", "many"), [(0.25, 3), (0.3, 4), (1, 12), (0.001, 1)])
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_it_is_the_mean_of_the_last_iterations_and_changes_none_of_them(
    tmp_path, share, many, form
):
    solver = write_training(tmp_path, snapshot_format=form)
    plain, expected = train(solver, tmp_path / "plain", None)
    training, passed = train(solver, tmp_path / "run", share)
    np.testing.assert_equal(passed, expected)
    np.testing.assert_equal(parameters(training.solver.net), expected[-1])
    np.testing.assert_equal(stored(training.model, training), expected[-1])
    assert Path(training.averaged).name.startswith("small_iter_12_averaged.caffemodel")
    mean = [np.mean(one, axis=0, dtype=np.float64).astype("f4") for one in zip(*passed[-many:])]
    np.testing.assert_equal(stored(training.averaged, training), mean)
    assert not list(plain.folder.glob("*average*"))


def same_file(path: str, other: str) -> bool:
    """Tell it without the difference, which pytest would print."""
    return Path(path).read_bytes() == Path(other).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """Return a solver, and the averaged network of its training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    solver = write_training(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet.training.history.draw_curves", lambda rows, path: None)
        return solver, train(solver, folder / "whole", 0.5)[0].averaged


@pytest.mark.parametrize("stops", [[5], [9], [7, 12], [8, 10]])
def test_stopped_and_resumed_it_is_the_same_to_the_bit(whole, tmp_path, stops):
    solver, expected = whole
    for stop in stops:
        train(solver, tmp_path / "run", 0.5, stop_at=stop)
    assert same_file(train(solver, tmp_path / "run", 0.5)[0].averaged, expected)


def test_killed_before_it_was_written_it_is_made_of_the_last_snapshot(whole, tmp_path):
    solver, expected = whole
    done, _ = train(solver, tmp_path / "run", 0.5)
    os.unlink(done.averaged)
    train(solver, tmp_path / "run", 0.5)
    assert same_file(done.averaged, expected)


@pytest.mark.parametrize("what", ["missing", "torn", "of other parameters"])
def test_without_its_sums_it_is_the_mean_of_what_is_left_and_said_so(tmp_path, capsys, what):
    solver = write_training(tmp_path)
    stopped, _ = train(solver, tmp_path / "run", 0.5, stop_at=9)
    sums = Path(snapshots.average_of(snapshots.find(stopped.prefix)[0].state))
    if what == "torn":
        sums.write_bytes(sums.read_bytes()[:1000])
    elif what == "missing":
        sums.unlink()
    else:
        other = write_training(tmp_path / "other", random_seed=12)
        train(other, tmp_path / "other" / "run", 0.5, stop_at=9)
        sums.write_bytes((tmp_path / "other" / "run" / sums.name).read_bytes())
    training, passed = train(solver, tmp_path / "run", 0.5)
    assert f"averaged from iteration 9 on, not from 7: {sums}" in capsys.readouterr().err
    mean = [np.mean(one, axis=0, dtype=np.float64).astype("f4") for one in zip(*passed)]
    np.testing.assert_equal(stored(training.averaged, training), mean)


def test_of_a_training_that_is_made_longer_it_is_that_of_the_longer_one(tmp_path, capsys):
    solver = write_training(tmp_path, lr_policy="fixed")
    longer, _ = train(solver, tmp_path / "whole", 0.25, iterations=20)
    train(solver, tmp_path / "run", 0.25)
    resumed, _ = train(solver, tmp_path / "run", 0.25, iterations=20)
    assert same_file(resumed.averaged, longer.averaged)
    assert "averaged from" not in capsys.readouterr().err


def test_sums_are_kept_as_long_as_their_snapshots(tmp_path):
    solver = write_training(tmp_path, max_iter=24, snapshot=1, test_interval=100)
    train(solver, tmp_path / "run", 0.5)
    names = [path.name for path in (tmp_path / "run").glob("*.average.h5")]
    assert sorted(names) == [f"small_iter_{k}.average.h5" for k in (20, 23, 24)]


class Walk:
    """A net whose one parameter is the number of iterations done."""

    def __init__(self) -> None:
        self.blob = SimpleNamespace(data=np.zeros(1, np.float32))
        self.params = {"walk": [self.blob]}
        self.layers: list[object] = []

    def save(self, path: str) -> None:
        Path(path).write_text(str(float(self.blob.data[0])))


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # Every third of the last 300.
        ([1000] * 1000, np.mean(range(702, 1000, 3))),
        # Begun, it goes on when the end turns out to be later.
        ([1000] * 500 + [600] * 100 + [800] * 200, np.mean(range(501, 800, 3))),
        # The end comes before any.
        ([1000] * 500, 500),
    ],
)
def test_a_hundred_iterations_make_up_a_long_mean_wherever_its_end_turns_out_to_be(
    tmp_path, ends, expected
):
    net = Walk()
    averaging = Averaging(net, 0.3, 1000, "solver")
    for done, end in enumerate(ends, 1):
        net.blob.data[0] = done
        averaging.note(done, end)
    path = averaging.write(str(tmp_path / "x.caffemodel"), len(ends))
    assert float(Path(path).read_text()) == pytest.approx(expected)
    assert net.blob.data[0] == len(ends)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(InputError, match=r"--average \S+: give the part of the iterations"):
        Training(caffe, str(write_training(tmp_path)), average=share)


def test_a_network_with_batch_normalisation_is_refused(tmp_path):
    solver = write_training(tmp_path)
    net = tmp_path / "train_val.prototxt"
    layer = 'layer { name: "norm" type: "BatchNorm" bottom: "maps" top: "maps" }\n'
    head, tail = net.read_text().split('layer {\n  name: "maps_relu"')
    net.write_text(f'{head}{layer}layer {{\n  name: "maps_relu"{tail}')
    Training(caffe, str(solver))
    with pytest.raises(InputError, match=r"solver.prototxt: the net has layers of type BatchNorm"):
        Training(caffe, str(solver), average=0.5)
