"""Phantoms: tissue with membranes, continuous in depth; cells that touch."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.unet.datasets.test_cell_tracking_challenge import files
from unet.datasets.phantom import SMALLEST_CELL, fetch, phantom, touching_cells
from unet.errors import InputError
from unet.preparation.labels import instances_from_binary
from unet.volumes import read_volume


@pytest.fixture(scope="module")
def tissue():
    return phantom(4, 192, seed=3)


def test_shape_type_and_labels(tissue):
    volume, labels = tissue
    assert volume.shape == labels.shape == (4, 192, 192)
    assert volume.dtype == labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 255]


def test_membranes_are_dark_but_grey_values_alone_do_not_tell(tissue):
    volume, labels = tissue
    inside, membrane = volume[labels == 255].astype(float), volume[labels == 0].astype(float)
    assert inside.mean() - membrane.mean() > 40
    best = min(
        ((inside < threshold).sum() + (membrane >= threshold).sum()) / volume.size
        for threshold in range(256)
    )
    # On ISBI 2012 the best threshold gets 19% of the pixels wrong.
    assert 0.06 < best < 0.25


def test_as_much_membrane_as_in_tissue_and_many_cells(tissue):
    _, labels = tissue
    assert 0.15 < (labels == 0).mean() < 0.3
    for slice_ in labels:
        assert instances_from_binary(slice_ > 0).max() > 10


def test_slices_hang_together(tissue):
    _, labels = tissue
    beside = np.mean(labels[0] == labels[1])
    far = np.mean(labels[0] == np.rot90(labels[1]))
    assert far + 0.08 < beside < 0.98


@pytest.mark.parametrize("numbers", [(0, 64, 1), (1, 8, 1), (1, 64, -1)])
def test_numbers_too_small(numbers):
    with pytest.raises(InputError, match="at least 1 slice of size 64"):
        phantom(*numbers)


@pytest.fixture(scope="module")
def colonies():
    return touching_cells(3, 160, seed=3)


def test_cells_are_connected_large_enough_and_touch(colonies):
    volume, labels = colonies
    assert (volume.dtype, labels.dtype) == (np.uint8, np.uint16)
    assert volume.shape == labels.shape == (3, 160, 160)
    for cells in labels:
        numbers, areas = np.unique(cells[cells > 0], return_counts=True)
        assert numbers.tolist() == list(range(1, len(numbers) + 1))
        assert areas.min() >= SMALLEST_CELL
        assert all(ndimage.label(cells == number)[1] == 1 for number in numbers)
        beside = (cells[:, 1:] != cells[:, :-1]) & (cells[:, 1:] > 0) & (cells[:, :-1] > 0)
        assert beside.sum() > 50
        assert (cells == 0).any()


def test_seams_are_darker_than_cells_and_the_ground_darker_still(colonies):
    volume, labels = colonies
    inside = labels > 0
    edge = np.zeros(labels.shape, bool)
    for axis in (1, 2):
        one, other = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        np.moveaxis(edge, axis, 0)[1:] |= (one != other) & (one > 0) & (other > 0)
    seam, rest = volume[edge].mean(), volume[inside & ~edge].mean()
    assert volume[~inside].mean() + 10 < seam < rest - 10


@pytest.mark.parametrize(
    ("name", "make"), [("phantom", phantom), ("phantom-cells", touching_cells)]
)
def test_the_files_of_isbi_are_written_as_the_seed_decides(tmp_path, name, make):
    told = fetch(name, tmp_path / "new", slices=2, size=96, seed=5)
    volume, labels = make(2, 96, 5)
    assert np.array_equal(read_volume(tmp_path / "new" / "train-volume.tif"), volume)
    assert np.array_equal(read_volume(tmp_path / "new" / "train-labels.tif"), labels)
    assert "2 slices of 96 x 96" in told[0]
    assert not np.array_equal(make(2, 96, 4)[1], labels)


def test_the_same_stacks_stay_whoever_wrote_them(tmp_path):
    fetch("phantom", tmp_path, 1, 64)
    for path in tmp_path.iterdir():
        tifffile.imwrite(path, read_volume(path), photometric="minisblack")
    before = files(tmp_path)
    fetch("phantom", tmp_path, 1, 64)
    assert files(tmp_path) == before


def test_stacks_of_somebody_else_are_not_replaced(tmp_path):
    fetch("phantom", tmp_path, 1, 64)
    real = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    tifffile.imwrite(tmp_path / "train-labels.tif", real, photometric="minisblack")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"train-labels\.tif: exists"):
        fetch("phantom", tmp_path, 1, 64, seed=2)
    assert files(tmp_path) == before
    fetch("phantom", tmp_path, 1, 64, seed=2, overwrite=True)
    after = files(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[name] != content for name, content in before.items())
