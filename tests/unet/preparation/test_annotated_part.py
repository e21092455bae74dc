"""What nobody annotated is found: slices without a label, what is beyond boxes, label 255."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import unet
from unet.errors import InputError
from unet.preparation.annotated_part import annotated_part
from unet.preparation.training_set import TrainingSet
from unet.preparation.training_set_options import TrainingSetOptions
from unet.volumes import as_volume

SHAPE = (6, 80, 100)


def part(labels: np.ndarray, **options: object):
    """Return what was annotated of the slices of an array."""
    volume = as_volume(labels, "labels")
    return annotated_part(volume, TrainingSetOptions(**options), range(len(labels)))


@pytest.fixture
def cells() -> np.ndarray:
    """Six slices, each with four cells on background."""
    labels = np.zeros(SHAPE, np.uint8)
    for z in range(6):
        for y, x in ((12, 20), (30, 70), (55, 30), (60, 80)):
            labels[z, y + z : y + z + 9, x : x + 11] = 1
    return labels


@pytest.fixture
def tissue() -> np.ndarray:
    """Six slices of cells, 255, that fill the picture, with membranes between them."""
    stack = np.full(SHAPE, 255, np.uint8)
    for z in range(6):
        stack[z, 4 + z :: 12] = stack[z, :, 6 + z :: 12] = 0
    return stack


def test_where_every_slice_has_a_label_all_of_it_was_annotated(cells, tissue):
    for labels in (cells, tissue):
        given = part(labels)
        assert (given.slices, given.ignore, given.remarks) == (list(range(6)), None, ())
        np.testing.assert_array_equal(given.labels[:], labels)


def test_slices_without_a_label_are_left_out_if_they_are_more_than_half(cells):
    cells[[0, 2, 4]] = 0
    assert part(cells).slices == list(range(6))
    assert part(cells, unannotated="slices").slices == [1, 3, 5]
    cells[5] = 0
    given = part(cells)
    assert given.slices == [1, 3]
    assert (
        "only 2 of 6 slices of labels have a label (1, 3), and these alone are learnt from"
        in (given.remarks[0])
    )
    assert part(cells, unannotated="none").slices == list(range(6))


def test_a_stack_without_a_label_is_refused_where_labels_are_asked_for(cells):
    with pytest.raises(InputError, match="labels: no slice of those taken has a label"):
        part(cells * 0, unannotated="slices")
    assert part(cells * 0).slices == list(range(6))


def expected(labels: np.ndarray, boxes: list[tuple[slice, slice]]) -> np.ndarray:
    known = np.zeros(labels.shape, bool)
    for box in boxes:
        known[box] = True
    return np.where(known, labels.astype(int), -1)


@pytest.mark.parametrize("numbered", [False, True])
def test_beyond_boxes_that_tissue_fills_nobody_annotated(tissue, numbered):
    if numbered:
        # Cells of numbers, without a membrane between them but for some ground.
        tissue = np.stack([ndimage.label(one)[0] for one in tissue]).astype(np.uint16)
    boxes = [(slice(20, 60), slice(0, 40)), (slice(40, 80), slice(60, 100))]
    labels = np.zeros_like(tissue)
    labels[1][boxes[0]] = tissue[1][boxes[0]]
    for box in boxes:
        labels[3][box] = tissue[3][box]
    given = part(labels)
    assert (given.slices, given.ignore) == ([1, 3], -1)
    assert given.remarks[1].startswith("labels fill boxes in slices 1, 3 of labels: what is beyond")
    for z, own in ((1, boxes[:1]), (3, boxes)):
        # A line of membrane at the edge of the box is not seen to be of it.
        known = given.labels[z] != -1
        inside = np.zeros(known.shape, bool)
        for box in own:
            inside[box] = True
        assert not (known & ~inside).any()
        assert (known & inside).sum() > 0.9 * inside.sum()
        np.testing.assert_array_equal(given.labels[z][known], labels[z][known])
    whole = part(labels, unannotated="slices")
    assert whole.slices == [1, 3] and whole.ignore is None


def test_cells_on_background_fill_no_box(cells):
    assert part(cells[:2]).ignore is None
    # One, and a single row of them.
    one = np.zeros((1, 60, 60), np.uint8)
    one[0, 20:30, 20:33] = 1
    row = np.zeros((1, 60, 60), np.uint8)
    row[0, 20:30, 10:50:8] = row[0, 20:30, 11:50:8] = 1
    assert part(one).ignore is part(row).ignore is None


def test_the_box_of_any_labels_if_that_is_asked_for(cells):
    cells[[0, 5]] = 0
    given = part(cells, unannotated="boxes")
    assert given.slices == [1, 2, 3, 4]
    box = (slice(14, 71), slice(20, 91))
    np.testing.assert_array_equal(given.labels[2], expected(cells[2], [box]))


def test_so_far_from_every_cell_nobody_annotated_if_that_is_asked_for(cells):
    given = part(cells, unannotated="surroundings", reach=5)
    near = ndimage.distance_transform_edt(cells[1] == 0) <= 5
    np.testing.assert_array_equal(given.labels[1], np.where(near, cells[1].astype(int), -1))
    with pytest.raises(InputError, match="surroundings needs --reach PIXELS"):
        TrainingSetOptions(unannotated="surroundings").check_for_stack()
    with pytest.raises(InputError, match="--reach belongs to --unannotated"):
        TrainingSetOptions(reach=5).check_for_stack()


@pytest.mark.parametrize(
    ("others", "options", "is_mark"),
    [
        ([0, 1], {}, True),
        ([0, 1], {"label_kind": "membranes"}, True),
        ([0, 1], {"unannotated": "none"}, False),
        ([0, 1], {"label_kind": "instances"}, False),
        ([0], {}, False),
        ([0, 128], {}, False),
        ([0, 1, 2], {}, False),
        ([0, 1, 2], {"label_kind": "classes"}, True),
        ([0, 128], {"label_kind": "classes"}, False),
    ],
)
def test_255_beside_0_and_1_or_among_classes_is_not_annotated(others, options, is_mark):
    labels = np.resize([*others, 255], (2, 20, 30)).astype(np.uint8)
    given = part(labels, **options)
    assert given.ignore == (255 if is_mark else None)
    assert ("the label 255 of labels is taken for: not annotated" in given.remarks) == is_mark


def test_a_slice_with_marks_of_which_the_rest_is_background_was_annotated(cells):
    cells[1:] = 0
    cells[2, :, :50] = 255
    cells[3] = 255
    assert part(cells).slices == [0, 2]


def test_a_training_set_of_a_box_is_that_of_the_box(tmp_path: Path, isbi_dir: Path):
    raw, labels = (
        tifffile.imread(isbi_dir / f"train-{name}.tif")[:3] for name in ("volume", "labels")
    )
    sparse = np.zeros_like(labels)
    sparse[1, 100:300, 150:400] = labels[1, 100:300, 150:400]
    given = unet.prepare(raw, sparse, tmp_path / "a.h5", w0=0)
    with TrainingSet(given.output) as training_set:
        assert training_set.shape == (1, 512, 512)
        assert training_set.attributes["slices"].tolist() == [1]
        known = training_set.labels(0) != 255
        assert not training_set.weights(0)[~known].any()
        np.testing.assert_array_equal(training_set.labels(0)[known], labels[1][known] > 0)
    rows, columns = ndimage.find_objects(known.astype(int))[0]
    assert known[rows, columns].all()
    assert (rows.start, columns.start) <= (102, 152) and known.sum() > 0.97 * 200 * 250
    assert given.is_tissue
