"""Which cells of consecutive frames are the same: two ways to tell.

References
----------
u-net-release-2015-10-02, segmentAndTrack ("greedy"). Jaqaman et al., Nature Methods 5, 2008, for
tracks by linear assignment in two steps, links and then gaps and divisions ("assignment").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from unet.tracking.detections import Detections

# The rules of "assignment"; lengths in diameters of a cell, times in frames.
# A cell goes no further between two frames, unless the two overlap.
REACH = 0.6
# So many frames without a cell are bridged.
LONGEST_GAP = 3
# Cells whose areas differ by more are not the same after a gap, nor sisters.
ALIKE = 0.4
# A cell that appears beside another is a daughter if it stays so long, else a fragment that was cut
# off for a moment.
STAYS = 3
# What remains of the mother, at least, in the place of both daughters: intersection over union.
IN_PLACE = 0.4


class Gap(NamedTuple):
    """One frame of a gap: a cell that was not detected in it, though before and after it.

    Attributes
    ----------
    track : int
    frame : int
    nearest : int
        The nearest frame in which it was detected.
    label : int
        Its label there.
    shift : tuple of int
        Rows and columns that it has moved since, judging by where it was before and after.
    """

    track: int
    frame: int
    nearest: int
    label: int
    shift: tuple[int, int]


class Links(NamedTuple):
    """Which cells are the same.

    Attributes
    ----------
    tracks : list of int64 ndarray, shape (cells,)
        The track, from 1 up, of each cell of each frame.
    parents : dict of int to int
        The mother's track of each daughter's.
    gaps : list of Gap
    """

    tracks: list[np.ndarray]
    parents: dict[int, int]
    gaps: list[Gap]


def link_greedily(detections: Detections) -> Links:
    """Link cells as the authors did in 2015, by overlap alone, without divisions.

    Of the intersections over unions with the next frame, each cell keeps its largest; then each
    cell of the next frame takes the largest that is left to it. Cells that get none are new.
    """
    tracks: list[np.ndarray] = []
    count = 0
    for t, cells in enumerate(detections.frames):
        now = np.zeros(len(cells.labels), np.int64)
        if t and len(now) and len(tracks[-1]):
            iou = detections.iou(t)
            rows = np.arange(len(iou))
            kept = np.zeros_like(iou)
            kept[rows, iou.argmax(axis=1)] = iou.max(axis=1)
            linked = kept.max(axis=0) > 0
            now[linked] = tracks[-1][kept.argmax(axis=0)[linked]]
        new = now == 0
        now[new] = count + 1 + np.arange(new.sum())
        count += int(new.sum())
        tracks.append(now)
    return Links(tracks, {}, [])


def assign(gain: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs (row, column), each at most once, that gain most in all, each above 0."""
    positive = np.maximum(gain, 0)
    rows, columns = linear_sum_assignment(positive, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns) if positive[i, j] > 0]


def link_by_assignment(detections: Detections) -> Links:
    """Link cells by linear assignment, first between frames, then over gaps and divisions.

    The gain of a link is its intersection over union, and more the nearer the centres are: by
    1 - distance / (`REACH` diameters). A gap of up to `LONGEST_GAP` frames is closed where a track
    segment ends and one of like area begins within reach. A cell has divided where two cells of
    like area appear in its place and both stay; one that does not stay was a fragment of it.
    """
    segments, mothers, fragments = _divide(
        detections, _close_gaps(detections, _segments(detections))
    )
    tracks = [np.zeros(len(cells.labels), np.int64) for cells in detections.frames]
    parents: dict[int, int] = {}
    gaps = []
    for number, segment in enumerate(segments, 1):
        for t, cell in [*segment, *fragments.get(number - 1, [])]:
            tracks[t][cell] = number
        gaps += _gaps(detections, segment, number)
        if mothers[number - 1] is not None:
            parents[number] = mothers[number - 1] + 1
    return Links(tracks, parents, gaps)


# A track segment: its cells as (frame, index in the frame's detections), frame after frame.
Segment = list  # of tuple[int, int]


def _diameter(area: np.ndarray) -> np.ndarray:
    return 2 * np.sqrt(area / np.pi)


def _nearness(
    before: np.ndarray, after: np.ndarray, area_before: np.ndarray, area_after: np.ndarray
) -> np.ndarray:
    """Return 1 where centres (n, 2), (m, 2) are one, 0 at the reach, less beyond: (n, m)."""
    distance = np.linalg.norm(before[:, None] - after, axis=2)
    diameter = (_diameter(area_before)[:, None] + _diameter(area_after)) / 2
    return 1 - distance / (REACH * diameter)


