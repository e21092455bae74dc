"""From stacks and labels in any format to one training set."""

from __future__ import annotations

import os
import re
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import unet
from tests.unet.ctc_cases import write_picture
from tools.prepare import main
from unet import __version__
from unet.errors import InputError
from unet.preparation.labels import annotate, class_weights
from unet.preparation.training_set import TrainingSet
from unet.preparation.weight_map import weight_map
from unet.volumes import write_volume

SHAPE = (4, 40, 52)


@pytest.fixture
def raw():
    return np.random.default_rng(0).integers(0, 250, SHAPE).astype(np.uint8)


@pytest.fixture
def cells():
    """Instances that touch, 24 in each slice, other numbers in each."""
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    numbers = 1 + rows // 10 * 6 + columns // 9
    return np.stack([numbers + 100 * z for z in range(SHAPE[0])]).astype(np.uint16)


def prepared(folder, raw, labels, *options):
    write_volume(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "labels.tif", labels, photometric="minisblack")
    out = folder / "out.h5"
    main([str(folder / "raw.tif"), str(folder / "labels.tif"), "-o", str(out), *options])
    return TrainingSet(out)


def test_binary_labels(tmp_path, raw, cells, capsys):
    labels = (cells % 3 > 0) * np.uint8(255)
    with prepared(tmp_path, raw, labels) as got:
        assert got.shape == SHAPE
        assert got.intensity_range == (0, 255)
        expected_wc = class_weights([(labels == 0).sum(), (labels > 0).sum()])
        for z in range(SHAPE[0]):
            annotation = annotate(labels[z], "binary")
            assert np.array_equal(got.labels(z), annotation.classes)
            assert np.array_equal(got.weights(z), weight_map(annotation.instances, expected_wc))
            assert np.array_equal(got.raw(z)[0], raw[z] / np.float32(255))
        known = got.attributes
        assert known["class_weights"].tolist() == expected_wc.tolist()
        assert (known["w0"], known["sigma"], known["class_balance"]) == (10, 5, True)
        assert known["label_kind"] == "binary"
        assert known["raw_source"] == str(tmp_path / "raw.tif")
        assert known["labels_source"] == str(tmp_path / "labels.tif")
        assert known["unet_version"] == __version__
        assert "ignore_label" not in known
    said = capsys.readouterr().out
    assert "4 slices of 40 x 52" in said
    assert "binary" in said


