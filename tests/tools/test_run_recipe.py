"""The runner, on a tiny recipe of each kind: every program is run, once, and a card is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import recipes
import run_recipe
from model_folder import card, guard_model_folder, make_model_folder
from recipes import RECIPES, Split
from run_recipe import Way, at_hand
from tests.conftest import REPOSITORY
from tests.unet.ctc_cases import write_picture
from training_choice import Choice
from unet.errors import InputError
from unet.model.defaults import read_defaults
from unet.volumes import read_volume

CHOICE = Choice("unet_slim", 2, "Adam", "none", "fp32")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder with the trainings' prototxt, in place of the repository."""
    (tmp_path / "prototxt").symlink_to(REPOSITORY / "prototxt")
    monkeypatch.setattr(run_recipe, "REPOSITORY", tmp_path)
    monkeypatch.setattr(run_recipe, "choose", lambda options, recipe: CHOICE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(place, monkeypatch):
    """Run a recipe, for two steps, by its command line."""

    def run(name: str, recipe: recipes.Recipe, *words: str) -> None:
        monkeypatch.setitem(RECIPES, name, replace(recipe, nets="--tile 284", iterations=2))
        assert run_recipe.main([name, "--device", "cpu", *words]) is None

    return run


@pytest.mark.slow
def test_a_demo_is_run_once_and_not_again(tiny, capfd, monkeypatch):
    make = ["fetch", "phantom", "-o", "data/isbi", "--slices", "4", "--size", "64"]
    subprocess.run([sys.executable, "-m", "unet.command", *make], check=True)
    recipe = replace(RECIPES["demo"], folder="data/isbi")
    monkeypatch.setattr(Way, "fetch", lambda way: None)
    tiny("demo", recipe, "--iterations", "2")
    said = capfd.readouterr().out
    assert "already done" not in said
    folder = Path("runs/demo/model")
    for name in ("labels.png", "training-1/curves.png", "overlay.png", "report.html"):
        assert (folder / name).is_file()
        assert name in said
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    assert f"{scores['pixel_error']:.6f}" in said
    tiny("demo", recipe, "--iterations", "2")
    assert capfd.readouterr().out.count("already done") == 1
    # To another end: what is there is kept aside.
    tiny("demo", recipe, "--iterations", "3")
    assert Path("runs/demo/model.old1/choices.json").is_file()


@pytest.mark.slow
def test_a_sequence_is_trained_on_tracked_scored_and_has_a_card(tiny, monkeypatch):
    """Two cells that stand still in frames 0 to 3; the last is held out."""
    data = Path("data/cells")
    for number in range(4):
        cells = np.zeros((80, 90), np.uint16)
        cells[10:30, 10:40], cells[50:70, 20:70] = 1, 2
        for name, pixels in (
            (f"02/t{number:03d}", (cells * 60 + number).astype(np.uint8)),
            (f"02_GT/SEG/man_seg{number:03d}", cells),
            (f"02_GT/TRA/man_track{number:03d}", cells),
        ):
            write_picture(data / f"{name}.tif", pixels)
    (data / "02_GT/TRA/man_track.txt").write_text("1 0 3 0\n2 0 3 0\n")
    split = RECIPES["phc-u373"].splits["holdout"]
    recipe = replace(
        RECIPES["phc-u373"],
        folder=str(data),
        splits={"holdout": replace(split, train="0:3", test="3:")},
        prepare="--normalise --unannotated markers",
        track="",
    )
    monkeypatch.setattr(Way, "fetch", lambda way: None)
    tiny("phc-u373", recipe)
    target = Path("models/phc-u373_unet_slim_holdout_adam_none")
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "curves.png",
        "deploy.prototxt",
        "input.json",
        "overlay.png",
        "scores.json",
        "segment.json",
        "weights.caffemodel",
    ]
    text = (target / "README.md").read_text()
    assert "make train-phc SPLIT=holdout NET=unet_slim SOLVER=adam WEIGHTING=none" in text
    scores = json.loads((target / "scores.json").read_text())
    assert [one["frame"] for one in scores["per_frame"]] == [3]
    assert f"| SEG | {scores['SEG']:.4f} |" in text
    solver = Path("runs") / target.name / "net" / "solver.prototxt"
    assert 'type: "Adam"' in solver.read_text()


