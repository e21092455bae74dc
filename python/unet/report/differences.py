"""Where a result differs from the truth, how, and in which places it does most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.report.run_files import UNKNOWN, HeldOutSlice
from unet.scoring.undersegmented import undersegmented

#: What a difference can be, by its number; of classes it is 1 + the class that is true there.
MISSED, INVENTED, MERGED, SPLIT = 1, 2, 3, 4
# A border that is drawn so far from where it is, in pixels, is no mistake to look at.
_JITTER = 2


class Place(NamedTuple):
    """A part of a slice that is worth a look.

    Attributes
    ----------
    slice : HeldOutSlice
    rows, columns : range
    pixels : int
        Wrong ones in there, without shifts of borders.
    kinds : tuple of int
        Differences in there, the commonest first.
    """

    slice: HeldOutSlice
    rows: range
    columns: range
    pixels: int
    kinds: tuple[int, ...]


def differences(kind: str, truth: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Tell where and how a result differs from the truth.

    Parameters
    ----------
    kind : {"membranes", "cells", "classes"}
    truth, result : int ndarray, shape (height, width)
        As those of `HeldOutSlice`.

    Returns
    -------
    uint8 ndarray, shape (height, width)
        0 where they agree or nobody annotated. Membranes, and cells against background: `MISSED`
        what is only in the truth, `INVENTED` what is only in the result. Of cells that are found,
        `MERGED`: one found cell covers more than half of two true ones; `SPLIT`: the reverse.
        Classes: 1 + the true class.

    Examples
    --------
    >>> differences("membranes", np.array([[0, 1, 1, -1]]), np.array([[1, 1, 0, 0]]))
    array([[1, 0, 2, 0]], dtype=uint8)
    """
    known = truth != UNKNOWN
    if kind == "classes":
        wrong = known & (truth != result)
        return np.where(wrong, np.clip(truth, 0, 254) + 1, 0).astype(np.uint8)
    true, found = (truth > 0, result > 0) if kind == "cells" else (truth == 0, result == 0)
    told = np.zeros(truth.shape, np.uint8)
    told[true & ~found] = MISSED
    told[found & ~true] = INVENTED
    if kind == "cells":
        cells = np.where(known, truth, 0)
        both = true & found
        told[both & np.isin(truth, undersegmented(cells, result))] = MERGED
        told[both & np.isin(result, undersegmented(result, cells))] = SPLIT
    return np.where(known, told, 0).astype(np.uint8)


def serious(kind: str, truth: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Tell which pixels are wrong other than by a border that lies two pixels elsewhere.

    Parameters and shape are those of `differences`; bool. Of cells that were merged or split, the
    pixels along the border that is too few or too many count.
    """
    told = differences(kind, truth, result)
    wrong = np.zeros(truth.shape, bool)
    if kind == "classes":
        for number in np.unique(told[told > 0]) - 1:
            # The class in question is near in the result: it was only drawn elsewhere.
            near = _near(result == number)
            wrong |= (told == number + 1) & ~near
        return wrong
    true, found = (truth > 0, result > 0) if kind == "cells" else (truth == 0, result == 0)
    # What is missed is too far from what was found, what is invented from what is true.
    wrong |= (told == MISSED) & ~_near(found)
    wrong |= (told == INVENTED) & ~_near(true)
    if kind == "cells":
        wrong |= _near(_touching(truth)) & (told == MERGED)
        wrong |= _near(_touching(result)) & (told == SPLIT)
    return wrong


def _near(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=_JITTER)


def _touching(cells: np.ndarray) -> np.ndarray:
    """Where cells are closest to other cells: between them the distance to any is least."""
    background = cells <= 0
    # Of each pixel the cell that is nearest; where the nearest changes, two cells meet.
    place = ndimage.distance_transform_edt(background, return_distances=False, return_indices=True)
    nearest = cells[tuple(place)]
    meets = np.zeros(cells.shape, bool)
    for axis in (0, 1):
        change = np.diff(nearest, axis=axis) != 0
        for side in ((0, 1), (1, 0)):
            pad = [(0, 0), (0, 0)]
            pad[axis] = side
            meets |= np.pad(change, pad)
    return meets


def worst_places(kind: str, slices: Iterator[HeldOutSlice], side: int, most: int) -> list[Place]:
    """Find the squares in which most pixels are wrong, as `serious` tells, worst first.

    Parameters
    ----------
    kind : {"membranes", "cells", "classes"}
    slices : iterable of HeldOutSlice
    side : int
        Of a square, in pixels; those of one slice do not overlap.
    most : int
        So many places.
    """
    found: list[Place] = []
    for one in slices:
        wrong = serious(kind, one.truth, one.result)
        told = differences(kind, one.truth, one.result)
        height, width = wrong.shape
        rows, columns = min(side, height), min(side, width)
        sums = np.pad(wrong.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
        inside = sums[rows:, columns:] - sums[:-rows, columns:]
        inside = inside - sums[rows:, :-columns] + sums[:-rows, :-columns]
        for _ in range(most):
            top, left = np.unravel_index(int(inside.argmax()), inside.shape)
            if inside[top, left] <= 0:
                break
            # Of squares with the same mistakes in them the one that has them in its middle.
            middle = np.argwhere(wrong[top : top + rows, left : left + columns]).mean(axis=0)
            top = int(np.clip(round(top + middle[0] - rows / 2), 0, height - rows))
            left = int(np.clip(round(left + middle[1] - columns / 2), 0, width - columns))
            part = (slice(top, top + rows), slice(left, left + columns))
            counts = np.bincount(told[part][wrong[part]], minlength=1)
            kinds = tuple(int(k) for k in np.argsort(-counts, kind="stable") if counts[k] and k)
            place = (range(top, top + rows), range(left, left + columns))
            found.append(Place(one, *place, int(wrong[part].sum()), kinds))
            beside = (max(0, top - rows + 1), max(0, left - columns + 1))
            inside[beside[0] : top + rows, beside[1] : left + columns] = 0
    return sorted(found, key=lambda place: -place.pixels)[:most]
