"""Folders of pictures: each file a slice, or all of them one OME-TIFF."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable

import numpy as np

from unet.errors import InputError
from unet.files.names import natural_key
from unet.volumes.images import Volume
from unet.volumes.readers.axes import Selection
from unet.volumes.readers.colours import grey_if_equal
from unet.volumes.readers.pictures import open_picture
from unet.volumes.readers.tiff import files_of_ome, open_tiff

_TIME_AND_DEPTH = re.compile(r"(?:.*[\W_])?t(\d{1,9})[\W_]*z(\d{1,9})(?:[\W_].*)?", re.IGNORECASE)
#: How the files are called that a folder's slices are taken from, and what they are.
KINDS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}


def open_folder(path: Path, selection: Selection | None = None) -> Volume:
    """Open a folder of PNG, TIFF or JPEG files, one slice each, in natural order of the names.

    Files of an OME-TIFF that name each other are put together as they say. Refused are several
    formats in one folder, and files with several slices.
    """
    selection = selection or Selection()
    with os.scandir(path) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and _kind(entry.name) is not None
        ]
    if not names:
        raise InputError(f"{path}: the folder holds no PNG, TIFF or JPEG files and is no Zarr")
    kinds = sorted({str(_kind(name)) for name in names})
    if len(kinds) > 1:
        found = sorted({os.path.splitext(name)[1].lower() for name in names})
        raise InputError(f"{path}: holds {' and '.join(found)} files; leave one kind in the folder")
    names.sort(key=natural_key)
    files = [path / name for name in names]
    if kinds == ["TIFF"]:
        together = files_of_ome(files[0])
        if len(together) > 1 and together >= set(names):
            return open_tiff(files[0], selection)
        if len(together & set(names)) > 1:
            raise InputError(
                f"{path}: {names[0]} is part of an OME-TIFF of {len(together)} files, and others "
                f"lie beside them; name {files[0]} to open that, or leave one in the folder"
            )
    stored = replace(selection, as_stored=True)
    reader = open_tiff if kinds == ["TIFF"] else open_picture
    volume = join_files(
        path, files, lambda file: reader(file, stored), "in a folder each file is one"
    )
    volume.calibration = replace(volume.calibration, times=_times(names))
    return grey_if_equal(volume, selection) if volume.is_coloured else volume


def _times(names: Sequence[str]) -> int:
    """Return how many time points files are of that are called t0_z0, t0_z1, ..., t1_z0, ...

    1, unless the names are such and each time point has the same depths, several of them.
    """
    found = [_TIME_AND_DEPTH.fullmatch(os.path.splitext(name)[0]) for name in names]
    if not all(found):
        return 1
    places = [(int(one[1]), int(one[2])) for one in found if one]
    times, depths = (sorted(set(column)) for column in zip(*places))
    is_grid = places == list(itertools.product(times, depths))
    return len(times) if is_grid and len(depths) > 1 else 1


def _kind(name: str) -> str | None:
    return KINDS.get(os.path.splitext(name)[1].lower())


def join_files(
    path: Path, files: Sequence[Path], open_one: Callable[[Path], Volume], rule: str
) -> Volume:
    """Make a stack of files of one slice each, which are opened when their slice is read.

    All must be of the first one's size and type; `rule` tells why a file may not hold several.
    """

    def one(file: Path) -> Volume:
        volume = open_one(file)
        if len(volume) != 1:
            volume.close()
            raise InputError(f"{file}: holds {len(volume)} slices; {rule}")
        return volume

    with one(files[0]) as first:
        shape, dtype, coloured = first.shape[1:], first.dtype, first.is_coloured
        calibration = first.calibration

    def opened(z: int) -> Volume:
        volume = one(files[z])
        for given, wanted in ((volume.dtype, dtype), (volume.shape[1:], shape)):
            if given != wanted:
                volume.close()
                raise InputError(f"{volume.path}: is {given}, but {files[0].name} is {wanted}")
        return volume

    def read(z: int) -> np.ndarray:
        with opened(z) as volume:
            return volume[0]

    def part(z: int, rows: slice, columns: slice) -> np.ndarray:
        with opened(z) as volume:
            return volume.region(0, rows, columns)

    volume = Volume(
        str(path), (len(files),) + shape, dtype, read, calibration=calibration, part=part
    )
    volume.names = tuple(file.name for file in files)
    volume.is_coloured = coloured
    return volume
