"""How well classes are told apart: IoU of each class, their mean, the pixels that are right.

References
----------
Long, Shelhamer and Darrell, CVPR 2015, Sec. 5 (pixel accuracy, mean IU). Everingham et al., IJCV
111, 2015 (the intersection over union of the PASCAL VOC challenge).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of each true class that were called each class: int64 (classes, classes).

    Parameters
    ----------
    truth : int ndarray
        Class of each pixel; what is no class, such as -1 or 255, is not annotated and not counted.
    found : int ndarray, same shape
        Class of each pixel, 0 to classes - 1.
    classes : int

    Examples
    --------
    >>> confusion(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    known = (truth >= 0) & (truth < classes)
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def score_classes(slices: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, Any]:
    """Score the classes of slices, each (truth, found) as for `confusion`.

    Returns
    -------
    dict
        iou_mean, over the classes that occur in truth or result; iou_0, iou_1, ..., NaN for a class
        that does in neither; accuracy, the share of the pixels that are right; confusion, a list of
        lists: rows are true classes; and per_slice, a list of the same of each slice.
    """
    tables = [confusion(truth, found, classes) for truth, found in slices]
    scores = _scores(np.sum(tables, axis=0))
    scores["per_slice"] = [_scores(table) for table in tables]
    return scores


def iou_of(table: np.ndarray) -> np.ndarray:
    """Intersection over union of each class: float64 (classes,), NaN where it does not occur."""
    right = np.diagonal(table).astype(np.float64)
    union = table.sum(axis=0) + table.sum(axis=1) - right
    return np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)


def _scores(table: np.ndarray) -> dict[str, Any]:
    iou = iou_of(table)
    occurs = ~np.isnan(iou)
    return {
        "iou_mean": float(iou[occurs].mean()) if occurs.any() else float("nan"),
        **{f"iou_{number}": float(value) for number, value in enumerate(iou)},
        "accuracy": float(np.trace(table) / table.sum()) if table.sum() else float("nan"),
        "confusion": table.tolist(),
    }
