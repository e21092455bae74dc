"""Names that are no text: printed, sorted, and refused where only text can stand."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from unet.command import nets
from unet.errors import InputError
from unet.files.names import natural_key, path_in_prototxt, printable
from unet.preparation.labels import annotate
from unet.report.plots import save_preview
from unet.volumes import open_volume, read_volume, write_volume

NAMES = ("10 \udcb5m", "two\nlines", "-o", "a:b", "$x_{\\nothing}$", "10²3", " ", "%s{0}", "*")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".tif", ".h5", ".zarr", ""])
def test_stacks_of_any_name_are_written_and_read(tmp_path, monkeypatch, name, suffix):
    monkeypatch.chdir(tmp_path)
    stack = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_volume(name + suffix, stack)
    assert os.listdir(".") == [name + suffix]
    assert np.array_equal(read_volume(name + suffix), stack)
    if suffix == ".h5":
        with open_volume(name + suffix) as volume:
            inner = volume.path.rpartition(":")[2]
        assert np.array_equal(read_volume(f"{name}{suffix}:{inner}"), stack)


def test_slices_of_any_name_come_in_natural_order(tmp_path):
    names = ("9", "10²3", "10²", "11", "10\udcb5", "٣", "2")
    for name in names:
        Image.fromarray(np.full((2, 2), len(name), np.uint8)).save(tmp_path / f"{name}.png")
    assert read_volume(tmp_path).shape == (len(names), 2, 2)
    assert sorted(["11", "10²3", "9", "2"], key=natural_key) == ["2", "9", "10²3", "11"]


def test_printable_names_are_one_line_of_utf_8():
    assert printable("10 µm.tif") == "10 µm.tif"
    for name in (*NAMES, "\ud800", "\x85", "\u2028"):
        told = printable(name)
        told.encode()
        assert len(told.splitlines()) == 1


def test_paths_in_a_prototxt(tmp_path, monkeypatch):
    folder = tmp_path / "\udcb5"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert path_in_prototxt("a/b") == "a/b"
    assert path_in_prototxt("/a/ü") == "/a/ü"
    # The folders above need not be named.
    assert path_in_prototxt(folder / "a") == "a"
    with pytest.raises(InputError, match="is not UTF-8"):
        path_in_prototxt("\udcb5.prototxt")


@pytest.mark.parametrize("name", NAMES)
def test_a_preview_has_any_title(tmp_path, name):
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    picture, weights = np.zeros((1, 8, 8), np.float32), np.ones((8, 8), np.float32)
    save_preview(tmp_path / f"{name}.png", picture, annotate(labels, "binary"), weights, name)
    assert os.listdir(tmp_path) == [f"{name}.png"]


def test_networks_are_not_written_where_no_prototxt_can_name_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not UTF-8, as names in a prototxt must be"):
        nets.main(["unet_slim", "--data", "a.h5", "-o", "\udcb5"])
    assert os.listdir(".") == []


def test_a_tiff_of_no_text_in_its_name_that_is_damaged_is_told(tmp_path):
    tifffile.imwrite(tmp_path / "\udcb5.tif", np.zeros((3, 4, 5), np.uint8), photometric=0)
    data = (tmp_path / "\udcb5.tif").read_bytes()
    (tmp_path / "\udcb5.tif").write_bytes(data[:40])
    with pytest.raises(InputError, match="\udcb5"):
        read_volume(tmp_path / "\udcb5.tif")
