"""Files of two folders are paired by what their names say, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from unet.errors import InputError
from unet.volumes import Volume
from unet.volumes.file_numbers import chosen, frame_numbers, keys_of, places_of


def folder(path: str, *names: str) -> Volume:
    """Return a folder of files whose pixels are the number that stands last in their names."""
    values = [int("".join(c for c in name if c.isdecimal())[-3:] or 0) for name in names]
    read = [np.full((2, 3), value, np.int64) for value in values].__getitem__
    volume = Volume(path, (len(names), 2, 3), np.dtype(np.int64), read)
    volume.names = names
    return volume


def seen(volume: Volume) -> list[int]:
    return volume[:][:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("t008.tif", "t009.tif", "t010.tif"), [(8,), (9,), (10,)]),
        (("t8.tif", "t9.tif", "t10.tif"), [(8,), (9,), (10,)]),
        # What is common to all stands at either side; digits are read as numbers, never in part.
        (("2015-x_10_gt.png", "2015-x_11_gt.png"), [(10,), (11,)]),
        (("s1_z1.tif", "s1_z2.tif", "s2_z1.tif"), [(1, "z", 1), (1, "z", 2), (2, "z", 1)]),
        (("Mouse A.jpg", "mouse-b.jpeg"), [("a",), ("b",)]),
        (("only_7.tif",), [("only", 7)]),
        (("m².tif", "m³.tif"), [("m²",), ("m³",)]),
    ],
)
def test_what_tells_files_apart(names, keys):
    assert keys_of(names) == keys


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("mask000.tif", "mask001.tif", "mask004.tif"), [0, 1, 4]),
        (("t9.tif", "t10.tif"), [9, 10]),
        (("img_000_ts91200.tif", "img_001_ts91550.tif"), [0, 1]),
        (("ts91200_p000.tif", "ts91550_p001.tif"), [0, 1]),
        (("well3_t07.tif",), [7]),
        (("a.png", "b.png"), None),
        (("a.png",), None),
        (("s1_z1.tif", "s1_z2.tif", "s2_z1.tif"), None),
    ],
)
def test_the_number_of_each_file(names, numbers):
    assert frame_numbers(folder("masks", *names)) == numbers


def test_two_files_of_one_number_are_refused():
    twins = folder("masks", "t1.tif", "t01.tif", "t2.tif")
    with pytest.raises(InputError, match=r"masks: t1\.tif and t01\.tif have the same number"):
        frame_numbers(twins)
    with pytest.raises(InputError, match=r"masks: t1\.tif and t01\.tif have the same number"):
        places_of(twins, folder("pictures", "1.tif", "2.tif"))


def test_of_pictures_those_with_labels_are_taken_in_the_labels_order():
    pictures = folder("pictures", *(f"img_{z:02d}.tif" for z in range(1, 31)))
    labels = folder("labels", "label-8.png", "label-10.png", "label-30.png")
    taken = chosen(pictures, places_of(labels, pictures))
    assert seen(taken) == seen(labels) == [8, 10, 30]
    assert taken.names == ("img_08.tif", "img_10.tif", "img_30.tif")
    one = folder("labels", "img_07_annotated_by_hand.png")
    assert places_of(one, pictures) == [6]


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        (("mouse_1.png", "rat_1.png"), ("mouse_1_mask.png", "rat_1_mask.png")),
        (("t0_z0.tif", "t0_z1.tif", "t1_z0.tif"), ("t0_z0.png", "t0_z1.png", "t1_z0.png")),
        (("z1.tif", "z2.tif", "z10.tif"), ("z001.tif", "z002.tif", "z010.tif")),
        # A single picture and its labels: what else?
        (("raw.png",), ("labels.png",)),
        # Counted slices of a stack, whose names say nothing.
        (("img_1.png", "img_2.png"), ("slice_0000.png", "slice_0001.png")),
        (("img_1.png", "img_4.png"), ("slice_0001.png", "slice_0004.png")),
    ],
)
def test_folders_that_fit_are_left_as_they_are(pictures, labels):
    first, second = folder("pictures", *pictures), folder("labels", *labels)
    assert chosen(first, places_of(second, first)) is first


@pytest.mark.parametrize(
    ("pictures", "labels", "said"),
    [
        (
            (1, 2, 3, 4),
            (1, 2, 4, 5),
            r"labels: m_05\.png has no picture of that number in pictures",
        ),
        ((1, 2, 3), (0, 1, 2), r"m_00\.png has no picture .*\(i_01\.png, i_02\.png, i_03\.png\)"),
        ((1, 2, 3), (4, 5, 6, 7), r"m_04\.png, m_05\.png, m_06\.png and 1 more have no picture"),
    ],
)
def test_labels_without_a_picture_are_refused(pictures, labels, said):
    first = folder("pictures", *(f"i_{z:02d}.png" for z in pictures))
    second = folder("labels", *(f"m_{z:02d}.png" for z in labels))
    with pytest.raises(InputError, match=said + ".*--by-order"):
        places_of(second, first)


def test_numbered_slices_of_a_folder_are_paired_by_number():
    labels = folder("labels", "m_2.png", "m_4.png")
    prediction = folder("out", "slice_0001.png", "slice_0002.png", "slice_0004.png")
    assert places_of(labels, prediction) == [1, 2]


def test_a_stack_has_no_names_and_is_paired_by_place():
    stack = Volume("stack.tif", (2, 2, 3), np.dtype(np.int64), lambda z: np.zeros((2, 3), int))
    labels = folder("labels", "4.png", "5.png")
    assert places_of(labels, stack) == places_of(stack, labels) == range(2)


def test_chosen_slices_that_are_missing_stay_missing():
    stack = Volume("s", (4, 2, 3), np.dtype("i8"), lambda z: np.full((2, 3), z), missing=[2])
    part = chosen(stack, [3, 2])
    assert part.missing == (1,)
    assert part[0][0, 0] == 3