def test_three_slices_that_tifffile_stores_as_colour_are_slices(tmp_path, raw, cells):
    for name, pixels in (("raw.tif", raw[:3]), ("cells.tif", cells[:3])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            tifffile.imwrite(tmp_path / name, pixels)
        with tifffile.TiffFile(tmp_path / name) as tiff:
            assert tiff.pages[0].samplesperpixel == 3
    paths = [str(tmp_path / name) for name in ("raw.tif", "cells.tif")]
    main([*paths, "-o", str(tmp_path / "out.h5"), "--label-kind", "instances"])
    with TrainingSet(tmp_path / "out.h5") as got:
        assert got.shape == (3, *SHAPE[1:])
        assert np.array_equal(got.raw(2)[0], raw[2] / np.float32(255))


def test_instance_labels_get_borders(tmp_path, raw, cells):
    with prepared(tmp_path, raw, cells, "--w0", "3", "--sigma", "2.5") as got:
        assert got.attributes["label_kind"] == "instances"
        for z in range(SHAPE[0]):
            annotation = annotate(cells[z], "instances")
            assert annotation.borders.any()
            assert np.array_equal(got.labels(z), annotation.classes)
            expected = weight_map(
                annotation.instances, got.attributes["class_weights"], w0=3, sigma=2.5
            )
            assert np.array_equal(got.weights(z), expected)


def test_class_labels_with_ignored_pixels_and_no_balance(tmp_path, raw, capsys):
    labels = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
    options = ["--ignore-label", "0", "--no-class-balance", "--w0", "0"]
    # As ilastik has them: 0 is not annotated, classes count from 1.
    said = r"are 1, 2, 3, and none is 0, .*say --classes 1,2,3 to number .* background first$"
    refused(tmp_path, raw, labels, said, *options, "--label-kind", "classes")
    with prepared(tmp_path, raw, labels, *options, "--classes", "1,2,3") as got:
        assert got.classes == 3
        assert got.attributes["label_classes"].tolist() == [1, 2, 3]
        assert got.attributes["ignore_label"] == 255
        assert np.array_equal(got.labels(2), np.where(labels[2] == 0, 255, labels[2] - 1))
        assert np.array_equal(got.weights(2), (labels[2] > 0).astype(np.float32))
    assert "1 is class 0; 2 is class 1; 3 is class 2" in capsys.readouterr().out


def test_class_numbers_with_large_gaps_are_refused_or_numbered_anew(tmp_path, raw, cells):
    labels = np.array([0, 1, 200], np.uint8)[cells % 3]
    said = r"are 0, 1, 200, .* all of 0 to 200: say --classes 0,1,200 .*--classes 0:201"
    refused(tmp_path, raw, labels, said, "--label-kind", "classes")
    with prepared(tmp_path, raw, labels, "--classes", "0,1,200") as got:
        assert got.classes == 3
        assert np.array_equal(got.labels(1), cells[1] % 3)
    with prepared(tmp_path, raw, labels, "--classes", "0:201") as got:
        assert got.classes == 201
        assert np.array_equal(got.labels(1), labels[1])
    said = r"labels\.tif: slice 0 holds the labels 200, which --classes 0,1 does not name"
    refused(tmp_path, raw, labels, said, "--classes", "0,1")


def test_traces_of_labels_that_no_class_has_are_not_annotated(tmp_path, raw, cells, capsys):
    grey = np.array([0, 128, 255], np.uint8)[cells % 3]
    labels = grey.copy()
    labels[1, 5, 4:9] = 7
    with prepared(tmp_path, raw, labels, "--classes", "0,128,255") as got:
        assert np.array_equal(got.labels(1), np.where(labels[1] == 7, 255, cells[1] % 3))
        assert not got.weights(1)[labels[1] == 7].any()
    assert "labels that --classes does not name, and are taken for: not" in capsys.readouterr().out
    labels[1, 4:8, 4:8] = 7
    said = r"slice 1 holds the labels 7, which --classes 0,128,255 does not name"
    refused(tmp_path, raw, labels, said, "--classes", "0,128,255")


def test_labels_1_and_2_are_classes_in_the_order_named(tmp_path, raw, cells, capsys):
    labels = (1 + cells % 2).astype(np.uint8)
    refused(tmp_path, raw, labels, r"labels\.tif: the labels are 1 and 2, and none is 0")
    for classes, cell in (("1,2", 2), ("2,1", 1)):
        with prepared(tmp_path, raw, labels, "--classes", classes) as got:
            assert got.classes == 2
            assert np.array_equal(got.labels(3), labels[3] == cell)


def test_signed_masks(tmp_path, raw, cells, capsys):
    signed = np.where(cells % 2, 1, -1).astype(np.int8)
    refused(tmp_path, raw, signed, r"labels\.tif: the label -1 is negative.*--classes=-1,1")
    with prepared(tmp_path, raw, signed, "--classes=-1,1") as got:
        assert np.array_equal(got.labels(0), cells[0] % 2)
    signed[:, :5] = 0
    refused(tmp_path, raw, signed, r"the label -1 is negative.*--ignore-label -1")
    with prepared(tmp_path, raw, signed, "--ignore-label", "-1") as got:
        assert np.array_equal(got.labels(0), np.where(signed[0] < 0, 255, signed[0].astype(int)))
    # Written as unsigned.
    unsigned = cells.copy()
    unsigned[:, :5] = 65535
    refused(tmp_path, raw, unsigned, r"the label 65535 is the largest that uint16 holds")
    with prepared(tmp_path, raw, unsigned, "--ignore-label", "65535") as got:
        assert (got.labels(0)[:5] == 255).all()
    prepared(tmp_path, raw, unsigned, "--label-kind", "instances").close()


def test_scaled_masks_and_probabilities_are_binary_above_a_threshold(tmp_path, raw, cells, capsys):
    mask = (cells // 6 % 2 > 0) * np.uint8(255)
    spoilt = ndimage.gaussian_filter(mask, (0, 0.7, 0.7))
    refused(tmp_path, raw, spoilt, r"labels\.tif: the labels .*--label-threshold")
    with prepared(tmp_path, raw, spoilt, "--label-threshold", "127") as got:
        assert np.array_equal(got.labels(2), spoilt[2] > 127)
    assert "cells in all slices: above 127 is inside cells" in capsys.readouterr().out
    likely = spoilt / np.float32(255)
    refused(tmp_path, raw, likely, r"not whole numbers.*--label-threshold 0\.5")
    with prepared(tmp_path, raw, likely, "--label-threshold", "0.5", "--ignore-label", "0") as got:
        assert np.array_equal(got.labels(2), np.where(likely[2] == 0, 255, likely[2] > 0.5))


def test_slices_without_a_cell_are_told(tmp_path, raw, cells, capsys):
    labels = (cells % 3 > 0) * np.uint8(255)
    labels[1] = 0
    prepared(tmp_path, raw, labels).close()
    said = capsys.readouterr().out
    count = sum(ndimage.label(one)[1] for one in labels)
    assert f"binary, {count} cells in all slices: 255 inside cells, 0 is background\n" in said
    assert "no cell      in slices 1\n" in said
    labels[2:] = 0
    prepared(tmp_path, raw, labels, "--unannotated", "none").close()
    said = capsys.readouterr().out
    assert "3 of the 4 slices have no cell: if nobody annotated them, leave them out with" in said


def save_folder(folder, prefix, slices):
    """Write slices, by their numbers, as the files of a folder."""
    folder.mkdir()
    for number, image in slices.items():
        Image.fromarray(image).save(folder / f"{prefix}{number:02d}.png")
    return str(folder)


def test_folders_are_paired_by_the_numbers_in_their_names(tmp_path, raw, cells, capsys):
    masks = (cells % 3 > 0) * np.uint8(255)
    stack = save_folder(tmp_path / "pictures", "img_", dict(enumerate(raw, 1)))
    labels = save_folder(tmp_path / "masks", "m", {2: masks[1], 4: masks[3]})
    out = str(tmp_path / "out.h5")
    main([stack, labels, "-o", out])
    with TrainingSet(out) as got:
        assert got.attributes["slices"].tolist() == [1, 3] == [*got.attributes["balance_slices"]]
        for index, z in enumerate((1, 3)):
            assert np.array_equal(got.raw(index)[0], raw[z] / np.float32(255))
            assert np.array_equal(got.labels(index), masks[z] > 0)
    assert "2 of the 4 pictures of" in capsys.readouterr().out
    others = save_folder(tmp_path / "others", "m", dict(zip((1, 2, 4, 5), masks)))
    with pytest.raises(InputError, match=r"others: m05\.png has no picture .*--by-order"):
        main([stack, others, "-o", out])
    main([stack, others, "-o", out, "--by-order"])
    with TrainingSet(out) as got:
        assert np.array_equal(got.labels(3), masks[3] > 0)
    with pytest.raises(InputError, match=r"the labels are \(2, 40, 52\)"):
        main([stack, labels, "-o", out, "--by-order"])


def test_folders_whose_names_are_not_utf_8(tmp_path, raw, cells, capsys):
    stack = save_folder(tmp_path / "10 \udcb5m", "\udce4_", dict(enumerate(raw)))
    masks = dict(enumerate((cells % 3 > 0) * np.uint8(255)))
    labels = save_folder(tmp_path / "gr\udcfcn", "\udcfc_", masks)
    main([stack, labels, "-o", str(tmp_path / "out.h5"), "--preview", str(tmp_path / "p.png")])
    with TrainingSet(tmp_path / "out.h5") as got:
        assert got.shape == SHAPE
        assert got.attributes["raw_source"].endswith("10 \\xb5m")
    (tmp_path / "gr\udcfcn" / "\udcfc_03.png").unlink()
    with pytest.raises(InputError, match="has no picture"):
        main([labels, stack, "-o", str(tmp_path / "out.h5")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--classes", "0,1", "--label-threshold", "3"], "give one of them"),
        (
            ["--classes", "0,1", "--label-kind", "binary"],
            "says that labels are classes, not binary",
        ),
        (
            ["--label-threshold", "1", "--label-kind", "instances"],
            "labels are binary, not instances",
        ),
        (["--classes", "0"], "name 2 to 255 labels"),
        (["--classes", "0:999999999"], "name 2 to 255 labels"),
        (["--classes", "0,1,1"], "name each label once"),
        (["--classes", "0,1", "--ignore-label", "1"], "--ignore-label not at all"),
        (["--classes", "0;1"], "--classes 0;1: give labels, background first, as 0,1,200"),
    ],
)
def test_options_of_labels_that_make_no_sense(tmp_path, raw, cells, options, said):
    with pytest.raises(InputError, match=said):
        prepared(tmp_path, raw, cells % 2, *options)


def test_frequencies_of_the_training_slices_only(tmp_path, raw):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:2, :10] = 1
    labels[2:, :30] = 1
    with prepared(tmp_path, raw, labels, "--balance-slices", ":2") as got:
        assert got.attributes["class_weights"] == pytest.approx([4 / 6, 2])
        assert got.attributes["class_counts"].sum() == labels.size
        assert got.attributes["balance_slices"].tolist() == [0, 1]


def test_some_slices(tmp_path, raw, cells):
    with prepared(tmp_path, raw, cells > 120, "--slices", "1:3") as got:
        assert got.shape == (2,) + SHAPE[1:]
        assert got.attributes["slices"].tolist() == [1, 2]
        assert np.array_equal(got.raw(1)[0], raw[2] / np.float32(255))


def test_grey_values_of_other_types_and_channels(tmp_path, cells):
    raw = np.random.default_rng(0).normal(5, 2, (SHAPE[0], 3) + SHAPE[1:]).astype(np.float32)
    with prepared(tmp_path, raw, cells > 120) as got:
        assert got.channels == 3
        assert got.intensity_range == pytest.approx(np.percentile(raw, (0.1, 99.9)), rel=1e-5)


def test_normalised_slices(tmp_path, raw, cells, capsys):
    with prepared(tmp_path, raw, cells > 120, "--normalise") as got:
        assert got.intensity_range is None
        for z in range(SHAPE[0]):
            assert got.raw(z).mean() == pytest.approx(1 / 2, abs=1e-5)
            assert got.raw(z).std() == pytest.approx(1 / 6, abs=1e-5)
    assert "each slice's mean becomes 1/2, its standard deviation 1/6" in capsys.readouterr().out


def test_from_python_arrays_give_the_training_set_of_their_files(tmp_path, raw, cells, capsys):
    with prepared(tmp_path, raw, cells, "--w0", "3", "--slices", "1:3") as expected:
        printed = capsys.readouterr().out
        summary = unet.prepare(raw, cells, tmp_path / "b.h5", w0=3, slices=slice(1, 3))
        with TrainingSet(tmp_path / "b.h5") as got:
            for z in range(2):
                assert np.array_equal(got.raw(z), expected.raw(z))
                assert np.array_equal(got.weights(z), expected.weights(z))
    assert str(summary).splitlines()[1:] == printed.splitlines()[1:]
    with pytest.raises(InputError, match="'cells': give auto or binary, membranes, cla"):
        unet.prepare(raw, cells, tmp_path / "b.h5", label_kind="cells")


def test_preview_is_written(tmp_path, raw, cells):
    picture = tmp_path / "preview.png"
    prepared(tmp_path, raw, cells, "--preview", str(picture)).close()
    with Image.open(picture) as image:
        assert image.width > 3 * image.height / 2


# --- what is refused --------------------------------------------------------------------------


def refused(folder, raw, labels, message, *options):
    out = folder / "out.h5"
    before = out.read_bytes() if out.exists() else None
    with pytest.raises(InputError, match=message) as caught:
        prepared(folder, raw, labels, *options)
    assert "\n" not in str(caught.value)
    assert (out.read_bytes() if out.exists() else None) == before
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]


