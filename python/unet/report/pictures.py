"""Slices as small pictures inside a page: raw, and over it truth, result and differences."""

from __future__ import annotations

import base64
import io

import numpy as np

from unet.report.differences import INVENTED, MERGED, MISSED, SPLIT, Place, differences
from unet.report.plots import PREDICTED, TRUE
from unet.report.run_files import HeldOutSlice

#: What is drawn over a slice, and what people call it.
LAYERS = {"truth": "Truth", "result": "Result", "differences": "Differences"}
# Okabe and Ito's colours, told apart with any colour vision, and on grey.
_VERMILION, _PURPLE = (213, 94, 0), (204, 121, 167)
#: Colours of the differences; those of `plots` for what is only in the truth, only in the result.
DIFFERENCE_COLOURS = {MISSED: TRUE, INVENTED: PREDICTED, MERGED: _VERMILION, SPLIT: _PURPLE}
#: Of cells and of classes, one after the other.
COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
# How opaque: a border, an area that one has to see through, a cell.
_SURE, _AREA, _VEIL = 235, 185, 105
# Larger slices are shown smaller: a telephone has fewer pixels, and the report stays sendable.
_MOST_SIDE = 768
_QUALITY = 82
# Enlarged places are as many pixels wide as they are shown, so that they are sharp.
_PLACE_SIDE = 224


def slice_pictures(kind: str, one: HeldOutSlice) -> dict[str, str]:
    """Draw a slice.

    Returns
    -------
    dict of str
        raw, and each of `LAYERS`, which is transparent where it says nothing: addresses that hold
        the picture themselves, data:image/...
    """
    step = -(-max(one.truth.shape) // _MOST_SIDE)
    return _drawn(kind, one, (slice(None), slice(None)), step)


def place_pictures(kind: str, place: Place) -> dict[str, str]:
    """Draw a place of a slice, enlarged, as `slice_pictures` does."""
    part = tuple(slice(one.start, one.stop) for one in (place.rows, place.columns))
    return _drawn(kind, place.slice, part, 1)


def _drawn(kind: str, one: HeldOutSlice, part: tuple[slice, slice], step: int) -> dict[str, str]:
    # The range of the whole slice, so that a place looks as it does there.
    raw = _grey(one.raw, part, step)
    truth, result = one.truth[part], one.result[part]
    told = _most(differences(kind, one.truth, one.result)[part], step)
    if kind == "cells":
        pairs = _partners(one.truth, one.result)
        layers = [_cells(truth, truth, step), _cells(result, pairs[result], step)]
    elif kind == "membranes":
        layers = [
            _painted(_most(cells == 0, step), {1: colour}, _AREA)
            for cells, colour in ((truth, TRUE), (result, PREDICTED))
        ]
    else:
        layers = [_classes(np.maximum(classes, 0)[::step, ::step]) for classes in (truth, result)]
    if kind == "classes":
        # What it should have been.
        wrong = _painted(
            told, {k + 1: class_colour(k) for k in np.unique(told[told > 0]) - 1}, _AREA
        )
    else:
        wrong = _painted(told, DIFFERENCE_COLOURS, _AREA)
    drawn = {"raw": raw}
    for name, layer in zip(LAYERS, (*layers, wrong)):
        drawn[name] = _png(layer)
    return drawn


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class; class 0 has one only where something else should not be."""
    return (255, 255, 255) if number == 0 else COLOURS[(number - 1) % len(COLOURS)]


def _grey(raw: np.ndarray, part: tuple[slice, slice], step: int) -> str:
    from PIL import Image

    colour = raw if len(raw) == 3 else raw.astype(np.float32).mean(axis=0, keepdims=True)
    shown = []
    for channel in colour:
        low, high = np.percentile(channel[::step, ::step], [0.3, 99.7])
        inside = channel[part].astype(np.float32)
        if step > 1:
            inside = _blocks(inside, step, "edge").mean(axis=(1, 3))
        shown.append(np.clip((inside - low) / ((high - low) or 1), 0, 1) * 255)
    picture = np.rint(shown[0] if len(shown) == 1 else np.stack(shown, -1)).astype(np.uint8)
    image = Image.fromarray(picture)
    if max(image.size) < _PLACE_SIDE:
        scale = -(-_PLACE_SIDE // max(image.size))
        image = image.resize([scale * side for side in image.size], Image.BICUBIC)
    return _data(image, "webp", quality=_QUALITY, method=4)


def _blocks(array: np.ndarray, step: int, mode: str) -> np.ndarray:
    """Return an array as (rows, step, columns, step), filled up at its ends."""
    pad = [(0, -side % step) for side in array.shape]
    array = np.pad(array, pad, mode=mode)
    return array.reshape(array.shape[0] // step, step, array.shape[1] // step, step)


def _most(codes: np.ndarray, step: int) -> np.ndarray:
    """Shrink codes: of each block the highest, so that thin lines stay."""
    if step == 1:
        return codes.astype(np.uint8)
    return _blocks(codes.astype(np.uint8), step, "constant").max(axis=(1, 3))


def _painted(codes: np.ndarray, colours: dict[int, tuple[int, int, int]], sure: int) -> np.ndarray:
    """Paint codes; 0, and what has no colour, is transparent: uint8 (height, width, 4)."""
    table = np.zeros((256, 4), np.uint8)
    for code, colour in colours.items():
        table[code] = (*colour, sure)
    return table[codes]


def _classes(classes: np.ndarray) -> np.ndarray:
    numbers = [int(k) for k in np.unique(classes) if 0 < k < 256]
    codes = np.where(classes < 256, classes, 0).astype(np.uint8)
    return _painted(codes, {k: class_colour(k) for k in numbers}, 130)


def _partners(truth: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Number each found cell as the true one of which it has most, or as itself: int (found,)."""
    numbers = np.arange(int(result.max(initial=0)) + 1)
    both = (truth > 0) & (result > 0)
    pairs, pixels = np.unique(np.stack([result[both], truth[both]]), axis=1, return_counts=True)
    order = np.argsort(pixels, kind="stable")
    # Of several the last one written, which has most pixels, stays.
    numbers[pairs[0][order]] = pairs[1][order]
    return numbers


def _cells(cells: np.ndarray, numbers: np.ndarray, step: int) -> np.ndarray:
    """Paint cells in the colours of their numbers: a veil each, its border sure."""
    cells, numbers = cells[::step, ::step], numbers[::step, ::step]
    codes = np.where(cells > 0, (numbers - 1) % len(COLOURS) + 1, 0).astype(np.uint8)
    table = {k + 1: colour for k, colour in enumerate(COLOURS)}
    painted = _painted(codes, table, _VEIL)
    border = np.zeros(cells.shape, bool)
    border[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    border[1:] |= cells[1:] != cells[:-1]
    painted[border & (cells > 0), 3] = _SURE
    return painted


def _png(painted: np.ndarray) -> str:
    """Write colours, few of them, with a palette, which is much smaller."""
    from PIL import Image

    flat = np.ascontiguousarray(painted).view(np.uint32)[..., 0]
    colours, codes = np.unique(flat, return_inverse=True)
    if len(colours) > 256:
        return _data(Image.fromarray(painted), "png", optimize=True)
    rgba = colours.view(np.uint8).reshape(-1, 4)
    image = Image.fromarray(codes.reshape(flat.shape).astype(np.uint8))
    image.putpalette(rgba[:, :3].tobytes())
    return _data(image, "png", optimize=True, transparency=rgba[:, 3].tobytes())


def _data(image: object, form: str, **options: object) -> str:
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"
