"""A Zarr store that grows under its final name, says how far it is, and survives kills."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from unet.files.atomic import (
    atomic_folder,
    remove_folder,
    sweep_of,
    sync,
    sync_all,
    sync_files,
    writing,
)
from unet.volumes.writers.layout import Layout
from unet.volumes.writers.ome_zarr import (
    create_store,
    level_zero,
    note_complete,
    note_done,
    open_store,
    stored_axes,
    write_levels,
)

# Of the files that zarr was writing when it was killed.
_TORN = ".partial"


def make_store(layout: Layout) -> None:
    """Make the store, unless it is there; an `InputError` if it cannot be written."""
    with writing(layout.path):
        if not layout.path.exists() or not os.listdir(layout.path):
            with atomic_folder(layout.path) as fresh:
                create_store(fresh, layout)
        else:
            # Of a kill just after it was made.
            sweep_of(layout.path)


class ZarrInPlace:
    """An OME-Zarr image of `make_store`, filled where it lies, by one process or several.

    Until `finish` its metadata say that it is not complete, and how many slices are there.

    Parameters
    ----------
    layout : Layout

    Raises
    ------
    InputError
        If it cannot be written.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        # Folders that are on the disk.
        self._safe: set[Path] = {layout.path}
        with writing(layout.path):
            self._put = open_store(layout.path, layout)
            self._level = level_zero(layout.path, layout)

    def put(self, z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Write a part of slice z, of whole chunks; when this returns it is safe on the disk."""
        self.put_all([(z, rows, columns, values)])

    def put_all(self, parts: Iterable[tuple[int, slice, slice, np.ndarray]]) -> None:
        """Write parts of slices; when this returns all are safe on the disk.

        Parameters
        ----------
        parts : iterable of tuple
            Slice, rows, columns and values of each.
        """
        with writing(self._layout.path):
            chunks: list[Path] = []
            try:
                for z, rows, columns, values in parts:
                    self._put(z, rows, columns, values)
                    # Chunks of zeros have no file.
                    chunks += [path for path in self._chunks(z, rows, columns) if path.exists()]
            finally:
                # Also of those before one that does not go.
                sync_files([*chunks, *self._folders(chunks)])

    def _folders(self, chunks: Iterable[Path]) -> list[Path]:
        """Return the folders in which names of chunks, or of their folders, are new."""
        changed = dict.fromkeys(path.parent for path in chunks)
        for folder in list(changed):
            while folder not in self._safe:
                self._safe.add(folder)
                folder = folder.parent
                changed[folder] = None
        return list(changed)

    def _chunks(self, z: int, rows: slice, columns: slice) -> Iterator[Path]:
        place = self._layout.place(z)
        parts = {axis: slice(at, at + 1) for axis, at in place.items()}
        parts.update(Y=rows, X=columns)
        chunks = []
        for axis, size, step in zip(
            stored_axes(self._layout), self._level.shape, self._level.chunks
        ):
            part = parts.get(axis, slice(0, size))
            chunks.append(range(part.start // step, -(-part.stop // step)))
        for chunk in itertools.product(*chunks):
            if hasattr(self._level.metadata, "encode_chunk_key"):
                key = self._level.metadata.encode_chunk_key(chunk)
            else:
                key = "/".join(map(str, chunk))
            yield self._layout.path / "0" / key

    def note(self, slices: int) -> None:
        """Say in the metadata how many slices are there."""
        with writing(self._layout.path):
            note_done(self._layout.path, self._layout, slices)

    def finish(self) -> None:
        """Add the coarser levels, and say that it is complete."""
        path = self._layout.path
        with writing(path):
            for folder, _, names in os.walk(path):
                for name in names:
                    if name.endswith(_TORN):
                        os.unlink(os.path.join(folder, name))
            write_levels(path, self._layout)
            # Whoever reads that it is complete finds all of it on the disk; level 0 is.
            for level in os.listdir(path):
                if (path / level).is_dir() and level != "0":
                    sync_all(path / level)
            sync(path)
            note_complete(path, self._layout)

    def remove(self) -> None:
        """Remove it, since nothing is in it."""
        remove_folder(self._layout.path)