def test_stacks_that_do_not_fit(tmp_path, raw, cells):
    refused(tmp_path, raw, cells[:3], r"labels\.tif: the labels are \(3, 40, 52\).*raw\.tif is")
    refused(tmp_path, raw, cells[:, :30], r"labels\.tif: the labels are \(4, 30, 52\)")
    rgb = np.zeros(SHAPE + (3,), np.uint8)
    with pytest.raises(InputError, match=r"labels\.tif: labels have one number a pixel"):
        tifffile.imwrite(tmp_path / "rgb-labels.tif", rgb, photometric="rgb")
        main([str(tmp_path / "raw.tif"), str(tmp_path / "rgb-labels.tif"), "-o", "x.h5"])


def test_labels_that_are_none(tmp_path, raw, cells):
    few = (cells % 4).astype(np.uint8)
    refused(tmp_path, raw, few, r"labels\.tif: the labels have 4 values.*--label-kind")
    refused(tmp_path, raw, raw / np.float32(7), r"labels\.tif: slice 0: .*not whole numbers")
    negative = (cells > 120).astype(np.int16)
    negative[2, 3, 4] = -1
    refused(tmp_path, raw, negative, r"labels\.tif: slice 2: .*negative", "--label-kind", "binary")
    swapped = tmp_path, (cells % 2).astype(np.uint8), raw
    refused(*swapped, r"labels\.tif: .* as in a picture or a smoothed mask, not")
    raw[...] = np.arange(SHAPE[0])[:, None, None]
    refused(tmp_path, raw, cells % 2, r"raw\.tif: .* one grey value")


