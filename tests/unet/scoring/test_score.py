"""Each kind of labels is scored as fits it, in the order in which its kind says so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unet.errors import InputError
from unet.scoring.score import score
from unet.scoring.score_cells import score_cells
from unet.scoring.score_classes import score_classes
from unet.scoring.score_stack import score_stack

SCORES = ("rand_error", "pixel_error", "warping_error", "v_rand_thin", "v_info_thin")


@pytest.fixture
def inside() -> np.ndarray:
    """Two slices of cells, 255, with membranes between them."""
    stack = np.full((2, 96, 90), 255, np.uint8)
    for z in range(2):
        stack[z, 10 + z :: 20] = stack[z, :, 8 + z :: 20] = 0
    return stack


@pytest.fixture
def probabilities(inside: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).random(inside.shape)
    return (0.4 * (inside > 0) + 0.6 * noise).astype(np.float32)


@pytest.fixture
def cells() -> tuple[np.ndarray, np.ndarray]:
    """True cells that touch, numbered, and found ones of which some are merged."""
    truth = np.kron(np.arange(1, 49).reshape(6, 8), np.ones((7, 9), int))
    truth[:3], truth[:, 40:44] = 0, 0
    found = truth.copy()
    found[found == 12], found[found == 30] = 11, 0
    found[:5] = 0
    return truth[None].astype(np.uint16), found[None].astype(np.uint16)


def test_white_membranes_are_scored_as_what_they_leave(inside, probabilities):
    expected = score_stack(inside > 0, probabilities)
    scores = score(255 - inside, probabilities)
    assert {name: scores[name] for name in SCORES} == {name: expected[name] for name in SCORES}
    assert scores["label_kind"] == "membranes"
    assert "(2 x 96 x 90, what is not 0 is membrane)" in str(scores)
    assert score(inside, probabilities)["label_kind"] == "binary"
    other = score(255 - inside, probabilities, label_kind="binary", warping=False)
    assert other["rand_error"] != expected["rand_error"]


def test_a_threshold_on_white_membranes(inside, probabilities):
    smooth = ndimage.gaussian_filter((255 - inside).astype(float), (0, 0.4, 0.4)).astype(np.uint8)
    scores = score(smooth, probabilities, label_threshold=127, warping=False)
    assert scores["rand_error"] == score_stack(smooth <= 127, probabilities)["rand_error"]
    assert "above 127 is membrane" in str(scores)


def test_where_nobody_annotated_nothing_counts(inside, probabilities):
    partial = inside.copy()
    partial[:, :, 50:] = 7
    scores = score(partial, probabilities, ignore_label=7)
    changed = probabilities.copy()
    changed[:, :, 50:] = np.random.default_rng(1).random(changed[:, :, 50:].shape)
    other = score(partial, changed, ignore_label=7)
    assert {name: scores[name] for name in SCORES} == {name: other[name] for name in SCORES}
    known = np.where(partial == 7, 0, partial)
    assert scores["pixel_error"] != score(known, probabilities, warping=False)["pixel_error"]


def test_numbered_cells_are_scored_by_seg_and_f1_as_well(cells):
    truth, found = cells
    scores = score(truth, found, warping=False)
    expected = score_cells(zip(truth.astype(int), found.astype(int)))
    assert scores["of_cells"] == expected
    assert 0.7 < expected["SEG"] < expected["f1_0.50"] < 1
    lines = str(scores).splitlines()
    assert f"SEG           {expected['SEG']:11.6f}" in lines
    assert f"F1, IoU 0.50  {expected['f1_0.50']:11.6f}" in lines
    assert f"mean F1       {expected['f1_mean']:11.6f}" in lines
    assert "of_cells" not in score(truth, found, label_kind="binary", warping=False)
    assert "of_cells" not in score(truth, (found > 0) * 0.9, label_kind="instances", warping=False)


def test_cells_found_where_nobody_annotated_are_not_false(cells):
    truth, found = cells
    truth[:, :, 30:] = 999
    scores = score(truth, found, ignore_label=999, label_kind="instances", warping=False)
    hidden = np.where(truth == 999, -1, truth.astype(int))
    assert scores["of_cells"] == score_cells(zip(hidden, found.astype(int)))


def classes() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (2, 12, 15)).repeat(3, axis=1).repeat(3, axis=2)
    return truth, np.where(random.random(truth.shape) < 0.8, truth, 2)


def test_classes_by_their_numbers_or_by_channels():
    truth, found = classes()
    expected = score_classes(zip(truth, found), 3)
    scores = score(truth.astype(np.uint8), found.astype(np.uint8), label_kind="classes")
    assert [scores[f"iou_{c}"] for c in range(3)] == [expected[f"iou_{c}"] for c in range(3)]
    channels = np.stack([found == c for c in range(3)], axis=1) * np.float32(0.4) + 0.2
    again = score(truth, channels, label_kind="classes")
    assert again["iou_mean"] == expected["iou_mean"]
    assert again["per_slice"][1]["slice"] == 2
    lines = str(scores).splitlines()
    assert f"IoU class 2   {expected['iou_2']:11.6f}" in lines
    assert lines[-1].split()[1] == f"{expected['per_slice'][1]['iou_mean']:.6f}"


def test_two_classes_by_the_probability_of_the_second():
    truth, found = (one > 0 for one in classes())
    expected = score_classes(zip(truth.astype(int), found), 2)["iou_1"]
    for prediction in (0.2 + 0.6 * found, found * np.uint8(255), found.astype(np.uint8)):
        assert score(truth, prediction, label_kind="classes")["iou_1"] == expected


def test_classes_that_nobody_annotated_do_not_count():
    truth, found = classes()
    hidden = truth.astype(np.uint8)
    hidden[:, 10:20] = 255
    scores = score(hidden, found.astype(np.uint8), label_kind="classes", ignore_label=255)
    known = np.where(hidden == 255, -1, truth)
    assert scores["iou_mean"] == score_classes(zip(known, found), 3)["iou_mean"]
    with pytest.raises(InputError, match=r"label 255 is no class number .*--ignore-label 255"):
        score(hidden, found.astype(np.uint8), label_kind="classes")
    with pytest.raises(InputError, match="no pixel of the slices scored is annotated"):
        score(hidden * 0, found, label_kind="classes", ignore_label=0)


def test_what_can_be_cells_or_classes_is_asked_for():
    truth, found = (one.astype(np.uint8) for one in classes())
    with pytest.raises(InputError, match="--label-kind classes to score the IoU of each class"):
        score(truth, found)


def test_labels_of_other_numbers_are_the_classes_that_are_named():
    grey = np.repeat(np.array([0, 128, 255], np.uint8), 20).reshape(1, 6, 10)
    found = np.repeat(np.array([0, 1, 2], np.uint8), 20).reshape(1, 6, 10)
    found[0, 2, :5] = 0
    scores = score(grey, found, classes=(0, 128, 255))
    assert scores["iou_1"] == 15 / 20 and scores["iou_2"] == 1
    with pytest.raises(InputError, match=r"slice 0 holds the labels 255, which --classes 0,128"):
        score(grey, found, classes=(0, 128))
    with pytest.raises(InputError, match="--classes says that labels are classes, not binary"):
        score(grey, found, classes=(0, 128, 255), label_kind="binary")


def test_few_cells_that_touch_are_no_classes_beside_a_mask(cells):
    truth, found = cells
    few = np.where(found < 20, found, 0)
    mask = (truth > 0).astype(np.uint8)
    scores = score(mask, few)
    assert "cell numbers taken as instances" in str(scores)
    # The cells of a mask are its connected regions.
    regions = ndimage.label(mask[0])[0][None]
    assert scores["of_cells"]["SEG"] == score_cells(zip(regions, few.astype(int)))["SEG"]
    assert scores["rand_error"] == score(mask, few, label_kind="instances")["rand_error"]
    with pytest.raises(InputError, match="can be cells as well as classes"):
        score(few, few)
