"""HDF5 files: what is read lies in the file itself, what is written is whole or absent.

In a file of somebody else a link, or the numbers of a data set, may lie in any file that the reader
can open. `unet.files.hdf5` guards the method alike, with code of its own: it also runs on genuine
Caffe, without this package.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import h5py
from h5py import h5d, h5g, h5i, h5l, h5o

from caffe.files.atomic import atomic_path

# As many as Linux follows from file to file.
_MOST_LINKS = 40


class ElsewhereError(ValueError):
    """Something in a file lies outside it."""


def find(root: h5g.GroupID, group: h5g.GroupID, name: bytes) -> h5i.ObjectID | None:
    """Return what a name in a group of the file `root` means, by links within it; or None.

    Raises
    ------
    ElsewhereError
        If the name leads out of the file, or in a circle.
    """
    entry: h5i.ObjectID = group
    links = 0
    waiting = _parts(name)
    while waiting:
        part = waiting.pop()
        # `part in entry` would follow a link.
        if not isinstance(entry, h5g.GroupID) or not entry.links.exists(part):
            return None
        kind = entry.links.get_info(part).type
        if kind == h5l.TYPE_HARD:
            entry = h5o.open(entry, part)
            continue
        links += 1
        if kind != h5l.TYPE_SOFT or links > _MOST_LINKS:
            raise ElsewhereError("is a link out of the file, or in a circle")
        target = entry.links.get_val(part)
        waiting += _parts(target)
        if target.startswith(b"/"):
            entry = root
    return entry


def _parts(name: bytes) -> list[bytes]:
    """Return the names between the slashes, the last one first."""
    return [part for part in name.split(b"/") if part not in (b"", b".")][::-1]


def lies_elsewhere(dataset: h5d.DatasetID) -> bool:
    """Tell whether the numbers of a data set lie in other files, or in other data sets."""
    layout = dataset.get_create_plist()
    return layout.get_layout() == h5d.VIRTUAL or layout.get_external_count() > 0


@contextlib.contextmanager
def written_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield an HDF5 file that is made in memory, and written to `path` on success.

    HDF5 itself, where it cannot write, ends the process with a segmentation fault.
    """
    with (
        atomic_path(path) as temporary,
        h5py.File(temporary, "w", driver="core", backing_store=False) as file,
    ):
        yield file
        file.flush()
        temporary.write_bytes(file.id.get_file_image())
