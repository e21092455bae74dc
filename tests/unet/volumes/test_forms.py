"""A stack in any form is one volume, and the slices that are asked for are there or named."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from tests.unet.volumes.stacks import refused
from unet.errors import InputError
from unet.volumes import as_volume, chosen_slices, open_volume, write_volume

STACK = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


def test_paths_arrays_and_open_volumes_are_the_same_stack(tmp_path):
    write_volume(tmp_path / "a.tif", STACK)
    with open_volume(tmp_path / "a.tif") as opened:
        for form in (tmp_path / "a.tif", STACK, STACK.tolist(), zarr.array(STACK), opened):
            with as_volume(form, "stack", channels=1) as volume:
                assert volume.shape == (2, 3, 4)
                np.testing.assert_array_equal(volume[:], STACK)
        np.testing.assert_array_equal(opened[1], STACK[1])


def test_a_slice_is_a_stack_of_one():
    np.testing.assert_array_equal(as_volume(STACK[1], "slice")[0], STACK[1])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(3), r"labels: an array of shape \(3,\) is no slice and no stack"),
        (np.zeros((2, 3, 4, 5)), "labels: has 3 channels"),
        (np.full((1, 2, 2), "a"), "labels: holds <U1 instead of real numbers"),
        (np.zeros((0, 2, 2)), "labels: is empty"),
    ],
)
def test_arrays_that_are_no_stack_are_named(array, said):
    with pytest.raises(InputError, match=said):
        as_volume(array, "labels", channels=1)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, range(5)),
        (slice(None, 2), range(2)),
        (slice(3, None), range(3, 5)),
        (range(1, sys.maxsize), range(1, 5)),
        (range(1, 5, 2), range(1, 5, 2)),
    ],
)
def test_chosen_slices(chosen, expected):
    assert chosen_slices(chosen, 5) == expected


@pytest.mark.parametrize("chosen", [range(2, 9), range(5, sys.maxsize), slice(-2, None)])
def test_slices_that_are_not_there_are_named(chosen):
    with pytest.raises(InputError, match=r"--frames .*: give A:B with 0 <= A < B <= 5"):
        chosen_slices(chosen, 5, "--frames")


def test_slices_of_a_folder_bear_the_names_of_their_files(tmp_path):
    for name in ("z10.png", "z9.png"):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name)
    with open_volume(tmp_path) as volume:
        assert volume.names == as_volume(volume, "stack").names == ("z9.png", "z10.png")
    assert as_volume(np.zeros((2, 4, 5)), "stack").names == ()


def test_colours_last_of_an_array_without_names_are_asked_for(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 250, (2, 40, 50, 3)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in (("one", pixels[0]), ("stack", pixels)):
            file[name] = array
    zarr.save_array(str(tmp_path / "a.zarr"), pixels)
    for path in (f"{tmp_path / 'a.h5'}:/one", f"{tmp_path / 'a.h5'}:/stack", tmp_path / "a.zarr"):
        refused(path, r"50, 3\), and does not tell whether the last axis is the 3 channels")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for k, axis in enumerate("zyxc"):
            file["stack"].dims[k].label = axis
    with open_volume(f"{tmp_path / 'a.h5'}:/stack") as volume:
        np.testing.assert_array_equal(volume[:], np.moveaxis(pixels, 3, 1))


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_that_numpy_saved_are_stacks(tmp_path, order):
    np.save(tmp_path / "a.npy", np.asarray(STACK, order=order))
    with open_volume(tmp_path / "a.npy") as volume:
        np.testing.assert_array_equal(volume[:], STACK)
        part = volume.region(1, slice(0, 2), slice(1, 3))
        np.testing.assert_array_equal(part, STACK[1, :2, 1:3])


def test_damaged_arrays_of_numpy_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-3])
    refused(tmp_path / "a.npy", "cannot be read as an array of NumPy .*is the file whole")
    np.save(tmp_path / "b.npy", np.array([None, 1]))
    refused(tmp_path / "b.npy", "cannot be read as an array of NumPy")


def test_a_folder_of_folders_names_one_of_these(tmp_path):
    for name in ("b", "a", ".git"):
        (tmp_path / name).mkdir()
    refused(tmp_path, f"holds no PNG.*name a folder in it, as {tmp_path}/a")
