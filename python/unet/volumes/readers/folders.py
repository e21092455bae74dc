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

_TIME_AND_DEPTH = re.compile(
    r"(?:.*[\W_])?t(\d{1,9})[\W_]*z(\d{1,9})(?:(?:[\W_]|ch?\d).*)?", re.IGNORECASE
)
# As microscopes name files of one plane each: img_z0003_ch01, img_t1z3c1; exp_w1DAPI_t2 by
# MetaMorph, img_000000002_DAPI_000 by Micro-Manager 1.4.
_CHANNEL = re.compile(
    r"(?<![a-z])(?:channel|ch|c)[_-]?\d{1,3}(?!\d)|(?<=_)w\d[a-z][^\W_]*(?=_)", re.IGNORECASE
)
_OF_MICRO_MANAGER = re.compile(r"img_\d{9}_(.+)_\d{3}")
_PLACE = re.compile(r"(?<![a-z])[tz][_-]?\d{1,9}(?!\d)", re.IGNORECASE)
#: How the files are called that a folder's slices are taken from, and what they are.
KINDS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}


def open_folder(path: Path, selection: Selection | None = None) -> Volume:
    """Open a folder of PNG, TIFF or JPEG files, one slice each, in natural order of the names.

    Files of an OME-TIFF that name each other are put together as they say. Refused are several
    formats in one folder, and files with several slices.
    """
    selection = selection or Selection()
    with os.scandir(path) as entries:
        seen = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda e: e.name)
        names = [entry.name for entry in seen if _kind(entry.name) is not None]
        within = [entry.name for entry in seen if entry.is_dir()]
    if not names:
        if (path / "attributes.json").exists():
            raise InputError(
                f"{path}: is N5, which is not read; save it as OME-Zarr or TIFF (in Fiji)"
            )
        inner = f"name a folder in it, as {path / within[0]}" if within else "name a folder in it"
        raise InputError(
            f"{path}: the folder holds no PNG, TIFF or JPEG files and is no Zarr: save its "
            f"pictures as one of these, or {inner}"
        )
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
    names, selection = _of_channel(path, names, selection)
    files = [path / name for name in names]
    stored = replace(selection, as_stored=True)
    reader = open_tiff if kinds == ["TIFF"] else open_picture
    volume = join_files(
        path,
        files,
        lambda file: reader(file, stored),
        "in a folder each file is one: name the file itself",
    )
    volume.calibration = replace(volume.calibration, times=_times(names))
    return grey_if_equal(volume, selection) if volume.is_coloured else volume


def _of_channel(path: Path, names: list[str], selection: Selection) -> tuple[list[str], Selection]:
    """Return the files of the channel that is chosen, where names tell channels of each slice."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        match = _OF_MICRO_MANAGER.fullmatch(stem)
        start, stop = match.span(1) if match else (0, 0)
        if match is None and _PLACE.search(stem):
            match = _CHANNEL.search(stem)
            start, stop = match.span() if match else (0, 0)
        if match is None:
            return names, selection
        found.setdefault(stem[:start] + stem[stop:], {})[stem[start:stop]] = name
    channels = list(next(iter(found.values())))
    if len(channels) < 2 or any(sorted(one) != sorted(channels) for one in found.values()):
        return names, selection
    chosen = selection.one_of("channel", str(path), channels)
    if chosen is None:
        called = ", ".join(f"{k}: {channel}" for k, channel in enumerate(channels))
        raise InputError(
            f"{path}: holds {len(channels)} channels of each slice, by the names of its files "
            f"({called}); choose one with --channel"
        )
    return [one[channels[chosen]] for one in found.values()], replace(selection, channel=None)


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
        for given, wanted, what in (
            (volume.dtype, dtype, "type"),
            (volume.shape[1:], shape, "size, grey or colour"),
        ):
            if given != wanted:
                volume.close()
                raise InputError(
                    f"{volume.path}: is {given}, but {files[0].name} is {wanted}: bring the "
                    f"files of a folder to one {what}"
                )
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