def test_nan_in_the_pictures_leaves_nothing_behind(tmp_path, raw, cells):
    broken = raw.astype(np.float32)
    broken[2, 5, 5] = np.nan
    refused(tmp_path, broken, cells > 120, r"raw\.tif: slice 2 holds NaN")


# --- sequences of the cell tracking challenge -------------------------------------------------


@pytest.fixture
def sequence(tmp_path, raw, cells):
    """Four frames, of which 1 and 3 are annotated; a cell of each is marked and not drawn."""
    for number in range(4):
        drawn = np.where(cells[number] == cells[number, 35, 47], 0, cells[number])
        markers = np.zeros(SHAPE[1:], np.uint16)
        markers[5::10, 4::9] = np.arange(24).reshape(4, 6) + 1
        pictures = [("02/t", raw), ("02_GT/TRA/man_track", [markers] * 4)]
        if number % 2:
            pictures.append(("02_GT/SEG/man_seg", [drawn] * 4))
        for name, stack in pictures:
            write_picture(tmp_path / f"{name}{number:03d}.tif", stack[number])
    return tmp_path / "02"


def of_sequence(sequence, *options):
    out = sequence.parent / "out.h5"
    main([str(sequence), "-o", str(out), *options])
    return TrainingSet(out)


def test_annotated_frames_of_a_sequence(sequence, raw, cells, capsys):
    with of_sequence(sequence, "--balance-frames", ":3") as got:
        assert got.shape == (2,) + SHAPE[1:]
        known = got.attributes
        assert known["frames"].tolist() == [1, 3]
        assert known["balance_slices"].tolist() == [0]
        assert (known["label_kind"], known["annotations"]) == ("instances", "gt")
        assert (known["unannotated"], known["unannotated_field"]) == ("none", 0)
        for z, number in enumerate((1, 3)):
            annotation = annotate(
                np.where(cells[number] == cells[number, 35, 47], 0, cells[number]), "instances"
            )
            assert annotation.borders.any()
            assert np.array_equal(got.raw(z)[0], raw[number] / np.float32(255))
            assert np.array_equal(got.labels(z), annotation.classes)
            expected = weight_map(annotation.instances, known["class_weights"])
            assert np.array_equal(got.weights(z), expected)
    said = capsys.readouterr().out
    assert "  frames       001 003\n" in said
    assert "  balance      slices 0:1, frames 001 to 001\n" in said
    assert "  not drawn    2 cells have a marker only, in frames 001 003\n" in said


