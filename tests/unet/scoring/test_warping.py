"""Warping against the definitions, word for word and slowly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tests.unet.drawn import drawn_cells
from unet.scoring.warping import (
    HOLE_ADDITION,
    HOLE_DELETION,
    MERGE,
    OBJECT_ADDITION,
    OBJECT_DELETION,
    SIMPLE_POINTS,
    SPLIT,
    classify,
    count_mismatches,
    warp,
    warping_order,
)

# b0 .. b7 as (row, column) in a 3x3 neighbourhood: E, NE, N, NW, W, SW, S, SE.
PLACES = ((1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2))
EIGHT = np.ones((3, 3))


def neighbourhood(code: int) -> np.ndarray:
    patch = np.zeros((3, 3), bool)
    for bit, place in enumerate(PLACES):
        patch[place] = code >> bit & 1
    return patch


def is_simple(patch: np.ndarray) -> bool:
    """One 4-connected cell meets the centre by an edge, and one 8-connected background meets it."""
    cell = patch.copy()
    cell[1, 1] = False
    regions = ndimage.label(cell)[0]
    beside = {regions[place] for place in PLACES[::2]} - {0}
    background = ~patch
    background[1, 1] = False
    return len(beside) == 1 and ndimage.label(background, EIGHT)[1] == 1


def warp_naively(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    source = np.pad(labels, 1)
    target = np.pad(probabilities.astype(float) > threshold, 1)
    certainty = np.abs(np.pad(probabilities, 1).astype(float) - threshold).astype(np.float32)
    before = -1
    while True:
        pixels = [(x, y) for x, y in zip(*np.nonzero((source != target).T))]
        if len(pixels) in (0, before):
            return source[1:-1, 1:-1]
        before = len(pixels)
        for x, y in sorted(pixels, key=lambda place: -certainty[place[1], place[0]]):
            if is_simple(source[y - 1 : y + 2, x - 1 : x + 2]):
                source[y, x] = not source[y, x]


def random_slices(seed: int, count: int):
    random = np.random.default_rng(seed)
    for _ in range(count):
        shape = random.integers(1, 22, 2)
        truth = ndimage.gaussian_filter(random.random(shape), 1.5)
        labels = truth > np.quantile(truth, random.uniform(0.1, 0.6))
        noise = ndimage.gaussian_filter(random.random(shape), random.choice([0, 1]))
        mixed = 0.5 * labels + 0.5 * (noise - noise.min()) / (np.ptp(noise) + 1e-9)
        if random.random() < 0.3:
            mixed = mixed.round(1)
        yield labels, mixed.astype(np.float32)


@pytest.mark.parametrize("code", range(256))
def test_simple_points_are_those_of_the_components(code):
    assert SIMPLE_POINTS[code] == is_simple(neighbourhood(code))


@pytest.mark.parametrize("seed", range(10))
def test_warps_as_the_definition_does(seed):
    for labels, probabilities in random_slices(seed, 10):
        for threshold in (0.0, 0.4, 0.7):
            warped, residual = warp(labels, warping_order(labels, probabilities, threshold))
            expected = warp_naively(labels, probabilities, threshold)
            np.testing.assert_array_equal(warped, expected)
            differing = np.argwhere(expected != (probabilities.astype(float) > threshold))
            assert sorted(residual.tolist()) == sorted(differing.tolist())


def test_surest_pixels_come_first_and_ties_by_column():
    labels = drawn_cells("..", "..")
    probabilities = np.array([[0.6, 0.9], [0.6, 0.6]], np.float32)
    order = warping_order(labels, probabilities, 0.5)
    assert order.tolist() == [[0, 1], [0, 0], [1, 0], [1, 1]]


def test_certainty_is_compared_in_single_precision():
    # 0.1 - 1e-9 and 0.1 - 2e-9 are one float32: a tie, so the first column leads.
    probabilities = np.array([[2e-9, 1e-9]], np.float32)
    assert warping_order(drawn_cells("##"), probabilities, 0.1).tolist() == [[0, 0], [0, 1]]


def legacy_sort(values: list[np.float32], places: list[int]) -> list[int]:
    """Insertion sort below seven, else merge, with float32 arithmetic throughout."""

    def after(first, second):
        return int((values[second] - values[first]) * np.float32(10000)) > 0

    if len(places) < 7:
        for end in range(1, len(places)):
            for place in range(end, 0, -1):
                if not after(places[place - 1], places[place]):
                    break
                places[place - 1 : place + 1] = places[place], places[place - 1]
        return places
    middle = len(places) // 2
    left, right = legacy_sort(values, places[:middle]), legacy_sort(values, places[middle:])
    if not after(left[-1], right[0]):
        return left + right
    merged = []
    while left and right:
        merged.append((right if after(left[0], right[0]) else left).pop(0))
    return merged + left + right


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-3])
def test_legacy_order_is_that_of_the_blurred_merge_sort(scale):
    random = np.random.default_rng(0)
    probabilities = (0.2 + scale * random.random((37, 23))).astype(np.float32)
    probabilities[::3, ::2] = np.float32(0.2)
    labels = np.zeros(probabilities.shape, bool)
    rows_columns = [(y, x) for x in range(23) for y in range(37)]
    certainty = [np.float32(float(probabilities[place]) - 0.1) for place in rows_columns]
    expected = [rows_columns[k] for k in legacy_sort(certainty, list(range(len(certainty))))]
    order = warping_order(labels, probabilities, 0.1, legacy=True)
    assert [tuple(place) for place in order.tolist()] == expected


def kind_by_table(warped: np.ndarray, y: int, x: int, radius: int) -> int:
    """The table of the definition, row by row."""
    height, width = warped.shape
    regions = ndimage.label(warped)[0]
    around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    ids = {regions[v, u] for v, u in around if 0 <= v < height and 0 <= u < width}
    if ids <= {0}:
        return OBJECT_DELETION if warped[y, x] else OBJECT_ADDITION
    if len(ids) == 1:
        return HOLE_ADDITION if warped[y, x] else HOLE_DELETION
    if len(ids) > 2:
        return SPLIT if warped[y, x] else MERGE
    if not warped[y, x]:
        return HOLE_ADDITION
    if radius < 1 or radius > width or radius > height:
        radius = height + width
    near = warped.copy()
    near[y, x] = False
    top, left = max(y - radius, 0), max(x - radius, 0)
    near = near[top : y + radius + 1, left : x + radius + 1]
    parts = ndimage.label(near)[0]
    touching = {parts[v - top, u - left] for v, u in around if 0 <= v < height and 0 <= u < width}
    return SPLIT if len(touching - {0}) >= 2 else HOLE_DELETION


@pytest.mark.parametrize("radius", [0, 1, 3, 20])
def test_classifies_by_the_table(radius):
    seen = set()
    random = np.random.default_rng(radius)
    for labels, _ in random_slices(radius, 25):
        labels ^= random.random(labels.shape) < 0.1
        pixels = [(y, x) for y in range(labels.shape[0]) for x in range(labels.shape[1])]
        found = kinds(labels, *pixels, radius=radius)
        assert found == [kind_by_table(labels, y, x, radius) for y, x in pixels]
        seen.update(found)
    assert seen == set(range(6))


def test_classifies_by_the_table_in_a_slice_larger_than_the_window():
    random = np.random.default_rng(0)
    field = ndimage.gaussian_filter(random.random((90, 100)), 1)
    labels = abs(field - np.median(field)) < 0.06
    pixels = random.integers(0, 90, (600, 2)).tolist()
    expected = [kind_by_table(labels, y, x, 20) for y, x in pixels]
    assert kinds(labels, *pixels) == expected
    assert {SPLIT, HOLE_DELETION} <= set(expected)


def kinds(warped: np.ndarray, *pixels: tuple[int, int], **options) -> list[int]:
    return classify(warped, np.array(pixels, np.int64).reshape(-1, 2), **options).tolist()


def test_a_bridge_between_two_cells_is_a_merge():
    assert kinds(drawn_cells("##.##"), (0, 2)) == [
        HOLE_ADDITION
    ]  # a slice of one row has no background
    assert kinds(drawn_cells(".....", "##.##", "....."), (1, 2)) == [MERGE]


def test_a_cut_through_the_only_link_of_a_cell_is_a_split():
    assert kinds(drawn_cells(".....", "#####", "....."), (1, 2)) == [SPLIT]


def test_a_cut_through_a_small_ring_only_opens_its_hole():
    ring = np.pad(drawn_cells("#####", "#...#", "#####"), 1)
    assert kinds(ring, (1, 3), radius=1) == [SPLIT]
    assert kinds(ring, (1, 3), radius=2) == [HOLE_DELETION]


def test_a_cut_through_a_ring_wider_than_the_window_is_a_split():
    ring = np.zeros((60, 60), bool)
    ring[5:50, 5:50] = True
    ring[6:49, 6:49] = False
    assert kinds(ring, (5, 27)) == [SPLIT]
    assert kinds(ring, (5, 27), radius=45) == [HOLE_DELETION]


@pytest.mark.parametrize("radius", [0, 61])
def test_a_window_below_one_or_above_the_slice_is_the_whole_slice(radius):
    ring = np.zeros((60, 60), bool)
    ring[5:50, 5:50] = True
    ring[6:49, 6:49] = False
    assert kinds(ring, (5, 27), radius=radius) == [HOLE_DELETION]


def test_additions_and_deletions():
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    lone, hole = empty.copy(), full.copy()
    lone[1, 1], hole[1, 1] = True, False
    assert kinds(empty, (1, 1)) == [OBJECT_ADDITION]
    assert kinds(lone, (1, 1)) == [OBJECT_DELETION]
    assert kinds(full, (1, 1)) == [HOLE_ADDITION]
    assert kinds(hole, (1, 1)) == [HOLE_DELETION]


def test_neighbours_outside_the_slice_do_not_count():
    # Inside, the corner sees its own cell alone; outside must not add a 0 to that.
    assert kinds(drawn_cells(".##", "###"), (0, 0)) == [HOLE_DELETION]


def test_a_slice_of_one_pixel_is_an_object():
    assert kinds(drawn_cells("."), (0, 0)) == [OBJECT_ADDITION]
    assert kinds(drawn_cells("#"), (0, 0)) == [OBJECT_DELETION]


def test_no_mismatch_gives_no_counts():
    labels = drawn_cells("##.", "...")
    assert count_mismatches(labels, labels.astype(np.float32), 0.0).tolist() == [0] * 8


def test_groups_count_once_what_pixels_count_each():
    # Two cells with a membrane of 2 x 1 pixels between them, which the proposal fills.
    labels = np.pad(drawn_cells("##..##"), ((1, 1), (0, 0)))
    filled = np.pad(drawn_cells("######"), ((1, 1), (0, 0))).astype(np.float32)
    counts = count_mismatches(labels, filled, 0.5)
    # One pixel grows a cell; the other would join the two.
    assert counts.tolist() == [0, 1, 0, 0, 0, 0, 0, 1]
