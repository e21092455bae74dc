"""The warping error of the ISBI 2012 challenge: warps that keep the topology, and what they leave.

References
----------
Jain et al., Boundary learning by optimization with topological constraints, CVPR 2010.
Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from unet.preparation.labels import instances_from_binary

#: The kinds of mismatch a warp leaves behind, in the order in which they are counted.
MISMATCH_TYPES = (
    "split",
    "merge",
    "hole_addition",
    "hole_deletion",
    "object_addition",
    "object_deletion",
)
SPLIT, MERGE, HOLE_ADDITION, HOLE_DELETION, OBJECT_ADDITION, OBJECT_DELETION = range(6)
#: Half the side of the window in which a removed pixel is asked whether it split its cell.
WINDOW_RADIUS = 20

# (dy, dx) of the neighbours b0 .. b7: E, NE, N, NW, W, SW, S, SE.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_EIGHT = np.ones((3, 3), bool)
# Pixels of the windows that are looked at together.
_BATCH = 1 << 20


def _simple_table() -> bytes:
    """One byte per neighbourhood (bit k is b_k): 1 where the centre is a simple point."""
    code = np.arange(256)[:, np.newaxis]
    edge = np.arange(0, 8, 2)
    b, c, d = ((code >> (edge + step) % 8) & 1 for step in (0, 1, 2))
    return ((b - b * c * d).sum(axis=1) == 1).astype(np.uint8).tobytes()


SIMPLE_POINTS = _simple_table()


def warping_order(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, *, legacy: bool = False
) -> np.ndarray:
    """Order the pixels at which labels and thresholded proposal differ, surest first.

    Parameters
    ----------
    labels : bool ndarray, shape (Y, X)
        Ground truth, True inside a cell.
    probabilities : float32 ndarray, shape (Y, X)
        Proposal in [0, 1], 1 = inside a cell.
    threshold : float
        The proposal is a cell where it is above this.
    legacy : bool
        Sort as before June 2015: differences of certainty below 1e-4 are ties. This relation is not
        transitive, so the order is that of one particular merge sort (see `_legacy_order`).

    Returns
    -------
    int64 ndarray, shape (mismatches, 2)
        Row and column; by |probability - threshold| descending, then by column, then by row.
    """
    proposal = probabilities.astype(np.float64)
    columns, rows = np.nonzero(((proposal > threshold) != labels).T)
    certainty = np.abs(proposal[rows, columns] - threshold).astype(np.float32)
    order = _legacy_order(certainty) if legacy else np.argsort(-certainty, kind="stable")
    return np.stack([rows[order], columns[order]], axis=1)


def _legacy_order(certainty: np.ndarray) -> np.ndarray:
    """Sort descending with a merge sort to whose steps the blurred comparison is sensitive.

    Halves below seven elements are insertion-sorted; two halves already in order are joined as they
    are; otherwise they are merged, the left one first among ties.
    """
    values = certainty.astype(np.float64).tolist()
    # A difference counts from the first float32 on whose product with 10000 reaches 1.
    step = np.float32(1e-4)
    while np.float32(np.nextafter(step, np.float32(0)) * np.float32(10000)) >= 1:
        step = np.nextafter(step, np.float32(0))
    gap = (float(step) + float(np.nextafter(step, np.float32(0)))) / 2

    def ordered(low: int, high: int) -> list[int]:
        if high - low < 7:
            run = list(range(low, high))
            for end in range(1, len(run)):
                position = end
                while position and values[run[position]] - values[run[position - 1]] >= gap:
                    run[position - 1], run[position] = run[position], run[position - 1]
                    position -= 1
            return run
        middle = (low + high) // 2
        left, right = ordered(low, middle), ordered(middle, high)
        if values[right[0]] - values[left[-1]] < gap:
            return left + right
        merged = []
        i, j, stop_i, stop_j = 0, 0, len(left), len(right)
        while i < stop_i and j < stop_j:
            if values[right[j]] - values[left[i]] < gap:
                merged.append(left[i])
                i += 1
            else:
                merged.append(right[j])
                j += 1
        return merged + left[i:] + right[j:]

    return np.array(ordered(0, len(values)), np.int64)


def warp(labels: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Warp the labels towards the proposal by flipping simple points until none is left.

    Parameters
    ----------
    labels : bool ndarray, shape (Y, X)
        Ground truth, True inside a cell; outside the slice is membrane.
    order : int64 ndarray, shape (mismatches, 2)
        Row and column of every pixel that differs from the proposal, in the order of processing.

    Returns
    -------
    warped : bool ndarray, shape (Y, X)
    residual : int64 ndarray, shape (left, 2)
        The pixels of `order` that still differ from the proposal.
    """
    height, width = labels.shape
    frame = np.pad(labels, 2).astype(np.uint8)
    neighbourhood = np.zeros((height + 2, width + 2), np.uint8)
    flips = []
    for bit, (dy, dx) in enumerate(_NEIGHBOURS):
        neighbourhood |= frame[1 + dy : height + 3 + dy, 1 + dx : width + 3 + dx] << np.uint8(bit)
        # Seen from the neighbour b_k, the flipped pixel is b_(k + 4).
        flips.append((dy * (width + 2) + dx, 1 << (bit + 4) % 8))
    (e, e_bit), (ne, ne_bit), (n, n_bit), (nw, nw_bit) = flips[:4]
    (w, w_bit), (sw, sw_bit), (s, s_bit), (se, se_bit) = flips[4:]

    # Flips must see each other at once, so this is a plain loop, over bytes for speed. A pixel that
    # has flipped agrees with the proposal for good, and the order of the others stays.
    code = bytearray(neighbourhood.tobytes())
    simple = SIMPLE_POINTS
    flat = (order[:, 0] + 1) * (width + 2) + order[:, 1] + 1
    pending, before = flat.tolist(), -1
    while pending and len(pending) != before:
        before = len(pending)
        left = []
        for pixel in pending:
            if simple[code[pixel]]:
                code[pixel + e] ^= e_bit
                code[pixel + ne] ^= ne_bit
                code[pixel + n] ^= n_bit
                code[pixel + nw] ^= nw_bit
                code[pixel + w] ^= w_bit
                code[pixel + sw] ^= sw_bit
                code[pixel + s] ^= s_bit
                code[pixel + se] ^= se_bit
            else:
                left.append(pixel)
        pending = left

    residual = np.stack(np.divmod(np.array(pending, np.int64), width + 2), axis=1) - 1
    warped = labels.copy()
    warped[order[:, 0], order[:, 1]] ^= True
    warped[residual[:, 0], residual[:, 1]] ^= True
    return warped, residual


