"""Cells over time: from the labels of each frame to the result format of the challenge.

References
----------
Ulman et al., Nature Methods 14, 2017 (cell tracking challenge).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from unet.errors import InputError
from unet.tracking.ctc_format import Track
from unet.tracking.detections import number_cells, observe
from unet.tracking.split_merged import Separated
from unet.tracking.trackers import TRACKERS, Absence, Links

_MOST_TRACKS = int(np.iinfo(np.uint16).max)


class Result(NamedTuple):
    """Tracked cells, as `unet.tracking.ctc_format.write_masks` takes them.

    Attributes
    ----------
    tracks : list of Track
    masks : iterator of uint16 ndarray, shape (height, width)
        Frame after frame, drawn when its turn comes.
    """

    tracks: list[Track]
    masks: Iterator[np.ndarray]


def track_cells(frames: Sequence[np.ndarray], tracker: str, field_of_interest: int = 0) -> Result:
    """Follow the cells of a sequence.

    Parameters
    ----------
    frames : sequence of ndarray of int, shape (height, width)
        0 is background, every other number a cell of its frame. They are read again and again.
    tracker : {"assignment", "greedy"}
        As `unet.tracking.trackers.link_by_assignment`, cells that merge told apart by
        `unet.tracking.split_merged.Separated`, and `unet.tracking.trackers.link_greedily`.
    field_of_interest : int
        Pixels at each edge that lie outside. A cell with no pixel inside helps to follow it, but is
        not part of the result in that frame.

    Returns
    -------
    Result
        Tracks have no gaps. A cell that comes back after frames outside of the field of interest
        is a new track, whose parent is the old one.

    Raises
    ------
    InputError
        If the field of interest is empty, there are more tracks than 16 bit can number, or the
        labels are none (see `unet.tracking.detections.observe`).
    """
    if not 0 <= 2 * field_of_interest < min(np.shape(frames[0])[-2:]):
        height, width = np.shape(frames[0])[-2:]
        raise InputError(
            f"field of interest {field_of_interest}: leaves nothing of frames of {height}x{width}; "
            f"give the pixels at each edge that do not count, fewer than half of that"
        )
    seen = observe(frames)
    if tracker == "assignment":
        # Seen anew: the first look was for labels that are none.
        frames = Separated(frames)
        seen = observe(frames)
    links = TRACKERS[tracker](seen)
    tracks, numbers = _tracks_of(_present(frames, links, field_of_interest), links.parents)
    if len(tracks) > _MOST_TRACKS:
        raise InputError(
            f"{len(tracks)} tracks are more than the {_MOST_TRACKS} that the result format can "
            f"number; drop small cells, or track fewer frames"
        )
    return Result(tracks, _masks(frames, links, field_of_interest, numbers))


def _drawn(frames: Sequence[np.ndarray], links: Links) -> Iterator[np.ndarray]:
    """Yield the tracks' numbers of each frame, cells that were not seen drawn in."""
    absent: dict[int, list[Absence]] = {}
    for absence in links.absences:
        absent.setdefault(absence.frame, []).append(absence)
    for t in range(len(frames)):
        _, index = number_cells(np.asarray(frames[t]), t)
        drawn = np.append(0, links.tracks[t])[index]
        for absence in absent.get(t, []):
            _draw(drawn, np.asarray(frames[absence.seen]) == absence.label, absence)
        yield drawn


def _draw(drawn: np.ndarray, shape: np.ndarray, absence: Absence) -> None:
    rows, columns = np.nonzero(shape)
    rows, columns = rows + absence.shift[0], columns + absence.shift[1]
    inside = (rows >= 0) & (rows < shape.shape[0]) & (columns >= 0) & (columns < shape.shape[1])
    rows, columns = rows[inside], columns[inside]
    under = drawn[rows, columns]
    # A cell that merged with another is cut out of both; but none is covered by more than half.
    area = np.bincount(drawn.ravel())
    covered = np.bincount(under, minlength=len(area))
    free = np.where(2 * covered <= area, True, False)
    free[0] = True
    drawn[rows[free[under]], columns[free[under]]] = absence.track


def _present(frames: Sequence[np.ndarray], links: Links, border: int) -> list[np.ndarray]:
    """Return the tracks that have a pixel in the field of interest, of each frame."""
    return [
        np.flatnonzero(np.bincount(_inner(drawn, border).ravel())[1:]) + 1
        for drawn in _drawn(frames, links)
    ]


def _inner(picture: np.ndarray, border: int) -> np.ndarray:
    return picture[border : picture.shape[0] - border, border : picture.shape[1] - border]


def _tracks_of(
    present: list[np.ndarray], parents: dict[int, int]
) -> tuple[list[Track], list[dict[int, int]]]:
    """Return the table of tracks, and of each frame the number in it of each track seen there."""
    runs: dict[int, list[list[int]]] = {}
    for t, tracks in enumerate(present):
        for track in tracks.tolist():
            spans = runs.setdefault(track, [])
            if spans and spans[-1][1] == t - 1:
                spans[-1][1] = t
            else:
                spans.append([t, t])
    order = sorted(
        (span[0], track, k) for track, spans in runs.items() for k, span in enumerate(spans)
    )
    number = {(track, k): n for n, (_, track, k) in enumerate(order, 1)}
    table, numbers = [], [{} for _ in present]
    for begin, track, k in order:
        end = runs[track][k][1]
        mother = (track, k - 1) if k else _last_run(parents.get(track), begin, runs)
        table.append(Track(number[track, k], begin, end, number.get(mother, 0)))
        for t in range(begin, end + 1):
            numbers[t][track] = number[track, k]
    return table, numbers


def _last_run(
    mother: int | None, begin: int, runs: dict[int, list[list[int]]]
) -> tuple[int, int] | None:
    """Return the mother's last run, if it was ever in the result."""
    spans = runs.get(mother, [])
    return (mother, len(spans) - 1) if spans and spans[-1][1] < begin else None


def _masks(
    frames: Sequence[np.ndarray], links: Links, border: int, numbers: list[dict[int, int]]
) -> Iterator[np.ndarray]:
    for drawn, number in zip(_drawn(frames, links), numbers):
        table = np.zeros(int(drawn.max()) + 1, np.uint16)
        for track, new in number.items():
            table[track] = new
        yield table[drawn]
