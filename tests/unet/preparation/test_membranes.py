"""Membranes are thin networks of closed faces; cells, blobs and filaments are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from scipy.spatial import cKDTree

from unet.preparation.membranes import NetworkSurvey, is_network

_EIGHT = np.ones((3, 3), bool)
ROWS, COLUMNS = np.mgrid[:256, :256]


def tissue(seed: int, width: int, cells: int = 60) -> np.ndarray:
    """Return the membranes between cells that fill the picture: those of a Voronoi diagram."""
    seeds = np.random.default_rng(seed).uniform(0, 256, (cells, 2))
    number = cKDTree(seeds).query(np.stack([ROWS, COLUMNS], axis=-1))[1]
    lines = ndimage.maximum_filter(number, 2) != ndimage.minimum_filter(number, 2)
    return ndimage.binary_dilation(lines, _EIGHT, width) if width else lines


def filaments(seed: int, many: int, length: int, width: int) -> np.ndarray:
    """Return curves that cross each other and end somewhere."""
    random, mask = np.random.default_rng(seed), np.zeros((256, 256), bool)
    for _ in range(many):
        turns = random.uniform(0, 7) + np.cumsum(random.normal(0, 0.05, length))
        path = random.uniform(0, 256, 2) + np.cumsum([np.sin(turns), np.cos(turns)], axis=1).T
        path = path.astype(int)
        path = path[((path >= 0) & (path < 256)).all(axis=1)]
        mask[tuple(path.T)] = True
    return ndimage.binary_dilation(mask, _EIGHT, width)


def packed(radius: int, shift: int) -> np.ndarray:
    """Return round cells, 40 pixels apart, that touch from a radius of 20 on."""
    distance = np.full((256, 256), np.inf)
    for k, y in enumerate(range(0, 300, 40)):
        for x in range(-40, 300, 40):
            here = (ROWS - y) ** 2 + (COLUMNS - x - (k % 2) * shift) ** 2
            distance = np.minimum(distance, here)
    return distance < radius**2


def blobs(seed: int, smooth: float, share: float) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(256, 256)), smooth)
    return field > np.quantile(field, 1 - share)


@pytest.fixture(scope="module")
def isbi(isbi_dir: Path) -> np.ndarray:
    return tifffile.imread(isbi_dir / "train-labels.tif")[::6]


def test_membranes_of_isbi_2012_are_and_their_cells_are_not(isbi):
    assert [is_network(labels == 0) for labels in isbi] == [True] * 5
    assert [is_network(labels > 0) for labels in isbi] == [False] * 5


def test_boxes_of_isbi_2012_are_known_by_several_slices(isbi):
    for rows, columns in ((0, 0), (128, 256), (256, 128)):
        survey = NetworkSurvey()
        for labels in isbi:
            survey.add(labels[rows : rows + 160, columns : columns + 160] == 0)
        assert survey.is_network


@pytest.mark.parametrize("width", [0, 1, 2])
def test_lines_between_cells_that_fill_the_picture_are(width):
    assert is_network(tissue(0, width))
    assert not is_network(~tissue(0, width))


@pytest.mark.parametrize("many", [5, 20, 60])
@pytest.mark.parametrize("length", [60, 300])
@pytest.mark.parametrize("width", [1, 2])
def test_filaments_are_not(many, length, width):
    assert not is_network(filaments(many, many, length, width))


@pytest.mark.parametrize("radius", [14, 19, 21, 23])
@pytest.mark.parametrize("shift", [0, 20])
def test_touching_cells_are_not(radius, shift):
    assert not is_network(packed(radius, shift))


@pytest.mark.parametrize("smooth", [2, 6])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_blobs_are_not(smooth, share):
    assert not is_network(blobs(1, smooth, share))


def test_rings_around_single_cells_on_background_are_not():
    rings = packed(15, 0) & ~packed(12, 0)
    assert not is_network(rings)


def test_cells_of_u373_are_not(shared_data):
    folder = shared_data / "PhC-C2DH-U373/02_GT/SEG"
    for path in sorted(folder.glob("*.tif"))[::6]:
        cells = tifffile.imread(path) > 0
        assert not is_network(cells)
        assert not is_network(~cells)


def test_membranes_drawn_in_a_box_are_known_where_they_are_drawn():
    known = np.zeros((256, 256), bool)
    known[40:200, 60:240] = True
    mask = tissue(0, 1)
    survey, blind = NetworkSurvey(), NetworkSurvey()
    survey.add(mask, known)
    assert survey.is_network
    # What is beyond would be one face that is nearly all there is.
    blind.add(mask & known)
    assert not blind.is_network


@pytest.mark.parametrize("mask", [np.zeros((9, 9), bool), np.ones((9, 9), bool)])
def test_a_slice_of_one_value_tells_nothing(mask):
    survey = NetworkSurvey()
    survey.add(mask)
    assert not survey.is_network
