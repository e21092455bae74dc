"""The comparison with sliding windows, on a tiny phantom: all programs, once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import run_recipe
import sliding_window
from compare_windows import settled, table
from recipes import RECIPES, Split
from run_recipe import Way


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Return what compares networks of two steps on a phantom that is there."""
    monkeypatch.setattr(run_recipe, "REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(run_recipe.Path(__file__).parents[2] / "models/isbi2012_slim")
    make = ["fetch", "phantom", "-o", "data/isbi", "--slices", "3", "--size", "64"]
    subprocess.run([sys.executable, "-m", "unet.command", *make], check=True)
    splits = {"holdout": Split("0:2", "2:3", "train-volume.tif")}
    recipe = replace(RECIPES["compare"], folder="data/isbi", splits=splits, weights="model")
    monkeypatch.setitem(RECIPES, "compare", replace(recipe, nets="--tile 188"))
    monkeypatch.setattr(Way, "fetch", lambda way: None)
    monkeypatch.setattr(run_recipe, "WINDOWS", (23,))
    monkeypatch.setattr(run_recipe, "SHOWN_SLICE", 2)
    return lambda: run_recipe.main(["compare", "--device", "cpu", "--iterations", "2"])


@pytest.mark.slow
def test_all_networks_are_trained_scored_timed_and_drawn_and_no_step_is_done_again(
    compare, capfd, tmp_path
):
    assert compare() is None
    first = capfd.readouterr().out
    assert "already done" not in first
    found = json.loads((tmp_path / "runs/compare/compare.json").read_text())
    networks = found["networks"]
    assert set(networks) == {"window 23", "unet_slim", "model"}
    for label, row in networks.items():
        assert 0 <= row["wrong_near_borders"] <= 1
        assert label == "model" or row["iterations"] == 2
        assert f"| {label} |" in first
    cost = found["a_slice"]
    assert cost["largest_difference"] < 1e-5
    assert cost["multiply_adds_pixel_by_pixel"] > 10 * cost["multiply_adds_at_once"]
    assert (tmp_path / "runs/compare/compare.png").stat().st_size > 10_000
    (tmp_path / "runs/compare/window_23/scores.json").unlink()
    assert compare() is None
    again = capfd.readouterr().out
    assert again.count("\n== ") == first.count("\n== ")
    assert again.count("already done") == again.count("\n== ") - 1
    assert again[again.index("| network") :].split("done in")[0] in first


def test_a_budget_is_measured_once_and_anew_when_it_is_another(tmp_path, monkeypatch):
    import compare_windows

    paces = iter([0.5, 2.0])

    class Pace:
        def __init__(self) -> None:
            self.iteration = next(paces)

    monkeypatch.setattr(compare_windows, "measure", lambda *_: Pace())
    path = tmp_path / "iterations.json"
    assert [settled(path, tmp_path, minutes, "cpu") for minutes in (1, 1, 2, 2)] == [
        *(120, 120),
        *(60, 60),
    ]


def test_the_table_leaves_open_what_a_network_was_not_trained_here_for():
    row = dict.fromkeys(("rand_error", "pixel_error", "v_rand_thin", "v_info_thin"), 0.5) | dict(
        wrong_near_borders=0.25, wrong_elsewhere=0.125
    )
    lines = table({"a": {**row, "minutes": 1.25, "iterations": 1200}, "b": row}).splitlines()
    assert lines[2].startswith("| a | 1.2 | 1,200 | 0.5000 ")
    assert lines[3].startswith("| b | - | - | 0.5000 ")
    assert lines[3].endswith("| 0.2500 | 0.1250 |")


def test_calibration_is_bayes_rule():
    found = np.array([0.0, 0.5, 0.9, 1.0], np.float32)
    wanted = [0.0, 0.8, 0.9 * 0.8 / (0.9 * 0.8 + 0.1 * 0.2), 1.0]
    np.testing.assert_allclose(sliding_window.calibrated(found, 0.8), wanted, rtol=1e-6)
    assert sliding_window.calibrated(found, None) is found
