"""How well cells are found: SEG, and F1 at intersections over unions of 0.5 to 0.9.

References
----------
Caicedo et al., Cytometry A 95, 2019 (F1 by the IoU that is demanded). Schmidt et al., MICCAI 2018
(StarDist, whose `matching` counts likewise). Maska et al., Bioinformatics 30, 2014 (SEG).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unet.scoring.contingency_table import contingency_table
from unet.scoring.seg_det_tra import match_objects, seg

#: The intersections over unions from which on a found cell is the true one.
IOUS = tuple(round(0.05 * k, 2) for k in range(10, 19))
#: In a picture of true cells: nobody has said what is there.
UNKNOWN = -1


def without_unknown(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return true and found cells of a slice, without what lies where nobody annotated.

    Parameters
    ----------
    truth : int ndarray, shape (height, width)
        Number of the cell of each pixel, 0 is background, `UNKNOWN` not annotated.
    found : int ndarray, same shape
        Of which a cell is left out if most of it is not annotated; else what of it is.

    Examples
    --------
    >>> without_unknown(np.array([[-1, -1, 0, 4]]), np.array([[1, 1, 1, 2]]))
    (array([[0, 0, 0, 4]]), array([[0, 0, 0, 2]]))
    """
    unknown = truth == UNKNOWN
    if not unknown.any():
        return truth, found
    size = int(found.max(initial=0)) + 1
    area, hidden = (
        np.bincount(found.ravel(), minlength=size),
        np.bincount(found[unknown], minlength=size),
    )
    kept = 2 * hidden <= area
    return np.where(unknown, 0, truth), np.where(unknown | ~kept[found], 0, found)


def cell_overlaps(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return what a slice's cells have in common, as far as it decides which cell is which.

    Parameters
    ----------
    truth, found : int ndarray, shape (height, width)
        Number of the cell of each pixel, 0 is background.

    Returns
    -------
    areas : int64 ndarray, shape (found cells,)
        Pixels of each.
    iou : float64 ndarray, shape (found cells,)
        Intersection over union with the true cell of which it has at least 0.5; 0: there is none.
        Of two halves of one true cell one has it, and of two true cells that one found cell covers
        by half each, one.
    cells : int
        True ones.

    Notes
    -----
    Who shares at least half of the union with one cell shares less with any other, but for exact
    halves, so that no assignment has to be looked for: this is the one that is.
    """
    table = contingency_table(truth, found)
    trues, row = np.unique(table.first, return_inverse=True)
    finds, column = np.unique(table.second, return_inverse=True)
    true_areas, areas = np.bincount(row, table.pixels), np.bincount(column, table.pixels)
    common = table.pixels
    iou = common / (true_areas[row] + areas[column] - common)
    pair = np.flatnonzero((table.first > 0) & (table.second > 0) & (iou >= IOUS[0]))
    pair = pair[np.unique(row[pair], return_index=True)[1]]
    pair = pair[np.unique(column[pair], return_index=True)[1]]
    matched = np.zeros(len(finds))
    matched[column[pair]] = iou[pair]
    cells = finds > 0
    return areas[cells].astype(np.int64), matched[cells], int(np.count_nonzero(trues))


def cell_counts(
    areas: np.ndarray, iou: np.ndarray, cells: int, minimum_area: int = 1
) -> np.ndarray:
    """Count cells found, false and missed at each IoU of `IOUS`: int64 (9, 3) of tp, fp, fn.

    Parameters are those that `cell_overlaps` returns; found cells below `minimum_area` pixels do
    not count. Counts of slices may be added.
    """
    kept = areas >= minimum_area
    tp = np.count_nonzero(iou[kept, np.newaxis] >= np.array(IOUS), axis=0)
    return np.stack([tp, np.count_nonzero(kept) - tp, cells - tp], axis=1)


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 = 2 tp / (2 tp + fp + fn) of counts (..., 3): float64 (...); NaN where all are 0."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    total = 2 * tp + fp + fn
    return np.divide(2 * tp, total, out=np.full_like(total, np.nan), where=total != 0)


def score_cells(slices: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Score the cells of slices.

    Parameters
    ----------
    slices : iterable of (truth, found)
        As for `without_unknown`.

    Returns
    -------
    dict
        SEG, the mean over all true cells; f1_mean, the mean of F1 over `IOUS`; f1_0.50 to f1_0.90;
        precision and recall at 0.5; cells, found_cells; ious, f1_by_iou; and per_slice, a list of
        the same of each slice. SEG is NaN where there is no true cell, F1 where there is no cell.
    """
    counts, matches = [], []
    for truth, found in slices:
        truth, found = without_unknown(truth, found)
        counts.append(cell_counts(*cell_overlaps(truth, found)))
        matches.append(match_objects(truth, found))
    scores = _scores(counts, matches)
    scores["per_slice"] = [_scores([one], [match]) for one, match in zip(counts, matches)]
    return scores


def _scores(counts: list[np.ndarray], matches: list[Any]) -> dict[str, Any]:
    summed = np.sum(counts, axis=0)
    by_iou = f1(summed)
    tp, fp, fn = summed[0].tolist()
    has_cells = any(len(one.reference) for one in matches)
    return {
        "SEG": seg(matches) if has_cells else float("nan"),
        "f1_mean": float(by_iou.mean()),
        **{f"f1_{iou:.2f}": float(value) for iou, value in zip(IOUS, by_iou)},
        "precision": tp / (tp + fp) if tp + fp else float("nan"),
        "recall": tp / (tp + fn) if tp + fn else float("nan"),
        "cells": tp + fn,
        "found_cells": tp + fp,
        "ious": list(IOUS),
        "f1_by_iou": by_iou.tolist(),
    }
