"""Read and write parameters (.caffemodel, HDF5) and solver states (.solverstate, HDF5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from caffe.errors import CaffeError
from caffe.files import weights_hdf5, wire
from caffe.files.atomic import atomic_path
from caffe.files.weights_hdf5 import SolverState, write_weights_hdf5
from caffe.files.wire import WireReader, blob_bytes, check_kind, map_file
from caffe.proto import caffe_pb2

__all__ = [
    "SolverState",
    "blob_to_array",
    "read_blob",
    "read_layers",
    "read_solverstate",
    "write_caffemodel",
    "write_solverstate",
    "write_weights_hdf5",
]

# Field numbers of caffe.proto.
_NET_NAME, _NET_LAYER, _NET_V1_LAYERS = 1, 100, 2
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_NAME, _V1_BLOBS, _V1_V0 = 4, 6, 1
_V0_NAME, _V0_BLOBS = 1, 50
_STATE_ITER, _STATE_LEARNED_NET, _STATE_HISTORY, _STATE_CURRENT_STEP = 1, 2, 3, 4


def blob_to_array(proto: caffe_pb2.BlobProto) -> np.ndarray:
    """Return the data of a BlobProto as a float32 array of its shape."""
    return WireReader("BlobProto").blob(memoryview(proto.SerializeToString()), 0, "blob")


def read_blob(path: str | os.PathLike) -> np.ndarray:
    """Read a file that holds one BlobProto: a mean image, an infogain matrix (.binaryproto).

    Raises
    ------
    CaffeError
        If the file is missing, truncated or of another kind.
    """
    source = os.fspath(path)
    data = map_file(source)
    check_kind(data, source, "a .binaryproto")
    return WireReader(source).blob(data, 0, "blob")


def read_layers(path: str | os.PathLike) -> dict[str, list[np.ndarray | None]]:
    """Read the parameters of all layers, also of those that have none.

    Parameters
    ----------
    path : path
        A .caffemodel (layers of the current, the V1 or the V0 format) or Caffe's HDF5; told apart
        by content.

    Returns
    -------
    dict
        Layer name -> float32 arrays with the file's shapes (files of before 2015: always four
        axes). None stands for a parameter that HDF5 leaves out because another layer owns it.

    Raises
    ------
    CaffeError
        If the file is missing, truncated or of another kind; names the byte or the layer.
    """
    source = os.fspath(path)
    data = map_file(source)
    if weights_hdf5.is_hdf5(data):
        return weights_hdf5.read_layers(source)
    check_kind(data, source, "a .caffemodel")
    reader = WireReader(source)
    weights: dict[str, list[np.ndarray | None]] = {}
    for name, blobs in stored_layers(reader, data):
        arrays = [reader.blob(value, place, f"layer '{name}'") for value, place in blobs]
        if arrays or name not in weights:
            weights[name] = arrays
    if not weights:
        raise CaffeError(f"{source}: holds no layer: it is no .caffemodel")
    return weights


def stored_layers(
    reader: WireReader, data: memoryview
) -> Iterator[tuple[str, list[tuple[memoryview, int]]]]:
    """Yield the layers of a .caffemodel: name, and its BlobProtos with their places in the file.

    Raises
    ------
    CaffeError
        If the file is truncated or of another kind; names the byte.
    """
    for number, kind, value, offset in reader.fields(data):
        if number == _NET_NAME and kind != wire.BYTES:
            raise CaffeError(
                f"{reader.source}: is no .caffemodel (a solver state or a mean image?)"
            )
        if kind == wire.BYTES and number in (_NET_LAYER, _NET_V1_LAYERS):
            yield _stored_layer(reader, value, offset, v1=number == _NET_V1_LAYERS)


def _stored_layer(
    reader: WireReader, data: memoryview, offset: int, v1: bool
) -> tuple[str, list[tuple[memoryview, int]]]:
    name_at, blobs_at = (_V1_NAME, _V1_BLOBS) if v1 else (_LAYER_NAME, _LAYER_BLOBS)
    name, blobs = "", []
    for number, kind, value, place in reader.fields(data, offset):
        if kind != wire.BYTES:
            continue
        if number == name_at:
            name = reader.text(value, place)
        elif number == blobs_at:
            blobs.append((value, place))
        elif v1 and number == _V1_V0:
            for inner, inner_kind, inner_value, inner_place in reader.fields(value, place):
                if inner == _V0_NAME and inner_kind == wire.BYTES:
                    name = reader.text(inner_value, inner_place)
                elif inner == _V0_BLOBS and inner_kind == wire.BYTES:
                    blobs.append((inner_value, inner_place))
    return name, blobs


def _size(pieces: Sequence[bytes | memoryview]) -> int:
    return sum(len(piece) for piece in pieces)


def _write(path: str | os.PathLike, pieces: Sequence[bytes | memoryview]) -> None:
    if _size(pieces) > wire.MAX_BYTES:
        raise CaffeError(
            f"{os.fspath(path)}: {_size(pieces)} bytes are more than protobuf allows; "
            "write HDF5 (snapshot_format: HDF5)"
        )
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.writelines(pieces)


def write_caffemodel(
    path: str | os.PathLike,
    param: caffe_pb2.NetParameter,
    blobs: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write a .caffemodel, byte for byte as genuine Caffe would; whole or not at all.

    Of the net name and layers are written, with the arrays of `blobs`, by layer, as float32; blobs
    in it are passed over.

    Raises
    ------
    CaffeError
        If the file would exceed the 2 GiB that protobuf allows.
    """
    pieces: list[bytes | memoryview] = [caffe_pb2.NetParameter(name=param.name).SerializeToString()]
    for layer in param.layer:
        before, after = _around_blobs(layer)
        body: list[bytes | memoryview] = [before]
        for array in blobs.get(layer.name, ()):
            blob = blob_bytes(array)
            body += [wire.header(_LAYER_BLOBS, _size(blob)), *blob]
        body.append(after)
        pieces += [wire.header(_NET_LAYER, _size(body)), *body]
    _write(path, pieces)


