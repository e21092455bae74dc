"""From label images to cells: components, borders between touching cells, class balance."""

from __future__ import annotations

from typing import Optional, Sequence

import numpy as np
from scipy import ndimage

from unet.errors import InputError

IGNORED = 255


def instances_from_binary(foreground: np.ndarray) -> np.ndarray:
    """Number the cells of a slice: the 4-connected components of the foreground.

    Parameters
    ----------
    foreground : ndarray of bool, shape (height, width)

    Returns
    -------
    ndarray of int32, shape (height, width)
        0 is background, cells count from 1.
    """
    labelled, _ = ndimage.label(foreground)
    return labelled.astype(np.int32)


def separate_touching(instances: np.ndarray) -> np.ndarray:
    """Put a thin background border between touching cells (Ronneberger et al. 2015, Sec. 3).

    Parameters
    ----------
    instances : ndarray of int, shape (height, width)
        0 is background, every other value a cell.

    Returns
    -------
    ndarray of int32, shape (height, width)
        Pixels of a cell that have a pixel of another cell among their 8 neighbours are background.

    Notes
    -----
    The border is where the largest and the smallest cell number under a 3 x 3 window differ
    (dilation against erosion), so it is one pixel wide on each of the two cells.
    """
    instances = instances.astype(np.int32)
    none = np.iinfo(np.int32).max
    largest = ndimage.maximum_filter(instances, 3)
    smallest = ndimage.minimum_filter(np.where(instances > 0, instances, none), 3)
    touching = (instances > 0) & (largest != smallest)
    return np.where(touching, 0, instances)


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Count the annotated pixels of each class.

    Parameters
    ----------
    labels : ndarray of uint8
        Class numbers, `IGNORED` where not annotated.
    classes : int

    Returns
    -------
    ndarray of int64, shape (classes,)

    Raises
    ------
    InputError
        If a label is neither a class nor `IGNORED`.
    """
    counts = np.bincount(labels.ravel(), minlength=256)
    beyond = np.nonzero(counts[classes:IGNORED])[0]
    if beyond.size:
        raise InputError(
            f"label {classes + beyond[0]} is not one of the {classes} classes 0..{classes - 1}"
        )
    return counts[:classes].astype(np.int64)


def class_weights(counts: Sequence[int], balance: bool = True) -> np.ndarray:
    """Return wc, the weight of each class that balances the class frequencies.

    Parameters
    ----------
    counts : sequence of int, length classes
        Annotated pixels of each class in the training set.
    balance : bool
        False: all classes weigh 1.

    Returns
    -------
    ndarray of float64, shape (classes,)
        N / (K n_c) with N pixels, K classes that occur and n_c pixels of class c, so that every class
        weighs the same in sum and a pixel weighs 1 on average. A class that does not occur weighs 1.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3, Eq. 2.
    """
    counts = np.asarray(counts, np.float64)
    weights = np.ones(len(counts))
    present = counts > 0
    if balance and present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def bounding_boxes(instances: np.ndarray) -> list:
    """Return (cell number, row slice, column slice) of every cell of a slice."""
    values = np.unique(instances)
    values = values[values > 0]
    dense = np.searchsorted(values, instances) + 1
    dense[instances <= 0] = 0
    found = ndimage.find_objects(dense)
    return [(int(value), box[0], box[1]) for value, box in zip(values, found)]


def check_labels(labels: np.ndarray, ignore: Optional[int] = None) -> int:
    """Return how many classes a stack of class labels has: the largest class + 1, at least 2.

    Raises
    ------
    InputError
        If labels are negative, not whole, or 255 classes and more.
    """
    annotated = labels if ignore is None else labels[labels != ignore]
    if annotated.size == 0:
        raise InputError("no pixel is annotated: every label is the ignored one")
    low, high = annotated.min(), annotated.max()
    if low < 0 or high >= IGNORED:
        raise InputError(f"class labels must lie in 0..{IGNORED - 1}, found {low}..{high}")
    return max(2, int(high) + 1)
