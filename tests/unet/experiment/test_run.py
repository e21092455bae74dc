"""A run: one call leaves a model folder, goes on after a kill, and refuses what would spoil it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

import caffe
import unet
from caffe.proto import caffe_pb2
from unet.datasets.phantom import phantom
from unet.errors import InputError
from unet.experiment.run import Trained
from unet.training.history import read_history
from unet.training.train import lock_folder

STACK, LABELS = phantom(slices=5, size=64)
HOW = dict(iterations=16, device="cpu", precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Let stages be short; spare the second that each picture of the curves takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet.experiment.choice.LEAST_REFINED", 1)
        patch.setattr("unet.training.history.draw_curves", lambda rows, path: None)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mine"
    return unet.train(STACK, LABELS, folder, **HOW)


def choices(folder: Path) -> dict:
    return json.loads((Path(folder) / "choices.json").read_text())


def curve(folder: Path, stage: int) -> list[dict[str, float]]:
    rows = read_history(Path(folder) / f"training-{stage}" / "curve.csv")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_it_leaves_a_model_folder_that_can_be_moved(trained, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.folder, moved)
    model = unet.load(moved, device="cpu")
    probabilities = model.segment(STACK[:1])
    assert probabilities.shape == (1, 64, 64)
    for file in [*moved.rglob("*.prototxt"), moved / "weights.caffemodel"]:
        assert str(trained.folder).encode() not in file.read_bytes()


def test_what_was_held_out_is_scored_and_written_down(trained):
    folder = Path(trained.folder)
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["scores"] == trained.scores
    assert 0 <= trained.scores["rand_error"] <= 1
    assert choices(folder)["split"] == {"train": [0, 1, 3, 4], "held_out": [2]}
    assert [one["slice"] for one in scores["slices"]] == [2]


def test_its_report_shows_what_has_come_of_it(trained):
    text = Path(trained.folder, "report.html").read_text(encoding="utf-8")
    assert "Trained with 16 iterations" in text
    shown = [name for name, value in trained.scores.items() if f"{value:.4f}" in text]
    assert shown == list(trained.scores)
    for part in ("data", "curves", "slices", "scores", "next", "use"):
        assert f'id="{part}"' in text
    assert "cannot be read" not in text


def test_labels_and_choices_can_be_looked_at_before_the_training(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise InputError("stopped before the first step")

    monkeypatch.setattr("unet.experiment.run.Training", stopped)
    with pytest.raises(InputError, match="stopped before"):
        unet.train(STACK, LABELS, tmp_path / "mine", **HOW)
    text = (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert "Training begins." in text
    assert 'id="data"' in text


def test_slices_of_a_folder_are_told_with_the_names_of_their_files(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise InputError("stopped before the first step")

    # Labels of four of five pictures.
    for folder, slices, first in (("raw", STACK, 0), ("labels", LABELS, 1)):
        (tmp_path / folder).mkdir()
        for z in range(first, 5):
            Image.fromarray(slices[z]).save(tmp_path / folder / f"Img_{14 + 3 * z}.png")
    titles = []
    monkeypatch.setattr(
        "unet.preparation.prepare.save_preview", lambda *how: titles.append(how[-1])
    )
    monkeypatch.setattr("unet.experiment.run.Training", stopped)
    with pytest.raises(InputError, match="stopped before"):
        unet.train(tmp_path / "raw", tmp_path / "labels", tmp_path / "mine", **HOW)
    split = choices(tmp_path / "mine")["split"]
    files = {"1": "Img_17.png", "2": "Img_20.png", "3": "Img_23.png", "4": "Img_26.png"}
    assert split == {"train": [1, 2, 4], "held_out": [3], "files": files}
    assert "Held out: slice 3 (Img_23.png) (spread through the stack)" in capsys.readouterr().out
    # The second of those that are learnt from.
    assert [title.partition(", ")[2] for title in titles] == ["slice 2 (Img_20.png)"]
    text = (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert "held out: 3 (Img_23.png) (counted from 0, in the order of their names)" in text


def test_the_second_stage_has_weights_and_a_third_of_the_rate(trained):
    first, second = choices(trained.folder)["solver"]["stages"]
    assert (first["iterations"], second["iterations"]) == (14, 2)
    assert second["base_lr"] == pytest.approx(0.3 * first["base_lr"])
    assert [len([r for r in curve(trained.folder, k) if "loss" in r]) for k in (1, 2)] == [14, 2]


def parameters(path: Path) -> list[list[float]]:
    net = caffe_pb2.NetParameter.FromString(path.read_bytes())
    return [list(blob.data) for layer in net.layer for blob in layer.blobs]


def test_the_best_of_plain_and_averaged_networks_of_both_stages_is_kept(trained):
    folder, chosen = Path(trained.folder), choices(trained.folder)
    files = {
        "stage 1, plain": ("training-1", "training-1/unet_iter_14"),
        "stage 1, averaged": ("training-1/averaged", "training-1/unet_iter_14_averaged"),
        "stage 2, plain": ("training-2", "training-2/unet_iter_2"),
        "stage 2, averaged": ("training-2/averaged", "training-2/unet_iter_2_averaged"),
    }
    errors = {
        name: json.loads((folder / place / "scores.json").read_text())["scores"]["rand_error"]
        for name, (place, _) in files.items()
    }
    assert chosen["networks"] == {"score": "rand_error", **errors}
    assert errors[chosen["kept"]] == min(errors.values()) == trained.scores["rand_error"]
    kept = folder / f"{files[chosen['kept']][1]}.caffemodel"
    assert parameters(folder / "weights.caffemodel") == parameters(kept)
    told = ", ".join(f"{name} {value:.4f}" for name, value in errors.items())
    card = (folder / "README.md").read_text()
    assert f"Kept: {chosen['kept']}. By rand_error: {told}." in card
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert chosen["kept"] in report and told.replace(", stage", "; stage") in report


def test_without_slices_held_out_the_last_network_is_kept(tmp_path):
    folder = Path(unet.train(STACK, LABELS, tmp_path / "mine", held_out=[], **HOW).folder)
    assert choices(folder)["kept"] == "stage 2, plain"
    last = folder / "training-2" / "unet_iter_2.caffemodel"
    assert parameters(folder / "weights.caffemodel") == parameters(last)


def test_a_last_stage_for_which_no_time_is_left_is_left_out(tmp_path, monkeypatch, capsys):
    seconds = {1: None, 2: -1.0}
    monkeypatch.setattr("unet.experiment.run._Way._seconds", lambda way, number: seconds[number])
    made = unet.train(STACK, LABELS, tmp_path / "run", **HOW)
    assert [one["iterations"] for one in choices(made.folder)["solver"]["stages"]] == [14]
    assert not (tmp_path / "run" / "training-2").exists()
    assert "stage 2 is left out, for too little of the time is left" in capsys.readouterr().out
    assert unet.load(made.folder, device="cpu").segment(STACK[:1]).shape == (1, 64, 64)


def test_the_same_seed_and_iterations_give_the_same_network(trained, tmp_path):
    again = unet.train(STACK, LABELS, tmp_path / "again", **HOW)
    for stage in (1, 2):
        assert curve(again.folder, stage) == curve(trained.folder, stage)
    assert again.scores == trained.scores


def test_a_finished_run_is_not_made_again(trained):
    log = Path(trained.folder, "training-2", "curve.csv")
    before = log.stat().st_mtime_ns
    assert unet.train(STACK, LABELS, trained.folder, **HOW).scores == trained.scores
    assert log.stat().st_mtime_ns == before


def test_what_kills_left_is_removed_from_every_folder(trained, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(trained.folder, folder)
    left = [folder, folder / "training-1", folder / "training-2"]
    for place in left:
        (place / ".scores.json.0123abcd.part").mkdir()
    foreign = folder / "notes" / ".scores.json.0123abcd.part"
    foreign.mkdir(parents=True)
    unet.train(STACK, LABELS, folder, **HOW)
    assert list(folder.rglob("*.part")) == [foreign]


def test_a_run_at_work_is_not_begun_anew_by_another(trained):
    lock = lock_folder(Path(trained.folder))
    there = sorted(Path(trained.folder).rglob("*"))
    try:
        for overwrite in (False, True):
            with pytest.raises(InputError, match="another training is at work in this folder"):
                unet.train(STACK, LABELS, trained.folder, overwrite=overwrite, **HOW)
    finally:
        os.close(lock)
    assert sorted(Path(trained.folder).rglob("*")) == there


@pytest.mark.parametrize("before", ["fp32", "bf16"])
def test_the_engine_computes_afterwards_as_before(tmp_path, monkeypatch, before):
    trained_in = []

    def stopped(engine, *_, **__):
        trained_in.append(engine.get_precision())
        raise InputError("stopped before the first step")

    # Also where bfloat16 would gain nothing.
    monkeypatch.setattr("caffe.common._gains_by_bf16", lambda where: True)
    monkeypatch.setattr("unet.experiment.run.train_from_stack", stopped)
    caffe.set_precision(before)
    try:
        with pytest.raises(InputError, match="stopped before"):
            unet.train(STACK, LABELS, tmp_path / "mine")
        assert trained_in == ["bf16"]
        assert caffe.get_precision() == before
    finally:
        caffe.set_precision("fp32")


def test_where_nothing_was_begun_no_folder_is_left(tmp_path):
    with pytest.raises(InputError, match="give labels of the same slices"):
        unet.train(STACK, LABELS[:3], tmp_path / "runs" / "mine", **HOW)
    assert list(tmp_path.iterdir()) == []


def test_what_is_stopped_before_it_has_chosen_is_gone_on_with(trained, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The training set is there then.
        patch.setattr("unet.experiment.settle.with_preview", stop)
        with pytest.raises(KeyboardInterrupt):
            unet.train(STACK, LABELS, tmp_path / "mine", **HOW)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"training-set.h5", "run.log"}
    again = unet.train(STACK, LABELS, tmp_path / "mine", **HOW)
    assert again.scores == trained.scores


def test_other_options_are_refused_and_said(trained):
    with pytest.raises(InputError, match=r"begun with --iterations 16, and .* --iterations 20"):
        unet.train(STACK, LABELS, trained.folder, **{**HOW, "iterations": 20})


def test_foreign_files_are_not_replaced(tmp_path):
    (tmp_path / "weights.caffemodel").write_text("mine")
    with pytest.raises(InputError, match="no training from a stack has left it"):
        unet.train(STACK, LABELS, tmp_path, **HOW)
    assert (tmp_path / "weights.caffemodel").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["weights.caffemodel"]


def test_slices_to_hold_out_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"slice 7 is not one .* those are 0, 1, 2, 3, 4"):
        unet.train(STACK, LABELS, tmp_path / "mine", held_out=[2, 7], **HOW)


def test_one_slice_is_told_and_shown_as_it_is_learnt_from(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise InputError("stopped before the first step")

    shown = []
    monkeypatch.setattr("unet.experiment.run.Training", stopped)
    monkeypatch.setattr(
        "unet.preparation.prepare.save_preview",
        lambda path, image, annotation, weights, title: shown.append(annotation.classes != 255),
    )
    with pytest.raises(InputError, match="stopped before"):
        unet.train(STACK[:1], LABELS[:1], tmp_path / "mine", **HOW)
    said = capsys.readouterr().out
    assert "pictures: 1 slice of 64 x 64, uint8\n" in said
    assert "Learns from 1 slice. A quadrant of slice 0 (" in said
    # All but the quadrant that is held out.
    assert [float(known.mean()) for known in shown] == [0.75]


def test_commands_of_a_folder_with_a_space_in_its_name_can_be_copied():
    assert "segment STACK --model 'runs/my own' -o OUT" in str(Trained("runs/my own", {}, {}))


def test_scores_that_are_not_defined_are_said_to_be_none():
    said = str(Trained("mine", {"SEG": 0.0, "precision": None}, {}))
    assert "SEG            0.000000\nprecision      none\n" in said


def test_a_rate_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="--rate 0: nothing is learnt so"):
        unet.train(STACK, LABELS, tmp_path / "mine", rate=0.0, **HOW)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file.mine: cannot be written: a part of its path is"):
        unet.train(STACK, LABELS, tmp_path / "file" / "mine", **HOW)


@pytest.mark.parametrize("is_turned", [False, True])
def test_labels_that_do_not_lie_on_their_pictures_are_told_before_the_training(
    tmp_path, monkeypatch, capsys, is_turned
):
    def stopped(*_, **__):
        raise InputError("stopped before the first step")

    monkeypatch.setattr("unet.experiment.run.Training", stopped)
    raw, labels = phantom(slices=4, size=128)
    if is_turned:
        labels = labels.transpose(0, 2, 1)
    with pytest.raises(InputError, match="stopped before"):
        unet.train(raw, labels, tmp_path / "mine", **HOW)
    said = "note: the borders in the labels fit the edges in the picture with rows and columns"
    assert (said in capsys.readouterr().out) == is_turned
