"""From labels of a known kind to classes, instances, borders and class balance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.errors import InputError
from unet.volumes.row_strips import count_values, strips, values_of

# How "not annotated" is written in a training set.
IGNORED = 255
KINDS = ("binary", "membranes", "classes", "instances")


class Annotation(NamedTuple):
    """What the labels of one slice mean.

    Attributes
    ----------
    classes : ndarray of uint8, shape (height, width)
        Class of each pixel, 0 is background, `IGNORED` where not annotated.
    instances : ndarray of int32, shape (height, width)
        Cell of each pixel, 0 is none.
    borders : ndarray of bool, shape (height, width)
        Pixels taken from touching cells and made background.
    vanished : int
        Cells so thin that the borders took all of their pixels.
    """

    classes: np.ndarray
    instances: np.ndarray
    borders: np.ndarray
    vanished: int


def annotate(labels: np.ndarray, kind: str, ignore: int | None = None) -> Annotation:
    """Turn the labels of one slice into classes and cells.

    Parameters
    ----------
    labels : ndarray of bool, int or whole-numbered float, shape (height, width)
    kind : {"binary", "membranes", "classes", "instances"}
        binary: 0 is background, all else inside a cell; cells are the 4-connected components.
        membranes: the other way round: 0 is inside a cell, all else membrane, which is background.
        classes: class numbers 0..254; cells are the 4-connected components of each class but 0.
        instances: 0 is background, every other number a cell; thin background borders are put
        between cells that touch.
    ignore : int, optional
        The label that means "not annotated".

    Raises
    ------
    InputError
        If labels are negative, not whole, or beyond the class numbers.
    """
    labels = whole(labels)
    ignored = None if ignore is None else labels == ignore
    labels = without_ignored(labels, ignore)
    if labels.dtype.kind != "b" and labels.min() < 0:
        values = values_of(labels).tolist()
        raise InputError(
            f"the label {values[0]} is negative: say --ignore-label {values[0]} if it means not "
            f"annotated, or name the classes, background first: --classes={listed(values)}"
        )
    borders = np.zeros(labels.shape, bool)
    vanished = 0
    if kind == "instances":
        dense, count = _renumber(labels)
        instances = separate_touching(dense)
        borders = (dense > 0) & (instances == 0)
        vanished = int(np.count_nonzero(count_values(instances, count + 1)[1:] == 0))
        classes = (instances > 0).astype(np.uint8)
    elif kind in ("binary", "membranes"):
        classes = ((labels == 0) == (kind == "membranes")).astype(np.uint8)
        if ignored is not None:
            classes[ignored] = 0
        instances = instances_from_binary(classes > 0)
    elif kind == "classes":
        if labels.max() >= IGNORED:
            raise InputError(
                f"the label {labels.max()} is no class number 0..{IGNORED - 1}: say "
                f"--ignore-label {labels.max()} if it means not annotated, or name the classes, "
                f"background first: --classes={listed(values_of(labels).tolist())}"
            )
        classes = labels.astype(np.uint8)
        instances = np.zeros(labels.shape, np.int32)
        present = np.flatnonzero(count_values(classes, IGNORED))
        for value in present[present > 0]:
            parts = instances_from_binary(classes == value)
            np.add(parts, instances.max(), out=instances, where=parts > 0)
    else:
        raise ValueError(f"{kind!r} is no kind of labels, those are {KINDS}")
    if ignored is not None:
        classes[ignored] = IGNORED
    return Annotation(classes, instances, borders, vanished)


def whole(labels: np.ndarray) -> np.ndarray:
    """Return labels as whole numbers, which floats may be, or raise `InputError`."""
    if labels.dtype.kind != "f":
        return labels
    if (labels != np.rint(labels)).any():
        raise InputError(
            "the labels are not whole numbers; is this the label stack? Of probabilities say "
            "--label-threshold 0.5"
        )
    return labels.astype(np.int64)


def listed(values: Sequence[int], most: int = 8) -> str:
    """Write labels as an option takes them: 0,1,200."""
    return ",".join(map(str, values[:most])) + (",..." if len(values) > most else "")


def without_ignored(labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """Return labels, 0 where they are the one that means: not annotated."""
    return labels if ignore is None else np.where(labels == ignore, labels.dtype.type(0), labels)


def _renumber(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the same cells numbered 1, 2, ..., and how many: large volumes exceed 32 bit."""
    values = values_of(labels)
    values = values[values > 0]
    number = np.empty(labels.shape, np.int32)
    for rows in strips(labels.shape):
        number[rows] = np.searchsorted(values, labels[rows], side="right")
    return number, len(values)


def instances_from_binary(foreground: np.ndarray) -> np.ndarray:
    """Number the cells of a slice: the 4-connected components of the foreground.

    The foreground is bool, (height, width); cells are int32 and count from 1, 0 is background.
    """
    labelled, _ = ndimage.label(foreground)
    return labelled.astype(np.int32, copy=False)


def separate_touching(instances: np.ndarray) -> np.ndarray:
    """Put a thin background border between touching cells, int32 (height, width), 0 is background.

    Pixels of a cell that have a pixel of another cell among their 8 neighbours become background:
    the border is where the largest and the smallest cell number under a 3 x 3 window differ
    (dilation against erosion), so it takes one pixel from each of the two cells.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3: "The separation border is computed using morphological
    operations."
    """
    # The filters compute in double precision, which holds 32 bit but not 64.
    instances = instances.astype(np.int32, copy=False)
    none = np.iinfo(np.int32).max
    separated = instances.copy()
    for rows in strips(instances.shape):
        # The neighbours beyond the strip count, those beyond the slice do not.
        begin = max(0, rows.start - 1)
        part = instances[begin : rows.stop + 1]
        largest = ndimage.grey_dilation(part, (3, 3))
        smallest = ndimage.grey_erosion(np.where(part > 0, part, none), (3, 3))
        own = slice(rows.start - begin, rows.stop - begin)
        separated[rows][((part > 0) & (largest != smallest))[own]] = 0
    return separated


def class_counts(classes: np.ndarray) -> np.ndarray:
    """Count the annotated pixels of each class, int64 (255,), in classes of uint8."""
    return count_values(np.atleast_2d(classes), IGNORED + 1)[:IGNORED]


def class_weights(counts: Sequence[int], balance: bool = True) -> np.ndarray:
    """Return wc, the weight of each class that balances the class frequencies: float64 (K,).

    Parameters
    ----------
    counts : sequence of int, length K
        Annotated pixels of each class in the training set.
    balance : bool
        False: all classes weigh 1.

    Notes
    -----
    wc = N / (K n_c), with N annotated pixels, n_c of them of class c, and K classes that occur:
    every class weighs the same in sum, and a pixel 1 on average. A class that is absent weighs 1.
    Sec. 3, Eq. 2 of the paper demands the balance but prints no formula for it.
    """
    counts = np.asarray(counts, np.float64)
    weights = np.ones(len(counts))
    present = counts > 0
    if balance and present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def bounding_boxes(instances: np.ndarray) -> list[tuple[int, slice, slice]]:
    """Return (cell number, rows, columns) of every cell of a slice, (height, width), by number.

    0 is background; numbers may be large and with gaps.
    """
    dense, count = _renumber(instances)
    values = values_of(instances)
    found = ndimage.find_objects(dense, count)
    return [(int(value), box[0], box[1]) for value, box in zip(values[values > 0], found)]