def classify(
    warped: np.ndarray, residual: np.ndarray, *, radius: int = WINDOW_RADIUS
) -> np.ndarray:
    """Say for each residual mismatch what flipping it would do to the topology.

    Parameters
    ----------
    warped, residual : ndarray
        As `warp` returns them.
    radius : int
        Half the side of the window of the local split test, pixels; if below 1 or above the height
        or the width, the whole slice is the window.

    Returns
    -------
    int64 ndarray, shape (left,)
        Indices into `MISMATCH_TYPES`.
    """
    height, width = warped.shape
    # -1 outside the slice: such neighbours do not count, not even as membrane.
    regions = np.pad(instances_from_binary(warped), 1, constant_values=-1)
    rows, columns = residual[:, :1] + 1, residual[:, 1:] + 1
    dy, dx = np.array(_NEIGHBOURS).T
    beside = np.sort(regions[rows + dy, columns + dx], axis=1)
    fresh = np.diff(beside, axis=1, prepend=-1) > 0
    ids = fresh.sum(axis=1)
    highest = beside[:, -1]
    cell = warped[residual[:, 0], residual[:, 1]]

    kind = np.where(cell, SPLIT, MERGE)
    kind[(ids == 2) & ~cell] = HOLE_ADDITION
    inside = (ids == 1) & (highest > 0)
    kind[inside] = np.where(cell, HOLE_ADDITION, HOLE_DELETION)[inside]
    # No id at all is the only pixel of a slice of 1x1.
    lone = (ids <= 1) & (highest <= 0)
    kind[lone] = np.where(cell, OBJECT_DELETION, OBJECT_ADDITION)[lone]
    if radius < 1 or radius > width or radius > height:
        radius = max(width, height)
    doubtful = np.flatnonzero((ids == 2) & cell)
    kind[doubtful] = np.where(
        _falls_apart(warped, residual[doubtful], radius), SPLIT, HOLE_DELETION
    )
    return kind


def _falls_apart(warped: np.ndarray, pixels: np.ndarray, radius: int) -> np.ndarray:
    """Say for each pixel if its neighbours lie in several cells of its window once it is removed.

    Most pixels are decided in a smaller window: parts that meet there meet in the larger one too,
    and a part that ends inside it can meet no other.
    """
    apart = np.zeros(len(pixels), bool)
    undecided = np.arange(len(pixels))
    for reach in sorted({min(reach, radius) for reach in (3, 9, radius)}):
        side = 2 * reach + 1
        surroundings = np.pad(warped, reach)
        windows = np.lib.stride_tricks.as_strided(
            surroundings, warped.shape + (side, side), surroundings.strides * 2, writeable=False
        )
        batches = np.array_split(undecided, 1 + undecided.size * side**2 // _BATCH)
        remaining = []
        for batch in batches:
            # One under the other, a row of background between them, they are labelled in one go.
            sheet = np.zeros((batch.size, side + 1, side), bool)
            sheet[:, :side] = windows[pixels[batch, 0], pixels[batch, 1]]
            sheet[:, reach, reach] = False
            regions = instances_from_binary(sheet.reshape(-1, side)).reshape(sheet.shape)
            count = regions.max(initial=0)
            beside = regions[:, reach - 1 : reach + 2, reach - 1 : reach + 2].reshape(-1, 9)
            lowest = np.where(beside > 0, beside, count + 1).min(axis=1)
            apart[batch] = lowest < beside.max(axis=1)
            if reach < radius:
                ends_inside = np.ones(count + 1, bool)
                ends_inside[regions[:, [0, side - 1]]] = False
                ends_inside[regions[:, :, [0, side - 1]]] = False
                ends_inside[0] = False
                remaining.append(batch[apart[batch] & ~ends_inside[beside].any(axis=1)])
        undecided = np.concatenate(remaining) if remaining else undecided[:0]
    return apart


def count_mismatches(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, legacy: bool = False
) -> np.ndarray:
    """Count the mismatches that warping leaves in one slice at one threshold.

    Parameters are those of `warping_order`.

    Returns
    -------
    int64 ndarray, shape (8,)
        Pixels of each of `MISMATCH_TYPES`, then the connected groups of split pixels (4-connected)
        and of merge pixels (8-connected).
    """
    order = warping_order(labels, probabilities, threshold, legacy=legacy)
    warped, residual = warp(labels, order)
    kind = classify(warped, residual)
    counts = np.bincount(kind, minlength=len(MISMATCH_TYPES))
    groups = []
    for which, structure in ((SPLIT, None), (MERGE, _EIGHT)):
        pixels = np.zeros(labels.shape, bool)
        pixels[tuple(residual[kind == which].T)] = True
        groups.append(ndimage.label(pixels, structure)[1])
    return np.concatenate([counts, np.array(groups, np.int64)])
