"""The weight map w(x) of the loss: class balance and separation of touching cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet.errors import InputError
from unet.labels import IGNORED, bounding_boxes

# The square of a distance by sigma, and weights, stay numbers of their precision.
_SIGMAS, _LARGEST_W0 = (1e-3, 1e6), 1e30
# How far, relative to the weight of the background class, the map may be from the formula.
PRECISION = 1e-7


def check_parameters(w0: float, sigma: float) -> None:
    """Refuse parameters of the separation term with which it is no number of single precision.

    Raises
    ------
    InputError
    """
    if not _SIGMAS[0] <= sigma <= _SIGMAS[1] or not 0 <= w0 <= _LARGEST_W0:
        raise InputError(
            f"w0 must be 0 or more and sigma more than 0, not {w0} and {sigma} (at most "
            f"{_LARGEST_W0:g}; {_SIGMAS[0]:g} to {_SIGMAS[1]:g} pixels)"
        )


def _reach(sigma: float, w0: float, background: float) -> float:
    """Return the distance in pixels beyond which the term vanishes beside `background`."""
    floor = max(PRECISION * background, float(np.finfo(np.float32).tiny))
    return sigma * math.sqrt(2 * math.log(w0 / floor)) if w0 > floor else 0.0


def two_nearest(instances: np.ndarray, reach: float) -> tuple:
    """Return the distances to the nearest and the second nearest cell.

    Parameters
    ----------
    instances : ndarray of int, shape (height, width)
        0 is background.
    reach : float
        Distances beyond it, in pixels, need not be known and come out as infinity.

    Returns
    -------
    d1, d2 : ndarray of float64, shape (height, width)
        In pixels, Euclidean, to the nearest pixel of the cell; 0 on it.

    Notes
    -----
    One distance transform per cell, in the neighbourhood of the cell alone: there it is exact,
    since the whole cell lies inside.
    """
    height, width = instances.shape
    margin = math.ceil(min(reach, height + width))
    nearest = np.full(instances.shape, np.inf)
    second = nearest.copy()
    for value, rows, columns in bounding_boxes(instances):
        window = (
            slice(max(0, rows.start - margin), min(height, rows.stop + margin)),
            slice(max(0, columns.start - margin), min(width, columns.stop + margin)),
        )
        distance = ndimage.distance_transform_edt(instances[window] != value)
        first, other = nearest[window], second[window]
        np.minimum(other, np.maximum(first, distance), out=other)
        np.minimum(first, distance, out=first)
    return nearest, second


def weight_map(
    instances: np.ndarray,
    class_weights: Sequence[float],
    *,
    labels: np.ndarray | None = None,
    w0: float = 10.0,
    sigma: float = 5.0,
) -> np.ndarray:
    """Compute w(x) = wc(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)) for one slice.

    Parameters
    ----------
    instances : ndarray of int, shape (height, width)
        Cell numbers, 0 is background.
    class_weights : sequence of float
        wc of each class.
    labels : ndarray of uint8, shape (height, width), optional
        Class of each pixel; by default 1 on cells and 0 beside them. `IGNORED` pixels get 0.
    w0 : float
        Weight of the separation term.
    sigma : float
        Its reach, in pixels.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Within 1e-6 of the formula with one distance transform per cell over the whole slice.

    Raises
    ------
    InputError
        If sigma is not positive, w0 negative, or either is not finite.

    Notes
    -----
    d1 and d2 are the distances to the nearest and the second nearest cell. The separation term is
    added on the background (class 0) only: it is to keep the gap between cells open (Fig. 3d).
    With fewer than two cells there is no gap and no term.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3, Eq. 2.
    """
    check_parameters(w0, sigma)
    if labels is None:
        labels = (instances > 0).astype(np.uint8)
    table = np.zeros(256, np.float64)
    table[: len(class_weights)] = class_weights
    table[IGNORED] = 0.0
    weights = table[labels]
    if w0 > 0:
        nearest, second = two_nearest(instances, _reach(sigma, w0, class_weights[0]))
        gap = (labels == 0) & np.isfinite(second)
        distances = nearest[gap] + second[gap]
        weights[gap] += w0 * np.exp(-(distances**2) / (2 * sigma**2))
    return weights.astype(np.float32)
