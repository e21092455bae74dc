"""Read and write parameters (.caffemodel, HDF5) and solver states (.solverstate, HDF5)."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from caffe import wire
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

# Field numbers of caffe.proto.
_NET_LAYER, _NET_V1_LAYERS = 100, 2
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_NAME, _V1_BLOBS = 4, 6
_BLOB_SHAPE, _BLOB_DATA, _BLOB_DOUBLE_DATA = 7, 5, 8
_BLOB_LEGACY = (1, 2, 3, 4)
_STATE_HISTORY = 3


@dataclass
class SolverState:
    """What a .solverstate holds."""

    iteration: int
    learned_net: str
    history: list[np.ndarray]
    current_step: int


@contextlib.contextmanager
def _atomic(path: str | os.PathLike) -> Iterator[Path]:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _mapped(path: str) -> Iterator[memoryview]:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise CaffeError(f"{path}: is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                # Views into the map may outlive an error's traceback: closing then is left to them.
                view = memoryview(mapped)
                try:
                    yield view
                finally:
                    with contextlib.suppress(BufferError):
                        view.release()
    except FileNotFoundError:
        raise CaffeError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CaffeError(f"{path}: is a folder, not a file of weights") from None
    except BufferError:
        pass


def _is_hdf5(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8) == _HDF5_MAGIC
    except FileNotFoundError:
        raise CaffeError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CaffeError(f"{path}: is a folder, not a file of weights") from None


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shape(data: memoryview, source: str, offset: int) -> tuple[int, ...]:
    dims: list[int] = []
    for number, kind, value, place in wire.fields(data, source, offset):
        if number != 1:
            continue
        if kind == wire.VARINT:
            dims.append(_signed(value))
            continue
        position = 0
        while position < len(value):
            dim, position = wire._varint(value, position, source)
            dims.append(_signed(dim))
    return tuple(dims)


def _blob(data: memoryview, source: str, offset: int, layer: str) -> np.ndarray:
    shape: tuple[int, ...] | None = None
    legacy: dict[int, int] = {}
    parts: list[np.ndarray] = []
    for number, kind, value, place in wire.fields(data, source, offset):
        if number == _BLOB_SHAPE and kind == wire.BYTES:
            shape = _shape(value, source, place)
        elif number in _BLOB_LEGACY and kind == wire.VARINT:
            legacy[number] = _signed(value)
        elif number in (_BLOB_DATA, _BLOB_DOUBLE_DATA) and kind != wire.VARINT:
            size = 4 if number == _BLOB_DATA else 8
            if len(value) % size:
                raise CaffeError(f"{source}: layer '{layer}': damaged numbers at byte {place}")
            parts.append(np.frombuffer(value, f"<f{size}"))
    if shape is None:
        shape = tuple(legacy.get(axis, 1 if legacy else 0) for axis in _BLOB_LEGACY) if legacy else None
    values = (
        np.concatenate(parts) if len(parts) != 1 else parts[0]
    ) if parts else np.empty(0, np.float32)
    if shape is None:
        shape = (values.size,)
    if any(dim < 0 for dim in shape) or math.prod(shape) != values.size:
        raise CaffeError(
            f"{source}: layer '{layer}': a blob at byte {offset} has shape {shape} "
            f"but {values.size} numbers"
        )
    return values.astype(np.float32).reshape(shape)


def blob_to_array(proto: caffe_pb2.BlobProto) -> np.ndarray:
    """Return the data of a BlobProto as a float32 array of its shape."""
    return _blob(memoryview(proto.SerializeToString()), "<BlobProto>", 0, "")


def _layer(
    data: memoryview, source: str, offset: int, name_field: int, blobs_field: int
) -> tuple[str, list[np.ndarray]]:
    name, found = "", []
    for number, kind, value, place in wire.fields(data, source, offset):
        if kind != wire.BYTES:
            continue
        if number == name_field:
            name = bytes(value).decode("utf-8", "replace")
        elif number == blobs_field:
            found.append((value, place))
    return name, [_blob(value, source, place, name) for value, place in found]


def read_weights(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Read the parameters of all layers that have any.

    Parameters
    ----------
    path : path
        A .caffemodel (layers of the current or the V1 format) or Caffe's HDF5; told apart by content.

    Returns
    -------
    dict
        Layer name -> float32 arrays with the file's shapes (old files: always four axes).

    Raises
    ------
    CaffeError
        If the file is missing, truncated or of another kind; names the byte or the layer.
    """
    source = os.fspath(path)
    if _is_hdf5(source):
        return _read_hdf5(source)
    weights: dict[str, list[np.ndarray]] = {}
    layers = 0
    with _mapped(source) as data:
        for number, kind, value, place in wire.fields(data, source):
            if kind != wire.BYTES or number not in (_NET_LAYER, _NET_V1_LAYERS):
                continue
            v1 = number == _NET_V1_LAYERS
            name, blobs = _layer(
                value,
                source,
                place,
                _V1_NAME if v1 else _LAYER_NAME,
                _V1_BLOBS if v1 else _LAYER_BLOBS,
            )
            layers += 1
            if blobs:
                weights[name] = blobs
    if not layers:
        raise CaffeError(f"{source}: holds no layer: it is no .caffemodel")
    return weights


