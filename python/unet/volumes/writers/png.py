"""Stacks as PNG: one image, or a folder with one a slice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image

from unet.errors import InputError
from unet.files.atomic import atomic_folder, atomic_path
from unet.files.provenance import STACK, save_marked_png
from unet.volumes.units import micrometres
from unet.volumes.writers.layout import Layout, Put, visible

# Of a PNG's chunk pHYs, which counts pixels a metre.
_MOST_PER_METRE = (1 << 31) - 1
_METRES_PER_INCH = 0.0254
#: Key of the text chunk that holds the provenance.
NOTE_KEY = "Provenance"


@contextlib.contextmanager
def open_png(layout: Layout) -> Iterator[Put]:
    """Open one image to write."""
    _check(layout)
    with atomic_path(layout.path) as temporary:
        yield _whole_slices(layout, lambda z: temporary)


@contextlib.contextmanager
def open_png_folder(layout: Layout) -> Iterator[Put]:
    """Open a folder of images to write, one a slice."""
    _check(layout)
    places = [tuple(layout.place(z).values()) for z in range(layout.shape[0])]
    names = slice_names(layout.numbers or places)
    with atomic_folder(layout.path) as temporary:
        yield _whole_slices(layout, lambda z: temporary / names[z])


def slice_names(numbers: Sequence[int | tuple[int, ...]]) -> list[str]:
    """Return the files' names of slices of these numbers, which sort as the numbers do.

    Parameters
    ----------
    numbers : sequence of int or tuple of int
        Two numbers are those of time point and depth.

    Examples
    --------
    >>> slice_names([7, 12])
    ['slice_0007.png', 'slice_0012.png']
    >>> slice_names([(0, 7), (12, 0)])
    ['slice_t0000_z0007.png', 'slice_t0012_z0000.png']
    """
    places = [number if isinstance(number, tuple) else (number,) for number in numbers]
    digits = [max(4, len(str(max(column)))) for column in zip(*places)]
    letters = "tz" if len(digits) == 2 else ("",)
    return [
        "_".join(["slice", *(f"{a}{n:0{d}d}" for a, n, d in zip(letters, place, digits))]) + ".png"
        for place in places
    ]


def _check(layout: Layout) -> None:
    path, shape = layout.path, layout.shape
    if layout.dtype.name not in ("uint8", "uint16", "bool"):
        raise InputError(
            f"{path}: PNG holds 8 or 16 bit, not {layout.dtype}; write .tif or .h5 instead"
        )
    if len(shape) == 4:
        raise InputError(f"{path}: PNG files hold no stack of channels; write .tif or .h5 instead")
    if path.suffix and shape[0] > 1:
        raise InputError(
            f"{path}: one PNG holds one slice, not {shape[0]}; name a folder (no suffix)"
        )


def _whole_slices(layout: Layout, place: Callable[[int], Path]) -> Put:
    """Return what saves slices; one that comes in parts waits in memory until it is whole."""
    parts: dict[int, tuple[np.ndarray, int]] = {}
    size = layout.shape[1:]
    texts = {NOTE_KEY: layout.note_text()} if layout.note else {}
    options = _resolution(layout)

    def put(z: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        if values.shape != size:
            image, missing = parts.pop(z, (np.zeros(size, layout.dtype), size[0] * size[1]))
            image[rows, columns] = values
            missing -= values.size
            if missing > 0:
                parts[z] = image, missing
                return
            values = image
        picture = Image.fromarray(visible(values))
        save_marked_png(place(z), picture, STACK, texts, **options)

    return put


def _resolution(layout: Layout) -> dict[str, tuple[float, float]]:
    """Return what makes Pillow write the pixel size, where PNG can hold it."""
    size = micrometres(layout.calibration)
    if size is None or not (size[1] and size[2]):
        return {}
    per_metre = (1e6 / size[2], 1e6 / size[1])
    if not all(1 <= value <= _MOST_PER_METRE for value in per_metre):
        return {}
    return {"dpi": tuple(value * _METRES_PER_INCH for value in per_metre)}
