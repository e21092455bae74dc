"""Files that hold no parameters and no solver state, or did so once: told, at once, by name."""

from __future__ import annotations

import os
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe.errors import CaffeError
from caffe.files.caffemodel import (
    read_solverstate,
    read_weights,
    write_caffemodel,
    write_weights_hdf5,
)
from caffe.proto import caffe_pb2
from tests.caffe.files.blobs import net_of


def _hdf5(path, build) -> None:
    with h5py.File(path, "w") as file:
        build(file)


HOSTILE = {
    "empty": (b"", "is empty"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(999), "is a PNG picture"),
    "tiff": (b"II*\0" + bytes(99), "is a TIFF picture"),
    "torch": (b"PK\x03\x04" + bytes(99), "is a zip archive"),
    "text": (b'name: "LeNet"\nlayer { }\n', "is a text file"),
    "zeros": (bytes(10_000), "at byte 0"),
    "random": (np.random.default_rng(0).bytes(10_000), "at byte|needs|layer"),
    "solver state": (caffe_pb2.SolverState(iter=3).SerializeToString(), "a solver state"),
    "name only": (caffe_pb2.NetParameter(name="n").SerializeToString(), "holds no layer"),
    "endless number": (b"\xff" * 30, "byte 0"),
    "half a number": (b"\xa2\x06\xff", "byte 2"),
    "length beyond the file": (b"\xa2\x06\xff\xff\xff\xff\x7f", "at byte 0 needs 34359738367"),
    "length beyond the layer": (b"\xa2\x06\x04\x3a\x7f\x00\x00", "at byte 3 needs 127"),
    "many fields": (b"\x08\x00" * 3_000_000, "solver state|fields"),
    "many fields in a layer": (
        b"\xa2\x06\x80\x9b\xee\x02" + b"\x50\x00" * 3_000_000,
        "more than 150000 fields",
    ),
    "many axes": (b"\xa2\x06\x2c\x3a\x2a\x3a\x28\x0a\x26" + b"\x01" * 38, "more than 32 axes"),
}


def _layer(**blob) -> bytes:
    net = caffe_pb2.NetParameter()
    dims = blob.pop("dims", ())
    proto = net.layer.add(name="bad").blobs.add(**blob)
    proto.shape.dim.extend(dims)
    return net.SerializeToString()


HOSTILE |= {
    "negative axis": (_layer(dims=[-2, -2], data=[1, 2, 3, 4]), "layer 'bad'.*-2"),
    "huge axes": (_layer(dims=[2**62, 2**62], data=[1]), "layer 'bad'.*4611686018427387904"),
    "axes of nothing": (_layer(dims=[2**40]), "layer 'bad'.*has 0 numbers"),
    "too many numbers": (_layer(dims=[2], data=[1, 2, 3]), r"layer 'bad'.*\(2,\).*3 numbers"),
    "no shape": (_layer(data=[1, 2, 3]), "layer 'bad'.*3 numbers"),
    "half an old shape": (_layer(num=2, channels=1, data=[1, 2]), r"layer 'bad'.*\(2, 1, 0, 0\)"),
    "five bytes of floats": (
        b"\xa2\x06\x0c\x0a\x01n\x3a\x07\x2a\x05\x00\x00\x00\x00\x00",
        "damaged numbers",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_caffemodel_is_refused_at_once(name, tmp_path):
    data, told = HOSTILE[name]
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    started = time.process_time()
    with pytest.raises(CaffeError, match=f"w.caffemodel: .*(?:{told})"):
        read_weights(path)
    # Generous for a loaded machine; without the limits it is minutes.
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", ["empty", "png", "text", "zeros", "name only", "endless number"])
def test_a_file_that_is_no_solver_state_is_refused(name, tmp_path):
    path = tmp_path / "s.solverstate"
    path.write_bytes(HOSTILE[name][0])
    with pytest.raises(CaffeError, match=r"s\.solverstate: "):
        read_solverstate(path)


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
            read_weights(model)


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
        weights = read_weights(path)
    except CaffeError as error:
        assert "changed.caffemodel" in str(error)
    else:
        assert sum(array.size for arrays in weights.values() for array in arrays) <= 15


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda f: None, "no group /data"),
        (lambda f: f.create_dataset("data", data=[1]), "holds data, /data is not a group"),
        (lambda f: f.create_dataset("data/conv/0", (2**40,), "f4"), "0 bytes are stored"),
        (
            lambda f: f.create_dataset("data/conv/0", (2**40,), "f4", chunks=(999,), fillvalue=1),
            "0 bytes are stored",
        ),
        (lambda f: f.create_dataset("data/conv/0", data=b"text"), "/data/conv/0"),
    ],
)
def test_hdf5_of_something_else_is_refused(build, told, tmp_path):
    _hdf5(tmp_path / "w.h5", build)
    with pytest.raises(CaffeError, match=rf"w\.h5: .*{told}"):
        read_weights(tmp_path / "w.h5")


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda f: f.create_group("history"), "no /iter"),
        (lambda f: f.create_dataset("iter", data=[1]), "no /history"),
        (lambda f: f.update(iter=[1], history=[1]), "/history is no group"),
        (lambda f: f.update({"iter": [1], "history/1": [1.0]}), "/history/0 is missing"),
        (lambda f: f.update({"iter": [1], "history/0/a": [1.0]}), "is a group"),
    ],
)
def test_hdf5_of_no_solver_state_is_refused(build, told, tmp_path):
    _hdf5(tmp_path / "s.h5", build)
    with pytest.raises(CaffeError, match=rf"s\.h5: .*{told}"):
        read_solverstate(tmp_path / "s.h5")


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
        read_weights(path)
    except CaffeError as error:
        assert "changed.h5" in str(error)


def test_hdf5_cut_short_is_refused(tmp_path):
    path = tmp_path / "w.h5"
    write_weights_hdf5(path, {"conv": [np.ones(1000, np.float32)]})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CaffeError, match=r"w\.h5: cannot be read as HDF5 weights"):
        read_weights(path)


def test_files_that_are_not_there_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for reader in (read_weights, read_solverstate):
        with pytest.raises(CaffeError, match="missing: no such file"):
            reader(tmp_path / "missing")
        with pytest.raises(CaffeError, match="is a folder"):
            reader(tmp_path)
        with pytest.raises(CaffeError, match="pipe: is no regular file"):
            reader(tmp_path / "pipe")
