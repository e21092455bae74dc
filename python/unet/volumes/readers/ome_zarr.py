"""Stacks in Zarr directories: OME-Zarr by its `multiscales`, and arrays that tell nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.names import natural_key
from unet.volumes.images import Volume
from unet.volumes.readers.arrays import array_volume, axes_of_names, choose
from unet.volumes.readers.axes import Selection
from unet.volumes.units import LENGTHS, length_unit, time_unit

ZARR_MARKS = (".zarray", ".zgroup", "zarr.json")
# Of NGFF 0.1 and 0.2, which do not write them.
_FIVE = ("t", "c", "z", "y", "x")


def open_zarr(path: Path, dataset: str | None, selection: Selection | None = None) -> Volume:
    """Open a Zarr directory, version 2 or 3: the picture or labels it holds, or the array named.

    Of OME-Zarr (NGFF 0.1 to 0.5) the finest level is opened unless another is chosen, with the axes
    and spacing it tells. Where no metadata say what is there, the only stack is opened. Refused is
    a damaged directory, and an array that is missing, not unique or of the wrong shape.
    """
    try:
        import zarr
    except ImportError:
        raise InputError(f"{path}: reading Zarr needs the package zarr: pip install zarr") from None
    selection = selection or Selection()
    try:
        root = zarr.open(_store_of(path), mode="r")
        if isinstance(root, zarr.Array):
            return _lone(path, dataset, root, selection)
        return _in_group(path, dataset, root, selection)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # As with TIFF: whatever the damaged metadata breaks first.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as Zarr ({reason}); is it whole?") from None


def _lone(path: Path, dataset: str | None, array: Any, selection: Selection) -> Volume:
    """Open an array that is the directory itself; the one above may be its pyramid."""
    import zarr

    if dataset is not None:
        raise InputError(f"{path}: is one array and has no {dataset!r} in it")
    above = Path(os.path.abspath(path)).parent
    pyramid = None
    if any((above / mark).exists() for mark in ZARR_MARKS):
        pyramid = _level_named(zarr.open(_store_of(above), mode="r"), os.path.basename(path))
    return _array(str(path), array, pyramid, selection)


def _in_group(path: Path, dataset: str | None, root: Any, selection: Selection) -> Volume:
    import zarr

    name = (dataset or "").strip("/")
    if name:
        entry = root.get(name)
        if isinstance(entry, zarr.Array):
            parent, _, last = name.rpartition("/")
            group = root[parent] if parent else root
            return _array(f"{path}:/{name}", entry, _level_named(group, last), selection)
        scenes = [] if entry is None else list(_scenes(entry))
    else:
        scenes = list(_scenes(root))
    if scenes:
        place = f"{path}:/{name}" if name else str(path)
        return _scene(place, name, scenes, selection)
    found = [(one, array.shape) for one, array in _arrays(root)]
    name = choose(str(path), found, dataset)
    return _array(f"{path}:/{name}", root[name], None, selection)


def _scene(
    path: str, inside: str, scenes: list[tuple[str, Any, Mapping[str, Any]]], selection: Selection
) -> Volume:
    """Open one of several pyramids: the only one, or the one that is chosen."""
    names = [place or str(entry.get("name") or "") for place, _, entry in scenes]
    place, group, entry = scenes[selection.scene_of(path, names, "pictures")]
    levels = entry["datasets"]
    level = selection.one_of("level", path, [""] * len(levels)) or 0
    last = str(levels[level]["path"])
    file = path if not inside else path[: -len(inside) - 2]
    where = "/".join(part for part in (inside, place, last) if part)
    name = f"{file}:/{where}"
    if last not in group:
        raise InputError(f"{name}: is a level that the metadata promise and the directory lacks")
    chosen = replace(selection, level=None, scene=None)
    return _array(name, group[last], (entry, levels[level]), chosen)


def _array(
    name: str,
    array: Any,
    pyramid: tuple[Mapping[str, Any], Mapping[str, Any]] | None,
    selection: Selection,
) -> Volume:
    """Open an array by what its pyramid, or it itself, tells of its axes."""
    stored = getattr(array, "metadata", array)
    codecs = [getattr(stored, "compressor", None), *(getattr(stored, "filters", None) or ())]
    # Whoever wrote a pickle chose the code that runs when it is read.
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in codecs):
        raise InputError(f"{name}: is packed by pickle, which can run any program: it is not read")
    for option in ("scene", "level"):
        selection.one_of(option, name, [""])
    axes, spacing = _told(array, pyramid)
    return array_volume(name, array, axes, array.chunks, selection, spacing)


def _told(
    array: Any, pyramid: tuple[Mapping[str, Any], Mapping[str, Any]] | None
) -> tuple[str | None, dict[str, Any]]:
    """Return the axes of an array, and the spacing along them."""
    if pyramid is None:
        names = getattr(getattr(array, "metadata", None), "dimension_names", None)
        names = names or array.attrs.get("_ARRAY_DIMENSIONS") or ()
        found = axes_of_names(names) if len(names) == len(array.shape) else None
        return found, {}
    entry, level = pyramid
    said = entry.get("axes") or _FIVE
    said = [one if isinstance(one, Mapping) else {"name": one} for one in said]
    if len(said) != len(array.shape):
        return None, {}
    axes = axes_of_names([one.get("name") for one in said])
    if axes is None:
        return None, {}
    steps, origin = [1.0] * len(said), [0.0] * len(said)
    scaled = False
    for holder in (level, entry):
        for change in holder.get("coordinateTransformations") or ():
            by = change.get(change.get("type")) or ()
            if len(by) != len(steps):
                continue
            if change["type"] == "scale":
                steps = [a * float(b) for a, b in zip(steps, by)]
                origin = [a * float(b) for a, b in zip(origin, by)]
                scaled = True
            elif change["type"] == "translation":
                origin = [a + float(b) for a, b in zip(origin, by)]
    return axes, _spacing(axes, said, steps, origin) if scaled else {}


def _spacing(
    axes: str,
    said: Sequence[Mapping[str, Any]],
    steps: Sequence[float],
    origin: Sequence[float],
) -> dict[str, Any]:
    """Return the spacing of NGFF; a scale without unit is in pixels and tells nothing."""
    spacing: dict[str, Any] = {}
    step, unit = dict(zip(axes, steps)), {}
    for axis, one in zip(axes, said):
        name = str(one.get("unit") or "")
        unit[axis] = time_unit(name) if axis == "T" else length_unit(name)
    if unit["X"] is not None:
        factor = LENGTHS[unit["X"]][1]
        spacing["pixel_size"] = tuple(
            None
            if unit.get(axis) is None
            else step[axis]
            if unit[axis] == unit["X"]
            else step[axis] * LENGTHS[unit[axis]][1] / factor
            for axis in "ZYX"
        )
        spacing["unit"] = unit["X"]
        if any(origin):
            place = dict(zip(axes, origin))
            spacing["origin"] = tuple(
                0.0
                if unit.get(axis) is None
                else place[axis]
                if unit[axis] == unit["X"]
                else place[axis] * LENGTHS[unit[axis]][1] / factor
                for axis in "ZYX"
            )
    if unit.get("T") is not None:
        spacing.update(interval=step["T"], interval_unit=unit["T"])
    return spacing


def _pyramids(group: Any) -> list[Mapping[str, Any]]:
    """Return the entries of `multiscales` of a group, of NGFF 0.5 or before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    entries = (ome if isinstance(ome, Mapping) else attributes).get("multiscales") or ()
    return [one for one in entries if isinstance(one, Mapping) and one.get("datasets")]


