"""The authors' procedure of 2015: its sizes, and its scores against a naive version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from unet.network.geometry import Geometry
from unet.segmentation import release2015
from unet.segmentation.instances import find_instances
from unet.segmentation.segment import score_image
from unet.segmentation.tiles import Tiling

FIG_1 = Geometry()


@pytest.fixture(scope="module")
def net(repository: Path) -> caffe.Net:
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    return caffe.Net(str(repository / "prototxt/unet_slim/deploy.prototxt"), caffe.TEST)


def naive_scores(net: caffe.Net, image: np.ndarray) -> np.ndarray:
    """Return the scores of two halves, cut from a image padded by numpy."""
    height, width = image.shape
    half = (height + 1) // 2
    # The smallest sizes on the network's grid, found by trying.
    size_y, size_x = (
        next(16 * k + 60 for k in range(1, 999) if 16 * k - 124 >= wanted)
        for wanted in (half, width)
    )
    mirror = np.pad(image, 92, "reflect")
    padded = np.zeros((mirror.shape[0] + 999, mirror.shape[1] + 999), np.float32)
    padded[: mirror.shape[0], : mirror.shape[1]] = mirror
    scores = np.zeros((net.blobs["score"].shape[1], height + 999, width + 999), np.float32)
    for y in (0, size_y - 184):
        net.blobs["data"].reshape(1, 1, size_y, size_x)
        net.reshape()
        net.blobs["data"].data[0, 0] = padded[y : y + size_y, :size_x]
        net.forward()
        out = net.blobs["score"].data[0]
        scores[:, y : y + out.shape[1], : out.shape[2]] = out
    return scores[:, :height, :width]


def test_tiles_of_the_published_frames():
    # 892 x 444 of input and 708 x 260 of output, x by y, for frames of 696 x 520.
    tiling = release2015.tiling((520, 696), FIG_1)
    assert tiling.tile == (444, 892)
    assert tiling.origins == ((0, 0), (260, 0))


@pytest.mark.parametrize("height", range(1, 400, 7))
def test_tiles_cover_the_image_and_none_lies_beyond(height):
    tiling = release2015.tiling((height, 50), FIG_1)
    rows, output = [y for y, _ in tiling.origins], tiling.tile[0] - 184
    assert len(rows) <= 2
    assert rows[-1] < height <= rows[-1] + output
    assert rows == [0, output][: len(rows)]


def test_beyond_the_mirrored_border_are_zeros():
    image = np.arange(1.0, 1 + 100 * 120).reshape(1, 100, 120)
    tiling = release2015.tiling((100, 120), FIG_1)
    above, below = tiling.inputs(image)
    mirror = np.pad(image[0], 92, "reflect")
    assert tiling.tile == (236, 316)
    np.testing.assert_array_equal(above[0, :, :304], mirror[:236])
    assert not above[0, :, 304:].any()
    np.testing.assert_array_equal(below[0, : 284 - 52, :304], mirror[52:])
    assert not below[0, 284 - 52 :].any()


@pytest.mark.parametrize("shape", [(100, 97), (135, 94), (99, 150)])
def test_scores_are_those_of_padded_halves(net, shape):
    image = np.random.default_rng(shape).random(shape, np.float32)
    tiling = release2015.tiling(shape, FIG_1)
    given, wanted = score_image(net, image[None], tiling), naive_scores(net, image)
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    # The zeros beyond the border, and tiles off the grid, make a difference.
    exact = score_image(net, image[None], Tiling.over(shape, tiling.tile, FIG_1))
    assert np.abs(given - exact).max() > 1e-3 * np.abs(exact).max()


def test_raw_scores_of_four_mirrored_versions_are_averaged(net):
    image = np.random.default_rng(1).random((60, 150), np.float32)
    tiling = release2015.tiling((60, 150), FIG_1)
    mean = np.zeros((2, 60, 150))
    for y, x in [(1, 1), (1, -1), (-1, 1), (-1, -1)]:
        mean += score_image(net, image[None, ::y, ::x], tiling)[:, ::y, ::x] / 4
    given = score_image(net, image[None], tiling, release2015.TTA)
    np.testing.assert_allclose(given, mean, rtol=0, atol=1e-5 * np.abs(mean).max())


def test_a_cell_has_more_than_500_pixels():
    cell = np.zeros((60, 80))
    cell[:20, :25] = 0.6
    cell[30:53, :22] = 0.51
    # 500 pixels go, 506 stay; a hole stays a hole, and a corner is enough of a bridge.
    cell[40, 10] = 0.49
    cell[53, 22] = 0.6
    cells = find_instances(np.stack([1 - cell, cell]), release2015.RULES)
    assert cells.max() == 1
    assert (cells == 1).sum() == 23 * 22 - 1 + 1
    assert cells[40, 10] == 0
    assert cells[53, 22] == 1
