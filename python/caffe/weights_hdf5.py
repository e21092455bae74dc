"""Parameters and solver states in HDF5, laid out as genuine Caffe does."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import h5py
import numpy as np

from caffe.errors import CaffeError
from caffe.files import atomic_path

_MAGIC = b"\x89HDF\r\n\x1a\n"

# Caffe does not compress. Who does so afterwards shrinks trained parameters by little; zeros, as in
# a new history, by 1000, but what claims that of hundreds of megabytes is a trap for memory.
_PACKED = 64 * 2**20
_COMPRESSION = 20

# More layers and parameters than any network has.
_MAX_ENTRIES = 6_000
_MAX_DEPTH = 20
_QUOTED = 200

_INDEX = re.compile("0|[1-9][0-9]{0,4}")


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
    return told if len(told) <= _QUOTED else f"{told[:_QUOTED]}..."


class _Reader:
    """Reads the data sets of one file, and no more of them than the file can hold.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Bytes that are left to read: links may show one data set many times.
        size = os.path.getsize(path)
        self._plain, self._packed = size, max(_PACKED, _COMPRESSION * size)

    def fail(self, entry: h5py.HLObject, what: str) -> CaffeError:
        """Return an error that names the file and the entry."""
        return CaffeError(f"{self.path}: {_short(entry.name)} {what}")

    def _spend(self, dataset: h5py.Dataset) -> None:
        layout = dataset.id.get_create_plist()
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise self.fail(dataset, "lies in another file; copy it into this one")
        plain = layout.get_nfilters() == 0
        stored, shape = dataset.id.get_storage_size(), dataset.shape
        count = max(math.prod(shape), math.prod(dataset.chunks or ()))
        size = dataset.dtype.itemsize * count
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

    def floats(self, dataset: h5py.Dataset) -> np.ndarray:
        """Return a data set of numbers as float32."""
        if dataset.shape is None or dataset.dtype.kind not in "fiu":
            raise self.fail(dataset, f"is of type {_short(dataset.dtype)}: no numbers")
        self._spend(dataset)
        values = np.empty(dataset.shape, np.float32)
        if values.size:
            dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values

    def scalar(self, entry: h5py.HLObject) -> object:
        """Return the value of a data set of one value."""
        if not isinstance(entry, h5py.Dataset) or entry.size != 1:
            raise self.fail(entry, "is no single value")
        self._spend(entry)
        value = entry[()]
        return value.reshape(-1)[0] if isinstance(value, np.ndarray) else value

    def whole(self, entry: h5py.HLObject) -> int:
        """Return the value of a data set of one whole number, 0 or more."""
        value = self.scalar(entry)
        if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**31:
            raise self.fail(entry, "is no whole number of 0 or more")
        return int(value)

    def member(self, group: h5py.Group, key: str) -> h5py.HLObject:
        """Return an entry of a group that lies in this file."""
        # Other links lead to any file, or to none.
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise self.fail(group, f"has {key!r} as a link to something else")
        return group[key]

    def indexed(self, group: h5py.Group) -> list[np.ndarray | None]:
        """Return the data sets 0, 1, ...; None for those that another layer owns."""
        numbers = sorted(int(key) for key in group if _INDEX.fullmatch(str(key)))
        values: list[np.ndarray | None] = [None] * (numbers[-1] + 1 if numbers else 0)
        for index in numbers:
            entry = self.member(group, str(index))
            if not isinstance(entry, h5py.Dataset):
                raise self.fail(entry, "is a group where numbers should be")
            values[index] = self.floats(entry)
        return values

    def groups(self, top: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
        """Yield all groups and their names within `top`, in the order of the names."""
        entries = 0
        waiting = [("", top)]
        while waiting:
            name, group = waiting.pop()
            entries += len(group)
            if entries > _MAX_ENTRIES or name.count("/") > _MAX_DEPTH:
                raise self.fail(
                    group,
                    f"is too much: no file of Caffe has more than {_MAX_ENTRIES} entries, or "
                    f"groups more than {_MAX_DEPTH} deep",
                )
            yield name, group
            for key in reversed(group):
                if not isinstance(key, str):
                    raise self.fail(group, f"has the name {_short(key)}, which is no text")
                if group.get(key, getclass=True) is h5py.Group:
                    waiting.append((f"{name}/{key}" if name else key, self.member(group, key)))


def read_layers(path: str) -> dict[str, list[np.ndarray | None]]:
    """Read the parameters from Caffe's HDF5; as `weights_io.read_layers`."""
    weights: dict[str, list[np.ndarray | None]] = {}
    with _opened(path, "HDF5 weights") as file:
        reader = _Reader(path)
        if "data" not in file or not isinstance(reader.member(file, "data"), h5py.Group):
            raise CaffeError(f"{path}: has no group /data: it holds no weights of Caffe")
        # A layer's name may hold a slash: its group lies deeper then.
        for name, group in reader.groups(file["data"]):
            if name and (len(group) == 0 or any(map(_INDEX.fullmatch, group))):
                weights[name] = reader.indexed(group)
    return weights


def write_weights_hdf5(
    path: str | os.PathLike,
    blobs: Mapping[str, Sequence[np.ndarray | None]],
    diffs: Mapping[str, Sequence[np.ndarray | None]] | None = None,
) -> None:
    """Write parameters, and gradients if given, as Caffe's HDF5; whole or not at all.

    Parameters
    ----------
    path : path
    blobs : mapping
        Layer name -> arrays, written as float32 to /data/<layer>/<index>; None is left out.
    diffs : mapping
        The same for /diff.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for group, arrays in (("data", blobs), ("diff", diffs)):
            if arrays is None:
                continue
            top = file.create_group(group)
            for name, values in arrays.items():
                layer = top.require_group(name)
                for index, array in enumerate(values):
                    if array is not None:
                        layer.create_dataset(str(index), data=np.asarray(array, np.float32))


def write_solverstate(
    path: str | os.PathLike,
    iteration: int,
    learned_net: str,
    history: Sequence[np.ndarray],
    current_step: int,
) -> None:
    """Write a solver state; as `weights_io.write_solverstate`."""
    name = learned_net.encode()
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("iter", data=np.array([iteration], np.int32))
        # Genuine Caffe reads a string of fixed length up to its final zero.
        file.create_dataset("learned_net", data=np.array(name, dtype=f"S{len(name) + 1}"))
        file.create_dataset("current_step", data=np.array([current_step], np.int32))
        group = file.create_group("history")
        for index, array in enumerate(history):
            group.create_dataset(str(index), data=np.asarray(array, np.float32))


def read_solverstate(path: str) -> tuple[int, str, list[np.ndarray], int]:
    """Return (iteration, learned_net, history, current_step) of a solver state in HDF5."""
    with _opened(path, "a solver state") as file:
        reader = _Reader(path)
        entries = {
            key: reader.member(file, key)
            for key in ("iter", "history", "learned_net", "current_step")
            if key in file
        }
        for key in ("iter", "history"):
            if key not in entries:
                raise CaffeError(f"{path}: has no /{key}: it is no solver state of Caffe")
        group = entries["history"]
        if not isinstance(group, h5py.Group):
            raise CaffeError(f"{path}: /history is no group")
        if len(group) > _MAX_ENTRIES:
            raise CaffeError(f"{path}: /history has more than {_MAX_ENTRIES} entries")
        history = reader.indexed(group)
        missing = [index for index, entry in enumerate(history) if entry is None]
        if missing:
            raise CaffeError(f"{path}: /history/{missing[0]} is missing")
        name = reader.scalar(entries["learned_net"]) if "learned_net" in entries else b""
        return (
            reader.whole(entries["iter"]),
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
            history,
            reader.whole(entries["current_step"]) if "current_step" in entries else 0,
        )
