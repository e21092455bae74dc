"""How grey values are given to a network: scaled by one range, or each slice normalised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unet.errors import InputError
from unet.files.names import PathLike
from unet.volumes.images import Volume
from unet.volumes.row_strips import strips

# Says how the input of the network beside it was scaled in training.
INPUT = "input.json"
# Standard deviations between a slice's mean, which becomes 0.5, and what becomes 0 and 1. So a
# image of usual contrast hardly changes.
_SPREAD = 3.0
# Enough for percentiles of the grey values, few enough for a stack of any length.
_RANGE_SLICES = 16
_RANGE_ENDS = (0.1, 99.9)
# As many pixels of types that are not counted, but sorted.
_RANGE_PIXELS = 1 << 26
# Larger slices are read in strips of so many rows: those of the usual chunks.
_WHOLE_PIXELS = 1 << 26
_ROWS = 1024


def intensity_range(
    volume: Volume | np.ndarray, slices: Sequence[int] | None = None
) -> tuple[float, float]:
    """Return the grey values that become 0 and 1 at the network's input.

    Parameters
    ----------
    volume : Volume or ndarray, shape (slices, ...)
    slices : sequence of int, optional
        The slices that count; by default all.

    Returns
    -------
    low, high : float
        (0, 255) for uint8 and (0, 1) for bool, whatever occurs; for every other type the 0.1 and
        99.9 percentiles over at most 16 evenly spaced slices, high = low + 1 where they are equal;
        of more than 2^26 pixels of a type of more than 16 bit every second, third, ... one.
    """
    if volume.dtype == np.uint8:
        return 0.0, 255.0
    if volume.dtype == np.bool_:
        return 0.0, 1.0
    if slices is None:
        missing = set(getattr(volume, "missing", ()))
        slices = [z for z in range(volume.shape[0]) if z not in missing]
    count = min(len(slices), _RANGE_SLICES)
    chosen = np.linspace(0, len(slices) - 1, count).round().astype(int)
    images = (part for k in chosen for part in _parts(volume, slices[k]))
    if volume.dtype.itemsize <= 2 and volume.dtype.kind in "iu":
        ends = _percentiles_of_counts(images, volume.dtype)
    else:
        size = int(np.prod(volume.shape[1:], dtype=np.int64)) * count
        step = -(-size // _RANGE_PIXELS)
        ends = np.percentile(np.concatenate([p.ravel()[::step] for p in images]), _RANGE_ENDS)
    low, high = (float(np.float32(v)) for v in ends)
    return (low, high) if high > low else (low, low + 1.0)


def _parts(volume: Volume | np.ndarray, z: int) -> Iterator[np.ndarray]:
    """Yield a slice; in strips, if it is large and its file tells parts of it alone."""
    height, width = volume.shape[-2:]
    if getattr(volume, "part", None) is None or height * width <= _WHOLE_PIXELS:
        yield np.asarray(volume[z])
        return
    for first in range(0, height, _ROWS):
        yield volume.region(z, slice(first, min(height, first + _ROWS)), slice(0, width))


def _percentiles_of_counts(images: Iterable[np.ndarray], dtype: np.dtype) -> list[float]:
    """Return the percentiles that np.percentile does, without all pixels at once."""
    lowest = int(np.iinfo(dtype).min)
    counts = np.zeros(1 << 16, np.int64)
    for image in images:
        flat = image.reshape(-1, image.shape[-1])
        for rows in strips(flat.shape):
            counts += np.bincount(flat[rows].ravel().astype(np.int64) - lowest, minlength=1 << 16)
    reached = np.cumsum(counts)
    ends = []
    for end in _RANGE_ENDS:
        place = end / 100 * (reached[-1] - 1)
        neighbours = (int(place), min(int(place) + 1, reached[-1] - 1))
        a, b = (int(np.searchsorted(reached, k, side="right")) + lowest for k in neighbours)
        ends.append(a + (b - a) * (place - int(place)))
    return ends


def normalised_range(image: np.ndarray) -> tuple[float, float]:
    """Return the range that brings one slice to mean 1/2 and standard deviation 1/6.

    Stacks whose slices differ in brightness and contrast, as serial sections do, become alike.

    Parameters
    ----------
    image : ndarray, shape (height, width) or (channels, height, width)
        One slice; its channels share the range.

    Returns
    -------
    low, high : float
        The grey values that become 0 and 1; high = low + 1 where the slice is constant.
    """
    mean, deviation = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    half = _SPREAD * deviation or 0.5
    return mean - half, mean + half


def normalised_range_of(volume: Volume, z: int) -> tuple[float, float]:
    """Return `normalised_range` of a slice that is read strip by strip."""
    count, mean, squares = 0, 0.0, 0.0
    for part in _parts(volume, z):
        # Joined as by Chan, Golub and LeVeque 1983.
        off = float(part.mean(dtype=np.float64)) - mean
        squares += float(part.var(dtype=np.float64)) * part.size
        squares += off * off * count * part.size / (count + part.size)
        count += part.size
        mean += off * part.size / count
    half = _SPREAD * (squares / count) ** 0.5 or 0.5
    return mean - half, mean + half


def scale_intensity(image: np.ndarray, grey: tuple[float, float] | None) -> np.ndarray:
    """Return grey values as the network is given them, float32.

    Parameters
    ----------
    image : ndarray, shape (height, width) or (channels, height, width)
    grey : tuple of float, optional
        The grey values that become 0 and 1; None: `normalised_range` of the image.

    Raises
    ------
    InputError
        If high is not above low.
    """
    low, high = (np.float32(value) for value in (normalised_range(image) if grey is None else grey))
    if not low < high:
        raise InputError(f"the grey range {low} to {high} is empty: give LOW below HIGH")
    # What becomes infinite is refused before the network is given it.
    with np.errstate(over="ignore"):
        return (image.astype(np.float32) - low) / (high - low)


def input_text(normalise: bool) -> str:
    """Return what `input.json` beside a network's deploy prototxt says."""
    return json.dumps({"normalise": normalise}) + "\n"


def is_normalised(deploy: PathLike) -> bool:
    """Tell whether a network was trained on normalised slices: `input.json` beside it says so.

    Where there is none they were not; a damaged one is an InputError.
    """
    path = Path(deploy).parent / INPUT
    if not path.exists():
        return False
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(said, dict) or not isinstance(said.get("normalise"), bool):
        raise InputError(f'{path}: must hold {{"normalise": true}} or {{"normalise": false}}')
    return said["normalise"]
