"""Labels become classes and cells, whatever their kind; touching cells get a border."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unet.drawn import drawn
from unet.errors import InputError
from unet.preparation.labels import (
    annotate,
    bounding_boxes,
    class_counts,
    class_weights,
    instances_from_binary,
    separate_touching,
)


def test_diagonal_neighbours_are_two_cells():
    cells = instances_from_binary(drawn("1 0 0", "0 1 1", "0 0 1") > 0)
    assert cells.tolist() == [[1, 0, 0], [0, 2, 2], [0, 0, 2]]


def test_border_between_touching_cells_takes_one_pixel_of_each():
    cells = drawn("1 1 1 2 2 2", "1 1 1 2 2 2", "1 1 1 2 2 2")
    assert separate_touching(cells).tolist() == drawn(*["1 1 0 0 2 2"] * 3).tolist()


def test_border_between_cells_that_touch_at_a_corner():
    cells = drawn("1 1 0 0", "1 1 0 0", "0 0 2 2", "0 0 2 2")
    separated = drawn("1 1 0 0", "1 0 0 0", "0 0 0 2", "0 0 2 2")
    assert separate_touching(cells).tolist() == separated.tolist()


def test_no_border_where_a_gap_is():
    cells = drawn("1 1 0 2 2", "1 1 0 2 2")
    assert separate_touching(cells).tolist() == cells.tolist()


def test_after_separation_components_are_the_cells():
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 80, (40, 2))
    grid = np.stack(np.mgrid[:80, :80], -1)
    cells = 1 + np.linalg.norm(grid[:, :, None] - points, axis=-1).argmin(-1)
    separated = separate_touching(cells)
    components = instances_from_binary(separated > 0)
    for number in range(1, components.max() + 1):
        assert len(np.unique(separated[components == number])) == 1


def test_binary_labels_whatever_the_foreground_is_written_as():
    for value in (1, 255):
        classes, cells, borders, vanished = annotate(drawn("0 1 0 1", "0 1 0 0") * value, "binary")
        assert classes.tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
        assert classes.dtype == np.uint8
        assert cells.tolist() == [[0, 1, 0, 2], [0, 1, 0, 0]]
        assert not borders.any()
        assert not vanished


def test_instance_labels_of_64_bit_with_one_cell_swallowed():
    huge = 2**63 + 5
    labels = np.full((4, 7), huge, np.uint64)
    labels[:, 3] = 2**40
    labels[:, 4:] = 9
    got = annotate(labels, "instances")
    assert got.classes.tolist() == [[1, 1, 0, 0, 0, 1, 1]] * 4
    assert got.borders.tolist() == [[False, False, True, True, True, False, False]] * 4
    assert sorted(set(got.instances.ravel())) == [0, 1, 3]
    assert got.vanished == 1


def test_a_cell_in_two_pieces_stays_one_cell():
    got = annotate(drawn("4 0 4", "4 0 4"), "instances")
    assert got.instances.tolist() == [[1, 0, 1], [1, 0, 1]]


def test_class_labels_have_cells_of_each_class():
    got = annotate(drawn("1 2 0 1", "1 2 0 1"), "classes")
    assert got.classes.tolist() == [[1, 2, 0, 1], [1, 2, 0, 1]]
    assert got.instances.tolist() == [[1, 3, 0, 2], [1, 3, 0, 2]]


@pytest.mark.parametrize("ignore", [7, -1])
@pytest.mark.parametrize("kind", ["binary", "classes", "instances"])
def test_ignored_pixels_are_neither_cell_nor_background(kind, ignore):
    got = annotate(np.array([[0, 1, ignore, 0]]), kind, ignore)
    assert got.classes.tolist() == [[0, 1, 255, 0]]
    assert got.instances.tolist() == [[0, 1, 0, 0]]


def test_ignored_background():
    assert annotate(np.array([[0, 1, 2]]), "classes", 0).classes.tolist() == [[255, 1, 2]]


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (np.array([[0, -1]]), "binary", "-1 is negative.*--ignore-label -1"),
        (np.array([[0, 255]]), "classes", "255 is no class number"),
        (np.array([[0, 70000]]), "classes", "70000 is no class number"),
        (np.array([[0, 0.5]]), "binary", "not whole numbers"),
    ],
)
def test_labels_that_are_none(labels, kind, message):
    with pytest.raises(InputError, match=message):
        annotate(labels, kind)


def test_class_weights_balance_the_frequencies():
    labels = np.array([[0, 1, 1, 1], [1, 1, 1, 255]], np.uint8)
    counts = class_counts(labels)[:2]
    assert counts.tolist() == [1, 6]
    weights = class_weights(counts)
    # Each class weighs the same in sum, a pixel 1 on average: 7 / (2 * 1), 7 / (2 * 6).
    assert weights.tolist() == [3.5, 7 / 12]
    assert weights @ counts == pytest.approx(counts.sum())
    assert class_weights(counts, balance=False).tolist() == [1, 1]


def test_absent_class_weighs_one():
    assert class_weights([10, 0, 30]).tolist() == [2, 1, pytest.approx(2 / 3)]


def test_bounding_boxes_of_numbers_with_gaps():
    cells = 100 * drawn("0 9 9", "5 0 0", "5 5 0")
    assert bounding_boxes(cells) == [
        (500, slice(1, 3), slice(0, 2)),
        (900, slice(0, 1), slice(1, 3)),
    ]
    assert bounding_boxes(np.zeros((3, 3), int)) == []


def test_of_membranes_the_inside_of_cells_is_class_1_and_its_parts_are_cells():
    labels = np.array([[0, 0, 255, 0], [9, 9, 255, 0]])
    given = annotate(labels, "membranes", ignore=9)
    assert given.classes.tolist() == [[1, 1, 0, 1], [255, 255, 0, 1]]
    assert given.instances.tolist() == [[1, 1, 0, 2], [0, 0, 0, 2]]
