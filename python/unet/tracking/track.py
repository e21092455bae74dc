"""Cells over time: from the labels of each frame to the result format of the challenge.

References
----------
Ulman et al., Nature Methods 14, 2017 (cell tracking challenge).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from unet.errors import InputError, few
from unet.files.names import PathLike
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import RESULT
from unet.tracking.ctc_format import Track, open_masks, write_masks
from unet.tracking.detections import detect, number_cells
from unet.tracking.label_maps import LABEL_KINDS, components, refuse_maps
from unet.tracking.linking import TRACKERS, Gap, Links
from unet.tracking.split_merged import SplitMerged
from unet.volumes import Stack, Volume, as_volume
from unet.volumes.file_numbers import frame_numbers

_MOST_TRACKS = int(np.iinfo(np.uint16).max)


class Tracks(NamedTuple):
    """Tracked cells; as text, how many of them there are.

    Attributes
    ----------
    tracks : list of Track
        Their numbers, first and last frames, and parents.
    masks : ndarray, Volume or iterator of uint16, shape (frames, height, width)
        The number of the track of each pixel, 0 is none.
    frames : int
    first : int
        The number of the first frame, as its file names it.
    missing : tuple of int
        The numbers of frames between others of which there was no file.
    """

    tracks: list[Track]
    masks: np.ndarray | Volume | Iterator[np.ndarray]
    frames: int
    first: int = 0
    missing: tuple[int, ...] = ()

    def __str__(self) -> str:
        children = sum(track.parent > 0 for track in self.tracks)
        told = (
            f"{len(self.tracks)} tracks, {children} of them with a parent, in {self.frames} frames"
        )
        if not self.tracks:
            told += "; look at this: no frame has a cell that counts"
        if self.missing:
            told += (
                f"; look at this: there is no file of frame {few(self.missing)}, taken for "
                f"{'a frame' if len(self.missing) == 1 else 'frames'} in which no cell was seen"
            )
        return told


def track(
    instances: Stack,
    output: PathLike | None = None,
    *,
    tracker: str = "assignment",
    field_of_interest: int = 0,
    label_kind: str = "auto",
    label_threshold: float | None = None,
    by_order: bool = False,
    level: int | None = None,
    channel: int | None = None,
    time: int | None = None,
    scene: int | str | None = None,
    overwrite: bool = False,
) -> Tracks:
    """Follow cells through a sequence, from the instances of each frame.

    Parameters
    ----------
    instances : array, or path as `unet.open_volume` takes it, shape (frames, height, width)
        0 is background, every other number a cell of its frame, such as `unet segment --instances`
        writes. The files of a folder are the frames of the numbers in their names; one that is
        missing in between is a frame in which no cell was seen.
    output : path, optional
        A folder for the result in the cell tracking challenge's format: mask000.tif, mask001.tif,
        ... of 16 bit, and res_track.txt.
    tracker : {"assignment", "greedy"}
        assignment: overlap and distance, bridges gaps, sees divisions; greedy: overlap alone, as
        the authors in 2015.
    field_of_interest : int
        Leave out cells that lie wholly in so many pixels at the edges.
    label_kind : {"auto", "binary", "instances"}
        binary: cells are the 4-connected components of what is not 0. auto: instances, but for maps
        of foreground or classes, which are refused.
    label_threshold : float, optional
        Cells are the 4-connected components of what is above it.
    by_order : bool
        Count the files of a folder in the order of their names, whatever their numbers.
    level, channel, time, scene : int, optional
        Which part of a file that holds several, as of `unet.open_volume` (scene also by its name).
    overwrite : bool
        Replace an output that is no earlier result.

    Returns
    -------
    Tracks
        The masks are a stack that is read from the output where there is one, else an array.

    Raises
    ------
    InputError
        If these are no instances, each time point has several depths, the field of interest is
        empty, there are more tracks than 16 bit can number, more frames are missing than there are,
        or the output would damage something.

    References
    ----------
    Jaqaman et al., Nature Methods 5, 2008. u-net-release-2015-10-02, segmentAndTrack.

    Examples
    --------
    >>> frames = np.zeros((3, 20, 20), np.uint8)
    >>> frames[0, 5:9, 5:9], frames[1, 5:9, 6:10], frames[2, 5:9, 7:11] = 4, 2, 9
    >>> result = track(frames)
    >>> print(result)
    1 tracks, 0 of them with a parent, in 3 frames
    >>> result.masks.max(axis=(1, 2)).tolist()
    [1, 1, 1]
    """
    if output is not None:
        inputs = [instances] if isinstance(instances, (str, os.PathLike)) else []
        guard_outputs([Output(output, RESULT)], inputs, overwrite)
    if label_kind not in LABEL_KINDS:
        raise InputError(f"label kind {label_kind!r}: give {', '.join(LABEL_KINDS)}")
    if label_threshold is not None and label_kind == "instances":
        raise InputError("--label-threshold says that labels are binary, not instances")
    part = {"level": level, "channel": channel, "time": time, "scene": scene}
    with as_volume(instances, "instances", channels=1, part=part) as frames:
        if frames.calibration.times > 1:
            times, depths = frames.calibration.times, len(frames) // frames.calibration.times
            raise InputError(
                f"{frames.path}: holds {times} time points of {depths} depths, and cells are "
                f"followed through one picture a time point: save each depth as a stack of its own"
            )
        numbers = range(len(frames)) if by_order else _numbers(frames)
        every = range(numbers[0], numbers[-1] + 1)
        try:
            seen = frames
            if label_kind == "binary" or label_threshold is not None:
                seen = components(frames, label_threshold)
            elif label_kind == "auto":
                refuse_maps(frames)
            result = track_cells(_with_gaps(seen, numbers), tracker, field_of_interest)
        except InputError as error:
            where = "" if str(error).startswith(frames.path) else f"{frames.path}: "
            raise InputError(f"{where}{error}") from None
        first = every[0]
        result = result._replace(
            tracks=[
                one._replace(begin=one.begin + first, end=one.end + first) for one in result.tracks
            ],
            first=first,
            missing=tuple(sorted(set(every) - set(numbers))),
        )
        if output is None:
            return result._replace(masks=np.stack(list(result.masks)))
        write_masks(output, result.masks, result.tracks, numbers=every, overwrite=overwrite)
    return result._replace(masks=open_masks(output))


def _numbers(frames: Volume) -> Sequence[int]:
    """Return the numbers of the frames: those that their files have, or else from 0 on."""
    numbers = frame_numbers(frames) if frames.names else None
    if numbers is None:
        return range(len(frames))
    lost = numbers[-1] - numbers[0] + 1 - len(numbers)
    if lost > len(numbers):
        raise InputError(
            f"{frames.path}: its {len(numbers)} files are numbered {few(numbers, 3)}, so {lost} "
            f"frames are missing in between: say --by-order to count them from 0 instead"
        )
    return numbers


def _with_gaps(frames: Volume, numbers: Sequence[int]) -> Volume:
    """Return frames by their numbers, from that of the first on; those missing hold no cell."""
    place = {number - numbers[0]: z for z, number in enumerate(numbers)}
    count = numbers[-1] - numbers[0] + 1
    if count == len(frames):
        return frames

    def read(t: int) -> np.ndarray:
        return frames[place[t]] if t in place else np.zeros(frames.shape[-2:], frames.dtype)

    shape = (count,) + frames.shape[-2:]
    return Volume(frames.path, shape, frames.dtype, read)


def track_cells(frames: Sequence[np.ndarray], tracker: str, field_of_interest: int = 0) -> Tracks:
    """Follow the cells of a sequence; the masks are drawn one by one, when their turn comes.

    Parameters and errors are those of `track`; the frames, a sequence of int (height, width), are
    read again and again. A cell with no pixel inside the field of interest helps to follow it, but
    is not part of the result in that frame. Tracks have no gaps: a cell that comes back after
    frames outside of the field of interest is a new track, whose parent is the old one.
    """
    if tracker not in TRACKERS:
        raise InputError(f"tracker {tracker!r}: give {' or '.join(TRACKERS)}")
    if not 0 <= 2 * field_of_interest < min(np.shape(frames[0])[-2:]):
        height, width = np.shape(frames[0])[-2:]
        raise InputError(
            f"field of interest {field_of_interest}: leaves nothing of frames of {height}x{width}; "
            f"give the pixels at each edge that do not count, fewer than half of that"
        )
    detections = detect(frames)
    if tracker == "assignment":
        # Seen anew: the first look was for labels that are none.
        frames = SplitMerged(frames)
        detections = detect(frames)
    links = TRACKERS[tracker](detections)
    tracks, numbers = _tracks_of(_present(frames, links, field_of_interest), links.parents)
    if len(tracks) > _MOST_TRACKS:
        raise InputError(
            f"{len(tracks)} tracks are more than the {_MOST_TRACKS} that the result format can "
            f"number; drop small cells, or track fewer frames"
        )
    return Tracks(tracks, _masks(frames, links, field_of_interest, numbers), len(frames))


def _drawn(frames: Sequence[np.ndarray], links: Links) -> Iterator[np.ndarray]:
    """Yield the tracks' numbers of each frame, cells that were not seen drawn in."""
    gaps: dict[int, list[Gap]] = {}
    for gap in links.gaps:
        gaps.setdefault(gap.frame, []).append(gap)
    for t in range(len(frames)):
        _, index = number_cells(np.asarray(frames[t]), t)
        drawn = np.append(0, links.tracks[t])[index]
        for gap in gaps.get(t, []):
            _draw(drawn, np.asarray(frames[gap.nearest]) == gap.label, gap)
        yield drawn


def _draw(drawn: np.ndarray, shape: np.ndarray, gap: Gap) -> None:
    rows, columns = np.nonzero(shape)
    rows, columns = rows + gap.shift[0], columns + gap.shift[1]
    inside = (rows >= 0) & (rows < shape.shape[0]) & (columns >= 0) & (columns < shape.shape[1])
    rows, columns = rows[inside], columns[inside]
    under = drawn[rows, columns]
    # A cell that merged with another is cut out of both; but none is covered by more than half.
    area = np.bincount(drawn.ravel())
    covered = np.bincount(under, minlength=len(area))
    free = np.where(2 * covered <= area, True, False)
    free[0] = True
    drawn[rows[free[under]], columns[free[under]]] = gap.track


def _present(frames: Sequence[np.ndarray], links: Links, border: int) -> list[np.ndarray]:
    """Return the tracks that have a pixel in the field of interest, of each frame."""
    return [
        np.flatnonzero(np.bincount(_inner(drawn, border).ravel())[1:]) + 1
        for drawn in _drawn(frames, links)
    ]


def _inner(image: np.ndarray, border: int) -> np.ndarray:
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


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
