"""Pictures: what they show is what is in the arrays, in the colours that the legends promise."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unet.preparation.labels import annotate
from unet.preparation.weight_map import weight_map
from unet.report.plots import (
    PREDICTED,
    TRUE,
    draw_curves,
    draw_overlay,
    save_comparison,
    save_overlay,
    save_preview,
    save_undersegmented,
    smoothed,
)

STEP = {"rate": 0.5, "loss": 1.0}


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


def test_preview_has_four_panels_and_marks_borders_and_ignored_pixels(tmp_path):
    labels = np.zeros((40, 60), int)
    labels[5:35, 5:30], labels[5:35, 30:55] = 1, 2
    labels[:3] = 9
    annotation = annotate(labels, "instances", 9)
    weights = weight_map(annotation.instances, (2.0, 0.6), labels=annotation.classes)
    picture = np.linspace(0, 1, 40 * 60, dtype=np.float32).reshape(1, 40, 60)
    save_preview(tmp_path / "new" / "a.png", picture, annotation, weights, "title")
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    third = slice(pixels.shape[1] // 2, pixels.shape[1] * 3 // 4)
    assert ((red > 220) & (green < 80) & (blue < 80))[:, third].any()
    assert ((blue > 150) & (red < 80)).any()


def test_a_large_slice_is_drawn_from_a_part_of_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("unet.report.plots._PANEL_PIXELS", 20)
    labels = np.zeros((61, 103), np.int32)
    labels[:, :50], labels[:, 50:] = 1, 2
    annotation = annotate(labels, "instances")
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.imshow",
        lambda axes, picture, **_: drawn.append(np.array(picture)) or mpl_image(axes),
    )
    picture, weights = np.zeros((1, 61, 103), np.float32), np.ones((61, 103), np.float32)
    save_preview(tmp_path / "a.png", picture, annotation, weights, "title")
    assert [one.shape[:2] for one in drawn] == [(21, 35)] * 4
    # The border of two pixels, of which steps of three would pass over one, is marked.
    assert (drawn[2][:, 16] == drawn[2][0, 16]).all()
    assert (drawn[2][:, 16] != drawn[2][:, 5]).any()


def mpl_image(axes):
    from matplotlib.image import AxesImage

    image = AxesImage(axes)
    image.set_data(np.zeros((2, 2)))
    return image


def test_smoothed_is_the_mean_of_what_came_before():
    values = np.random.default_rng(0).normal(size=50)
    naive = [values[max(0, i - 6) : i + 1].mean() for i in range(50)]
    np.testing.assert_allclose(smoothed(values, 7), naive)
    np.testing.assert_array_equal(smoothed(values, 1).round(12), values.round(12))
    assert smoothed(np.array([]), 5).shape == (0,)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"iteration": 0, "seconds": 0, **STEP}],
        [{"iteration": 0, "seconds": 0, "test_loss": 0.5}],
        [{"iteration": i, "seconds": 0, **STEP} for i in range(3)]
        + [{"iteration": 3, "seconds": 0, "rate": 0.1, "loss": np.nan}],
        [{"iteration": i, "seconds": 0, "rate": 0, "loss": 0.0} for i in range(500)],
        [
            {"iteration": 0, "seconds": 0, **STEP},
            {"iteration": 0, "seconds": 0, "test0_loss": 1, "test0_misclassified": 0.5},
            {"iteration": 9, "seconds": 0, "test1_loss": 2, "test1_pixel_error": 0.25},
        ],
    ],
    ids=["nothing", "one step", "one test", "no number", "zero", "two test nets"],
)
def test_any_record_can_be_drawn(tmp_path, rows):
    draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] == 960
        assert picture.size[1] >= 450
    assert len(list(tmp_path.iterdir())) == 1


def test_the_loss_is_drawn_where_it_is(tmp_path):
    rows = [{"iteration": i, "seconds": 0, "rate": 1, "loss": 1.0} for i in range(200)]
    rows += [{"iteration": 100, "seconds": 0, "test_loss": 2.0}]
    draw_curves(rows, tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    dark = np.abs(picture - 0x40).max(axis=2) < 12
    # The smoothed loss of 1 under an axis that ends at 1.15 times the held-out loss of 2.
    row = np.argmax(dark[:330].sum(axis=1))
    assert 0.5 < row / 330 < 0.7


def test_curves_call_errors_what_they_are(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("unet.report.plots._save", lambda figure, path: figures.append(figure))
    scores = {"test_loss": 0.5, "test_misclassified": 0.09, "test_pixel_error": 0.55}
    draw_curves([{"iteration": 0, "seconds": 0, **scores}], tmp_path / "curves.png")
    told = [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()]
    assert told == [
        "held out, misclassified pixels: 0.0900",
        "held out, 1 − F-score of class 1: 0.5500",
    ]


def test_picture_shows_the_truth_and_each_result(tmp_path):
    truth = np.zeros((20, 30), int)
    truth[5:15, 5:14], truth[5:15, 14:25] = 1, 2
    results = {"apart": truth, "together": (truth > 0).astype(int)}
    save_undersegmented(tmp_path / "a.png", np.full(truth.shape, 0.5), truth, results)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    third = pixels.shape[1] // 3
    # Orange is where cells were merged, and nowhere else.
    orange = (pixels[..., 0] - pixels[..., 2]) > 60
    assert not orange[:, : 2 * third].any()
    assert orange[:, 2 * third :].sum() > 1000


@pytest.mark.parametrize("count", [3, 6])
def test_a_comparison_shows_each_network_and_both_kinds_of_errors(tmp_path, count):
    panels = {f"panel {number}": np.full((20, 30), 0.5) for number in range(count)}
    errors = {"one": (0.2, 0.1), "two": (0.1, 0.2)}
    save_comparison(tmp_path / "a.png", panels, errors)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # Nothing else is as grey as the panels, which all are of one size.
    grey = (pixels == 128).all(axis=-1) | (pixels == 127).all(axis=-1)
    assert grey.sum() > count * 5000
    bars = pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :]
    orange, blue = ((near(bars, colour)).sum() for colour in ((230, 159, 0), (86, 180, 233)))
    assert abs(orange - blue) < 0.2 * orange
    assert orange > 1000