def _read_hdf5(source: str) -> dict[str, list[np.ndarray]]:
    try:
        with h5py.File(source, "r") as file:
            if not isinstance(file.get("data"), h5py.Group):
                raise CaffeError(f"{source}: has no group /data: it holds no weights of Caffe")
            return {
                name: [
                    np.asarray(group[str(index)], np.float32)
                    for index in range(len(group))
                ]
                for name, group in file["data"].items()
                if len(group)
            }
    except (OSError, KeyError) as error:
        raise CaffeError(f"{source}: cannot be read as HDF5 weights: {error}") from None


def _blob_bytes(array: np.ndarray) -> tuple[bytes, memoryview]:
    array = np.ascontiguousarray(array, "<f4")
    data = memoryview(array.reshape(-1)).cast("B") if array.size else memoryview(b"")
    dims = b"".join(wire.varint(dim) for dim in array.shape)
    shape = wire.header(1, len(dims)) + dims
    head = wire.header(_BLOB_SHAPE, len(shape)) + shape
    return head + wire.header(_BLOB_DATA, len(data)), data


def write_caffemodel(
    path: str | os.PathLike,
    param: caffe_pb2.NetParameter,
    blobs: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write a .caffemodel: the net as it is, each layer with its parameters; whole or not at all.

    Parameters
    ----------
    path : path
    param : caffe_pb2.NetParameter
        The net, its layers without blobs.
    blobs : mapping
        Layer name -> float32 arrays.
    """
    head = caffe_pb2.NetParameter()
    head.CopyFrom(param)
    del head.layer[:]
    with _atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(head.SerializeToString())
        for layer in param.layer:
            bare = caffe_pb2.LayerParameter()
            bare.CopyFrom(layer)
            del bare.blobs[:]
            body = bare.SerializeToString()
            parts = [_blob_bytes(array) for array in blobs.get(layer.name, ())]
            heads = [
                wire.header(_LAYER_BLOBS, len(start) + len(data)) + start for start, data in parts
            ]
            size = len(body) + sum(len(h) + len(d) for h, (_, d) in zip(heads, parts))
            file.write(wire.header(_NET_LAYER, size) + body)
            for start, (_, data) in zip(heads, parts):
                file.write(start)
                file.write(data)


def write_weights_hdf5(
    path: str | os.PathLike,
    blobs: Mapping[str, Sequence[np.ndarray]],
    diffs: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Write parameters (and gradients) as Caffe's HDF5: /data/<layer>/<index>, /diff/...; atomic."""
    with _atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for group, arrays in (("data", blobs), ("diff", diffs)):
            if arrays is None:
                continue
            top = file.create_group(group)
            for name, values in arrays.items():
                layer = top.create_group(name)
                for index, array in enumerate(values):
                    layer.create_dataset(str(index), data=np.asarray(array, np.float32))


def write_solverstate(
    path: str | os.PathLike,
    iteration: int,
    learned_net: str,
    history: Sequence[np.ndarray],
    current_step: int,
) -> None:
    """Write a solver state, as HDF5 if `path` ends in .h5; whole or not at all."""
    if os.fspath(path).endswith(".h5"):
        with _atomic(path) as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset("iter", data=np.int32([iteration]))
            file.create_dataset("current_step", data=np.int32([current_step]))
            file["learned_net"] = learned_net
            group = file.create_group("history")
            for index, array in enumerate(history):
                group.create_dataset(str(index), data=np.asarray(array, np.float32))
        return
    head = caffe_pb2.SolverState(
        iter=iteration, learned_net=learned_net, current_step=current_step
    )
    with _atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(head.SerializeToString())
        for array in history:
            start, data = _blob_bytes(array)
            file.write(wire.header(_STATE_HISTORY, len(start) + len(data)) + start)
            file.write(data)


def read_solverstate(path: str | os.PathLike) -> SolverState:
    """Read a solver state, binary or HDF5, told apart by content.

    Raises
    ------
    CaffeError
        If the file is missing, truncated or of another kind.
    """
    source = os.fspath(path)
    if _is_hdf5(source):
        try:
            with h5py.File(source, "r") as file:
                name = file["learned_net"][()] if "learned_net" in file else b""
                return SolverState(
                    int(np.ravel(file["iter"][()])[0]),
                    name.decode() if isinstance(name, bytes) else str(name),
                    [
                        np.asarray(file["history"][str(index)], np.float32)
                        for index in range(len(file["history"]))
                    ],
                    int(np.ravel(file["current_step"][()])[0]),
                )
        except (OSError, KeyError) as error:
            raise CaffeError(f"{source}: cannot be read as a solver state: {error}") from None
    state = SolverState(-1, "", [], 0)
    with _mapped(source) as data:
        for number, kind, value, place in wire.fields(data, source):
            if number == 1 and kind == wire.VARINT:
                state.iteration = value
            elif number == 2 and kind == wire.BYTES:
                state.learned_net = bytes(value).decode("utf-8", "replace")
            elif number == _STATE_HISTORY and kind == wire.BYTES:
                state.history.append(_blob(value, source, place, f"history {len(state.history)}"))
            elif number == 4 and kind == wire.VARINT:
                state.current_step = value
    if state.iteration < 0:
        raise CaffeError(f"{source}: holds no iteration: it is no .solverstate")
    return state
