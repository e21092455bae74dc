"""A layer of napari as a stack that is read slice by slice, and where a result of it belongs."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from napari.layers import Layer

from unet.errors import InputError
from unet.volumes import Calibration, Volume
from unet.volumes.units import length_unit, time_unit


def finest(layer: Layer) -> Any:
    """Return the pixels of a layer, of a pyramid those of its finest level, as they are held."""
    return layer.data[0] if layer.multiscale else layer.data


def front_of(layer: Layer) -> tuple[int, ...]:
    """Return the lengths of a layer's axes before height and width: its slices count through them.

    Of (time, z, y, x) these are (times, depths), of a picture none.
    """
    return tuple(int(length) for length in finest(layer).shape[: layer.ndim - 2])


def stack_of(layer: Layer) -> Volume:
    """Take a layer of images or labels for a stack, of which nothing is read yet.

    Parameters
    ----------
    layer : napari.layers.Image or napari.layers.Labels
        Of any number of axes, the last two height and width; in colour, or a pyramid; its data an
        array, or one of dask or Zarr.

    Returns
    -------
    unet.volumes.Volume
        Shape (slices, height, width), of colours (slices, 3, height, width): transparency is left
        out. Slices, or parts of them, are read when asked for, one at a time.

    Raises
    ------
    InputError
        If the layer holds no such thing.
    """
    data, name = finest(layer), f"layer {layer.name!r}"
    is_coloured, front = bool(getattr(layer, "rgb", False)), front_of(layer)
    if layer.ndim < 2:
        raise InputError(f"{name}: has {layer.ndim} axis; height and width are needed")
    height, width = data.shape[layer.ndim - 2 : layer.ndim]

    def part(z: int, rows: slice, columns: slice) -> np.ndarray:
        place = tuple(int(one) for one in np.unravel_index(z, front)) if front else ()
        image = np.asarray(data[(*place, rows, columns)])
        return np.moveaxis(image[..., :3], -1, 0) if is_coloured else image

    return Volume(
        name,
        (prod(front), *((3,) if is_coloured else ()), height, width),
        np.dtype(data.dtype),
        lambda z: part(z, slice(None), slice(None)),
        part=part,
        calibration=_calibration(layer, front, "C" * is_coloured),
    )


def _calibration(layer: Layer, front: tuple[int, ...], colours: str) -> Calibration:
    """Return what a layer tells of its axes; its usual unit, the pixel, tells nothing."""
    units = [str(unit) for unit in layer.units]
    is_time = bool(front) and time_unit(units[-3]) is not None
    times = prod(front[:-1]) if len(front) > 1 and not is_time else 1
    axes = f"{'T' if is_time else 'Z'}{colours}YX"
    unit = length_unit(units[-1])
    if unit is None or length_unit(units[-2]) != unit:
        return Calibration(axes, times=times)
    has_depth = bool(front) and length_unit(units[-3]) == unit
    depth = float(layer.scale[-3]) if has_depth else None
    return Calibration(axes, (depth, *map(float, layer.scale[-2:])), unit, times=times)


def place_of(layer: Layer) -> dict[str, Any]:
    """Return what puts another layer of the same axes where this one is: scale, units and so on."""
    return {
        name: getattr(layer, name)
        for name in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    }