def _level_named(group: Any, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return the pyramid of a group that has a level of this name, and that level."""
    if not hasattr(group, "groups"):
        return None
    for entry in _pyramids(group):
        for level in entry["datasets"]:
            if str(level.get("path")) == name:
                return entry, level
    return None


def _scenes(group: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield the pyramids at and below a group: place, group, entry; labels are not pictures."""
    waiting = [("", group)]
    while waiting:
        place, group = waiting.pop()
        if not hasattr(group, "groups"):
            continue
        entries = _pyramids(group)
        for entry in entries:
            called = place if len(entries) == 1 else f"{place}/{entry.get('name', '')}".strip("/")
            yield called, group, entry
        if entries:
            continue
        inner = sorted(group.groups(), key=lambda one: natural_key(one[0]), reverse=True)
        waiting += [(f"{place}/{name}".strip("/"), one) for name, one in inner if name != "labels"]


def _arrays(group: Any) -> Iterator[tuple[str, Any]]:
    waiting = [("", group)]
    while waiting:
        prefix, group = waiting.pop()
        for name, array in sorted(group.arrays(), key=lambda one: natural_key(one[0])):
            yield prefix + name, array
        inner = sorted(group.groups(), key=lambda one: natural_key(one[0]), reverse=True)
        waiting += [(f"{prefix}{name}/", one) for name, one in inner]


def _store_of(path: Path) -> object:
    """Return a store of zarr's, version 2 or 3, that reads no file outside the directory."""
    import zarr.storage

    root = os.path.realpath(path)

    def check(file: str) -> None:
        place = os.path.realpath(file)
        if os.path.commonpath([root, place]) != root:
            raise InputError(
                f"{path}: {os.path.relpath(file, path)} leads to {place}, out of the directory; "
                f"only what lies in it is read: copy it in place of the link"
            )

    if hasattr(zarr.storage, "DirectoryStore"):

        class Directory(zarr.storage.DirectoryStore):
            def _fromfile(self, fn: str) -> bytes:
                check(fn)
                return super()._fromfile(fn)

        return Directory(str(path))

    class Local(zarr.storage.LocalStore):
        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            check(os.path.join(self.root, key))
            return await super().get(key, *args, **options)

        def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
            check(os.path.join(self.root, key))
            return super().get_sync(key, *args, **options)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
            key_ranges = list(key_ranges)
            for key, _ in key_ranges:
                check(os.path.join(self.root, key))
            return await super().get_partial_values(prototype, key_ranges)

    return Local(str(path), read_only=True)
