"""The cell tracking challenge's scores of cells and tracks: SEG, DET and TRA.

References
----------
Maska et al., Bioinformatics 30, 2014 (SEG). Matula et al., PLoS ONE 10(12), 2015 (AOGM, the weights
and the matching of objects). Ulman et al., Nature Methods 14, 2017 (DET).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from unet.errors import InputError
from unet.scoring.contingency_table import contingency_table
from unet.tracking.ctc_format import Track

# What it costs to mend a result by hand: objects to split, add and remove; links to remove, add and
# give the other meaning.
WEIGHTS = {"NS": 5.0, "FN": 10.0, "FP": 1.0, "ED": 1.0, "EA": 1.5, "EC": 1.0}


class Matches(NamedTuple):
    """Which objects of a result belong to those of a reference, in one frame.

    Attributes
    ----------
    reference : ndarray of int64, shape (R,)
        Numbers of the reference's objects, ascending.
    partners : ndarray of int64, shape (R,)
        Number of the result's object that covers more than half of each; 0 is none.
    jaccard : ndarray of float64, shape (R,)
        Intersection over union with the partner; 0 without one.
    result : ndarray of int64, shape (C,)
        Numbers of the result's objects, ascending.
    """

    reference: np.ndarray
    partners: np.ndarray
    jaccard: np.ndarray
    result: np.ndarray


def match_objects(reference: np.ndarray, result: np.ndarray) -> Matches:
    """Match the objects of a frame: a partner covers more than half of a reference's object.

    Both are int, (height, width); 0 is background, every other number an object, connected or not.
    """
    table = contingency_table(reference, result)
    references, row = np.unique(table.first, return_inverse=True)
    results, column = np.unique(table.second, return_inverse=True)
    areas, result_areas = np.bincount(row, table.pixels), np.bincount(column, table.pixels)
    partners = np.zeros(len(references), np.int64)
    jaccard = np.zeros(len(references))
    # More than half: so no object has two partners.
    match = (table.first > 0) & (table.second > 0) & (2 * table.pixels > areas[row])
    row, column, common = row[match], column[match], table.pixels[match]
    partners[row] = results[column]
    jaccard[row] = common / (areas[row] + result_areas[column] - common)
    objects = references > 0
    return Matches(references[objects], partners[objects], jaccard[objects], results[results > 0])


def seg(frames: Iterable[Matches]) -> float:
    """Return SEG: the mean Jaccard index of the reference's objects, 0 for those without a partner.

    The mean is over the objects of all frames, from 0 to 1, the better; objects of the result that
    belong to none cost nothing. Raises `InputError` if the reference has no object.
    """
    jaccard = np.concatenate([np.zeros(0)] + [frame.jaccard for frame in frames])
    if not len(jaccard):
        raise InputError("the reference has no object in these frames, so there is no SEG")
    return float(jaccard.mean())


class Operations(NamedTuple):
    """What it takes to turn the graph of a result into that of the reference.

    Attributes
    ----------
    NS : int
        Splits of objects of the result that cover more than half of several of the reference.
    FN, FP : int
        Objects to add and to remove.
    ED, EA, EC : int
        Links to remove, to add, and to change from "same track" to "child of" or back.
    objects, links : int
        Of the reference.
    """

    NS: int
    FN: int
    FP: int
    ED: int
    EA: int
    EC: int
    objects: int
    links: int


def count_operations(
    frames: Sequence[Matches], reference: Sequence[Track], result: Sequence[Track]
) -> Operations:
    """Count what it takes to turn the graph of a result into that of the reference.

    Parameters
    ----------
    frames : sequence of Matches
        Of frames 0, 1, 2, ..., with the markers of the reference.
    reference, result : sequence of Track
        Their tables; parents must be in them.

    Raises
    ------
    InputError
        If a child or its parent is not in the frame in which the table links them.

    Notes
    -----
    Objects are vertices. An object of successive frames is linked to itself; the first of a track
    is linked to the last of its parent, however many frames lie between. Links of the result count
    as wrong (ED) only between objects that have exactly one object of the reference each: those of
    objects to be removed or split go with them, and what has to be drawn anew is missing (EA).
    """
    splits = missing = surplus = objects = 0
    # Vertex of the result -> the only vertex of the reference that belongs to it.
    unique: dict[tuple[int, int], tuple[int, int]] = {}
    for t, frame in enumerate(frames):
        objects += len(frame.reference)
        found = frame.partners > 0
        missing += int(np.count_nonzero(~found))
        partners, times = np.unique(frame.partners[found], return_counts=True)
        splits += int((times - 1).sum())
        surplus += len(frame.result) - len(partners)
        owner = dict(zip(frame.partners.tolist(), frame.reference.tolist()))
        for label in partners[times == 1].tolist():
            unique[t, label] = (t, owner[label])
    wanted = _links([frame.reference for frame in frames], reference, "the reference")
    made = {
        (unique[first], unique[second]): is_parent
        for (first, second), is_parent in _links(
            [frame.result for frame in frames], result, "the result"
        ).items()
        if first in unique and second in unique
    }
    right = wanted.keys() & made.keys()
    return Operations(
        NS=splits,
        FN=missing,
        FP=surplus,
        ED=len(made) - len(right),
        EA=len(wanted) - len(right),
        EC=sum(wanted[link] != made[link] for link in right),
        objects=objects,
        links=len(wanted),
    )


def _links(
    labels: Sequence[np.ndarray], tracks: Sequence[Track], whose: str
) -> dict[tuple[tuple[int, int], tuple[int, int]], bool]:
    """Return the links between (frame, label) and (frame, label); True: from parent to child."""
    links = {
        ((t, label), (t + 1, label)): False
        for t, (now, following) in enumerate(zip(labels, labels[1:]))
        for label in np.intersect1d(now, following).tolist()
    }
    ends = {track.label: track.end for track in tracks}
    for track in tracks:
        if track.parent == 0:
            continue
        link = ((ends[track.parent], track.parent), (track.begin, track.label))
        for t, label in link:
            if t >= len(labels) or label not in labels[t]:
                raise InputError(
                    f"{whose} links {track.parent} to its child {track.label}, but has no "
                    f"{label} in frame {t}"
                )
        links[link] = True
    return links


def det(operations: Operations) -> float:
    """Return DET, how well objects are found: 1 - min(D, D0) / D0, from 0 to 1, the better.

    D = 5 NS + 10 FN + FP is what the result costs to mend, D0 what it costs to add all objects by
    hand. Raises `InputError` if the reference has no object.
    """
    return _accuracy(operations, ("NS", "FN", "FP"), WEIGHTS["FN"] * operations.objects)


def tra(operations: Operations) -> float:
    """Return TRA, how well objects are found and tracked: 1 - min(A, A0) / A0, from 0 to 1.

    A = AOGM = 5 NS + 10 FN + FP + ED + 1.5 EA + EC is what the result costs to mend, A0 what it
    costs to make the reference by hand. Raises `InputError` if the reference has no object.
    """
    scratch = WEIGHTS["FN"] * operations.objects + WEIGHTS["EA"] * operations.links
    return _accuracy(operations, tuple(WEIGHTS), scratch)


def _accuracy(operations: Operations, kinds: Sequence[str], scratch: float) -> float:
    if not scratch:
        raise InputError("the reference has no object, so there is neither DET nor TRA")
    cost = sum(WEIGHTS[kind] * getattr(operations, kind) for kind in kinds)
    return 1 - min(cost, scratch) / scratch
