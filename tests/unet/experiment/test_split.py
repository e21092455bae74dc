"""What is held out: slices spread through the stack, frames at its end, quadrants of a few."""

from __future__ import annotations

import numpy as np
import pytest

from unet.errors import InputError
from unet.experiment.split import Split, middles_of, split
from unet.volumes.stacks import as_volume

SIZE = (6, 8)


def test_a_fifth_of_the_slices_is_held_out_evenly_spread():
    parts = split(range(30), SIZE)
    assert parts.held_out == (2, 7, 12, 17, 22, 27)
    assert sorted(parts.train + parts.held_out) == list(range(30))


def test_no_more_than_ten_slices_are_held_out_of_a_long_stack():
    parts = split(range(1000), SIZE)
    assert len(parts.held_out) == 10
    assert set(np.diff(parts.held_out)) == {100}


def test_the_last_frames_of_a_sequence_are_held_out():
    assert split(range(10), SIZE, in_time=True).held_out == (8, 9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_few_slices_a_quadrant_each_is_held_out(count):
    parts = split(range(count), SIZE)
    assert parts.train == tuple(range(count))
    assert len(parts.quadrants) == count
    for one in parts.quadrants:
        assert (one.rows[1] - one.rows[0], one.columns[1] - one.columns[0]) == (3, 4)


def test_a_quadrant_is_learnt_from_nowhere_and_tested_on_alone():
    parts = split([0], (4, 4))
    labels = np.arange(1, 17).reshape(1, 4, 4)
    raw = as_volume(labels.astype(np.float32), "raw")
    pictures, arranged, mark = parts.arranged(raw, as_volume(labels, "labels"), None)
    known = np.zeros((4, 4), bool)
    known[2:, 2:] = True
    assert arranged.shape == (2, 4, 4)
    np.testing.assert_array_equal(arranged[0], np.where(known, mark, labels[0]))
    np.testing.assert_array_equal(arranged[1], np.where(known, labels[0], mark))
    for z in range(2):
        np.testing.assert_array_equal(pictures[z], labels[0])


def test_slices_that_are_held_out_follow_those_that_are_learnt_from():
    parts = split(range(5), (2, 2), held_out=[1, 3])
    stack = as_volume(np.arange(20).reshape(5, 2, 2), "stack")
    raw, _, mark = parts.arranged(stack, stack, 7)
    assert [int(raw[z][0, 0]) for z in range(5)] == [0, 8, 16, 4, 12]
    assert (parts.learnt, parts.tested, mark) == (range(3), range(3, 5), 7)


def test_a_split_is_read_as_it_was_written():
    names = [4, 5, 9, 10]
    for parts in (split(range(4), SIZE), split([1, 2], SIZE), split(range(4), SIZE, held_out=[])):
        assert Split.of_json(parts.as_json(names), names) == parts
        files = [f"{name}.png" for name in names]
        assert Split.of_json(parts.as_json(names, files), names) == parts


@pytest.mark.parametrize("held_out", [[0, 1, 2, 3], [9]])
def test_what_is_held_out_leaves_something_to_learn_from_and_is_there(held_out):
    with pytest.raises(InputError, match="--held-out"):
        split(range(4), SIZE, held_out=held_out)


@pytest.mark.parametrize("size", [(60, 80), (61, 81)])
@pytest.mark.parametrize("corner", range(3))
@pytest.mark.parametrize("box", [(0, 0), (20, 30), (38, 55)])
def test_of_a_box_that_was_annotated_a_part_is_held_out_and_a_part_is_learnt_from(
    size, corner, box
):
    labels = np.full((3, *size), 9)
    part = (slice(box[0], box[0] + 20), slice(box[1], box[1] + 24))
    labels[(corner, *part)] = np.arange(24) % 2
    middles = middles_of(as_volume(labels, "labels"), [0, 1, 2], 9)
    assert middles == {corner: (box[0] + 10, box[1] + 12)}
    quadrant = split(range(3), size, middles=middles).quadrants[corner]
    rows, columns = slice(*quadrant.rows), slice(*quadrant.columns)
    shape = np.zeros(size, bool)[rows, columns].shape
    assert shape == (size[0] // 2, size[1] // 2)
    held = np.count_nonzero(labels[corner][rows, columns] != 9)
    assert 95 <= held <= 145


def test_where_all_was_annotated_or_whole_slices_are_held_out_middles_do_not_matter():
    labels = np.zeros((4, 6, 8), int)
    assert middles_of(as_volume(labels, "labels"), [0, 1], 9) == {}
    labels[:, 1] = 9
    assert middles_of(as_volume(labels, "labels"), range(4), 9) == {}


def drawn_in(places):
    """Return what tells where a slice has a label: in these (slice, row, column) alone."""

    def labelled(z):
        image = np.zeros(SIZE, bool)
        for _, row, column in (one for one in places if one[0] == z):
            image[row, column] = True
        return image

    return labelled


def test_slices_without_a_label_are_learnt_from_and_none_is_held_out():
    with_cells = [0, 2, 4, 5, 7, 8, 10, 11]
    parts = split(range(12), SIZE, labelled=drawn_in([(z, 1, 1) for z in with_cells]))
    assert parts.held_out == (4, 10)
    assert sorted(parts.train + parts.held_out) == list(range(12))


def test_where_few_slices_have_labels_quadrants_that_have_some_are_held_out():
    places = [(5, 1, 1), (5, 1, 6), (8, 4, 1), (8, 4, 6)]
    parts = split(range(12), SIZE, labelled=drawn_in(places))
    assert parts.train == tuple(range(12))
    assert [one.z for one in parts.quadrants] == [5, 8]
    for one in parts.quadrants:
        inside = [
            one.rows[0] <= row < one.rows[1] and one.columns[0] <= column < one.columns[1]
            for z, row, column in places
            if z == one.z
        ]
        assert sorted(inside) == [False, True]


def test_slices_on_which_no_network_can_be_judged_are_refused():
    labelled = drawn_in([(0, 1, 1), (3, 1, 1)])
    assert split(range(6), SIZE, held_out=[2, 3], labelled=labelled).held_out == (2, 3)
    with pytest.raises(InputError, match="--held-out names slices without a single label"):
        split(range(6), SIZE, held_out=[1, 2], labelled=labelled)
