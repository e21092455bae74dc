"""Parameters and solver states in HDF5, laid out as genuine Caffe does."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5g, h5i, h5o, h5s, h5t

from caffe.errors import CaffeError
from caffe.files import limits
from caffe.files.hdf5_links import ElsewhereError, find, lies_elsewhere, written_hdf5

_MAGIC = b"\x89HDF\r\n\x1a\n"

_TOO_MUCH = (
    f"is too much: no file of Caffe has more than {limits.HDF5_ENTRIES} entries, or groups more "
    f"than {limits.HDF5_DEPTH} deep"
)

_INDEX = re.compile(b"0|[1-9][0-9]{0,4}")


@dataclass
class SolverState:
    """What a .solverstate holds.

    Attributes
    ----------
    iteration : int
        Iterations done.
    learned_net : str
        The file of the parameters that belong to it.
    history : list of float32 arrays
        What the update rule remembers: one or two arrays a parameter.
    current_step : int
        Steps of the rate policy "multistep" that are behind.
    """

    iteration: int
    learned_net: str
    history: list[np.ndarray]
    current_step: int


def is_hdf5(data: memoryview) -> bool:
    """Tell whether the bytes of a file begin as HDF5 does."""
    return bytes(data[: len(_MAGIC)]) == _MAGIC


@contextlib.contextmanager
def _opened(path: str, what: str) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except CaffeError:
        raise
    # h5py reports damage by any of these.
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CaffeError(f"{path}: cannot be read as {what}: {error}") from None


def _short(value: object) -> str:
    told = str(value)
    return told if len(told) <= limits.QUOTED else f"{told[: limits.QUOTED]}..."


class _Reader:
    """Reads the data sets of one file, and no more of them than the file can hold.

    h5py's own identifiers of groups and data sets stand in for its objects, which take three times
    as long.
    """

    def __init__(self, path: str, file: h5py.File) -> None:
        self.path = path
        self.root = h5o.open(file.id, b"/")
        # Bytes that are left to read: links may show one data set many times.
        size = os.path.getsize(path)
        self._plain, self._packed = size, max(limits.HDF5_UNPACKED, limits.HDF5_COMPRESSION * size)

    def fail(self, entry: h5i.ObjectID, what: str) -> CaffeError:
        """Return an error that names the file and the entry."""
        name = (h5i.get_name(entry) or b"an entry").decode("utf-8", "replace")
        return CaffeError(f"{self.path}: {_short(name)} {what}")

    def _spend(self, dataset: h5d.DatasetID) -> tuple[int, ...]:
        """Return the shape of a data set that there is in the file."""
        layout = dataset.get_create_plist()
        if lies_elsewhere(dataset):
            raise self.fail(dataset, "lies in another file; copy it into this one")
        chunk = layout.get_chunk() if layout.get_layout() == h5d.CHUNKED else ()
        plain = layout.get_nfilters() == 0
        stored, shape = dataset.get_storage_size(), dataset.shape
        size = dataset.get_type().get_size() * max(math.prod(shape), math.prod(chunk))
        if plain:
            self._plain -= size
        else:
            self._packed -= size
        if min(self._plain, self._packed) < 0 or (plain and math.prod(shape) and size > stored):
            raise self.fail(
                dataset,
                f"is of shape {shape} and type {_short(dataset.dtype)} but {stored} bytes are "
                "stored",
            )
        return shape

    def floats(self, dataset: h5d.DatasetID) -> np.ndarray:
        """Return a data set of numbers as float32."""
        numbers = dataset.get_type().get_class() in (h5t.INTEGER, h5t.FLOAT)
        if not numbers or dataset.get_space().get_simple_extent_type() == h5s.NULL:
            raise self.fail(dataset, f"is of type {_short(dataset.dtype)}: no numbers")
        values = np.empty(self._spend(dataset), np.float32)
        if values.size:
            dataset.read(h5s.ALL, h5s.ALL, values)
        return values

    def scalar(self, entry: h5i.ObjectID) -> object:
        """Return the value of a data set of one value."""
        if not isinstance(entry, h5d.DatasetID) or entry.get_space().get_select_npoints() != 1:
            raise self.fail(entry, "is no single value")
        self._spend(entry)
        value = h5py.Dataset(entry)[()]
        return value.reshape(-1)[0] if isinstance(value, np.ndarray) else value

    def whole(self, entry: h5i.ObjectID) -> int:
        """Return the value of a data set of one whole number, 0 or more."""
        value = self.scalar(entry)
        if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**31:
            raise self.fail(entry, "is no whole number of 0 or more")
        return int(value)

    def member(self, group: h5g.GroupID, key: bytes) -> h5i.ObjectID:
        """Return an entry of a group that lies in this file."""
        try:
            entry = find(self.root, group, key)
        except ElsewhereError:
            entry = None
        if entry is None:
            name = key.decode("utf-8", "replace")
            raise self.fail(group, f"has '{_short(name)}' as a link to nothing in this file")
        return entry

    def members(self, group: h5g.GroupID) -> dict[bytes, h5i.ObjectID]:
        """Return all entries of a group, in the order of their names."""
        if group.get_num_objs() > limits.HDF5_ENTRIES:
            raise self.fail(group, _TOO_MUCH)
        return {key: self.member(group, key) for key in group}

    def indexed(
        self, group: h5g.GroupID, entries: Mapping[bytes, h5i.ObjectID]
    ) -> list[np.ndarray | None]:
        """Return the data sets 0, 1, ... of a group; None for those that another layer owns."""
        numbers = sorted(int(key) for key in entries if _INDEX.fullmatch(key))
        values: list[np.ndarray | None] = [None] * (numbers[-1] + 1 if numbers else 0)
        for index in numbers:
            entry = entries[b"%d" % index]
            if not isinstance(entry, h5d.DatasetID):
                raise self.fail(entry, "is a group where numbers should be")
            values[index] = self.floats(entry)
        return values

    def groups(
        self, top: h5g.GroupID
    ) -> Iterator[tuple[str, h5g.GroupID, dict[bytes, h5i.ObjectID]]]:
        """Yield the groups below `top`: name, group and entries, in the order of the names."""
        count = 0
        waiting = [((), top)]
        while waiting:
            path, group = waiting.pop()
            if len(path) > limits.HDF5_DEPTH:
                raise self.fail(group, _TOO_MUCH)
            entries = self.members(group)
            count += len(entries)
            if count > limits.HDF5_ENTRIES:
                raise self.fail(group, _TOO_MUCH)
            if path:
                try:
                    name = b"/".join(path).decode()
                except UnicodeDecodeError:
                    raise self.fail(group, "has a name that is no UTF-8") from None
                yield name, group, entries
            for key, entry in reversed(entries.items()):
                if isinstance(entry, h5g.GroupID):
                    waiting.append(((*path, key), entry))


def _no_weights(root: h5g.GroupID, path: str) -> str:
    """Return what an HDF5 file holds in place of weights."""
    if b"model_prototxt" in root:
        name = os.path.basename(path).removesuffix(".modeldef.h5")
        return (
            "holds the model definition of caffe_unet, not weights: these are in "
            f"{name}.caffemodel.h5"
        )
    if b"iter" in root and b"history" in root:
        return "holds a solver state, not weights: these are in the .caffemodel.h5 beside it"
    if b"data" in root:
        return "holds data, /data is not a group: it is not a file of weights"
    return "has no group /data: it holds no weights of Caffe"


def read_layers(path: str) -> dict[str, list[np.ndarray | None]]:
    """Read the parameters from Caffe's HDF5; as `caffemodel.read_layers`."""
    weights: dict[str, list[np.ndarray | None]] = {}
    with _opened(path, "HDF5 weights") as file:
        reader = _Reader(path, file)
        top = reader.member(reader.root, b"data") if reader.root.links.exists(b"data") else None
        if not isinstance(top, h5g.GroupID):
            raise CaffeError(f"{path}: {_no_weights(reader.root, path)}")
        # A layer's name may hold a slash: its group lies deeper then.
        for name, group, entries in reader.groups(top):
            if not entries or any(map(_INDEX.fullmatch, entries)):
                weights[name] = reader.indexed(group, entries)
    return weights


