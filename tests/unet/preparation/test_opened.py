"""Stacks and labels as people have saved them are paired as they meant them, or refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from unet.errors import InputError
from unet.preparation.prepare import opened, prepare
from unet.preparation.training_set_options import TrainingSetOptions


def stacks(slices=3):
    labels = np.zeros((slices, 40, 50), np.uint8)
    labels[:, 5:20, 5:20] = labels[:, 22:38, 25:45] = 255
    noise = np.random.default_rng(0).integers(0, 60, labels.shape)
    return (labels // 2 + noise).astype(np.uint8), labels


def pair(stack, labels):
    with opened(str(stack), str(labels), TrainingSetOptions()) as found:
        return found.raw[:], found.labels[:]


@pytest.mark.parametrize("slices", [3, 4])
def test_three_or_four_slices_that_tifffile_took_for_colour_are_slices(tmp_path, slices):
    raw, labels = stacks(slices)
    tifffile.imwrite(tmp_path / "raw.tif", raw)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert file.pages[0].samplesperpixel == slices
    found = pair(tmp_path / "raw.tif", tmp_path / "labels.tif")
    np.testing.assert_array_equal(found[0], raw)
    np.testing.assert_array_equal(found[1], labels)


def test_a_picture_in_colour_stays_one_beside_one_slice_of_labels(tmp_path):
    raw, labels = stacks()
    tifffile.imwrite(tmp_path / "raw.tif", raw)
    tifffile.imwrite(tmp_path / "labels.tif", labels[0])
    assert pair(tmp_path / "raw.tif", tmp_path / "labels.tif")[0].shape == (1, 3, 40, 50)


@pytest.mark.parametrize("shape", [(3, 1, 40, 50), (3, 40, 50, 1)])
def test_labels_with_one_channel_are_labels(tmp_path, shape):
    raw, labels = stacks()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["labels"] = raw.reshape(shape), labels.reshape(shape)
    found = pair(f"{tmp_path}/a.h5:/raw", f"{tmp_path}/a.h5:/labels")
    np.testing.assert_array_equal(found[0].reshape(raw.shape), raw)
    np.testing.assert_array_equal(found[1], labels)


def test_labels_in_colour_are_refused_with_a_way_to_number_them(tmp_path):
    raw, labels = stacks(1)
    Image.fromarray(raw[0]).save(tmp_path / "raw.png")
    painted = np.zeros((40, 50, 3), np.uint8)
    painted[..., 0], painted[..., 1] = labels[0], 255 - labels[0]
    Image.fromarray(painted).save(tmp_path / "labels.png")
    with pytest.raises(InputError, match=r"labels\.png: .*3 channels of colour: .*8-bit Color"):
        pair(tmp_path / "raw.png", tmp_path / "labels.png")


def test_labels_of_several_channels_are_refused(tmp_path):
    raw, labels = stacks()
    tifffile.imwrite(tmp_path / "raw.tif", raw, photometric="minisblack")
    two = np.stack([labels, labels], 1)
    tifffile.imwrite(tmp_path / "two.tif", two, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match=r"two\.tif: .*not 2 channels: save one of them"):
        pair(tmp_path / "raw.tif", tmp_path / "two.tif")


def test_masks_with_black_cells_are_told(tmp_path):
    mask = np.full((1, 120, 120), 255, np.uint8)
    for row in range(10, 110, 20):
        mask[:, row : row + 12, 10:22] = mask[:, row : row + 12, 60:72] = 0
    raw = (mask // 3 + np.arange(120)).astype(np.uint8)
    summary = prepare(raw, mask, tmp_path / "a.h5")
    assert [one for one in summary.remarks if "one whole around 10 parts of 0" in one]
    assert "around" not in " ".join(prepare(raw, 255 - mask, tmp_path / "b.h5").remarks)
