"""What a TIFF tells of axes and spacing: OME-XML, the description of ImageJ, the plain tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unet.volumes.units import LENGTHS, length_unit, time_unit

#: Keyword arguments of `Calibration`.
Spacing = dict[str, Any]
_INCH, _CENTIMETRE = 2, 3
# Micrometres. A page says for what it is printed, 72 to 1200 dots an inch; no microscope's pixels
# are that large.
_SMALLEST_PRINT = 20.0


def spacing(tiff: Any, page: Any, image: int) -> Spacing:
    """Return pixel size and interval of a picture, as keyword arguments of `Calibration`.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    page : tifffile.TiffPage
        Its first one.
    image : int
        Its number in OME-XML.
    """
    if tiff.is_ome:
        return _of_ome(tiff.ome_metadata, image)
    if tiff.is_imagej and tiff.imagej_metadata:
        return _of_imagej(tiff.imagej_metadata, page)
    return _of_tags(page)


def _of_ome(text: str, image: int) -> Spacing:
    import tifffile

    images = tifffile.xml2dict(text).get("OME", {}).get("Image", ())
    images = images if isinstance(images, (list, tuple)) else [images]
    pixels = images[image].get("Pixels", {}) if image < len(images) else {}
    sizes, units = [], []
    for axis in "ZYX":
        sizes.append(_positive(pixels.get(f"PhysicalSize{axis}")))
        units.append(length_unit(str(pixels.get(f"PhysicalSize{axis}Unit", "µm"))))
    found: Spacing = _in_one_unit(sizes, units)
    interval = _positive(pixels.get("TimeIncrement"))
    unit = time_unit(str(pixels.get("TimeIncrementUnit", "s")))
    return {**found, **_interval(interval, unit)}


def _of_imagej(values: Mapping[str, Any], page: Any) -> Spacing:
    y, x = _steps(page)
    z = _positive(values.get("spacing"))
    unit = length_unit(str(values.get("unit", "")))
    interval = _positive(values.get("finterval"))
    return {
        **_in_one_unit([z, y, x], [unit] * 3),
        **_interval(interval, time_unit(str(values.get("tunit", "s")))),
    }


def _of_tags(page: Any) -> Spacing:
    tag = page.tags.get("ResolutionUnit")
    unit = {_INCH: "in", _CENTIMETRE: "cm"}.get(int(tag.value) if tag is not None else 0)
    if unit is None:
        return {}
    factor = LENGTHS[unit][1]
    steps = [None if step is None else step * factor for step in _steps(page)]
    if any(step is None or step > _SMALLEST_PRINT for step in steps):
        return {}
    return _in_one_unit([None, *steps], ["µm"] * 3)


def _steps(page: Any) -> tuple[float | None, float | None]:
    """Return the spacing of rows and columns in the unit of the resolution."""
    steps = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        per_unit, parts = tag.value if tag is not None else (0, 1)
        steps.append(_positive(parts / per_unit) if per_unit else None)
    return steps[0], steps[1]


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e30 else None


def _in_one_unit(sizes: list[float | None], units: list[str | None]) -> Spacing:
    """Return sizes (z, y, x) in the unit of the last one that is known."""
    known = [k for k in range(3) if sizes[k] is not None and units[k] is not None]
    if not known:
        return {}
    unit = units[known[-1]]
    scaled: list[float | None] = [None] * 3
    for k in known:
        factor = LENGTHS[units[k]][1] / LENGTHS[unit][1]
        scaled[k] = sizes[k] if factor == 1 else sizes[k] * factor
    return {"pixel_size": tuple(scaled), "unit": unit}


def _interval(interval: float | None, unit: str | None) -> Spacing:
    return {} if interval is None or unit is None else {"interval": interval, "interval_unit": unit}
