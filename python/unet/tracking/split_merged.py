"""Cells that were apart and then touch: told apart again by where each was in the frame before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet.tracking.detections import number_cells, shared_pixels

# Frames that a cell must have been seen apart from others; else it may have been a part.
APART = 3
# What is left to each cell, at least, of the area that it had.
LEAST = 0.3


class SplitMerged:
    """The frames of a sequence, cells that merged told apart.

    Parameters
    ----------
    frames : sequence of ndarray of int, shape (height, width)
        As of `unet.tracking.detections.detect`, all of one size.

    Notes
    -----
    `split[t]` is a new int64 array of frame t: cells count from 1, with the pieces of merged
    ones last. In memory are the pixels of merged cells alone.

    A cell that covers more than half of each of several cells of the frame before, all of which
    have been seen for `APART` frames, is divided among them: each pixel to the nearest. So two
    cells stay apart for as long as they touch.
    """

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self._frames = frames
        # Of each frame: flat places of pixels, and their new numbers.
        self._pieces: list[tuple[np.ndarray, np.ndarray]] = []
        age = np.zeros(0, np.int64)
        for t in range(len(frames)):
            values, now = number_cells(np.asarray(frames[t]), t)
            if t == 0:
                before = np.zeros_like(now)
            places, numbers = _pieces(before, age, now, len(values))
            self._pieces.append((places, numbers))
            now.ravel()[places] = numbers
            age = _ages(before, age, now, max(len(values), int(numbers.max(initial=0))))
            before = now

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, t: int) -> np.ndarray:
        _, now = number_cells(np.asarray(self._frames[t]), t)
        places, numbers = self._pieces[t]
        now.ravel()[places] = numbers
        return now


def _pieces(
    before: np.ndarray, age: np.ndarray, now: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of cells to be divided, but the first piece of each, and their numbers."""
    area = np.bincount(before.ravel(), minlength=len(age) + 1)[1:]
    shared = shared_pixels(before, now, len(age), count).toarray()
    inside = (2 * shared > area[:, None]) & (age[:, None] >= APART)
    places, numbers = [], []
    boxes = ndimage.find_objects(now, count)
    for cell in np.flatnonzero(inside.sum(axis=0) > 1):
        box = boxes[cell]
        old = np.flatnonzero(inside[:, cell])
        pixels = now[box] == cell + 1
        # They cover more than half of each old cell, so all of these reach into the box.
        distance = [ndimage.distance_transform_edt(before[box] != one + 1)[pixels] for one in old]
        nearest = np.argmin(distance, axis=0)
        if (np.bincount(nearest, minlength=len(old)) < LEAST * area[old]).any():
            continue
        flat = np.flatnonzero(now == cell + 1)
        for part in range(1, len(old)):
            count += 1
            places.append(flat[nearest == part])
            numbers.append(np.full(len(places[-1]), count))
    if not places:
        return (np.zeros(0, np.int64),) * 2
    return np.concatenate(places), np.concatenate(numbers)


def _ages(before: np.ndarray, age: np.ndarray, now: np.ndarray, count: int) -> np.ndarray:
    """Return for how many frames each cell has been there: the best of each other go on."""
    ages = np.ones(count, np.int64)
    if len(age) and count:
        shared = shared_pixels(before, now, len(age), count).toarray()
        old = shared.argmax(axis=0)
        mutual = (shared.max(axis=0) > 0) & (shared.argmax(axis=1)[old] == np.arange(count))
        ages[mutual] += age[old[mutual]]
    return ages
