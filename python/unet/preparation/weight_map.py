"""The weight map w(x) of the loss: class balance and separation of touching cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet.errors import InputError
from unet.preparation.labels import IGNORED, bounding_boxes
from unet.volumes.row_strips import strips

Boxes = list[tuple[int, slice, slice]]

# The square of a distance by sigma, and weights, stay numbers of their precision.
_SIGMAS, _LARGEST_W0 = (1e-3, 1e6), 1e30
# How far, relative to the weight of the background class, the map may be from the formula.
PRECISION = 1e-7


def check_parameters(w0: float, sigma: float) -> None:
    """Raise `InputError` if the separation term is no number of single precision."""
    if not _SIGMAS[0] <= sigma <= _SIGMAS[1] or not 0 <= w0 <= _LARGEST_W0:
        raise InputError(
            f"w0 must be 0 or more and sigma more than 0, not {w0} and {sigma} (at most "
            f"{_LARGEST_W0:g}; {_SIGMAS[0]:g} to {_SIGMAS[1]:g} pixels)"
        )


def _reach(sigma: float, w0: float, background: float) -> float:
    """Return the distance in pixels beyond which the term vanishes beside `background`."""
    floor = max(PRECISION * background, float(np.finfo(np.float32).tiny))
    return sigma * math.sqrt(2 * math.log(w0 / floor)) if w0 > floor else 0.0


def two_nearest(instances: np.ndarray, reach: float, boxes: Boxes, rows: slice) -> tuple:
    """Return the distances to the nearest and the second nearest cell, in some rows of a slice.

    Both are float64, (rows, width), Euclidean, in pixels, 0 on the cell. Distances beyond `reach`
    need not be known and come out as larger or infinity. `boxes` are those of the whole slice, as
    `unet.preparation.labels.bounding_boxes` gives them.

    Notes
    -----
    One distance transform per cell, in the neighbourhood of the cell alone: there it is exact,
    since all of the cell that is within reach of the rows lies inside.
    """
    height, width = instances.shape
    margin = math.ceil(min(reach, height + width))
    nearest = np.full((rows.stop - rows.start, width), np.inf)
    second = nearest.copy()
    for value, down, across in boxes:
        above, below = max(rows.start, down.start - margin), min(rows.stop, down.stop + margin)
        if above >= below:
            continue
        # All of the cell, or as much of it as is within reach of the rows.
        top = max(0, down.start - margin, rows.start - margin)
        bottom = min(height, down.stop + margin, rows.stop + margin)
        columns = slice(max(0, across.start - margin), min(width, across.stop + margin))
        other_cells = instances[top:bottom, columns] != value
        if other_cells.all():
            continue
        distance = ndimage.distance_transform_edt(other_cells)[above - top : below - top]
        window = (slice(above - rows.start, below - rows.start), columns)
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
    reach = _reach(sigma, w0, class_weights[0])
    boxes = bounding_boxes(instances) if w0 > 0 else []
    result = np.empty(labels.shape, np.float32)
    for rows in strips(labels.shape):
        weights = table[labels[rows]]
        if w0 > 0:
            nearest, second = two_nearest(instances, reach, boxes, rows)
            gap = (labels[rows] == 0) & np.isfinite(second)
            distances = nearest[gap] + second[gap]
            weights[gap] += w0 * np.exp(-(distances**2) / (2 * sigma**2))
        result[rows] = weights
    return result
