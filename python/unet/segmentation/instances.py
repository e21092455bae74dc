"""From probabilities to cells: foreground, holes, cells that touch, and a number for each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.errors import InputError

# Cells that share an edge or a corner are one.
_EIGHT = np.ones((3, 3), bool)
# Below every probability and every depth under it.
_OUTSIDE = -2.0


class InstanceRules(NamedTuple):
    """What makes a cell of a slice of probabilities.

    Attributes
    ----------
    threshold : float, optional
        Pixels are foreground where the probability of not being background (class 0) is above it.
        None: where another class than the background is the most probable.
    minimum_area : int
        Pixels; smaller cells are dropped.
    fill_holes : bool
        Background that a component encloses becomes part of it.
    watershed : float, optional
        Below 1: a component is split where the probability between two of its peaks falls by so
        much below the lower one. None or 0: components are cells.
    """

    threshold: float | None = None
    minimum_area: int = 1
    fill_holes: bool = False
    watershed: float | None = None

    def changed(self) -> dict[str, object]:
        """Return the values that are not the default ones; None stands for those that are."""
        return {
            name: None if value == self._field_defaults[name] else value
            for name, value in self._asdict().items()
        }


def check_rules(rules: InstanceRules) -> None:
    """Refuse rules that no cell can meet, or that mean nothing."""
    if rules.threshold is not None and not 0 <= rules.threshold < 1:
        raise InputError(f"threshold {rules.threshold:g}: give a probability, 0 <= T < 1")
    if rules.watershed is not None and not 0 <= rules.watershed < 1:
        raise InputError(
            f"watershed {rules.watershed:g}: give the depth of a valley of probability, 0 < D < 1, "
            f"or 0 to split nothing"
        )
    if rules.minimum_area < 0:
        raise InputError(f"minimum area {rules.minimum_area}: give a number of pixels, 0 or more")


def find_instances(probabilities: np.ndarray, rules: InstanceRules) -> np.ndarray:
    """Find the cells of one slice.

    Parameters
    ----------
    probabilities : float ndarray, shape (classes, height, width)
        Probability of each class; class 0 is the background.
    rules : InstanceRules

    Returns
    -------
    int32 ndarray, shape (height, width)
        0 is background; cells count from 1, row by row from the top.

    Raises
    ------
    InputError
        If a probability is NaN, or the rules are invalid.

    Notes
    -----
    Cells are 8-connected, so holes are 4-connected. Splitting is a watershed on the probability of
    the background, which between touching cells is the network's map of their borders; its seeds
    are the peaks that stand out by the depth (h-maxima: Soille, Morphological Image Analysis, 2003,
    Sec. 6.3.4).

    Examples
    --------
    >>> cell = np.array([[0.9, 0.2, 0.8, 0.6, 0.9]])
    >>> probabilities = np.stack([1 - cell, cell])
    >>> find_instances(probabilities, InstanceRules())
    array([[1, 0, 2, 2, 2]], dtype=int32)
    >>> find_instances(probabilities, InstanceRules(watershed=0.15))
    array([[1, 0, 2, 3, 3]], dtype=int32)
    >>> find_instances(probabilities, InstanceRules(threshold=0.7))
    array([[1, 0, 2, 0, 3]], dtype=int32)
    """
    check_rules(rules)
    if np.isnan(probabilities).any():
        raise InputError(
            "probabilities are NaN: the network's weights or the grey values are out of bounds"
        )
    cell = probabilities[1:].sum(axis=0)
    if rules.threshold is None:
        foreground = probabilities.argmax(axis=0) > 0
    else:
        foreground = cell > rules.threshold
    if rules.fill_holes:
        foreground = ndimage.binary_fill_holes(foreground)
    if not rules.watershed:
        labels = ndimage.label(foreground, _EIGHT)[0]
    else:
        labels = split(cell, foreground, rules.watershed)
    return drop_small(labels, rules.minimum_area)


def split(cell: np.ndarray, foreground: np.ndarray, depth: float) -> np.ndarray:
    """Split the components of a slice, or of a part that shows them whole, where a valley is.

    What becomes of a component depends on its own pixels alone.

    Parameters
    ----------
    cell : float ndarray, shape (height, width)
        Probability of not being background.
    foreground : bool ndarray, shape (height, width)
    depth : float
        `InstanceRules.watershed`.

    Returns
    -------
    int ndarray, shape (height, width)
        0 is background; cells have numbers from 1 in no certain order.
    """
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    # A frame of background: a image that is all cell has a peak, too.
    inside = np.pad(foreground, 1)
    landscape = np.where(inside, np.pad(cell, 1), _OUTSIDE).astype(np.float64)
    # Peaks are cut off by `depth`; those that a shallower valley parts become one plateau.
    cut = reconstruction(np.where(inside, landscape - depth, _OUTSIDE), landscape)
    seeds, _ = ndimage.label(local_maxima(cut) & inside, _EIGHT)
    labels, count = ndimage.label(inside, _EIGHT)
    # Of each seed a pixel, and the component that this lies in.
    of_seed = labels.ravel()[np.unique(seeds, return_index=True)[1][1:]]
    several = np.nonzero(np.bincount(of_seed, minlength=count + 1) > 1)[0]
    boxes = ndimage.find_objects(labels)
    # One by one: which of two seeds as high takes a pixel between them is else up to the others.
    for component in several:
        box = boxes[component - 1]
        here = labels[box] == component
        own, peaks = ndimage.label((seeds[box] > 0) & here, _EIGHT)
        parts = watershed(-landscape[box], own, connectivity=2, mask=here)
        labels[box][here] = np.where(parts[here] == 1, component, parts[here] - 1 + count)
        count += peaks - 1
    return labels[1:-1, 1:-1]


def drop_small(labels: np.ndarray, minimum_area: int) -> np.ndarray:
    """Drop cells below `minimum_area` pixels; number the others 1, 2, ... row by row, int32."""
    values, first, area = np.unique(labels, return_index=True, return_counts=True)
    kept = (values != 0) & (area >= minimum_area)
    values, first = values[kept], first[kept]
    number = np.zeros(int(labels.max()) + 1, np.int32)
    number[values[np.argsort(first)]] = np.arange(1, len(values) + 1)
    return number[labels]


def as_stored(labels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return instances as uint16, as the cell tracking challenge has them, or uint32.

    An InputError if there are more cells than numbers.
    """
    most = int(np.iinfo(dtype).max)
    if labels.max() > most:
        raise InputError(
            f"{labels.max()} cells in one slice are more than the {most} numbers of "
            f"{np.dtype(dtype)}; store 32 bit (--instance-dtype uint32), or drop small ones with a "
            f"larger minimum area"
        )
    return labels.astype(dtype)