def test_unknown_pixels_of_a_sequence_weigh_nothing(sequence):
    options = [
        "--unannotated",
        "markers",
        "--reach",
        "3",
        "--field-of-interest",
        "1",
        "--frames",
        "2:9",
    ]
    with of_sequence(sequence, *options) as got:
        unknown = got.labels(0) == 255
        # The undrawn cell is 10 x 7 in the corner, its marker at (35, 49); the edge is drawn over.
        rows, columns = np.indices(SHAPE[1:])
        undrawn = (rows >= 30) & (columns >= 45)
        edge = (rows == SHAPE[1] - 1) | (columns == SHAPE[2] - 1)
        near = np.hypot(rows - 35, columns - 49) <= 3
        assert np.array_equal(unknown, undrawn & (near | edge))
        assert (got.weights(0)[unknown] == 0).all()
        assert (got.weights(0)[~unknown] > 0).all()
        known = got.attributes
        assert known["frames"].tolist() == [3]
        assert (known["unannotated"], known["unannotated_reach"]) == ("markers", 3)
        assert (known["unannotated_field"], known["ignore_label"]) == (1, -1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--annotations", "st"], r"02_ST/SEG: there is no such folder.*--annotations gt"),
        (["--frames", "4:"], r"SEG: annotates none of the chosen frames, but 001 003"),
        (["--frames", "3:1"], "--frames 3:1: give A:B"),
        (["--balance-frames", "2:3"], "none of them is taken, which are 001 003"),
        (["--slices", "1:2"], "--slices is not for the labels of a sequence: use --frames"),
        (["--ignore-label", "0"], "--ignore-label is not for .*see --unannotated"),
        (["--label-kind", "classes"], "--label-kind is not for .*they are instances"),
        (["--reach", "5"], "--reach belongs to --unannotated"),
        (["--unannotated", "surroundings"], "needs --reach PIXELS"),
        (["--unannotated", "markers", "--reach", "0"], "--reach 0: give pixels, more than 0"),
        (["--field-of-interest", "-1"], "field -1: give pixels"),
    ],
)
def test_options_that_a_sequence_does_not_take(sequence, options, message):
    with pytest.raises(InputError, match=message) as caught:
        of_sequence(sequence, *options)
    assert "\n" not in str(caught.value)
    assert not (sequence.parent / "out.h5").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "0:2"], "--frames is for sequences"),
        (
            ["--unannotated", "markers"],
            "--unannotated markers is for sequences",
        ),
    ],
)
def test_options_that_a_stack_does_not_take(tmp_path, raw, cells, options, message):
    refused(tmp_path, raw, cells, message, *options)


