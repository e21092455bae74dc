"""Files of parameters and solver states that are cut short, changed, or not there: told by name.

What means harm stands in hostile_files.py.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe.errors import CaffeError
from caffe.files.caffemodel import (
    read_layers,
    read_solverstate,
    write_caffemodel,
    write_weights_hdf5,
)
from tests.caffe.files.blobs import net_of


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "w.caffemodel"
    blobs = {"conv": [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(3, np.float32)]}
    write_caffemodel(path, net_of(blobs), blobs)
    return path


def test_a_file_cut_anywhere_is_refused(model):
    whole = model.read_bytes()
    for size in range(len(whole)):
        model.write_bytes(whole[:size])
        with pytest.raises(CaffeError, match=r"w\.caffemodel: "):
            read_layers(model)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_is_told_or_harmless(place, byte, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "changed.caffemodel"
    blobs = {"conv": [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(3, np.float32)]}
    write_caffemodel(path, net_of(blobs), blobs)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(bytes(data))
    try:
        weights = read_layers(path)
    except CaffeError as error:
        assert "changed.caffemodel" in str(error)
    else:
        assert sum(array.size for arrays in weights.values() for array in arrays) <= 15


@settings(deadline=None, max_examples=200)
@given(
    changes=st.lists(st.tuples(st.integers(8, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_changed_bytes_of_hdf5_are_told_or_harmless(changes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "changed.h5"
    write_weights_hdf5(path, {"conv": [np.ones((3, 4), np.float32)], "a/b": [np.ones(3)]})
    data = bytearray(path.read_bytes())
    for place, byte in changes:
        data[8 + (place - 8) % (len(data) - 8)] = byte
    path.write_bytes(bytes(data))
    try:
        read_layers(path)
    except CaffeError as error:
        assert "changed.h5" in str(error)


def test_hdf5_cut_short_is_refused(tmp_path):
    path = tmp_path / "w.h5"
    write_weights_hdf5(path, {"conv": [np.ones(1000, np.float32)]})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CaffeError, match=r"w\.h5: cannot be read as HDF5 weights"):
        read_layers(path)


def test_files_that_are_not_there_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for reader in (read_layers, read_solverstate):
        with pytest.raises(CaffeError, match="missing: no such file"):
            reader(tmp_path / "missing")
        with pytest.raises(CaffeError, match="is a folder"):
            reader(tmp_path)
        with pytest.raises(CaffeError, match="pipe: is no regular file"):
            reader(tmp_path / "pipe")
