"""The coarser levels of a pyramid: each half as high and wide, of means or every second pixel."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

# A level that is not larger is the last: it fits on a screen.
_SMALLEST = 256


def coarser_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of the levels after the first, (..., height, width)."""
    shapes = []
    while max(shape[-2:]) > _SMALLEST:
        shape = (*shape[:-2], *(-(-size // 2) for size in shape[-2:]))
        shapes.append(shape)
    return shapes


def halve(image: np.ndarray, labels: bool) -> np.ndarray:
    """Return an image at half its height and width, rounded up.

    Parameters
    ----------
    image : ndarray, shape (..., height, width)
    labels : bool
        Whether values are numbers of classes or objects: then every second pixel is taken. Else
        the mean of two by two, at an odd edge of those that are there, is rounded to the type.

    Examples
    --------
    >>> halve(np.array([[1, 3, 5], [5, 7, 9]], np.uint8), labels=False)
    array([[4, 7]], dtype=uint8)
    """
    if labels:
        return image[..., ::2, ::2]
    odd = [(0, size % 2) for size in image.shape[-2:]]
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + odd, mode="edge")
    means = np.zeros((*image.shape[:-2], *(size // 2 for size in padded.shape[-2:])), np.float64)
    for y, x in product((0, 1), (0, 1)):
        means += padded[..., y::2, x::2]
    means /= 4
    if image.dtype.kind != "f":
        means = np.rint(means)
    return means.astype(image.dtype)


def write_coarser(finer: Any, coarser: Any, chunk: tuple[int, int], labels: bool) -> None:
    """Fill a level from the one before, chunk by chunk; both are arrays (..., height, width)."""
    height, width = coarser.shape[-2:]
    leading = product(*(range(size) for size in coarser.shape[:-2]))
    for place in leading:
        for y, x in product(range(0, height, chunk[0]), range(0, width, chunk[1])):
            rows, columns = slice(2 * y, 2 * (y + chunk[0])), slice(2 * x, 2 * (x + chunk[1]))
            part = halve(finer[(*place, rows, columns)], labels)
            coarser[(*place, slice(y, y + part.shape[0]), slice(x, x + part.shape[1]))] = part