def test_no_labels_and_no_sequence(tmp_path, raw):
    write_volume(tmp_path / "raw.tif", raw)
    with pytest.raises(InputError, match=r"raw\.tif: name its labels as well"):
        main([str(tmp_path / "raw.tif"), "-o", str(tmp_path / "out.h5")])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(SHAPE, np.uint8), [], r"are background \(label 0\)"),
        (np.full(SHAPE, 255, np.uint8), [], "are inside cells"),
        (1 + np.indices(SHAPE).sum(0) % 2, [], "none is 0, which is background.*--classes 1,2"),
        (np.full(SHAPE, 1, np.uint8), [], "are inside cells.*--classes 1,2"),
        (np.full(SHAPE, 2, np.uint8), ["--label-kind", "classes"], "are of class 2"),
        (np.full(SHAPE, 7, np.uint8), ["--ignore-label", "7"], "no pixel is annotated"),
        (np.indices(SHAPE)[0] // 3, ["--slices", "0:3"], "are background"),
    ],
)
def test_labels_of_one_class_teach_nothing(tmp_path, raw, labels, options, message):
    with pytest.raises(InputError, match=rf"labels\.tif: .*{message}"):
        prepared(tmp_path, raw, labels.astype(np.uint8), *options)
    assert not (tmp_path / "out.h5").exists()


