"""Of what kind labels are, and which are refused because they lie as no labels do."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unet.errors import InputError
from unet.preparation.label_kind import LabelSurvey, detect_kind, refuse_largest


@pytest.fixture
def discs() -> np.ndarray:
    """Six round cells, numbered from 1."""
    rows, columns = np.mgrid[:64, :96]
    labels = np.zeros((64, 96), np.uint8)
    for number in range(6):
        y, x = 16 + 32 * (number // 3), 16 + 32 * (number % 3)
        labels[(rows - y) ** 2 + (columns - x) ** 2 < 90] = number + 1
    return labels


def test_kind_by_the_number_of_values():
    assert detect_kind([np.array([[0, 0]]), np.array([[255, 0]])]) == "binary"
    assert detect_kind([np.array([[0, 1, 2]])], ignore=2) == "binary"
    assert detect_kind([np.arange(20)[None], np.arange(20, 40)[None]]) == "instances"
    with pytest.raises(InputError, match=r"3 values \(0, 1, 2\).*--label-kind"):
        detect_kind([np.array([[0, 1]]), np.array([[2, 0]])])


def test_cells_of_many_slices_are_instances(discs):
    slices = [np.where(discs > 0, discs + 6 * z, 0) for z in range(6)]
    assert detect_kind(slices) == "instances"
    with pytest.raises(InputError, match=r"7 values \(0, 1, 2, 3 \.\.\.\), which can be classes"):
        detect_kind(slices[:1])


def jpeg(mask: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda mask: ndimage.gaussian_filter(mask, 0.7),
        lambda mask: np.asarray(Image.fromarray(mask).resize((150, 100), Image.BILINEAR)),
        # Few values: of the smallest smoothing.
        lambda mask: np.where(ndimage.uniform_filter(mask, 2) % 255, np.uint8(128), mask),
        jpeg,
    ],
)
def test_masks_that_were_smoothed_scaled_or_saved_as_jpeg_are_told(discs, spoil):
    spoilt = spoil((discs > 0) * np.uint8(255))
    assert len(np.unique(spoilt)) > 2
    with pytest.raises(InputError, match=r"(smoothing, scaling or JPEG|as in a picture)"):
        detect_kind([spoilt])


def test_how_a_smoothed_mask_is_told():
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 255
    mask[4, 5:15] = 100
    with pytest.raises(
        InputError, match=r"are 0 and 255, but for 2\.50% of the pixels with 1 other values \(100\)"
    ):
        detect_kind([mask])


def test_traces_beside_three_grey_values_are_told_with_the_classes():
    labels = np.repeat(np.array([0, 128, 255], np.uint8), 40)[np.newaxis].repeat(60, axis=0)
    labels[10:14, 40], labels[30, 80] = 7, 44
    said = (
        r"are 0, 128, 255, but for 0\.069% of .* 2 other values \(7, 44\): say --classes 0,128,255"
    )
    with pytest.raises(InputError, match=said):
        detect_kind([labels])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_are_no_labels(dtype):
    noise = np.random.default_rng(0).normal(size=(64, 96))
    picture = 100 + 40 * ndimage.gaussian_filter(noise, 1.5) * 4 + 5 * noise
    with pytest.raises(InputError, match=r"as in a picture.*is this the label stack"):
        detect_kind([np.clip(picture, 0, 255).astype(dtype)])


def test_probabilities_are_no_labels():
    with pytest.raises(InputError, match="not whole numbers"):
        detect_kind([np.array([[0.0, 0.5]])])


@pytest.mark.parametrize(
    ("labels", "touching"),
    [
        ([[1, 0, 2]], False),
        ([[1, 1, 1]], False),
        ([[1, 2, 0]], True),
        ([[1], [2]], True),
        ([[1, 0], [0, 2]], True),
        ([[0, 1], [2, 0]], True),
    ],
)
def test_cells_touch_at_edges_and_corners(labels, touching):
    survey = LabelSurvey()
    survey.add(np.array(labels))
    assert survey.touching is touching


def test_what_is_ignored_does_not_count():
    survey = LabelSurvey(ignore=9)
    survey.add(np.array([[1, 9, 2]]))
    assert survey.values == [1, 2]
    assert not survey.touching


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2], r"labels are 1 and 2, and none is 0.*--classes 1,2 or --classes 2,1"),
        ([-1, 0], r"the label -1 is negative.*--ignore-label -1.*--classes=0,-1$"),
        ([-1, 1], r"the label -1 is negative.*--ignore-label -1.*--classes=-1,1$"),
        ([-1, 0, 1], r"there are -1, 0, 1: say --ignore-label -1 .*--classes=0,-1,1$"),
        ([0, 1, 2], r"3 values \(0, 1, 2\).*say --label-kind classes or"),
        ([0, 128, 255], r"3 values \(0, 128, 255\).*say --classes 0,128,255 or"),
    ],
)
def test_values_that_may_mean_several_things_are_asked_for(values, said):
    labels = np.repeat(np.array(values, np.int16), 30).reshape(-1, 6)
    with pytest.raises(InputError, match=said):
        detect_kind([labels])


def test_a_negative_label_that_is_ignored_is_none():
    assert detect_kind([np.array([[-1, 0, 1]])], ignore=-1) == "binary"


def test_a_jpeg_mask_that_was_enlarged_without_smoothing_is_a_mask(discs):
    spoilt = jpeg((discs > 0) * np.uint8(255))
    assert len(np.unique(spoilt)) > 34
    enlarged = np.kron(spoilt, np.ones((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"are 0 and 255, but for .*--label-threshold 127"):
        detect_kind([enlarged])


@pytest.mark.parametrize("scale", [0.5, 1.5, 2, 3])
def test_cells_numbers_that_were_scaled_with_smoothing_are_told(scale):
    numbers = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((12, 12), int))
    numbers[::12] = numbers[:, ::12] = 0
    size = (int(120 * scale), int(120 * scale))
    picture = Image.fromarray(numbers.astype(np.int32))
    assert detect_kind([np.asarray(picture.resize(size, Image.NEAREST))]) == "instances"
    smooth = np.rint(np.asarray(Image.fromarray(numbers.astype("f4")).resize(size, Image.BILINEAR)))
    with pytest.raises(InputError, match=r"scaled with smoothing: .*--label-kind instances"):
        detect_kind([smooth.astype(np.uint16)])


def test_cell_255_among_many_is_a_cell():
    numbers = np.kron(np.arange(256).reshape(16, 16), np.ones((4, 4), int)).astype(np.uint8)
    assert detect_kind([numbers]) == "instances"
    refuse_largest(range(256), np.dtype("u1"))


def test_the_largest_number_of_a_type_far_above_all_others_is_minus_one():
    for dtype in ("u1", "u2", "u4", "u8"):
        top = int(np.iinfo(dtype).max)
        with pytest.raises(InputError, match=rf"label {top} .* end with 60: say --ignore-label"):
            refuse_largest([top, *range(61)], np.dtype(dtype))
    refuse_largest(range(61), np.dtype("u2"))
    refuse_largest([60, 2**31 - 1], np.dtype("i4"))


def test_masks_whose_white_is_a_network_are_membranes():
    lines = np.zeros((120, 120), np.uint8)
    lines[10::20], lines[:, 10::20] = 255, 255
    assert detect_kind([lines, lines]) == "membranes"
    assert detect_kind([255 - lines]) == "binary"
    # Half of it not annotated, and that by a value of its own.
    lines[:60] = 7
    assert detect_kind([lines], ignore=7) == "membranes"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0, 1, 2), "say --label-kind classes or --label-kind instances"),
        ((1, 2, 3), "say --classes 1,2,3 or --label-kind instances"),
        ((0, 128, 255), "say --classes 0,128,255 or --label-kind instances"),
        (range(0, 200000, 10007), "say --label-kind instances, or --classes and all of them"),
    ],
)
def test_what_is_said_of_values_that_can_be_classes_or_cells_leads_on(values, said):
    labels = np.kron(np.array([list(values)]), np.ones((5, 5), int))
    with pytest.raises(InputError, match=said):
        detect_kind([labels])