def write_weights_hdf5(
    path: str | os.PathLike,
    blobs: Mapping[str, Sequence[np.ndarray | None]],
    diffs: Mapping[str, Sequence[np.ndarray | None]] | None = None,
) -> None:
    """Write parameters, and gradients if given, as Caffe's HDF5; whole or not at all.

    Arrays, by layer, go as float32 to /data/<layer>/<index> and /diff/<layer>/<index>; None is left
    out.
    """
    with written_hdf5(path) as file:
        for group, arrays in (("data", blobs), ("diff", diffs)):
            if arrays is None:
                continue
            top = file.create_group(group)
            for name, values in arrays.items():
                layer = top.require_group(name)
                for index, array in enumerate(values):
                    if array is not None:
                        layer.create_dataset(str(index), data=np.asarray(array, np.float32))


def write_solverstate(path: str | os.PathLike, state: SolverState) -> None:
    """Write a solver state; whole or not at all."""
    name = state.learned_net.encode()
    with written_hdf5(path) as file:
        file.create_dataset("iter", data=np.array([state.iteration], np.int32))
        # Genuine Caffe reads a string of fixed length up to its final zero.
        file.create_dataset("learned_net", data=np.array(name, dtype=f"S{len(name) + 1}"))
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        group = file.create_group("history")
        for index, array in enumerate(state.history):
            group.create_dataset(str(index), data=np.asarray(array, np.float32))


def read_solverstate(path: str) -> SolverState:
    """Read a solver state; as `caffemodel.read_solverstate`."""
    with _opened(path, "a solver state") as file:
        reader = _Reader(path, file)
        entries = reader.members(reader.root)
        for key in (b"iter", b"history"):
            if key not in entries:
                raise CaffeError(f"{path}: has no /{key.decode()}: it is no solver state of Caffe")
        group = entries[b"history"]
        if not isinstance(group, h5g.GroupID):
            raise CaffeError(f"{path}: /history is no group")
        history = reader.indexed(group, reader.members(group))
        missing = [index for index, entry in enumerate(history) if entry is None]
        if missing:
            raise CaffeError(f"{path}: /history/{missing[0]} is missing")
        name = reader.scalar(entries[b"learned_net"]) if b"learned_net" in entries else b""
        return SolverState(
            reader.whole(entries[b"iter"]),
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
            history,
            reader.whole(entries[b"current_step"]) if b"current_step" in entries else 0,
        )
