"""Faults that were planted are found and told with their number; healthy runs raise no alarm."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.unet.report.made_run import curve, falling, held_out
from unet.report.diagnosis import FAULT, FINE, HINT, contrast, diagnose_curves, diagnose_slices
from unet.report.run_files import UNKNOWN, HeldOutSlice, Stage

KINDS = ("membranes", "cells", "classes")


def stage(tests: np.ndarray, end: float = 0.2, number: int = 1, planned: int = 3200) -> Stage:
    return Stage(number, {"iterations": planned}, curve(3200, tests, end))


def states(checks) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def the(checks, name):
    (found,) = [check for check in checks if check.name == name]
    return found


def rising(rise: float, tests: int = 16) -> np.ndarray:
    """Held-out losses that rise again from the middle on, by this share of the lowest."""
    return falling(tests) + 0.25 * rise * np.linspace(-1, 1, tests).clip(min=0)


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.03])
def test_a_held_out_loss_that_falls_is_no_overfitting(jitter):
    for seed in range(20):
        noise = 1 + jitter * np.random.default_rng(seed).standard_normal(16)
        assert the(diagnose_curves([stage(falling() * noise)]), "overfitting").state == FINE


def test_a_held_out_loss_that_rises_while_the_other_falls_is_overfitting():
    tests = rising(0.6)
    threes = [float(np.mean(tests[k : k + 3])) for k in range(14)]
    at = 3200 * (1 + threes.index(min(threes))) // 15
    check = the(diagnose_curves([stage(tests)]), "overfitting")
    assert check.state == FAULT
    assert f"lowest, {min(threes):.3g}, at iteration {at:,} and is {threes[-1]:.3g}" in check.found
    assert f"{threes[-1] / min(threes) - 1:.0%} more" in check.found
    assert f"--iterations {at}" in check.remedy


def test_overfitting_is_seen_through_jitter():
    for seed in range(20):
        noise = 1 + 0.02 * np.random.default_rng(seed).standard_normal(30)
        checks = diagnose_curves([stage(rising(0.8, 30) * noise)])
        assert the(checks, "overfitting").state == FAULT


def test_a_training_loss_that_rises_too_is_no_overfitting():
    # The rate is too high, say.
    rows = curve(3200, rising(0.6))
    for row in rows:
        if "loss" in row:
            row["loss"] = 0.2 + row["iteration"] / 3200
    assert the(diagnose_curves([Stage(1, {}, rows)]), "overfitting").state == FINE


def test_each_stage_is_looked_at_alone():
    # The losses of other weights lie elsewhere.
    second = stage(falling() + 1, end=0.9, number=2)
    checks = diagnose_curves([stage(falling()), second])
    assert [check.state for check in checks if check.name == "overfitting"] == [FINE, FINE]


def test_few_tests_say_nothing():
    assert diagnose_curves([stage(falling(4))]) == []
    assert diagnose_curves([Stage(1, {}, [])]) == []
    assert diagnose_curves([]) == []


def test_a_held_out_loss_that_still_falls_at_the_end_asks_for_more_time():
    check = the(diagnose_curves([stage(np.linspace(0.8, 0.4, 16))]), "ended early")
    assert check.state == HINT
    # Of 16 tests on a line the first two lie 13 steps above the last four, and four above these
    # are the four before them.
    assert f"{4 / 13:.0%} came" in check.found
    assert the(diagnose_curves([stage(falling())]), "ended early").state == FINE


def test_few_iterations_ask_for_more_time():
    first, second = (Stage(k, {}, curve(400, falling())) for k in (1, 2))
    check = the(diagnose_curves([first, second]), "ended early")
    assert check.state == HINT
    assert "trained with 800 iterations" in check.found


def test_before_the_end_nobody_asks_for_more_time():
    checks = diagnose_curves([stage(np.linspace(0.8, 0.4, 16), planned=10000)])
    assert "ended early" not in states(checks)


def test_losses_that_are_no_numbers_are_left_out():
    rows = curve(3200, falling())
    rows[40]["loss"] = float("nan")
    rows[-1]["test_loss"] = float("inf")
    assert the(diagnose_curves([Stage(1, {}, rows)]), "overfitting").state == FINE


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_run_raises_no_alarm(kind):
    checks = diagnose_slices(kind, held_out(kind))
    assert states(checks) == dict.fromkeys(
        ("nothing learnt", "classes swapped", "labels shifted", "too little contrast"), FINE
    )


def test_real_membranes_raise_no_alarm(isbi_dir):
    raw = tifffile.imread(isbi_dir / "train-volume.tif")
    labels = (tifffile.imread(isbi_dir / "train-labels.tif") > 0).astype(np.int32)
    for z in range(0, 30, 5):
        result = np.roll(labels[z], 2, 1)
        one = HeldOutSlice(0, f"slice {z}", raw[z][np.newaxis], labels[z], result)
        assert set(states(diagnose_slices("membranes", [one])).values()) == {FINE}, z


def test_real_cells_in_phase_contrast_raise_no_alarm(shared_data):
    folder = shared_data / "PhC-C2DH-U373"
    for path in sorted((folder / "02_GT" / "SEG").glob("man_seg*.tif"))[::3]:
        raw = tifffile.imread(folder / "02" / f"t{path.stem[-3:]}.tif")
        truth = tifffile.imread(path).astype(np.int32)
        one = HeldOutSlice(0, path.stem, raw[np.newaxis], truth, truth)
        assert set(states(diagnose_slices("cells", [one])).values()) == {FINE}, path


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_shadows_to_one_side_are_no_shift(slices):
    # Differential interference contrast shows the slope of cells, bright on one side, dark on the
    # other.
    random = np.random.default_rng(0)
    shaded = []
    for one in held_out("cells", slices):
        height = np.sqrt(ndimage.distance_transform_edt(one.truth > 0))
        height = ndimage.gaussian_filter(height, 1.5)
        slope = ndimage.sobel(height, 0) + ndimage.sobel(height, 1)
        raw = slope / slope.std() + 0.1 * random.standard_normal(slope.shape)
        shaded.append(replace(one, raw=raw[np.newaxis]))
    assert set(states(diagnose_slices("cells", shaded)).values()) == {FINE}


def test_shifted_labels_of_real_membranes_and_cells_are_found(isbi_dir, shared_data):
    folder = shared_data / "PhC-C2DH-U373"
    cells = []
    for number in ("010", "051", "092"):
        raw = tifffile.imread(folder / "02" / f"t{number}.tif")
        truth = tifffile.imread(folder / "02_GT" / "SEG" / f"man_seg{number}.tif").astype(np.int32)
        cells.append(
            HeldOutSlice(0, number, raw[np.newaxis], np.roll(truth, (5, -3), (0, 1)), truth)
        )
    raw = tifffile.imread(isbi_dir / "train-volume.tif", key=3)
    truth = (tifffile.imread(isbi_dir / "train-labels.tif", key=3) > 0).astype(np.int32)
    membranes = HeldOutSlice(0, "3", raw[np.newaxis], np.roll(truth, (3, -2), (0, 1)), truth)
    for kind, slices, (up, right) in (("cells", cells, (5, 3)), ("membranes", [membranes], (3, 2))):
        check = the(diagnose_slices(kind, slices), "labels shifted")
        assert check.state == FAULT
        found = [int(by) for by in re.findall(r"(\d+) pixels (?:up|right)", check.remedy)]
        assert found == pytest.approx([up, right], abs=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [(3, 0), (-4, 3), (0, 9), (-7, -7)])
def test_shifted_labels_are_found_with_their_shift(kind, shift):
    rows, columns = shift
    slices = [replace(one, truth=np.roll(one.truth, shift, (0, 1))) for one in held_out(kind)]
    check = the(diagnose_slices(kind, slices), "labels shifted")
    assert check.state == FAULT
    # They have to go back; where a seam lies is not known to the pixel.
    back = dict.fromkeys(("up", "down", "left", "right"), 0)
    back.update({way: int(by) for by, way in re.findall(r"(\d+) pixels (\w+)", check.remedy)})
    assert back["up"] - back["down"] == pytest.approx(rows, abs=1)
    assert back["left"] - back["right"] == pytest.approx(columns, abs=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "turn, told",
    [
        (np.flipud, "upside down"),
        (np.fliplr, "mirrored left to right"),
        (lambda a: np.rot90(a, 2), "turned by 180°"),
        (np.transpose, "with rows and columns exchanged"),
        (lambda a: np.rot90(a), "turned by 90° to the right"),
    ],
)
def test_mirrored_and_turned_labels_are_found(kind, turn, told):
    slices = [replace(one, truth=np.ascontiguousarray(turn(one.truth))) for one in held_out(kind)]
    check = the(diagnose_slices(kind, slices), "labels shifted")
    assert check.state == FAULT
    assert told in check.found


def test_a_pixel_beside_is_no_shift():
    slices = [replace(one, truth=np.roll(one.truth, 1, 0)) for one in held_out("membranes")]
    assert the(diagnose_slices("membranes", slices), "labels shifted").state == FINE


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_other_slices_fit_nowhere(kind):
    strange = [
        replace(one, truth=other.truth)
        for one, other in zip(held_out(kind), held_out(kind, seed=5))
    ]
    assert the(diagnose_slices(kind, strange), "labels shifted").state != FINE


@pytest.mark.parametrize("kind, names", [
    ("membranes", "membrane and inside of cells"),
    ("cells", "background and cells"),
    ("classes", "class 0 and class 2"),
])  # fmt: skip
def test_exchanged_classes_are_found_with_their_names(kind, names):
    swap = {0: 1, 1: 0} if kind != "classes" else {0: 2, 1: 1, 2: 0}
    slices = []
    for one in held_out(kind):
        result = (one.result > 0).astype(np.int32) if kind == "cells" else one.result
        slices.append(replace(one, result=np.vectorize(swap.get)(result).astype(np.int32)))
    check = the(diagnose_slices(kind, slices), "classes swapped")
    assert check.state == FAULT
    assert f"in all held-out slices, {names} are found under each other's names" in check.found


def test_healthy_classes_are_told_with_what_exchanging_them_would_give():
    truth = np.zeros((30, 40), np.int32)
    truth[:, 10:20], truth[:, 20:] = 1, 2
    result = truth.copy()
    # A tenth of class 0 is taken for class 1: exchanged, they would be (0.1 + 0 + 1) / 3.
    result[:3, :10] = 1
    one = HeldOutSlice(0, "slice 0", np.zeros((1, 30, 40)), truth, result)
    check = the(diagnose_slices("classes", [one]), "classes swapped")
    assert check.state == FINE
    assert "97% of the pixels were found" in check.found
    assert "would give 37%" in check.found


def test_classes_exchanged_in_one_slice_are_found_there():
    first, second = held_out("membranes")
    # Their labels were exported inverted.
    second = replace(second, truth=1 - second.truth)
    check = the(diagnose_slices("membranes", [first, second]), "classes swapped")
    assert check.state == FAULT
    assert "in slice 1, membrane and inside of cells" in check.found


def test_membranes_that_cover_most_of_a_slice_are_cells():
    slices = held_out("membranes")
    slices = [replace(one, truth=1 - one.truth, result=1 - one.result) for one in slices]
    share = np.mean([one.truth == 0 for one in slices])
    check = the(diagnose_slices("membranes", slices), "classes swapped")
    assert check.state == FAULT
    assert f"{share:.0%} of the held-out slices" in check.found


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_under_noise_has_too_little_contrast(kind):
    random = np.random.default_rng(0)
    slices = []
    for one in held_out(kind):
        noisy = 0.02 * one.raw + random.normal(100, 4, one.raw.shape)
        slices.append(replace(one, raw=noisy.round().astype(np.uint8)))
    check = the(diagnose_slices(kind, slices), "too little contrast")
    assert check.state == FAULT
    assert "times as strong as the noise" in check.found


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_few_grey_values_has_too_little_contrast(kind):
    slices = [replace(one, raw=(one.raw // 40).astype(np.uint8)) for one in held_out(kind)]
    check = the(diagnose_slices(kind, slices), "too little contrast")
    assert check.state == FAULT
    assert "grey values" in check.found


def test_contrast_is_the_ratio_of_structure_and_noise():
    # A wave of 40 pixels is left by a Gaussian of 2 to exp(-2 (π 2 / 40)²) of its height, and one
    # of 24 leaves nothing of it; of the noise, 1 / (4 sqrt(π)) is left.
    random = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * np.arange(400) / 40)[:, np.newaxis] * np.ones(400)
    left = np.exp(-2 * (np.pi * 2 / 40) ** 2) / np.sqrt(2)
    for noise in (0.5, 2.0):
        picture = wave + noise * random.standard_normal(wave.shape)
        expected = left / (noise / (4 * np.sqrt(np.pi)))
        assert contrast(picture) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("value", [0, 1])
def test_a_result_that_says_one_class_everywhere_has_learnt_nothing(value):
    slices = [replace(one, result=np.full_like(one.result, value)) for one in held_out("membranes")]
    check = the(diagnose_slices("membranes", slices), "nothing learnt")
    assert check.state == FAULT
    assert "50% of the pixels were found" in check.found


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_annotated_is_left_out(kind):
    slices = []
    for one in held_out(kind):
        truth, result = one.truth.copy(), one.result.copy()
        truth[:, 90:] = UNKNOWN
        result[:, 90:] = 0
        slices.append(replace(one, truth=truth, result=result))
    checks = diagnose_slices(kind, slices)
    assert set(states(checks).values()) == {FINE}, checks


def test_slices_without_any_annotation_are_looked_at_for_contrast_alone():
    slices = [replace(one, truth=np.full_like(one.truth, UNKNOWN)) for one in held_out("cells")]
    assert states(diagnose_slices("cells", slices)) == {"too little contrast": FINE}
