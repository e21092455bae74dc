"""HDF5 of Imaris and of BigDataViewer: a dataset for each level, time point and channel.

References
----------
Imaris 5.5 file format, Oxford Instruments. Pietzsch et al., BigDataViewer: visualization and
processing for large image data sets, Nature Methods 12 (2015).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.hdf5 import check_filters, find
from unet.files.names import natural_key
from unet.volumes.images import Volume
from unet.volumes.readers.arrays import array_volume
from unet.volumes.readers.axes import Selection
from unet.volumes.units import length_unit

_IMARIS_DATA = "DataSet"
_BDV_TIME, _BDV_SETUP = re.compile(r"t\d{5,}"), re.compile(r"s\d{2,}")
_BDV_CELLS = re.compile(r"t\d{5,}/s\d{2,}/\d+/cells")


@dataclass(frozen=True)
class _Picture:
    """The datasets of a picture, by time point and channel, and what is known of them.

    `size` is (z, y, x): Imaris stores whole chunks, beyond the picture, too.
    """

    names: Sequence[Sequence[str]]
    size: tuple[int, int, int]
    spacing: dict[str, Any] = field(default_factory=dict)


def open_hdf5_of_microscope(
    path: Path, file: h5py.File, dataset: str | None, selection: Selection
) -> Volume | None:
    """Open a file of Imaris or BigDataViewer; None if it is neither.

    Setups of BigDataViewer (channels, angles, tiles) are scenes.

    Raises
    ------
    InputError
        If a dataset is named, of several scenes none is chosen, or a part is missing.
    """
    if _members(file, f"{_IMARIS_DATA}/ResolutionLevel 0"):
        found = _imaris
        inside = (dataset or "").strip("/").startswith(f"{_IMARIS_DATA}/")
    elif _setups(file):
        found = _big_data_viewer
        inside = _BDV_CELLS.fullmatch((dataset or "").strip("/")) is not None
    else:
        return None
    if dataset is not None:
        if inside:
            raise InputError(
                f"{path}: {dataset} is one of many parts of a picture: name the file alone, and "
                f"choose with --level, --time, --channel or --scene"
            )
        return None
    picture = found(path, file, selection)
    array = _Parts(file, picture)
    return array_volume(
        str(path), array, "TCZYX", array.chunks, selection, picture.spacing, file.close
    )


class _Parts:
    """An array (time, channel, z, y, x) of datasets; a time point is indexed by its number."""

    def __init__(self, file: h5py.File, picture: _Picture) -> None:
        self._file, self._picture = file, picture
        first = self._dataset(0, 0)
        check_filters(file.filename, first)
        # Java has no unsigned numbers: BigDataViewer stores them as signed ones.
        self._is_unsigned = _BDV_CELLS.fullmatch(picture.names[0][0]) and first.dtype.kind == "i"
        self.dtype = np.dtype(f"u{first.dtype.itemsize}") if self._is_unsigned else first.dtype
        self.shape = (len(picture.names), len(picture.names[0]), *picture.size)
        self.chunks = (1, 1, *(first.chunks or picture.size))

    def _dataset(self, time: int, channel: int) -> h5py.Dataset:
        name = self._picture.names[time][channel]
        found = find(self._file, name)
        if not isinstance(found, h5py.Dataset):
            raise InputError(f"{self._file.filename}: /{name} is missing; is the file whole?")
        if any(have < size for have, size in zip(found.shape, self._picture.size)):
            raise InputError(
                f"{self._file.filename}: /{name} is {found.shape}, but the picture "
                f"{self._picture.size}"
            )
        return found

    def __getitem__(self, index: tuple) -> np.ndarray:
        time, channel, *within = index
        inner = tuple(
            slice(*one.indices(size)) if isinstance(one, slice) else one
            for one, size in zip(within, self._picture.size)
        )
        if isinstance(channel, slice):
            wanted = range(*channel.indices(self.shape[1]))
            image = np.stack([self._dataset(time, c)[inner] for c in wanted])
        else:
            image = self._dataset(time, channel)[inner]
        return image.astype(self.dtype) if self._is_unsigned else image


def _imaris(path: Path, file: h5py.File, selection: Selection) -> _Picture:
    selection.one_of("scene", str(path), [""])
    levels = _sorted(file, _IMARIS_DATA, "ResolutionLevel")
    level = selection.one_of("level", str(path), [""] * len(levels)) or 0
    top = f"{_IMARIS_DATA}/{levels[level]}"
    times = _sorted(file, top, "TimePoint")
    channels = _sorted(file, f"{top}/{times[0]}", "Channel") if times else []
    if not channels:
        raise InputError(f"{path}: is of Imaris and holds no picture at level {level}")
    names = [[f"{top}/{time}/{channel}/Data" for channel in channels] for time in times]
    told = _attributes(file, f"{top}/{times[0]}/{channels[0]}")
    sizes = [_number(told, f"ImageSize{axis}") for axis in "ZYX"]
    if None in sizes and level == 0:
        # Other programs write them here alone.
        sizes = [_number(_attributes(file, "DataSetInfo/Image"), axis) for axis in "ZYX"]
    if None in sizes:
        raise InputError(
            f"{path}: is of Imaris and does not tell how large its picture is at level {level}; "
            f"save it as OME-TIFF (in Fiji, by Bio-Formats)"
        )
    size = (int(sizes[0] or 0), int(sizes[1] or 0), int(sizes[2] or 0))
    return _Picture(names, size, _imaris_spacing(file, size))


def _imaris_spacing(file: h5py.File, size: tuple[int, int, int]) -> dict[str, Any]:
    spacing: dict[str, Any] = {}
    about = _attributes(file, "DataSetInfo/Image")
    ends = [(_number(about, f"ExtMin{k}"), _number(about, f"ExtMax{k}")) for k in (2, 1, 0)]
    unit = length_unit(_text(about, "Unit") or "um")
    if unit is not None and all(None not in pair and pair[0] < pair[1] for pair in ends):
        steps = ((pair[1] - pair[0]) / count for pair, count in zip(ends, size))
        spacing.update(pixel_size=tuple(steps), unit=unit)
    when = _attributes(file, "DataSetInfo/TimeInfo")
    try:
        first, second = (datetime.fromisoformat(_text(when, f"TimePoint{k}")) for k in (1, 2))
    except ValueError:
        # One time point only.
        return spacing
    if second > first:
        spacing.update(interval=(second - first).total_seconds(), interval_unit="s")
    return spacing


def _big_data_viewer(path: Path, file: h5py.File, selection: Selection) -> _Picture:
    setups = _setups(file)
    what = "setups, which are channels, angles or tiles"
    setup = setups[selection.scene_of(str(path), setups, what)]
    times = [t for t in _texts(file) if _BDV_TIME.fullmatch(t) and setup in _members(file, t)]
    times.sort(key=natural_key)
    if not times:
        raise InputError(f"{path}: holds no time point of the setup {setup}")
    scales = np.asarray(find(file, f"{setup}/resolutions"))
    level = selection.one_of("level", str(path), [""] * len(scales)) or 0
    names = [[f"{time}/{setup}/{level}/cells"] for time in times]
    first = find(file, names[0][0])
    if not isinstance(first, h5py.Dataset):
        raise InputError(f"{path}: /{names[0][0]} is missing; is the file whole?")
    return _Picture(names, first.shape, _bdv_spacing(path, setup, scales[level]))


def _bdv_spacing(path: Path, setup: str, scale: Sequence[float]) -> dict[str, Any]:
    """Return what the XML beside the file tells of a setup; it is (x, y, z)."""
    try:
        root = ElementTree.parse(path.with_suffix(".xml")).getroot()
    except (OSError, ElementTree.ParseError):
        return {}
    for view in root.iter("ViewSetup"):
        voxel = view.find("voxelSize")
        if voxel is None or int(view.findtext("id", "-1")) != int(setup[1:]):
            continue
        unit = length_unit(voxel.findtext("unit", ""))
        steps = [float(step) for step in voxel.findtext("size", "").split()]
        if unit is not None and len(steps) == 3:
            z, y, x = (step * float(by) for step, by in zip(steps[::-1], scale[::-1]))
            return {"pixel_size": (z, y, x), "unit": unit}
    return {}


def _setups(file: h5py.File) -> list[str]:
    names = _texts(file)
    if not any(_BDV_TIME.fullmatch(name) for name in names):
        return []
    found = [name for name in names if _BDV_SETUP.fullmatch(name)]
    return sorted((n for n in found if "resolutions" in _members(file, n)), key=natural_key)


def _texts(group: h5py.Group) -> list[str]:
    """Return the names in a group that are text; h5py gives others, not in UTF-8, as bytes."""
    return [name for name in group if isinstance(name, str)]


def _members(file: h5py.File, name: str) -> list[str]:
    """Return what a group holds; nothing where there is none."""
    found = find(file, name)
    return _texts(found) if isinstance(found, h5py.Group) else []


def _sorted(file: h5py.File, name: str, kind: str) -> list[str]:
    return sorted((n for n in _members(file, name) if n.startswith(f"{kind} ")), key=natural_key)


def _attributes(file: h5py.File, name: str) -> Any:
    found = find(file, name)
    return {} if found is None else found.attrs


def _text(told: Any, name: str) -> str:
    """Return an attribute of Imaris, which is an array of letters."""
    return np.asarray(told.get(name, ())).astype("S").tobytes().decode("latin-1").strip("\0 ")


def _number(told: Any, name: str) -> float | None:
    try:
        return float(_text(told, name))
    except ValueError:
        return None
