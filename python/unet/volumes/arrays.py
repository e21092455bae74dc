"""Stacks as arrays of HDF5 files and Zarr directories, read slice by slice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.hdf5 import (
    check_all_inside,
    damage_is_told,
    datasets,
    find,
    open_hdf5_file,
    shape_of,
)
from unet.volumes.images import Volume

ZARR_MARKS = (".zarray", ".zgroup", "zarr.json")
# A chunk may span many slices; so much is kept rather than decoded again for each.
_SLAB_BYTES = 256 << 20


def open_hdf5(path: Path, dataset: str | None) -> Volume:
    """Open a dataset of an HDF5 file; by default the only stack there is.

    Refused is a damaged file, and a dataset that is missing, not unique, of the wrong shape or in
    another file.
    """
    file = open_hdf5_file(path)
    try:
        with damage_is_told(path):
            name = (dataset or "").strip("/")
            array = find(file, name) if name else None
            if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "buif":
                found = [
                    (name, shape_of(item))
                    for name, item in datasets(file)
                    if item.dtype.kind in "buif"
                ]
                if not found:
                    check_all_inside(file)
                name = choose(str(path), found, dataset)
                array = find(file, name)
            return _array_volume(f"{path}:/{name}", array, array.chunks, file.close)
    except BaseException:
        file.close()
        raise


def open_zarr(path: Path, dataset: str | None) -> Volume:
    """Open an array of a Zarr directory, version 2 or 3; by default the only stack there is.

    Refused is a damaged directory, and an array that is missing, not unique or of the wrong shape.
    """
    try:
        import zarr
    except ImportError:
        raise InputError(f"{path}: reading Zarr needs the package zarr; install it") from None
    try:
        root = zarr.open(_store_of(path), mode="r")
        if isinstance(root, zarr.Array):
            return _zarr_volume(str(path), root)
        found = [(name, array.shape) for name, array in _zarr_arrays(root)]
        name = choose(str(path), found, dataset)
        return _zarr_volume(f"{path}:/{name}", root[name])
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # As with TIFF: whatever the damaged metadata breaks first.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as Zarr ({reason}); is it whole?") from None


def _store_of(path: Path) -> object:
    """Return a store of zarr's, version 2 or 3, that reads no file outside the directory."""
    import zarr.storage

    root = os.path.realpath(path)

    def check(file: str) -> None:
        place = os.path.realpath(file)
        if os.path.commonpath([root, place]) != root:
            raise InputError(
                f"{path}: {os.path.relpath(file, path)} leads to {place}, out of the directory; "
                f"only what lies in it is read: copy it in place of the link"
            )

    if hasattr(zarr.storage, "DirectoryStore"):

        class Directory(zarr.storage.DirectoryStore):
            def _fromfile(self, fn: str) -> bytes:
                check(fn)
                return super()._fromfile(fn)

        return Directory(str(path))

    class Local(zarr.storage.LocalStore):
        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            check(os.path.join(self.root, key))
            return await super().get(key, *args, **options)

        def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
            check(os.path.join(self.root, key))
            return super().get_sync(key, *args, **options)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
            key_ranges = list(key_ranges)
            for key, _ in key_ranges:
                check(os.path.join(self.root, key))
            return await super().get_partial_values(prototype, key_ranges)

    return Local(str(path), read_only=True)


def _zarr_volume(name: str, array: Any) -> Volume:
    stored = getattr(array, "metadata", array)
    codecs = [getattr(stored, "compressor", None), *(getattr(stored, "filters", None) or ())]
    # Whoever wrote a pickle chose the code that runs when it is read.
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in codecs):
        raise InputError(f"{name}: is packed by pickle, which can run any program: it is not read")
    return _array_volume(name, array, array.chunks)


def _zarr_arrays(group: Any) -> Iterator[tuple[str, Any]]:
    waiting = [("", group)]
    while waiting:
        prefix, group = waiting.pop()
        for name, array in group.arrays():
            yield prefix + name, array
        waiting += reversed([(f"{prefix}{name}/", inner) for name, inner in group.groups()])


def choose(path: str, found: list[tuple[str, Sequence[int]]], dataset: str | None) -> str:
    """Return the name of the dataset meant: the one named, the only 3-D one, or the only one."""
    if dataset is not None:
        wanted = dataset.strip("/")
        if wanted in (name for name, _ in found):
            return wanted
        names = ", ".join(f"/{name}" for name, _ in found) or "none"
        raise InputError(f"{path}: has no dataset of numbers /{wanted}; it has {names}")
    for candidates in ([n for n, s in found if len(s) == 3], [n for n, s in found if len(s) > 1]):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(f"/{name}" for name in candidates)
            if {"raw", "labels", "weights"} <= {name for name, _ in found}:
                raise InputError(
                    f"{path}: is a training set where a stack is wanted; name its pictures, "
                    f"{path}:/raw, or its labels, {path}:/labels"
                )
            raise InputError(
                f"{path}: holds several stacks ({names}); name one: {path}:/{candidates[0]}"
            )
    raise InputError(f"{path}: holds no stack of pictures")


def _array_volume(
    name: str,
    array: object,
    chunks: Sequence[int] | None,
    close: Callable[[], None] = lambda: None,
) -> Volume:
    shape = tuple(array.shape)
    # OME-Zarr writes (time, channel, z, y, x) also where there is one time and one channel.
    ones = len(shape) - 3 if len(shape) > 4 else 0
    if len(shape) < 2 or any(size != 1 for size in shape[:ones]):
        raise InputError(
            f"{name}: is {shape}, not (slices, height, width) or (slices, channels, height, width)"
        )
    if len(shape) == 2:
        return Volume(name, (1,) + shape, array.dtype, lambda z: array[:], close)
    front = (0,) * ones
    depth = chunks[ones] if chunks else 1
    slab_bytes = depth * int(np.prod(shape[ones + 1 :], dtype=np.int64)) * array.dtype.itemsize
    if depth == 1 or slab_bytes > _SLAB_BYTES:
        return Volume(name, shape[ones:], array.dtype, lambda z: array[front + (z,)], close)
    kept: dict = {}

    def read(z: int) -> np.ndarray:
        first = z - z % depth
        if first not in kept:
            kept.clear()
            kept[first] = array[front + (slice(first, first + depth),)]
        return kept[first][z - first].copy()

    return Volume(name, shape[ones:], array.dtype, read, close)
