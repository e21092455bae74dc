"""Stacks as OME-Zarr, NGFF 0.5 (Zarr 3) or 0.4 (Zarr 2): axes, pixel size, pyramid, provenance.

`open_zarr_output` writes beside the final name and moves the whole. Who writes for days, or in
several processes, calls `create_store`, `open_store`, `write_levels` and `note_complete` under the
final name: until the last the store says that it is not complete.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_folder, write_durably
from unet.files.provenance import KEY, STACK, mark
from unet.machine.signals import held
from unet.volumes.units import LENGTHS, TIMES
from unet.volumes.writers.layout import Layout, Put
from unet.volumes.writers.pyramid import coarser_shapes, write_coarser

#: Attributes of the group: the provenance, and whether all was written.
NOTE_KEY, COMPLETE_KEY = "provenance", "complete"
#: While it is not: slices that are there, and all.
DONE_KEY = "done"
_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_NGFF = {2: "0.4", 3: "0.5"}
# Where the attributes of a group lie.
_ATTRIBUTES = {2: ".zattrs", 3: "zarr.json"}
# Of 1 to 9: probabilities of a trained net shrink to 0.64 in 4 ms a slice of 512 x 512, by level 5
# to 0.61 in 18; cells' numbers to a thirtieth.
_LEVEL = 1


@contextlib.contextmanager
def open_zarr_output(layout: Layout) -> Iterator[Put]:
    """Open a Zarr directory to write; it appears whole."""
    with atomic_folder(layout.path) as temporary:
        create_store(temporary, layout)
        yield open_store(temporary, layout)
        write_levels(temporary, layout)
        note_complete(temporary, layout)


def create_store(folder: Path, layout: Layout) -> None:
    """Make an OME-Zarr image of zeros, level 0 alone, that says that it is not complete.

    Parameters
    ----------
    folder : pathlib.Path
        Not there, or empty.
    layout : Layout

    Raises
    ------
    InputError
        If the package zarr is missing, or cannot write the format.
    """
    form = _zarr_format(layout)
    # Held: zarr's thread, which writes, would go on while what there is is removed.
    with held():
        group = _open_group(folder, "w", layout, form)
        group.attrs.put(_attributes(layout, form, levels=1, complete=False))
        _create_level(group, 0, _stored_shape(layout), layout, form)


def open_store(folder: Path, layout: Layout) -> Put:
    """Return what puts parts into level 0 of a store of `create_store`.

    Several processes may do so at once with parts that are whole chunks.
    """
    array = _open_group(folder, "r+", layout, _zarr_format(layout))["0"]
    dtype = array.dtype

    def put(z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        parts = {"C": slice(None), "Z": 0, "Y": rows, "X": columns, **layout.place(z)}
        place = tuple(parts[axis] for axis in stored_axes(layout))
        with held():
            array[place] = values.astype(dtype, copy=False)

    return put


def level_zero(folder: Path, layout: Layout) -> Any:
    """Return the array of level 0 of a store of `create_store`."""
    return _open_group(folder, "r", layout, _zarr_format(layout))["0"]


def note_done(folder: Path, layout: Layout, slices: int) -> None:
    """Say in the metadata of a store that is not complete how many slices are there."""
    form = _zarr_format(layout)
    attributes = _attributes(layout, form, levels=1, complete=False)
    _put_attributes(folder, form, {**attributes, DONE_KEY: [slices, layout.shape[0]]})


def write_levels(folder: Path, layout: Layout) -> None:
    """Add the coarser levels to a store of which level 0 is whole."""
    form = _zarr_format(layout)
    group = _open_group(folder, "r+", layout, form)
    finer = group["0"]
    for level, shape in enumerate(coarser_shapes(_stored_shape(layout)), 1):
        coarser = _create_level(group, level, shape, layout, form)
        write_coarser(finer, coarser, layout.chunk, layout.labels)
        finer = coarser


def note_complete(folder: Path, layout: Layout) -> None:
    """Name all levels of a store in its metadata, and say that it is complete."""
    form, levels = _zarr_format(layout), 1 + len(coarser_shapes(_stored_shape(layout)))
    _put_attributes(folder, form, _attributes(layout, form, levels, complete=True))


def _put_attributes(folder: Path, form: int, attributes: Mapping[str, Any]) -> None:
    """Replace the attributes of a group, at once and on the disk; zarr itself does not sync."""
    path = folder / _ATTRIBUTES[form]
    content = attributes
    if form == 3:
        content = {**json.loads(path.read_text()), "attributes": attributes}
    write_durably(path, lambda file: file.write(json.dumps(content, indent=2).encode()))


def _zarr_format(layout: Layout) -> int:
    try:
        import zarr
    except ImportError:
        raise InputError(
            f"{layout.path}: writing Zarr needs the package zarr: pip install zarr"
        ) from None
    newest = 2 if zarr.__version__.startswith("2.") else 3
    form = layout.zarr_format or newest
    if form not in _NGFF:
        raise InputError(f"{layout.path}: Zarr has the formats 2 and 3, not {form}")
    if form > newest:
        raise InputError(
            f"{layout.path}: zarr {zarr.__version__} does not write format 3: pip install 'zarr>=3'"
        )
    return form


def _open_group(folder: Path, mode: str, layout: Layout, form: int) -> Any:
    import zarr

    options = {} if zarr.__version__.startswith("2.") else {"zarr_format": form}
    return zarr.open_group(str(folder), mode=mode, **options)


def stored_axes(layout: Layout) -> str:
    """Return the axes in the order of NGFF.

    Of time points whose distance in z is known there is one slice each: the axis has its spacing.
    """
    axes, size = layout.full_axes, layout.calibration.pixel_size
    is_deep = "Z" not in axes and size is not None and size[0] is not None
    return "".join(sorted(axes + "Z" * is_deep, key="TCZYX".index))


def _stored_shape(layout: Layout) -> tuple[int, ...]:
    sizes = {"Z": 1, **dict(zip(layout.full_axes, layout.full_shape))}
    return tuple(sizes[axis] for axis in stored_axes(layout))


def _create_level(group: Any, level: int, shape: tuple[int, ...], layout: Layout, form: int) -> Any:
    height, width = layout.chunk
    options: dict[str, Any] = {
        "shape": shape,
        "chunks": (*(1 for _ in shape[:-2]), min(height, shape[-2]), min(width, shape[-1])),
        # NGFF's labels are integers.
        "dtype": np.dtype(np.uint8) if layout.dtype == np.bool_ else layout.dtype,
        "fill_value": 0,
        "overwrite": True,
    }
    if not hasattr(group, "create_array"):
        from numcodecs import Blosc

        packing = Blosc("zstd", clevel=_LEVEL, shuffle=Blosc.SHUFFLE)
        return group.create_dataset(
            str(level), compressor=packing, dimension_separator="/", **options
        )
    if form == 2:
        from numcodecs import Blosc

        options["compressors"] = Blosc("zstd", clevel=_LEVEL, shuffle=Blosc.SHUFFLE)
        options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    else:
        from zarr.codecs import BloscCodec

        options["compressors"] = BloscCodec(cname="zstd", clevel=_LEVEL, shuffle="shuffle")
        options["dimension_names"] = tuple(stored_axes(layout).lower())
    return group.create_array(str(level), **options)


def _attributes(layout: Layout, form: int, levels: int, complete: bool) -> dict[str, Any]:
    version = _NGFF[form]
    multiscales = {
        "axes": _axes(layout),
        "datasets": [_dataset(layout, level) for level in range(levels)],
        "type": "nearest" if layout.labels else "mean",
        "metadata": {
            "description": "every second pixel of a row and column"
            if layout.labels
            else "mean of two by two pixels",
            "method": "unet.volumes.writers.pyramid.write_coarser",
        },
    }
    ours = {KEY: mark(STACK), COMPLETE_KEY: complete}
    if layout.note:
        ours[NOTE_KEY] = dict(layout.note)
    if form == 2:
        label = {"image-label": {"version": version}} if layout.labels else {}
        return {"multiscales": [{"version": version, **multiscales}], **label, **ours}
    label = {"image-label": {}} if layout.labels else {}
    return {"ome": {"version": version, "multiscales": [multiscales], **label}, **ours}


def _axes(layout: Layout) -> list[dict[str, str]]:
    calibration = layout.calibration
    known = dict(zip("ZYX", calibration.pixel_size or ()), T=calibration.interval)
    units = {
        "space": LENGTHS.get(calibration.unit or ""),
        "time": TIMES.get(calibration.interval_unit or ""),
    }
    axes = []
    for axis in stored_axes(layout):
        entry = {"name": axis.lower(), "type": _TYPES[axis]}
        unit = units.get(entry["type"])
        if unit is not None and known.get(axis) is not None:
            entry["unit"] = unit[0]
        axes.append(entry)
    return axes


def _dataset(layout: Layout, level: int) -> dict[str, Any]:
    calibration = layout.calibration
    known = dict(zip("ZYX", calibration.pixel_size or ()), T=calibration.interval)
    axes = stored_axes(layout)
    steps = [float(known.get(axis) or 1) for axis in axes]
    factors = [2**level if axis in "YX" else 1 for axis in axes]
    transformations: list[dict[str, Any]] = [
        {"type": "scale", "scale": [step * factor for step, factor in zip(steps, factors)]}
    ]
    origin = dict(zip("ZYX", calibration.origin or ()))
    if level or any(origin.values()):
        # The middle of the first coarse pixel lies between those of the fine ones that it covers.
        shift = [
            origin.get(axis, 0.0) + step * (factor - 1) / 2
            for axis, step, factor in zip(axes, steps, factors)
        ]
        transformations.append({"type": "translation", "translation": shift})
    return {"path": str(level), "coordinateTransformations": transformations}
