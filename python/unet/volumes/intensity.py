"""How grey values are given to a network: scaled by one range, or each slice normalised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from unet.errors import InputError
from unet.files.names import PathLike

# Says how the input of the network beside it was scaled in training.
INPUT = "input.json"
# Standard deviations between a slice's mean, which becomes 0.5, and what becomes 0 and 1. So a
# image of usual contrast hardly changes.
_SPREAD = 3.0


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