def _segments(detections: Detections) -> list[Segment]:
    segments: list[Segment] = []
    # The segment of each cell of the frame before.
    current: list[int] = []
    for t, cells in enumerate(detections.frames):
        now = [-1] * len(cells.labels)
        if current and now:
            before = detections.frames[t - 1]
            near = _nearness(before.centre, cells.centre, before.area, cells.area)
            for i, j in assign(detections.iou(t) + np.maximum(near, 0)):
                now[j] = current[i]
        for j, segment in enumerate(now):
            if segment < 0:
                now[j] = len(segments)
                segments.append([])
            segments[now[j]].append((t, j))
        current = now
    return segments


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the smaller of two areas as a share of the larger."""
    return np.minimum(a, b) / np.maximum(a, b)


def _close_gaps(detections: Detections, segments: list[Segment]) -> list[Segment]:
    if len(segments) < 2:
        return segments
    first, last = (np.array([segment[k] for segment in segments]) for k in (0, -1))

    def of(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = [(detections.frames[t], j) for t, j in places]
        return np.array([c.centre[j] for c, j in cells]), np.array([c.area[j] for c, j in cells])

    (end, end_area), (start, start_area) = of(last), of(first)
    missed = first[:, 0] - last[:, 0][:, None] - 1
    alike = _alike(end_area[:, None], start_area)
    gain = np.maximum(_nearness(end, start, end_area, start_area), 0) + alike
    near = _nearness(end, start, end_area, start_area) > 0
    allowed = (missed >= 1) & (missed <= LONGEST_GAP) & (alike >= ALIKE) & near
    following = dict(assign(np.where(allowed, gain, 0)))
    joined = []
    for head in sorted(set(range(len(segments))) - set(following.values())):
        segment, index = list(segments[head]), head
        while index in following:
            index = following[index]
            segment += segments[index]
        joined.append(segment)
    return joined


def _divide(
    detections: Detections, segments: list[Segment]
) -> tuple[list[Segment], list[int | None], dict[int, Segment]]:
    """Tell daughters and fragments from new cells.

    Returns
    -------
    segments : list of Segment
        Cut at divisions.
    mothers : list of (int or None)
        The index of each one's mother.
    fragments : dict of int to Segment
        Cells that were cut off from another for a moment: the index of that one -> these.
    """
    owner = {cell: number for number, segment in enumerate(segments) for cell in segment}
    segments = [list(segment) for segment in segments]
    mothers: list[int | None] = [None] * len(segments)
    fragments: dict[int, Segment] = {}
    last_frame = len(detections.frames) - 1
    for daughter in range(len(segments)):
        t, cell = segments[daughter][0]
        found = _split_of(detections, t, cell) if t else None
        if found is None:
            continue
        mother, other, areas_alike = owner[t - 1, found[0]], (t, found[1]), found[2]
        if owner[other] != mother:
            continue
        rest = [step for step in segments[mother] if step[0] >= t]
        if not _stays(segments[daughter], t, last_frame):
            if {step[0] for step in segments[daughter]} <= {step[0] for step in rest}:
                fragments.setdefault(mother, []).extend(segments[daughter])
                segments[daughter] = []
        elif areas_alike >= ALIKE and _stays(rest, t, last_frame):
            number = len(segments)
            segments[mother] = [step for step in segments[mother] if step[0] < t]
            # Later daughters and fragments of the mother are now those of her first daughter.
            mothers = [
                number if m == mother and segments[k][0][0] > t else m
                for k, m in enumerate(mothers)
            ]
            late = [step for step in fragments.get(mother, []) if step[0] >= t]
            fragments[mother] = [step for step in fragments.get(mother, []) if step[0] < t]
            fragments[number] = late
            segments.append(rest)
            mothers += [mother]
            mothers[daughter] = mother
            owner.update((step, number) for step in rest)
    return segments, mothers, fragments


def _stays(segment: Segment, t: int, last_frame: int) -> bool:
    return segment[-1][0] >= min(t + STAYS - 1, last_frame)


def _split_of(detections: Detections, t: int, cell: int) -> tuple[int, int, float] | None:
    """Return what a cell of frame t was part of, the other part, and how alike their areas are."""
    shared, area = detections.shared[t], detections.frames[t].area
    column = shared[:, cell].toarray()[:, 0]
    if not column.any():
        return None
    whole = int(column.argmax())
    row = shared[whole].toarray()[0]
    row[cell] = 0
    other = int(row.argmax())
    if not row[other]:
        return None
    both = column[whole] + row[other]
    union = detections.frames[t - 1].area[whole] + area[cell] + area[other] - both
    if both / union < IN_PLACE:
        return None
    return whole, other, float(_alike(area[cell], area[other]))


def _gaps(detections: Detections, segment: Segment, track: int) -> list[Gap]:
    gaps = []
    for (t0, cell0), (t1, cell1) in zip(segment, segment[1:]):
        ends = (detections.frames[t0], cell0), (detections.frames[t1], cell1)
        centres = [cells.centre[cell] for cells, cell in ends]
        for t in range(t0 + 1, t1):
            late = t - t0 > t1 - t
            cells, cell = ends[late]
            centre = centres[0] + (centres[1] - centres[0]) * (t - t0) / (t1 - t0)
            y, x = np.rint(centre - centres[late]).astype(int)
            source = t1 if late else t0
            gaps.append(Gap(track, t, source, int(cells.labels[cell]), (int(y), int(x))))
    return gaps


TRACKERS = {"greedy": link_greedily, "assignment": link_by_assignment}
