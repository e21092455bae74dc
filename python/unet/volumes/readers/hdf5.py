"""Stacks as datasets of HDF5 files, with the axes that ilastik and the dimension scales tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unet.files.hdf5 import (
    check_all_inside,
    check_filters,
    damage_is_told,
    datasets,
    find,
    open_hdf5_file,
    shape_of,
)
from unet.volumes.images import Volume
from unet.volumes.readers.arrays import array_volume, axes_of_names, choose
from unet.volumes.readers.axes import Selection
from unet.volumes.readers.hdf5_of_microscopes import open_hdf5_of_microscope
from unet.volumes.units import length_unit, time_unit


def open_hdf5(path: Path, dataset: str | None, selection: Selection | None = None) -> Volume:
    """Open a dataset of an HDF5 file; by default the only stack there is.

    Refused is a damaged file, and a dataset that is missing, not unique, of the wrong shape or in
    another file.
    """
    file = open_hdf5_file(path)
    try:
        with damage_is_told(path):
            volume = open_hdf5_of_microscope(path, file, dataset, selection or Selection())
            if volume is not None:
                return volume
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
            check_filters(path, array)
            axes, spacing = _told(array)
            return array_volume(
                f"{path}:/{name}",
                array,
                axes,
                array.chunks,
                selection or Selection(),
                spacing,
                file.close,
            )
    except BaseException:
        file.close()
        raise


def _told(array: h5py.Dataset) -> tuple[str | None, dict[str, Any]]:
    """Return the axes that attributes of a dataset tell, and the spacing along them."""
    axes = axes_of_names([dimension.label for dimension in array.dims])
    spacing: dict[str, Any] = {}
    text = array.attrs.get("axistags")
    if isinstance(text, (str, bytes)):
        try:
            tags = json.loads(text)["axes"]
            found = axes_of_names([tag["key"] for tag in tags])
            if found is not None and len(found) == array.ndim:
                axes, spacing = found, _of_tags(found, tags)
        except (ValueError, KeyError, TypeError):
            # Of vigra's, not of this file's; then nothing is told.
            pass
    size = np.asarray(array.attrs.get("element_size_um", ()))
    if size.shape == (3,) and size.dtype.kind in "iuf" and (size > 0).all():
        z, y, x = (float(step) for step in size)
        spacing.update(pixel_size=(z, y, x), unit="µm")
    return axes, spacing


def _of_tags(axes: str, tags: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the spacing of vigra's axistags; a resolution of 0 is not known."""
    spacing: dict[str, Any] = {}
    step = {axis: float(tag.get("resolution") or 0) for axis, tag in zip(axes, tags)}
    said = {
        axis: str(tag.get("unit") or tag.get("description") or "") for axis, tag in zip(axes, tags)
    }
    unit = length_unit(said["X"])
    if unit is not None and step["X"] > 0:
        sizes = [
            step.get(axis) if length_unit(said.get(axis, "")) == unit else None for axis in "ZYX"
        ]
        spacing.update(pixel_size=tuple(size or None for size in sizes), unit=unit)
    if step.get("T", 0) > 0 and time_unit(said["T"]) is not None:
        spacing.update(interval=step["T"], interval_unit=time_unit(said["T"]))
    return spacing
