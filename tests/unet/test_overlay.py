"""The overlay: outlines where regions meet, in the colours that the legend promises."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unet.overlay import PREDICTED, TRUE, draw_overlay, outlines, save_overlay


def test_outlines_by_hand():
    regions = np.array([[0, 0, 0, 0], [0, 5, 5, 0], [0, 5, 5, 0], [0, 0, 0, 0]])
    wanted = ["0110", "1111", "1111", "0110"]
    assert outlines(regions).astype(int).tolist() == [[int(c) for c in row] for row in wanted]
    assert not outlines(np.ones((3, 3))).any()
    assert not outlines(np.ones((1, 1))).any()


def step(columns: int, at: int) -> np.ndarray:
    """Return probabilities of two classes that change places at a column."""
    inside = (np.arange(columns) >= at).astype(np.float32)
    return np.stack([1 - inside, inside])[:, None].repeat(40, axis=1)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) < 45).all(axis=-1)


def test_picture_left_outlines_right():
    picture = np.linspace(0, 1, 2000, dtype=np.float32)[None, None].repeat(40, axis=1)
    drawn = draw_overlay(picture, step(2000, 700))
    assert drawn.shape == (40, 4008, 3)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[:, :2000, 1], np.rint(picture[0] * 255))
    # Grey but for the two columns on both sides of the step.
    coloured = np.flatnonzero(np.ptp(drawn[20].astype(int), axis=-1))
    assert coloured.tolist() == [2008 + 699, 2008 + 700]
    assert near(drawn[:, coloured], PREDICTED).all()


def test_truth_shows_where_the_prediction_departs_from_it():
    picture = np.full((1, 40, 2000), 0.5, np.float32)
    truth = step(2000, 900)[1] * 255
    right = draw_overlay(picture, step(2000, 700), truth)[:, 2008:]
    assert near(right[:, [699, 700]], PREDICTED).all()
    assert near(right[:, [899, 900]], TRUE).all()
    covered = draw_overlay(picture, step(2000, 900), truth)[:, 2008:]
    assert near(covered[:, [899, 900]], PREDICTED).all()


def test_small_pictures_are_enlarged_and_colours_kept():
    red = np.zeros((3, 30, 40), np.float32)
    red[0] = 1
    drawn = draw_overlay(red, np.stack([np.ones((30, 40)), np.zeros((30, 40))]))
    scale = drawn.shape[0] // 30
    assert scale > 4
    assert drawn.shape == (30 * scale, 2 * 40 * scale + 8, 3)
    assert (drawn[:, : 40 * scale] == [255, 0, 0]).all()


def test_odd_pictures_are_drawn():
    for shape in ((1, 1), (1, 50), (50, 1)):
        picture = np.full((2,) + shape, 7.0, np.float32)
        drawn = draw_overlay(picture, np.zeros((3,) + shape), np.zeros(shape, bool))
        assert drawn.max() == 255


def test_saved_as_png(tmp_path):
    picture, probabilities = np.zeros((1, 9, 9)), np.zeros((2, 9, 9))
    save_overlay(tmp_path / "o.png", picture, probabilities)
    with Image.open(tmp_path / "o.png") as saved:
        assert saved.format == "PNG"
        np.testing.assert_array_equal(np.asarray(saved), draw_overlay(picture, probabilities))
