"""Pictures inside a page: what is drawn, what is transparent, how large they are."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.unet.report.made_run import held_out
from unet.report.differences import Place, differences
from unet.report.pictures import (
    COLOURS,
    DIFFERENCE_COLOURS,
    LAYERS,
    class_colour,
    place_pictures,
    slice_pictures,
)
from unet.report.plots import PREDICTED, TRUE
from unet.report.run_files import HeldOutSlice


def opened(address: str) -> Image.Image:
    head, _, text = address.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert head == f"data:image/{image.format.lower()}"
    return image


def painted(address: str) -> np.ndarray:
    return np.array(opened(address).convert("RGBA"))


def held(truth: np.ndarray, result: np.ndarray, raw: np.ndarray | None = None) -> HeldOutSlice:
    raw = np.zeros((1, *truth.shape), np.uint8) if raw is None else raw
    return HeldOutSlice(0, "slice 0", raw, truth, result)


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
def test_layers_are_as_large_as_the_slice_and_differ_where_it_does(kind):
    one = held_out(kind)[0]
    drawn = slice_pictures(kind, one)
    assert list(drawn) == ["raw", "truth", "result", "differences"]
    assert {opened(drawn[layer]).size for layer in LAYERS} == {one.truth.shape[::-1]}
    # Small ones are smoothed by enlarging them.
    assert opened(drawn["raw"]).size == (320, 320)
    told = differences(kind, one.truth, one.result)
    assert ((painted(drawn["differences"])[..., 3] > 0) == (told > 0)).all()


def test_raw_has_the_grey_values_of_the_slice_from_black_to_white():
    small = held_out("membranes")[0]
    one = replace(small, raw=np.tile(small.raw, (1, 2, 2)))
    raw = one.raw[0].astype(float)
    low, high = np.percentile(raw, [0.3, 99.7])
    expected = np.clip((raw - low) / (high - low), 0, 1) * 255
    grey = np.array(opened(slice_pictures("membranes", one)["raw"]).convert("L"))
    # It is compressed.
    assert np.abs(grey - expected).mean() < 8


def test_three_channels_are_a_picture_in_colours():
    raw = np.zeros((3, 240, 240), np.uint8)
    raw[0, :, 120:] = 200
    classes = np.zeros((240, 240), int)
    drawn = slice_pictures("classes", held(classes, classes, raw))
    colours = np.array(opened(drawn["raw"]).convert("RGB"))
    assert colours[9, 200, 0] > 200 and colours[9, 200, 1] < 50 and colours[9, 40].max() < 50


def test_membranes_are_blue_in_the_truth_and_orange_in_the_result():
    truth, result = np.ones((20, 20), int), np.ones((20, 20), int)
    truth[5], result[7] = 0, 0
    drawn = slice_pictures("membranes", held(truth, result))
    for layer, row, colour in (("truth", 5, TRUE), ("result", 7, PREDICTED)):
        seen = painted(drawn[layer])
        assert tuple(seen[row, 3, :3]) == colour
        assert (seen[np.arange(20) != row][..., 3] == 0).all()
    wrong = painted(drawn["differences"])
    assert tuple(wrong[5, 0, :3]) == TRUE and tuple(wrong[7, 0, :3]) == PREDICTED


def test_a_found_cell_has_the_colour_of_the_true_one_that_it_covers():
    truth, result = np.zeros((20, 40), int), np.zeros((20, 40), int)
    truth[2:18, 2:18], truth[2:18, 22:38] = 1, 2
    result[3:18, 3:18], result[3:18, 23:38] = 9, 4
    drawn = slice_pictures("cells", held(truth, result))
    for column, number in ((10, 1), (30, 2)):
        for layer in ("truth", "result"):
            assert tuple(painted(drawn[layer])[10, column, :3]) == COLOURS[number - 1]


def test_cells_merged_and_split_have_colours_of_their_own():
    truth = np.zeros((10, 40), int)
    truth[:, :10], truth[:, 10:20], truth[:, 20:] = 1, 2, 3
    result = np.zeros_like(truth)
    result[:, :20], result[:, 20:30], result[:, 30:] = 1, 2, 3
    wrong = painted(slice_pictures("cells", held(truth, result))["differences"])
    assert tuple(wrong[5, 5, :3]) == DIFFERENCE_COLOURS[3]
    assert tuple(wrong[5, 35, :3]) == DIFFERENCE_COLOURS[4]
    assert len(set(DIFFERENCE_COLOURS.values())) == 4


def test_a_wrong_class_has_the_colour_of_the_right_one():
    truth, result = np.full((8, 8), 2), np.full((8, 8), 2)
    truth[:4], result[4:] = 0, 1
    wrong = painted(slice_pictures("classes", held(truth, result))["differences"])
    assert tuple(wrong[0, 0, :3]) == class_colour(0)
    assert tuple(wrong[6, 0, :3]) == class_colour(2)


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
def test_large_slices_are_shown_smaller_and_single_mistakes_stay(kind):
    truth = np.ones((1000, 1700), int)
    result = truth.copy()
    result[501, 903] = 0
    drawn = slice_pictures(kind, held(truth, result))
    wrong = painted(drawn["differences"])[..., 3]
    assert wrong.shape == (334, 567)
    assert np.argwhere(wrong).tolist() == [[501 // 3, 903 // 3]]
    assert opened(drawn["raw"]).size == (567, 334)


def test_a_slice_of_512_pixels_takes_a_few_hundred_kb():
    small = held_out("membranes")[0]
    raw, truth, result = (
        np.tile(array, (4, 4))[..., :512, :512]
        for array in (small.raw[0], small.truth, small.result)
    )
    drawn = slice_pictures("membranes", held(truth, result, raw[np.newaxis]))
    assert sum(map(len, drawn.values())) < 300_000


def test_a_place_is_cut_out_and_enlarged():
    one = held_out("membranes")[0]
    place = Place(one, range(10, 58), range(30, 78), 5, (1,))
    drawn = place_pictures("membranes", place)
    assert opened(drawn["raw"]).size == (240, 240)
    told = differences("membranes", one.truth, one.result)[10:58, 30:78]
    assert ((painted(drawn["differences"])[..., 3] > 0) == (told > 0)).all()
