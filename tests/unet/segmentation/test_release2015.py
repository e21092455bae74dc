"""The authors' procedure of 2015: its sizes, and its scores against a naive version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from unet.segmentation import release2015 as procedure2015
from unet.segmentation.instances import find_cells
from unet.segmentation.segment import score_pictures, segment_picture


@pytest.fixture(scope="module")
def net(repository: Path) -> caffe.Net:
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    return caffe.Net(str(repository / "prototxt/unet_slim/deploy.prototxt"), caffe.TEST)


def naive_scores(net: caffe.Net, picture: np.ndarray) -> np.ndarray:
    """Return the scores of two halves, cut from a picture padded by numpy."""
    height, width = picture.shape
    half = (height + 1) // 2
    # The smallest sizes on the network's grid, found by trying.
    size_y, size_x = (
        next(16 * k + 60 for k in range(1, 999) if 16 * k - 124 >= wanted)
        for wanted in (half, width)
    )
    mirror = np.pad(picture, 92, "reflect")
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


def test_sizes_of_the_published_frames():
    # 892 x 444 of input and 708 x 260 of output, x by y, for frames of 696 x 520.
    assert procedure2015.tile_size((520, 696)) == (444, 892)
    assert list(procedure2015.tile_rows((520, 696))) == [0, 260]


@pytest.mark.parametrize("height", range(1, 400, 7))
def test_tiles_cover_the_picture_and_none_lies_beyond(height):
    rows = procedure2015.tile_rows((height, 50))
    output = procedure2015.tile_size((height, 50))[0] - 184
    assert len(rows) <= 2
    assert rows[-1] < height <= rows[-1] + output
    assert list(rows) == [0, output][: len(rows)]


def test_mirrored_once_by_hand():
    picture = np.arange(1.0, 1 + 100 * 120).reshape(1, 100, 120)
    tile = procedure2015.mirrored_once(picture, -92, -92, (300, 310))
    np.testing.assert_array_equal(tile[0, :284, :304], np.pad(picture[0], 92, "reflect"))
    assert not tile[0, 284:].any()
    assert not tile[0, :, 304:].any()
    # A tile of which only mirrored rows are left.
    tile = procedure2015.mirrored_once(picture, 150, -92, (300, 310))
    np.testing.assert_array_equal(tile[0, :42, :304], np.pad(picture[0], 92, "reflect")[242:])
    assert not tile[0, 42:].any()


@pytest.mark.parametrize("shape", [(100, 97), (135, 94), (99, 150)])
def test_scores_are_those_of_padded_halves(net, shape):
    picture = np.random.default_rng(shape).random(shape, np.float32)
    tile = procedure2015.tile_size(shape)
    passes = []
    (given,) = procedure2015.score_pictures(
        net, [picture[None]], tile, after_pass=lambda: passes.append(1)
    )
    wanted = naive_scores(net, picture)
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert len(passes) == len(procedure2015.tile_rows(shape))
    # The zeros beyond the border, and tiles off the grid, make a difference.
    (exact,) = score_pictures(net, [picture[None]], tile)
    assert np.abs(given - exact).max() > 1e-3 * np.abs(exact).max()


def test_raw_scores_of_four_mirrored_versions_are_averaged(net):
    picture = np.random.default_rng(1).random((60, 150), np.float32)
    flips = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    mean = np.zeros((2, 60, 150))
    for y, x in flips:
        (scores,) = procedure2015.score_pictures(
            net,
            [np.ascontiguousarray(picture[None, ::y, ::x])],
            procedure2015.tile_size((60, 150)),
            after_pass=lambda: None,
        )
        mean += scores[:, ::y, ::x]
    given = segment_picture(
        net,
        picture[None],
        procedure2015.tile_size((60, 150)),
        average=procedure2015.AVERAGE,
        score=procedure2015.score_pictures,
    )
    sure = np.abs(mean[1] - mean[0]) > 1e-4
    np.testing.assert_array_equal((given[1] > given[0])[sure], (mean[1] > mean[0])[sure])
    np.testing.assert_allclose(
        np.log(given[1] / given[0]), (mean[1] - mean[0]) / 4, rtol=1e-3, atol=1e-4
    )


def test_a_cell_has_more_than_500_pixels():
    cell = np.zeros((60, 80))
    cell[:20, :25] = 0.6
    cell[30:53, :22] = 0.51
    # 500 pixels go, 506 stay; a hole stays a hole, and a corner is enough of a bridge.
    cell[40, 10] = 0.49
    cell[53, 22] = 0.6
    cells = find_cells(np.stack([1 - cell, cell]), procedure2015.RULES)
    assert cells.max() == 1
    assert (cells == 1).sum() == 23 * 22 - 1 + 1
    assert cells[40, 10] == 0
    assert cells[53, 22] == 1
