"""Arrays of HDF5, Zarr and microscopes as stacks: which one is meant, and its slices and chunks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from unet.errors import InputError
from unet.files.names import natural_key
from unet.volumes.images import Volume
from unet.volumes.readers.axes import Axes, Selection

# A chunk may span many slices; so much is kept rather than decoded again for each.
_SLAB_BYTES = 256 << 20
# Of arrays that name no axes: channels, such as colours, lie last in many programs; beside so many
# rows or columns as no picture has channels, nobody can say. One alone is no width.
_SAMPLES, _NO_CHANNELS = (2, 3, 4), 32
_NAMES = {"channel": "C", "time": "T", "frame": "T", "t": "T", "c": "C"}
_NAMES.update({axis.lower(): axis for axis in "ZYX"})


def choose(path: str, found: list[tuple[str, Sequence[int]]], dataset: str | None) -> str:
    """Return the name of the dataset meant: the one named, the only 3-D one, or the only one."""
    if dataset is not None:
        wanted = dataset.strip("/")
        if wanted in (name for name, _ in found):
            return wanted
        names = ", ".join(f"/{name}" for name, _ in found) or "none"
        raise InputError(f"{path}: has no dataset of numbers /{wanted}; it has {names}")
    for candidates in (
        [(n, s) for n, s in found if len(s) == 3],
        [(n, s) for n, s in found if len(s) > 1],
    ):
        if len(candidates) == 1:
            return candidates[0][0]
        if candidates:
            candidates.sort(key=lambda one: natural_key(one[0]))
            names = ", ".join(f"/{name}" for name, _ in candidates)
            if {"raw", "labels", "weights"} <= {name for name, _ in found}:
                raise InputError(
                    f"{path}: is a training set where a stack is wanted; name its pictures, "
                    f"{path}:/raw, or its labels, {path}:/labels"
                )
            raise InputError(
                f"{path}: holds several stacks ({names}); name one: {path}:/{candidates[0][0]}"
            )
    raise InputError(f"{path}: holds no stack of pictures")


def axes_of_names(names: Sequence[Any]) -> str | None:
    """Return the letters of axes that are called time, c, z, ...; None where one is none of these.

    Examples
    --------
    >>> axes_of_names(["time", "c", "z", "y", "x"])
    'TCZYX'
    """
    letters = [_NAMES.get(str(name or "").lower()) for name in names]
    if None in letters or len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters):
        return None
    return "".join(str(letter) for letter in letters)


def array_volume(
    name: str,
    array: Any,
    axes: str | None,
    chunks: Sequence[int] | None,
    selection: Selection,
    spacing: dict[str, Any],
    close: Callable[[], None] = lambda: None,
) -> Volume:
    """Return an array as a stack.

    Parameters
    ----------
    name : str
        For messages.
    array : array that takes whole numbers and slices as index
    axes : str, optional
        A letter an axis. None: (slices, height, width) or (slices, channels, height, width), after
        axes of length 1, and before one that is a single channel.
    chunks : sequence of int, optional
        In which it is stored.
    selection : Selection
    spacing : dict
        Fields of `Calibration` but the axes.
    close : callable

    Raises
    ------
    InputError
        If it is no stack, or what is selected is not there.
    """
    shape = tuple(array.shape)
    told = axes
    if axes is None:
        last = "C" if len(shape) > 2 and shape[-1] == 1 and shape[-2] >= _NO_CHANNELS else ""
        shape = shape[: len(shape) - len(last)]
        ones = max(0, len(shape) - 3) if last or len(shape) > 4 else 0
        if len(shape) < 2 or any(size != 1 for size in shape[:ones]):
            raise InputError(
                f"{name}: is {tuple(array.shape)}, not (slices, height, width) or (slices, "
                f"channels, height, width), and does not tell what its axes are"
            )
        if len(shape) > 2 and shape[-1] in _SAMPLES and shape[-2] >= _NO_CHANNELS:
            raise InputError(
                f"{name}: is {shape}, and does not tell whether the last axis is the {shape[-1]} "
                f"channels of a picture or its width: name the axes (HDF5: dims[k].label, Zarr: "
                f"dimension_names), or put channels before height"
            )
        axes = "Q" * ones + {2: "", 3: "Z", 4: "ZC"}[len(shape) - ones] + "YX" + last
        shape = tuple(array.shape)
    layout = Axes(name, axes, shape, selection, keep_channel=told is None and axes[-1] != "C")
    along = layout.slice_axes[-1] if layout.slice_axes else None
    depth = int(chunks[along]) if chunks and along is not None else 1
    count = shape[along] if along is not None else 1
    kept: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def part(z: int, rows: slice, columns: slice) -> np.ndarray:
        index = layout.index(z, rows, columns)
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        deep = min(depth, count)
        nbytes = deep * pixels * int(np.prod(layout.shape[1:-2])) * array.dtype.itemsize
        if deep == 1 or nbytes > _SLAB_BYTES:
            return layout.arrange(array[index])
        within = index[along] % depth
        first = index[along] - within
        stop = min(first + depth, count)
        where = index[:along] + (slice(first, stop),) + index[along + 1 :]
        key = tuple((k.start, k.stop) if isinstance(k, slice) else k for k in where)
        if key not in kept:
            # Blocks of one layer of chunks follow each other; those of another are done with.
            if any(other[along] != key[along] for other in kept):
                kept.clear()
            while kept and sum(slab.nbytes for slab in kept.values()) + nbytes > _SLAB_BYTES:
                kept.popitem(last=False)
            kept[key] = np.asarray(array[where])
        kept.move_to_end(key)
        at = [k for k, one in enumerate(where) if isinstance(one, slice)].index(along)
        return layout.arrange(np.take(kept[key], within, axis=at))

    whole = (slice(0, layout.shape[-2]), slice(0, layout.shape[-1]))
    return Volume(
        name,
        layout.shape,
        array.dtype,
        lambda z: part(z, *whole),
        close,
        calibration=layout.calibration(**spacing),
        part=part,
    )
