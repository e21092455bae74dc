"""HDF5 files that are written: whole or absent, also when the disk is full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import h5py

from caffe.files.atomic import atomic_path


@contextlib.contextmanager
def written_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield an HDF5 file that is made in memory, and written to `path` on success.

    HDF5 itself, where it cannot write, ends the process with a segmentation fault.

    Raises
    ------
    CaffeError
        If it cannot be written.
    """
    with (
        atomic_path(path) as temporary,
        h5py.File(temporary, "w", driver="core", backing_store=False) as file,
    ):
        yield file
        file.flush()
        temporary.write_bytes(file.id.get_file_image())
