"""Parameters and solver states: round trips, genuine Caffe's files, damaged files."""

from __future__ import annotations

import os
import struct

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caffe.errors import CaffeError
from caffe.files import wire
from caffe.files.caffemodel import (
    SolverState,
    blob_to_array,
    read_solverstate,
    write_caffemodel,
    write_solverstate,
    write_weights_hdf5,
)
from caffe.proto import caffe_pb2
from tests.caffe.files.blobs import net_of, read_weights

ARRAYS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    elements=st.floats(width=32),  # NaN and infinity among them
)
NAMES = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=9
)

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 6 dim: 6 } } }
layer { name: "conv_d0a-b" type: "Convolution" bottom: "data" top: "c" propagate_down: true
  param { name: "shared" lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "again" type: "Convolution" bottom: "data" top: "again"
  param { name: "shared" } param { }
  convolution_param { num_output: 2 kernel_size: 3 pad: 1
    bias_filler { type: "constant" value: 3 } } }
layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "again" top: "sum" }
layer { name: "out" type: "InnerProduct" bottom: "sum" top: "out"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "aim" type: "DummyData" top: "aim" dummy_data_param { shape { dim: 1 dim: 3 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "aim" top: "loss"
  loss_weight: 0.5 }
"""
SOLVER = """
net: "NET" base_lr: 0.1 momentum: 0.9 lr_policy: "multistep" stepvalue: 1 gamma: 0.5 max_iter: 9
snapshot_prefix: "PREFIX" solver_mode: CPU snapshot_format: FORMAT snapshot_diff: true
random_seed: 3
"""


def _same(mine, theirs) -> None:
    assert list(mine) == list(theirs)
    for name in mine:
        assert len(mine[name]) == len(theirs[name])
        for left, right in zip(mine[name], theirs[name]):
            assert left.dtype == np.float32
            np.testing.assert_array_equal(left, right)
            assert left.shape == right.shape


@settings(deadline=None, max_examples=40)
@given(blobs=st.dictionaries(NAMES, st.lists(ARRAYS, min_size=1, max_size=3), max_size=3))
def test_a_caffemodel_gives_back_what_was_written(blobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / "w.caffemodel"
    net = net_of(blobs)
    net.layer.add(name="of no parameters", type="ReLU")
    write_caffemodel(path, net, blobs)
    _same(read_weights(path), blobs)
    # And protobuf itself finds a NetParameter, in its own order of fields.
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    assert message.SerializeToString() == path.read_bytes()
    for layer in message.layer:
        _same({"": [blob_to_array(b) for b in layer.blobs]}, {"": blobs.get(layer.name, [])})


@settings(deadline=None, max_examples=20)
@given(
    blobs=st.dictionaries(
        st.text("ab-_1é", min_size=1, max_size=6),
        st.lists(ARRAYS, min_size=1, max_size=3),
        max_size=3,
    )
)
def test_hdf5_gives_back_what_was_written(blobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / "w.caffemodel.h5"
    write_weights_hdf5(path, blobs, blobs)
    read = read_weights(path)
    _same({name: read[name] for name in blobs}, blobs)


@settings(deadline=None, max_examples=20)
@given(
    history=st.lists(ARRAYS, max_size=3),
    iteration=st.integers(0, 2**31 - 1),
    step=st.integers(0, 99),
    name=st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")),
    suffix=st.sampled_from(["", ".h5"]),
)
def test_a_solver_state_gives_back_what_was_written(
    history, iteration, step, name, suffix, tmp_path_factory
):
    path = tmp_path_factory.mktemp("round") / f"s.solverstate{suffix}"
    write_solverstate(path, SolverState(iteration, name, history, step))
    state = read_solverstate(path)
    assert (state.iteration, state.learned_net, state.current_step) == (iteration, name, step)
    _same({"": state.history}, {"": history})


def test_a_history_may_be_long(tmp_path):
    history = [np.float32([number]) for number in range(2003)]
    for name in ("s.solverstate", "s.solverstate.h5"):
        write_solverstate(tmp_path / name, SolverState(1, "", history, 0))
        _same({"": read_solverstate(tmp_path / name).history}, {"": history})


def test_layers_with_slashes_in_their_names_stand_in_hdf5(tmp_path):
    blobs = {"conv1/7x7": [np.ones(3, np.float32)], "conv1/3x3": [np.zeros(2, np.float32)]}
    write_weights_hdf5(tmp_path / "w.h5", blobs)
    read = read_weights(tmp_path / "w.h5")
    _same(dict(sorted(read.items())), dict(sorted(blobs.items())))


def test_soft_links_within_a_file_are_followed_as_genuine_caffe_does(tmp_path):
    write_weights_hdf5(tmp_path / "a.h5", {"conv": [np.float32([1, 2])]})
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["data/copy/0"] = h5py.SoftLink("/data/conv/0")
    read = read_weights(tmp_path / "a.h5")
    assert read["copy"][0].tolist() == [1, 2]


def test_old_formats_are_read(tmp_path):
    blob = dict(num=1, channels=1, height=2, width=2, data=[1, 2, 3, 4])
    v1 = caffe_pb2.NetParameter()
    v1.layers.add(name="v1", type="CONVOLUTION", blobs=[caffe_pb2.BlobProto(**blob)])
    v0 = v1.layers.add().layer
    v0.name = "v0"
    v0.blobs.add(**blob)
    unpacked = v1.layers.add(name="doubles").blobs.add(double_data=[1, 2])
    unpacked.shape.dim.append(2)
    (tmp_path / "w").write_bytes(v1.SerializeToString())
    square = np.array([[[[1, 2], [3, 4]]]], np.float32)
    _same(
        read_weights(tmp_path / "w"),
        {"v1": [square], "v0": [square], "doubles": [np.array([1, 2], np.float32)]},
    )


def test_numbers_that_are_not_packed_are_read(tmp_path):
    numbers = b"".join(b"\x2d" + struct.pack("<f", value) for value in (1.5, 2.5))
    blob = b"\x3a\x03\x0a\x01\x02" + numbers
    layer = b"\x0a\x01n" + b"\x3a" + bytes([len(blob)]) + blob
    (tmp_path / "w").write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    np.testing.assert_array_equal(read_weights(tmp_path / "w")["n"][0], [1.5, 2.5])


# -- genuine Caffe: that each engine reads the other's files is in tests/parity ----------------


@pytest.fixture(scope="module")
def theirs(genuine, tmp_path_factory):
    """Return the folder of what genuine Caffe saved, and the values that it says it saved."""
    folder = tmp_path_factory.mktemp("genuine")
    (folder / "net.prototxt").write_text(NET)
    for kind in ("BINARYPROTO", "HDF5"):
        text = SOLVER.replace("NET", f"{folder}/net.prototxt")
        text = text.replace("PREFIX", f"{folder}/{kind}").replace("FORMAT", kind)
        (folder / f"{kind}.prototxt").write_text(text)
    values = genuine.python(
        """
result = {}
for kind in ("BINARYPROTO", "HDF5"):
    solver = caffe.SGDSolver(folder + "/" + kind + ".prototxt")
    rng = np.random.RandomState(0)
    for _ in range(2):
        solver.net.blobs["data"].data[...] = rng.rand(1, 1, 6, 6)
        solver.step(1)
    solver.snapshot()
    result[kind] = {k: [b.data.tolist() for b in v] for k, v in solver.net.params.items()}
net = caffe.Net(folder + "/net.prototxt", caffe.TEST)
net.save(folder + "/test.caffemodel")
result["test"] = {k: [b.data.tolist() for b in v] for k, v in net.params.items()}
""",
        folder=str(folder),
    )
    return folder, values


@pytest.mark.parametrize(
    ("file", "key"),
    [("BINARYPROTO_iter_2.caffemodel", "BINARYPROTO"), ("test.caffemodel", "test")],
)
def test_genuine_caffemodels_are_read_and_written_byte_for_byte(theirs, file, key, tmp_path):
    folder, values = theirs
    weights = read_weights(folder / file)
    expected = {n: [np.array(v, np.float32) for v in vs] for n, vs in values[key].items()}
    _same(weights, expected)
    genuine_bytes = (folder / file).read_bytes()
    if key == "test":  # the other one holds diffs, which this engine never writes there
        net = caffe_pb2.NetParameter.FromString(genuine_bytes)
        write_caffemodel(tmp_path / "again", net, weights)
        assert (tmp_path / "again").read_bytes() == genuine_bytes


def test_genuine_solver_states_are_read_and_written_byte_for_byte(theirs, tmp_path):
    folder, _ = theirs
    binary = folder / "BINARYPROTO_iter_2.solverstate"
    state = read_solverstate(binary)
    assert state.iteration == 2
    assert state.learned_net == f"{folder}/BINARYPROTO_iter_2.caffemodel"
    assert state.current_step == 1
    assert [h.shape for h in state.history] == [(2, 1, 3, 3), (2,), (2,), (3, 72), (3,)]
    assert all(h.any() for h in state.history)
    again = tmp_path / "again.solverstate"
    write_solverstate(again, state)
    assert again.read_bytes() == binary.read_bytes()
    other = read_solverstate(folder / "HDF5_iter_2.solverstate.h5")
    assert other.learned_net == f"{folder}/HDF5_iter_2.caffemodel.h5"
    assert (other.iteration, other.current_step) == (2, 1)
    _same({"": other.history}, {"": state.history})


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "w.caffemodel"
    blobs = {"conv": [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(3, np.float32)]}
    write_caffemodel(path, net_of(blobs), blobs)
    return path


# -- writing -----------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(model, monkeypatch):
    before = model.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: write_caffemodel(model, net_of({}), {}),
        lambda: write_weights_hdf5(model, {}),
        lambda: write_solverstate(model, SolverState(1, "", [], 0)),
        lambda: write_solverstate(f"{model}.h5", SolverState(1, "", [], 0)),
    ):
        with pytest.raises(CaffeError, match=r"^.*w.caffemodel.*: the disk is full"):
            write()
    assert model.read_bytes() == before
    assert os.listdir(model.parent) == [model.name]


def test_files_are_made_with_the_rights_of_the_umask_in_folders_that_are_missing(tmp_path):
    path = tmp_path / "runs" / "1" / "w.caffemodel"
    old = os.umask(0o027)
    try:
        write_caffemodel(path, net_of({}), {})
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_folder_is_not_written_over(tmp_path):
    with pytest.raises(CaffeError, match="no regular file"):
        write_caffemodel(tmp_path, net_of({}), {})


def test_more_than_protobuf_allows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    with pytest.raises(CaffeError, match=r"more than protobuf allows.*HDF5"):
        write_caffemodel(tmp_path / "w", net_of({"a": 0}), {"a": [np.zeros(300, np.float32)]})
    assert not os.listdir(tmp_path)


def test_a_file_cut_anywhere_is_refused(model):
    whole = model.read_bytes()
    for size in range(len(whole)):
        model.write_bytes(whole[:size])
        with pytest.raises(CaffeError, match=r"w\.caffemodel: "):
            read_weights(model)


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
