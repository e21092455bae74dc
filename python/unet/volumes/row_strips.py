"""Slices too large to be computed at once: strip by strip of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Pixels that are computed at once. Slices of 2,000 x 2,000 are one strip.
STRIP = 1 << 22


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of a slice of `shape` = (height, width), some at a time."""
    height, width = shape
    rows = max(64, STRIP // width)
    for first in range(0, height, rows):
        yield slice(first, min(height, first + rows))


def values_of(image: np.ndarray) -> np.ndarray:
    """Return the values that occur in a slice, sorted: np.unique in less memory."""
    return np.unique(np.concatenate([np.unique(image[rows]) for rows in strips(image.shape)]))


def count_values(image: np.ndarray, size: int) -> np.ndarray:
    """Count how often each of 0 to size - 1 occurs in a slice of no others: int64 (size,)."""
    counts = np.zeros(size, np.int64)
    for rows in strips(image.shape):
        counts += np.bincount(image[rows].ravel(), minlength=size)
    return counts