@pytest.mark.slow
def test_two_trainings_differ_in_the_weight_alone_and_merged_cells_are_counted(tiny, monkeypatch):
    make = ["fetch", "phantom-cells", "-o", "data/cells", "--slices", "3", "--size", "96"]
    subprocess.run([sys.executable, "-m", "unet.command", *make], check=True)
    recipe = replace(
        RECIPES["separation"],
        folder="data/cells",
        splits={"holdout": Split("0:2", "2:3", "train-volume.tif")},
        prepare="--label-kind instances --balance-slices 0:2",
        segment="",
    )
    monkeypatch.setattr(Way, "fetch", lambda way: None)
    tiny("separation", recipe)
    folder = Path("runs/separation")
    result = json.loads((folder / "separation.json").read_text())
    truth = read_volume("data/cells/train-labels.tif")[2]
    assert result["cells"] == truth.max()
    assert result["merged"].keys() == result["found"].keys() == {"w0 = 10", "w0 = 0"}
    assert (folder / "separation.png").read_bytes().startswith(b"\x89PNG")
    one, other = ((folder / f"w0_{w0}" / "net" / "solver.prototxt").read_text() for w0 in (10, 0))
    assert one.replace("w0_10", "w0_0") == other


class Listed(Way):
    """Runs nothing: the steps' words are listed."""

    def step(self, title, *words, needs=()):
        self.listed = [*getattr(self, "listed", []), words[0]]


def test_where_nothing_judges_what_was_learnt_is_shown_and_not_scored(tmp_path, capsys):
    for name in ("train-volume.tif", "train-labels.tif"):
        (tmp_path / name).touch()
    recipe = replace(RECIPES["isbi2012"], folder=str(tmp_path))
    way = Listed(recipe, tmp_path, "cpu")
    assert not way.judge(recipe.splits["all"], tmp_path / "weights")
    assert "test-volume.tif is not there: the pictures show" in capsys.readouterr().out
    assert way.judge(recipe.splits["holdout"], tmp_path / "weights")
    assert way.listed == ["segment", "segment", "score"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--device", "7"], "DEVICE=7"), (["--net", "vnet", "--device", "cpu"], "NET=vnet")],
)
def test_what_is_not_there_is_one_sentence(arguments, said):
    finished = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "run_recipe.py"), "isbi2012", *arguments],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert said in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_the_model_folder_is_made_anew_as_long_as_its_card_says_what_it_is(tmp_path):
    run, training = tmp_path / "run", tmp_path / "run" / "training"
    training.mkdir(parents=True)
    (run / "overlay.png").write_bytes(b"overlay")
    (training / "curves.png").write_bytes(b"curves")
    model, deploy = training / "net_iter_9.caffemodel", tmp_path / "deploy.prototxt"
    model.write_bytes(b"weights")
    deploy.write_text("net")
    (tmp_path / "input.json").write_text("{}")
    recipe = RECIPES["isbi2012"]
    scores = dict.fromkeys(recipe.scores, 0.25)
    (run / "scores.json").write_text(json.dumps(scores))
    target = tmp_path / "models" / "it"
    text = card(recipe, "holdout", CHOICE, scores)
    assert "| rand_error | 0.250000 |" in text
    for earlier in ("runner", "model_folder"):
        make_model_folder(target, run, model, deploy, text, True, recipe.segment)
        lines = (target / "README.md").read_text().replace("model_folder.py:", f"{earlier}.py:")
        (target / "README.md").write_text(lines)
    make_model_folder(target, run, model, deploy, text, True, RECIPES["phc-u373"].segment)
    # It is segmented as it was scored, without a flag.
    assert read_defaults(target / "deploy.prototxt") == dict(
        tta="mirror", threshold=0.6, minimum_area=500, fill_holes=True, watershed=None
    )
    (target / "README.md").write_text("my notes")
    for guarded in (target, target / "README.md"):
        with pytest.raises(InputError, match=r"exists, and its README.md does not say .* move it"):
            guard_model_folder(guarded)
    with pytest.raises(InputError, match="move it away"):
        make_model_folder(target, run, model, deploy, text, True, recipe.segment)
    assert (target / "README.md").read_text() == "my notes"
    shutil.rmtree(target)
    guard_model_folder(target)


def test_the_phantom_stands_in_where_there_is_no_network(monkeypatch, tmp_path):
    monkeypatch.delenv("ISBI_DIR", raising=False)
    recipe = replace(RECIPES["demo"], folder=str(tmp_path))

    def unreachable(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    other, what = at_hand(recipe)
    assert (other.data, other.folder) == ("phantom", "data/phantom")
    assert "phantom" in what
    assert "no network" in what
    (tmp_path / "train-volume.tif").touch()
    assert at_hand(recipe)[0] is recipe


def test_folders_of_the_users_data_count_from_where_the_user_is(place, monkeypatch):
    monkeypatch.setenv("ISBI_DIR", "mine")
    monkeypatch.setenv("CTC_DIR", "")
    (place / "here").mkdir()
    monkeypatch.chdir(place / "here")
    seen = []
    monkeypatch.setitem(run_recipe.RUNNERS, "demo", lambda *_: seen.append(os.getcwd()))
    run_recipe.main(["demo"])
    assert seen == [str(place)]
    assert os.environ["ISBI_DIR"] == str(place / "here" / "mine")
    assert os.environ["CTC_DIR"] == ""
