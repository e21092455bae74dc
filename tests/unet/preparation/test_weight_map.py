"""The weight map is the formula of the paper, computed the long way round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from unet.errors import InputError
from unet.preparation.labels import instances_from_binary
from unet.preparation.weight_map import weight_map
from unet.volumes import read_volume


def naive(cells, class_weights, w0=10.0, sigma=5.0, labels=None):
    """Eq. 2 with one distance transform per cell over the whole slice."""
    labels = (cells > 0).astype(int) if labels is None else labels
    weights = np.array([class_weights[c] if c != 255 else 0.0 for c in labels.ravel()])
    weights = weights.reshape(cells.shape)
    numbers = [number for number in np.unique(cells) if number > 0]
    if len(numbers) > 1:
        d1 = np.full(cells.shape, np.inf)
        d2 = d1.copy()
        for number in numbers:
            distance = ndimage.distance_transform_edt(cells != number)
            d2 = np.minimum(d2, np.maximum(d1, distance))
            d1 = np.minimum(d1, distance)
        gap = labels == 0
        weights[gap] += (w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)))[gap]
    return weights


def tissue(size, count, seed=0, gap=3.0):
    """Voronoi cells with a gap between them."""
    points = np.random.default_rng(seed).uniform(0, size, (count, 2))
    grid = np.stack(np.mgrid[:size, :size], -1)
    distance, nearest = cKDTree(points).query(grid, k=2)
    return np.where(distance[..., 1] - distance[..., 0] < gap, 0, nearest[..., 0] + 1)


def agrees(cells, class_weights, **options):
    got = weight_map(cells, class_weights, **options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, naive(cells, class_weights, **options), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("sigma", [0.3, 1, 5, 20, 100])
@pytest.mark.parametrize("class_weights", [(2.2, 0.65), (0.01, 1.99), (0.0, 1.0), (50.0, 0.5)])
def test_equal_to_the_naive_definition(sigma, class_weights):
    agrees(tissue(120, 30), class_weights, sigma=sigma)


@pytest.mark.parametrize("w0", [0.0, 1e-8, 10.0, 1e6])
def test_any_w0(w0):
    agrees(tissue(100, 12, gap=12), (1.3, 0.8), w0=w0)


def test_few_cells_far_apart():
    cells = np.zeros((90, 140), int)
    cells[3, 3] = 1
    cells[80:, 120:] = 2
    for sigma in (5, 40):
        agrees(cells, (1.0, 1.0), sigma=sigma)


def test_cells_at_edges_in_pieces_and_inside_each_other():
    cells = np.zeros((60, 60), int)
    cells[0, :] = 7
    cells[59, 59] = 3
    cells[10:50, 10:50] = 20
    cells[14:46, 14:46] = 0
    cells[25:30, 25:30] = 100000
    cells[40, 2], cells[2, 40] = 5, 5
    agrees(cells, (1.5, 0.7))


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2)])
def test_small_pictures(shape):
    cells = np.zeros(shape, int)
    cells[0, 0] = 1
    agrees(cells, (1.5, 0.7))
    cells[-1, -1] = 2
    agrees(cells, (1.5, 0.7))


def test_none_or_one_cell_adds_nothing():
    cells = np.zeros((9, 9), int)
    assert (weight_map(cells, (1.5, 0.7)) == np.float32(1.5)).all()
    cells[2:4, 2:4] = 1
    expected = np.where(cells, np.float32(0.7), np.float32(1.5))
    assert (weight_map(cells, (1.5, 0.7)) == expected).all()


def test_by_hand_between_two_pixels():
    # Cells at 0 and 4: at 1, 2 and 3 the distances add up to 4.
    term = 10 * math.exp(-16 / 50)
    got = weight_map(np.array([[1, 0, 0, 0, 2]]), (1.0, 0.5))
    assert got[0] == pytest.approx([0.5, 1 + term, 1 + term, 1 + term, 0.5], rel=1e-6)


def test_only_background_gets_the_term_and_ignored_pixels_weigh_nothing():
    labels = np.array([[1, 0, 2, 255, 1]], np.uint8)
    cells = np.array([[1, 0, 2, 0, 3]])
    agrees(cells, (1.0, 2.0, 3.0), labels=labels)
    got = weight_map(cells, (1.0, 2.0, 3.0), labels=labels)
    assert got[0, [0, 2, 3, 4]].tolist() == [2, 3, 0, 2]
    assert got[0, 1] == pytest.approx(1 + 10 * math.exp(-4 / 50))


def test_many_cells():
    agrees(tissue(300, 120), (2.1, 0.7))


def test_a_slice_of_the_real_stack(isbi_dir):
    membrane = read_volume(isbi_dir / "train-labels.tif")[0]
    cells = instances_from_binary(membrane > 0)[:256, :256]
    agrees(cells, (2.2765, 0.6407))


@pytest.mark.parametrize(
    "options", [{"sigma": 0}, {"sigma": -1}, {"w0": -1}, {"w0": math.nan}, {"sigma": math.inf}]
)
def test_parameters_that_make_no_sense(options):
    with pytest.raises(InputError, match="w0 must be 0 or more and sigma more than 0"):
        weight_map(np.zeros((3, 3), int), (1, 1), **options)