def _around_blobs(layer: caffe_pb2.LayerParameter) -> tuple[bytes, bytes]:
    # protobuf writes fields in the order of their numbers; the blobs belong in their midst.
    before, after = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
    for part, keep_before in ((before, True), (after, False)):
        part.CopyFrom(layer)
        for descriptor, _ in part.ListFields():
            low = descriptor.number < _LAYER_BLOBS
            if descriptor.number == _LAYER_BLOBS or low != keep_before:
                part.ClearField(descriptor.name)
    return before.SerializeToString(), after.SerializeToString()


def write_solverstate(path: str | os.PathLike, state: SolverState) -> None:
    """Write a solver state, as HDF5 if `path` ends in .h5; whole or not at all."""
    if os.fspath(path).endswith(".h5"):
        weights_hdf5.write_solverstate(path, state)
        return
    head = caffe_pb2.SolverState(iter=state.iteration, learned_net=state.learned_net)
    pieces: list[bytes | memoryview] = [head.SerializeToString()]
    for array in state.history:
        blob = blob_bytes(array)
        pieces += [wire.header(_STATE_HISTORY, _size(blob)), *blob]
    pieces.append(caffe_pb2.SolverState(current_step=state.current_step).SerializeToString())
    _write(path, pieces)


def read_solverstate(path: str | os.PathLike) -> SolverState:
    """Read a solver state, binary or HDF5, told apart by content.

    Raises
    ------
    CaffeError
        If the file is missing, truncated or of another kind.
    """
    source = os.fspath(path)
    data = map_file(source)
    if weights_hdf5.is_hdf5(data):
        return weights_hdf5.read_solverstate(source)
    check_kind(data, source, "a .solverstate")
    reader = WireReader(source)
    state = SolverState(-1, "", [], 0)
    for number, kind, value, offset in reader.fields(data):
        if number == _STATE_ITER and kind == wire.VARINT:
            state.iteration = wire.signed(value)
        elif number == _STATE_LEARNED_NET and kind == wire.BYTES:
            state.learned_net = reader.text(value, offset)
        elif number == _STATE_HISTORY and kind == wire.BYTES:
            state.history.append(reader.blob(value, offset, f"history {len(state.history)}"))
        elif number == _STATE_CURRENT_STEP and kind == wire.VARINT:
            state.current_step = wire.signed(value)
    if not 0 <= state.iteration < 2**31:
        raise CaffeError(f"{source}: holds no iteration: it is no .solverstate")
    return state
