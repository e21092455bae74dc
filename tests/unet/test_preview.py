"""The preview shows what is in the arrays."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unet.preparation.labels import annotate
from unet.preparation.weight_map import weight_map
from unet.preview import outlines, save_preview


def test_outlines_are_the_rim_of_each_cell():
    cells = np.zeros((5, 6), int)
    cells[:, 0:3] = 1
    cells[1:5, 3:6] = 2
    assert outlines(cells).astype(int).tolist() == [
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
    ]


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
    monkeypatch.setattr("unet.preview._PANEL_PIXELS", 20)
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