def test_single_slices_without_a_cell_are_usual(tmp_path, raw, cells, capsys):
    labels = (cells % 3 > 0) * np.uint8(1)
    labels[1] = 0
    with prepared(tmp_path, raw, labels) as got:
        assert (got.labels(1) == 0).all()
    assert "look at this" not in capsys.readouterr().out


def test_what_is_unusual_is_told(tmp_path, raw, cells, capsys):
    labels = np.where(cells % 3 > 0, 3, 0).astype(np.uint8)
    labels[1], labels[3] = 9, 0
    labels[0, 0, 0] = 1
    raw[2] = 80
    options = ["--label-kind", "classes", "--ignore-label", "9", "--balance-slices", "2:4"]
    prepared(tmp_path, raw, labels, *options).close()
    said = capsys.readouterr().out
    assert "class numbers 2 do not occur, but the network gets scores for all of 0 to 3" in said
    assert "class 1 does not occur in the slices to balance by: weight 1" in said
    assert f"no pixel is annotated in slices 1 of {tmp_path / 'labels.tif'}" in said
    assert f"all pixels are of one grey value in slices 2 of {tmp_path / 'raw.tif'}" in said


def test_an_ignored_label_that_no_pixel_has_is_told(tmp_path, raw, cells, capsys):
    prepared(tmp_path, raw, cells % 2, "--ignore-label", "255").close()
    assert "no pixel has the label 255 of --ignore-label" in capsys.readouterr().out


def test_cells_that_binary_labels_merge_are_told(tmp_path, raw, cells, capsys):
    labels = np.where(cells % 6 > 1, cells, 0)
    prepared(tmp_path, raw, labels, "--label-kind", "binary").close()
    assert "labels of different numbers touch in slices 0, 1, 2, 3 of" in capsys.readouterr().out
    prepared(tmp_path, raw, labels > 0, "--label-kind", "binary").close()
    assert "look at this" not in capsys.readouterr().out


def test_grey_values_far_from_all_others_are_told(tmp_path, raw, cells, capsys):
    hot = raw.astype(np.float32)
    hot[2, 3, 4] = 1e30
    prepared(tmp_path, hot, cells % 3 > 0).close()
    said = capsys.readouterr().out
    assert re.search(r"slices 2 of .*raw\.tif hold grey values far from 0 to 249", said)
    hot[2, 3, 4] = 400
    prepared(tmp_path, hot, cells % 3 > 0).close()
    assert "look at this" not in capsys.readouterr().out


def test_grey_pictures_saved_as_colour_are_told(tmp_path, raw, cells, capsys):
    colour = np.stack([raw] * 3, axis=1)
    with prepared(tmp_path, colour, cells % 3 > 0) as got:
        assert got.channels == 3
    assert "the 3 channels of" in capsys.readouterr().out
    colour[3, 2, 5, 5] ^= 1
    prepared(tmp_path, colour, cells % 3 > 0).close()
    assert "look at this" not in capsys.readouterr().out


def test_the_same_stack_for_both(tmp_path, raw):
    write_volume(tmp_path / "raw.tif", raw)
    both = [str(tmp_path / "raw.tif"), str(tmp_path / "." / "raw.tif")]
    with pytest.raises(InputError, match="for the pictures and for their labels as well"):
        main([*both, "-o", str(tmp_path / "out.h5")])
