"""Parameters and solver states in HDF5, laid out as genuine Caffe does."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import h5py
import numpy as np

from caffe.errors import CaffeError
from caffe.files import atomic_path

_MAGIC = b"\x89HDF\r\n\x1a\n"

# Deflate cannot shrink by more: what claims to is a trap for memory.
_MOST_COMPRESSION = 1100

_INDEX = re.compile("[0-9]{1,5}")


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


def _floats(dataset: h5py.Dataset, path: str) -> np.ndarray:
    stored = dataset.id.get_storage_size()
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize * dataset.size > (
        _MOST_COMPRESSION * stored
    ):
        raise CaffeError(
            f"{path}: {dataset.name} is of shape {dataset.shape} and type {dataset.dtype} but "
            f"{stored} bytes are stored"
        )
    return np.asarray(dataset, np.float32)


def _indexed(group: h5py.Group, path: str) -> list[np.ndarray | None]:
    values: list[np.ndarray | None] = []
    # Numbered 0, 1, ... without a gap, but for the parameters that another layer owns.
    last = max((int(key) for key in group if _INDEX.fullmatch(str(key))), default=-1)
    for index in range(last + 1):
        entry = group.get(str(index))
        if entry is not None and not isinstance(entry, h5py.Dataset):
            raise CaffeError(f"{path}: {entry.name} is a group where numbers should be")
        values.append(None if entry is None else _floats(entry, path))
    return values


def read_layers(path: str) -> dict[str, list[np.ndarray | None]]:
    """Read the parameters from Caffe's HDF5; as `weights_io.read_layers`."""
    weights: dict[str, list[np.ndarray | None]] = {}
    with _opened(path, "HDF5 weights") as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise CaffeError(f"{path}: has no group /data: it holds no weights of Caffe")

        def visit(name: str, entry: h5py.Group | h5py.Dataset) -> None:
            # A layer's name may hold a slash: its group lies deeper then.
            if not isinstance(name, str):
                raise CaffeError(f"{path}: the name {name!r} is no text")
            if isinstance(entry, h5py.Dataset):
                layer = name.rpartition("/")[0]
                if layer and layer not in weights:
                    weights[layer] = _indexed(entry.parent, path)
            elif not len(entry):
                weights[name] = []

        file["data"].visititems(visit)
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
        for key in ("iter", "history"):
            if key not in file:
                raise CaffeError(f"{path}: has no /{key}: it is no solver state of Caffe")
        if not isinstance(file["history"], h5py.Group):
            raise CaffeError(f"{path}: /history is no group")
        history = _indexed(file["history"], path)
        missing = [index for index, entry in enumerate(history) if entry is None]
        if missing:
            raise CaffeError(f"{path}: /history/{missing[0]} is missing")
        name = file["learned_net"][()] if "learned_net" in file else b""
        step = file["current_step"][()] if "current_step" in file else 0
        return (
            int(np.ravel(file["iter"][()])[0]),
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
            history,
            int(np.ravel(step)[0]),
        )
