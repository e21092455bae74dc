"""What was held out is scored as its kind is; thresholds and areas are those that score best."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unet.experiment.judge import SCORES, judge
from unet.model.defaults import read_defaults
from unet.scoring.score_cells import score_cells
from unet.scoring.score_classes import score_classes
from unet.scoring.score_stack import score_stack
from unet.segmentation.instances import InstanceRules, find_instances
from unet.volumes.intensity import input_text

SLICES = [3, 9]


def blurred(true: np.ndarray, seed: int, noise: float) -> np.ndarray:
    """Return probabilities of masks, (n, height, width), as of a network that is not sure."""
    sure = ndimage.gaussian_filter(true.astype(np.float32), (0, 1.5, 1.5))
    random = np.random.default_rng(seed).normal(size=true.shape)
    return np.clip(sure + noise * ndimage.gaussian_filter(random, (0, 1, 1)), 0, 1)


@pytest.fixture
def cells() -> np.ndarray:
    """Numbers of round cells, two slices."""
    rows, columns = np.mgrid[:90, :100]
    truth = np.zeros((2, 90, 100), np.int32)
    for z in range(2):
        for number in range(20):
            y, x = 10 + 18 * (number // 4) + z, 12 + 24 * (number % 4)
            truth[z][(rows - y) ** 2 + (columns - x) ** 2 < 40 + 2 * number] = number + 1
    return truth


class Judged:
    """A run's folder, judged with probabilities in place of a network's."""

    def __init__(self, folder: Path, probabilities: np.ndarray, truth: np.ndarray, **more) -> None:
        (folder / "input.json").write_text(input_text(True))
        classes = 2 if probabilities.ndim == 3 else probabilities.shape[1]
        self.asked: dict = {}

        def segment(stack: np.ndarray, **options: object) -> np.ndarray:
            self.asked = {"shape": stack.shape, **options}
            return probabilities

        model = SimpleNamespace(
            segment=segment, classes=classes, prototxt=folder / "deploy.prototxt"
        )
        raw = np.random.default_rng(0).integers(0, 255, truth.shape).astype(np.uint8)
        self.scores = judge(model, raw, truth, folder, slices=SLICES, **more)
        self.folder, self.defaults = folder, read_defaults(folder / "deploy.prototxt")
        with h5py.File(folder / "held-out.h5", "r") as file:
            self.held_out = {name: file[name][()] for name in file}
        assert json.loads((folder / "scores.json").read_text())["kind"] == more["kind"]
        np.testing.assert_array_equal(self.held_out["raw"], raw)
        np.testing.assert_array_equal(self.held_out["truth"], truth)
        assert self.held_out["slices"].tolist() == SLICES
        assert self.held_out["probabilities"].shape == (2, classes, *truth.shape[1:])


def test_cells_are_found_with_the_threshold_and_area_of_the_best_mean_f1(
    tmp_path, cells, monkeypatch
):
    monkeypatch.setattr("unet.experiment.judge._MERGED", 1.0)
    probabilities = blurred(cells > 0, 1, 0.9)
    judged = Judged(tmp_path, probabilities, cells, kind="cells")
    two = np.stack([1 - probabilities, probabilities], axis=1)

    def naive(threshold: float, area: int) -> float:
        rules = InstanceRules(threshold=threshold, minimum_area=area)
        found = [find_instances(one, rules) for one in two]
        return score_cells(zip(cells, found))["f1_mean"]

    told = judged.scores["threshold"], judged.scores["minimum_area"]
    threshold, area = (one["chosen"] for one in told)
    assert [naive(one, area) for one, _ in told[0]["curve"]] == pytest.approx(
        [score for _, score in told[0]["curve"]]
    )
    assert [naive(threshold, one) for one, _ in told[1]["curve"]] == pytest.approx(
        [score for _, score in told[1]["curve"]]
    )
    thresholds, areas = ([point for point, _ in one["curve"]] for one in told)
    best = max(naive(one, other) for one in thresholds[::2] + [threshold] for other in areas)
    assert naive(threshold, area) == best > naive(0.5, 1)
    # Not the least of those that score best, which other slices' false cells may pass.
    as_good = [one for one in areas if naive(threshold, one) == best]
    assert 1 not in as_good and area == as_good[len(as_good) // 2]
    assert judged.defaults == {
        "tta": "mirror",
        "threshold": threshold,
        "minimum_area": area,
        "fill_holes": False,
        "watershed": None,
    }
    rules = InstanceRules(threshold=threshold, minimum_area=area)
    found = [find_instances(one, rules) for one in two]
    np.testing.assert_array_equal(judged.held_out["result"], found)
    expected = score_cells(zip(cells, found))
    for name in SCORES["cells"]:
        assert judged.scores["scores"][name] == expected[name]
        assert judged.scores["slices"][1][name] == expected["per_slice"][1][name]
    assert [one["slice"] for one in judged.scores["slices"]] == SLICES


def test_cells_that_touch_are_split_by_the_depth_of_the_best_mean_f1(tmp_path):
    rows, columns = np.mgrid[:60, :90]
    truth = np.zeros((2, 60, 90), np.int32)
    for number in range(8):
        y, x = 15 + 30 * (number // 4), 12 + 19 * (number % 4)
        truth[:, (rows - y) ** 2 + (columns - x) ** 2 < 100] = number + 1
    # No threshold does: those above 0.7 merge the bright ones no more, and lose the dim ones.
    far = [ndimage.distance_transform_edt(truth[0] == number + 1) for number in range(8)]
    least = np.where(rows < 30, 0.7, 0.3)
    probabilities = np.where(truth > 0, least + 0.03 * np.max(far, axis=0), 0.05)
    judged = Judged(tmp_path, probabilities, truth, kind="cells")
    two = np.stack([1 - probabilities, probabilities], axis=1)
    told = judged.scores["watershed"]
    assert told["chosen"] == judged.defaults["watershed"] > 0
    rules = InstanceRules(**{name: judged.defaults[name] for name in InstanceRules._fields})
    found = [find_instances(one, rules) for one in two]
    np.testing.assert_array_equal(judged.held_out["result"], found)
    split = score_cells(zip(truth, found))["f1_mean"]
    assert judged.scores["scores"]["f1_mean"] == split == dict(told["curve"])[told["chosen"]]
    assert split > max(score for _, score in judged.scores["threshold"]["curve"])


def test_cells_that_nobody_annotated_are_neither_found_nor_false(tmp_path, cells):
    probabilities = blurred(cells > 0, 1, 0.3)
    partial = np.where(np.arange(100) < 48, cells, -1)
    judged = Judged(tmp_path, probabilities, partial, kind="cells")
    # Half of the cells; were the others false, the precision would be a half.
    assert judged.scores["scores"]["precision"] > 0.9


def test_membranes_are_scored_as_the_challenge_did_and_cut_where_the_rand_error_is_least(
    tmp_path, cells
):
    inside = np.ones_like(cells)
    inside[:, 10::20], inside[:, :, 8::20] = 0, 0
    probabilities = blurred(inside, 2, 0.6)
    judged = Judged(tmp_path, probabilities, inside, kind="membranes", tta="none")
    expected = score_stack(inside, probabilities)
    assert judged.scores["scores"] == {name: expected[name] for name in SCORES["membranes"]}
    chosen = judged.scores["threshold"]["chosen"]
    assert chosen == expected["rand_error_threshold"]
    assert dict(map(tuple, judged.scores["threshold"]["curve"]))[chosen] == pytest.approx(
        1 - expected["rand_error"]
    )
    assert judged.defaults["threshold"] == chosen and judged.asked["tta"] == "none"
    np.testing.assert_array_equal(judged.held_out["result"], probabilities > chosen)
    assert "minimum_area" not in judged.scores


def test_membranes_that_nobody_annotated_do_not_count(tmp_path, cells):
    inside = np.ones_like(cells)
    inside[:, 10::20], inside[:, :, 8::20] = 0, 0
    probabilities = blurred(inside, 2, 0.3)
    inside[:, :, 60:] = -1
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        found.append(Judged(tmp_path / name, probabilities, inside, kind="membranes").scores)
        probabilities = probabilities.copy()
        probabilities[:, :, 60:] = 0.7
    assert found[0] == found[1]


def test_classes_are_scored_by_the_iou_of_each_and_have_no_threshold(tmp_path, cells):
    truth = cells % 3
    random = np.random.default_rng(3).random((2, 3, *cells.shape[1:])).astype(np.float32)
    probabilities = np.stack([truth == k for k in range(3)], axis=1) + random
    truth[:, :9] = -1
    judged = Judged(tmp_path, probabilities, truth, kind="classes")
    likeliest = probabilities.argmax(axis=1)
    expected = score_classes(zip(truth, likeliest), 3)
    names = [*SCORES["classes"], "iou_0", "iou_1", "iou_2"]
    assert judged.scores["scores"] == {name: expected[name] for name in names}
    assert "threshold" not in judged.scores
    assert judged.defaults == {
        "tta": "mirror",
        "threshold": None,
        "minimum_area": 1,
        "fill_holes": False,
        "watershed": None,
    }
    np.testing.assert_array_equal(judged.held_out["result"], likeliest)


def test_a_picture_shows_the_middle_slice_cut_at_the_threshold(tmp_path, cells):
    # Of so low probabilities that none is the likeliest.
    judged = Judged(tmp_path, 0.4 * (cells > 0).astype(np.float32), cells, kind="cells")
    assert judged.scores["threshold"]["chosen"] < 0.4
    picture = np.asarray(Image.open(tmp_path / "overlay.png")).astype(int)
    orange = (picture[..., 0] > 180) & (picture[..., 1] > 100) & (picture[..., 2] < 90)
    assert np.count_nonzero(orange) > 500


def test_a_network_that_is_not_normalised_is_given_the_range_of_its_training(tmp_path, cells):
    judged = Judged(tmp_path, blurred(cells > 0, 1, 0.3), cells, kind="cells", intensity=(3, 200))
    assert judged.asked == {"shape": (2, 1, 90, 100), "tta": "mirror", "intensity": (3, 200)}
