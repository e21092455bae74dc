"""Stacks in the formats of microscopes (CZI, LIF, ND2, DV, ...), which the package bioio reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.volumes.images import Volume
from unet.volumes.readers.arrays import array_volume
from unet.volumes.readers.axes import Selection

#: Suffixes of formats of microscopes, and the plugin of bioio that reads them.
PLUGINS = {
    ".czi": "bioio-czi",
    ".lif": "bioio-lif",
    ".nd2": "bioio-nd2",
    ".dv": "bioio-dv",
    ".r3d": "bioio-dv",
    ".sldy": "bioio-sldy",
    ".vsi": "bioio-bioformats",
    ".oib": "bioio-bioformats",
    ".oif": "bioio-bioformats",
    ".ims": "bioio-bioformats",
}


def open_microscope(path: Path, selection: Selection) -> Volume:
    """Open what bioio opens: axes, pixel size and scenes are those that it tells.

    Raises
    ------
    InputError
        If bioio or its plugin for the format is missing, the file is damaged, or it holds several
        scenes of which none is chosen.
    """
    plugin = PLUGINS[path.suffix.lower()]
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError as error:
        raise InputError(_missing(path, plugin, str(error))) from None
    try:
        image = BioImage(str(path))
        scenes = [str(name) for name in image.scenes]
        image.set_scene(selection.scene_of(str(path), scenes, "scenes"))
        levels = list(image.resolution_levels)
        level = selection.one_of("level", str(path), [""] * len(levels)) or 0
        image.set_resolution_level(levels[level])
        array, axes = _stored(image)
        spacing = _spacing(image)
        if path.suffix.lower() == ".lif":
            _refuse_strange_lif(path, image, axes)
        if path.suffix.lower() == ".czi":
            _refuse_nameless_scenes(path, scenes)
    except (InputError, MemoryError):
        raise
    except UnsupportedFileFormatError as error:
        raise InputError(_missing(path, plugin, str(error))) from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read by bioio ({reason}); is it whole?") from None
    return array_volume(str(path), _Computed(array), axes, None, selection, spacing)


def _missing(path: Path, plugin: str, reason: str) -> str:
    said = " ".join(reason.split())[:200]
    return f"{path}: is read by the package bioio: pip install bioio {plugin} ({said})"


def _stored(image: Any) -> tuple[Any, str]:
    """Return pixels and axes of a scene as the plugin gives them.

    bioio brings them into an order of its own, in which other axes are lost and channels have to
    have names. Mosaics it puts together.
    """
    if "M" in image.reader.dims.order:
        return image.dask_data, "".join(image.dims.order)
    stored = image.reader.xarray_dask_data
    return stored.data, "".join(map(str, stored.dims))


def _refuse_strange_lif(path: Path, image: Any, axes: str) -> None:
    """Refuse a scene of LIF with axes that its plugin leaves out, or whose frames run in depth."""
    from liffile import LifFile

    with LifFile(str(path)) as file:
        sizes = dict(file.images[image.current_scene_index].sizes)
    strange = [f"the axis {axis}" for axis, size in sizes.items() if axis not in axes and size > 1]
    if "Z" in [axis for axis in sizes if axis != "S"][-2:]:
        strange = ["frames along Z"]
    if strange:
        raise InputError(
            f"{path}: scene {image.current_scene_index} ({image.current_scene}) has "
            f"{' and '.join(strange)}, which bioio-lif does not read: save that scene as OME-TIFF "
            f"(in Fiji, by Bio-Formats)"
        )


def _refuse_nameless_scenes(path: Path, scenes: Sequence[str]) -> None:
    """Refuse a CZI with scenes that its metadata do not name: its plugin knows the first alone."""
    from aicspylibczi import CziFile

    with open(path, "rb") as file:
        shapes = CziFile(file).get_dims_shape()
    count = len({scene for shape in shapes for scene in range(*shape.get("S", (0, 1)))})
    if count > len(scenes):
        raise InputError(
            f"{path}: holds {count} scenes, of which bioio-czi finds {len(scenes)}, because its "
            f"metadata do not name them: save it anew by ZEN, or each scene as OME-TIFF"
        )


class _Computed:
    """A dask array whose parts are read at once, in this thread."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: Sequence[int] = array.shape
        self.dtype = array.dtype

    def __getitem__(self, index: tuple) -> Any:
        return self._array[index].compute(scheduler="synchronous")


def _spacing(image: Any) -> dict[str, Any]:
    """Return pixel size and interval as bioio gives them, in micrometres."""
    size = image.physical_pixel_sizes
    steps = tuple(float(step) if step and step > 0 else None for step in (size.Z, size.Y, size.X))
    spacing: dict[str, Any] = {}
    if any(step is not None for step in steps[1:]):
        spacing.update(pixel_size=steps, unit="µm")
    try:
        interval = image.time_interval
    except Exception:
        # Each plugin finds its own way not to know it.
        interval = None
    seconds = interval.total_seconds() if hasattr(interval, "total_seconds") else interval
    if isinstance(seconds, (int, float)) and seconds > 0:
        spacing.update(interval=float(seconds), interval_unit="s")
    return spacing
