"""Undersegmentation: which cells that touch were not told apart."""

from __future__ import annotations

import numpy as np


def undersegmented(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the true cells that one found cell covers together with another.

    Parameters
    ----------
    truth, found : int ndarray, shape (height, width)
        Number of the cell of each pixel, 0 is background.

    Returns
    -------
    int ndarray, shape (merged,)
        Numbers of `truth`: of the found cells that cover more than half of a true cell each, as SEG
        of the cell tracking challenge matches them, those that cover two or more.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 2, 2, 3, 3]])
    >>> undersegmented(truth, np.array([[4, 4, 0, 0, 5, 5, 5, 5]]))
    array([2, 3])
    """
    numbers, place, areas = np.unique(truth, return_inverse=True, return_counts=True)
    components, component = np.unique(found, return_inverse=True)
    pairs = place.ravel() * len(components) + component.ravel()
    table = np.bincount(pairs, minlength=len(numbers) * len(components))
    table = table.reshape(len(numbers), len(components))
    covers = 2 * table > areas[:, None]
    covers[numbers == 0] = False
    covers[:, components == 0] = False
    return numbers[covers[:, covers.sum(axis=0) > 1].any(axis=1)]
