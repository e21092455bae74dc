"""Thinning against a queue taken pixel by pixel."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from scipy import ndimage

from tests.unet.drawn import drawn_cells
from unet.scoring.thinning import thin_membranes


def thin_naively(cells: np.ndarray) -> np.ndarray:
    """The definition, word for word."""
    label, count = ndimage.label(cells)
    if count == 0:
        return np.ones(cells.shape, int)
    height, width = cells.shape

    def neighbours(y, x):
        around = ((y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x))
        return [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]

    queued = np.zeros(cells.shape, bool)
    queue = deque()
    for x in range(width):
        for y in range(height):
            if not cells[y, x] and any(cells[place] for place in neighbours(y, x)):
                queue.append((y, x))
                queued[y, x] = True
    while queue:
        pixel = queue.popleft()
        labels = set()
        for place in neighbours(*pixel):
            if label[place]:
                labels.add(label[place])
            elif not cells[place] and not queued[place]:
                queued[place] = True
                queue.append(place)
        label[pixel] = labels.pop() if len(labels) == 1 else 0
    return label


def test_without_a_cell_the_slice_is_one_region():
    assert thin_membranes(np.zeros((2, 3), bool)).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_membrane_of_two_pixels_keeps_one_on_the_side_that_is_taken_later():
    # Both are queued at once, from left to right: the first finds one cell, the second two.
    assert thin_membranes(drawn_cells("#..#")).tolist() == [[1, 1, 0, 2]]
    assert thin_membranes(drawn_cells("#", ".", ".", "#")).ravel().tolist() == [1, 1, 0, 2]


def test_a_membrane_of_three_pixels_keeps_the_middle():
    assert thin_membranes(drawn_cells("#...#")).tolist() == [[1, 1, 0, 2, 2]]


def test_a_hole_is_filled_by_its_cell():
    assert thin_membranes(drawn_cells("####", "#..#", "####")).tolist() == [[1] * 4] * 3


def test_a_pixel_among_dams_alone_is_a_dam():
    # The four cells touch the centre's neighbours only; each of these lies between two cells.
    assert thin_membranes(drawn_cells("#.#", "...", "#.#")).tolist() == [
        [1, 0, 2],
        [0, 0, 0],
        [3, 0, 4],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_queue_taken_pixel_by_pixel(seed):
    random = np.random.default_rng(seed)
    for _ in range(20):
        height, width = random.integers(1, 26, 2)
        field = random.random((height, width))
        field = ndimage.gaussian_filter(field, random.choice([0, 0.5, 1, 2]))
        cells = field > np.quantile(field, random.random())
        np.testing.assert_array_equal(thin_membranes(cells), thin_naively(cells))
