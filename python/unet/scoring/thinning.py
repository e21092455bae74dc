"""Thin the membranes of a thresholded proposal by flooding them from the cells."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from unet.preparation.labels import instances_from_binary


def thin_membranes(cells: np.ndarray) -> np.ndarray:
    """Flood the membrane from the cells until only dams between different cells are left.

    The queue is first in, first out: at the start the membrane pixels beside a cell, column by
    column; a pixel that is taken from it appends its untouched membrane neighbours in the order
    left, up, right, down. A pixel whose 4-neighbours carry one label takes it; two or more, or
    none, make it a dam.

    Parameters
    ----------
    cells : bool ndarray, shape (Y, X)
        True inside a cell.

    Returns
    -------
    int32 ndarray, shape (Y, X)
        Labels of the grown cells, 0 on the dams; 1 everywhere if there is no cell pixel at all.

    Notes
    -----
    The queue holds one distance from the cells after the other, so each distance is worked through
    as arrays. Only pixels with an earlier, differing neighbour at the same distance need its
    outcome first; these few are taken one at a time.

    References
    ----------
    Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for
    connectomics, Frontiers in Neuroanatomy 9, 2015.
    """
    regions = instances_from_binary(cells)
    if not regions.any():
        return np.ones(cells.shape, np.int32)
    padded = np.pad(regions, 1)
    width = padded.shape[1]
    neighbours = np.array([[-1], [-width], [1], [width]])  # left, up, right, down
    label = padded.ravel()
    membrane = np.pad(regions == 0, 1)
    beside = ndimage.binary_dilation(padded > 0) & membrane
    columns, rows = np.nonzero(beside.T)
    wave = rows * width + columns
    untouched = membrane.ravel()
    untouched[wave] = False
    # Place in the present distance's part of the queue; -1 for every other pixel.
    rank = np.full(label.size, -1, np.int64)
    first = np.empty(label.size, np.int64)
    while wave.size:
        around = wave + neighbours
        _settle(wave, around, label, rank)
        reached = around.T[untouched[around].T]
        order = np.arange(reached.size)
        # Of repeated indices the last assignment stays, so backwards the first discovery wins.
        first[reached[::-1]] = order[::-1]
        wave = reached[first[reached] == order]
        untouched[wave] = False
    return np.ascontiguousarray(label.reshape(padded.shape)[1:-1, 1:-1])


def _settle(wave: np.ndarray, around: np.ndarray, label: np.ndarray, rank: np.ndarray) -> None:
    """Give every pixel of one distance its label, in place, as if taken in order."""
    found = label[around]
    highest = found.max(axis=0)
    lowest = np.where(found > 0, found, np.iinfo(np.int32).max).min(axis=0)
    dam = (highest > 0) & (lowest != highest)
    settled = np.where(dam, 0, highest)

    position = np.arange(wave.size)
    rank[wave] = position
    ranks = rank[around]
    earlier = (ranks >= 0) & (ranks < position)
    # A neighbour matters unless it is a dam already or can only bring the pixel's own label.
    other = (settled[ranks] != settled) | (settled == 0)
    late = np.flatnonzero((earlier & ~dam[ranks] & other).any(axis=0) & ~dam)
    # The last entry stands for the neighbours that do not count.
    outcome = [*settled.tolist(), 0]
    before = np.where(earlier, ranks, -1).T[late].tolist()
    for pixel, (left, up, right, down) in zip(late.tolist(), before):
        labels = {outcome[pixel], outcome[left], outcome[up], outcome[right], outcome[down]}
        labels.discard(0)
        outcome[pixel] = labels.pop() if len(labels) == 1 else 0
    label[wave] = outcome[:-1]
    rank[wave] = -1
