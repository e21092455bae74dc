"""Detections: the cells of each frame, their areas, centres and overlaps with the frame before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from unet.errors import InputError
from unet.scoring.contingency_table import contingency_table

# Numbers below are counted in a table of that length.
_COUNTED = 1 << 20


# Cells as small as 2 x 2 pixels have half of their neighbours in common; fewer pairs tell nothing.
_FEW_PAIRS = 100


class FrameDetections(NamedTuple):
    """The cells of one frame, in the order of their labels.

    Attributes
    ----------
    labels : int64 ndarray, shape (cells,)
    area : float64 ndarray, shape (cells,)
        Pixels.
    centre : float64 ndarray, shape (cells, 2)
        Mean row and column.
    """

    labels: np.ndarray
    area: np.ndarray
    centre: np.ndarray


class Detections(NamedTuple):
    """The cells of a sequence.

    Attributes
    ----------
    frames : list of FrameDetections
    shared : list of scipy.sparse.csr_matrix, shape (cells of frame t - 1, cells of frame t)
        Pixels that two cells share; that of frame 0 has no rows.
    """

    frames: list[FrameDetections]
    shared: list[sparse.csr_matrix]

    def iou(self, t: int) -> np.ndarray:
        """Return the intersections over unions of the cells of frames t - 1 and t, float64."""
        shared = self.shared[t].toarray().astype(np.float64)
        before, now = self.frames[t - 1].area, self.frames[t].area
        return shared / (before[:, None] + now - shared)


def detect(frames: Sequence[np.ndarray]) -> Detections:
    """Detect the cells of a sequence, frame after frame.

    Parameters
    ----------
    frames : sequence of ndarray of int, shape (height, width)
        0 is background, every other number a cell of its frame; such as a `unet.volumes.Volume`.

    Raises
    ------
    InputError
        If numbers are negative or not whole, or change from most pixels to the next; or frames
        differ in size.
    """
    cells: list[FrameDetections] = []
    shared: list[sparse.csr_matrix] = []
    for t in range(len(frames)):
        found, index = _cells(np.asarray(frames[t]), t)
        if t == 0:
            previous, rows = np.zeros_like(index), 0
        elif index.shape != previous.shape:
            raise InputError(f"frame {t} is {index.shape}, but the one before is {previous.shape}")
        shared.append(shared_pixels(previous, index, rows, len(found.labels)))
        cells.append(found)
        previous, rows = index, len(found.labels)
    return Detections(cells, shared)


def _cells(labels: np.ndarray, t: int) -> tuple[FrameDetections, np.ndarray]:
    """Return the cells of a frame, and for each pixel its cell counted from 1, 0 for none."""
    values, index = number_cells(labels, t)
    left, right = index[:, :-1], index[:, 1:]
    inside = (left > 0) & (right > 0)
    pairs = np.count_nonzero(inside)
    if pairs > _FEW_PAIRS and 2 * np.count_nonzero(left[inside] == right[inside]) < pairs:
        raise InputError(
            f"frame {t} holds other numbers from pixel to pixel, as a picture does: give cells' "
            f"numbers, as tools/segment.py --instances writes them"
        )
    area = np.bincount(index.ravel(), minlength=len(values) + 1)[1:].astype(np.float64)
    inside = np.nonzero(index)
    sums = [np.bincount(index[inside], place, len(values) + 1)[1:] for place in inside]
    return FrameDetections(
        values.astype(np.int64), area, np.stack(sums, axis=1) / area[:, None]
    ), index


def number_cells(labels: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of frame t's cells, ascending, and the place among them of each pixel's.

    Labels are (height, width), places int64 and counted from 1; 0 is background. Raises
    `InputError` as `detect`.
    """
    if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
        raise InputError(
            f"frame {t} holds numbers that are not whole: give cells' numbers, as tools/segment.py "
            f"--instances writes them, not probabilities, of which --label-threshold 0.5 makes "
            f"cells"
        )
    if labels.dtype.kind != "b" and labels.min() < 0:
        raise InputError(f"frame {t} holds the negative number {labels.min()}, which is no cell's")
    if labels.max() < _COUNTED:
        # Ten times as fast as sorting the pixels.
        whole = labels.astype(np.int64)
        there = np.bincount(whole.ravel()) > 0
        there[0] = False
        return np.flatnonzero(there), np.where(there, np.cumsum(there), 0)[whole]
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    return (values[1:], index) if values[0] == 0 else (values, index + 1)


def shared_pixels(
    before: np.ndarray, now: np.ndarray, rows: int, columns: int
) -> sparse.csr_matrix:
    """Count the pixels that the cells of two frames share: int64 (rows, columns).

    Both frames are int, (height, width); cells count from 1, 0 is background.
    """
    table = contingency_table(before, now)
    both = (table.first > 0) & (table.second > 0)
    pairs = (table.first[both] - 1, table.second[both] - 1)
    return sparse.coo_matrix((table.pixels[both], pairs), shape=(rows, columns)).tocsr()
