"""Score a result in the cell tracking challenge's format against its ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.files.names import PathLike
from unet.scoring.seg_det_tra import Matches, count_operations, det, match_objects, seg, tra
from unet.tracking.ctc_format import TRACKS_FILE, Track, numbered_files, open_frames, read_tracks


def is_ground_truth(folder: PathLike) -> bool:
    """Tell whether a folder is a ground truth of the challenge: it holds SEG or TRA."""
    return any((Path(folder) / kind).is_dir() for kind in ("SEG", "TRA"))


def score_sequence(
    truth: PathLike, result: PathLike, frames: range | None = None, *, tracking: bool = True
) -> dict[str, Any]:
    """Score a result by what its ground truth, SEG or TRA or both, holds.

    Parameters
    ----------
    truth, result : path
    frames : range, optional
        Those of SEG; by default all that are annotated.
    tracking : bool
        Whether DET and TRA are computed.

    Returns
    -------
    dict
        truth and result, their paths, and what `score_seg` and `score_tracking` return.
    """
    scores: dict[str, Any] = {"truth": str(truth), "result": str(result)}
    if (Path(truth) / "SEG").is_dir():
        scores.update(score_seg(truth, result, frames))
    elif frames is not None:
        raise InputError(f"{truth}: has no SEG, for which --frames chooses")
    if (Path(truth) / "TRA").is_dir() and tracking:
        scores.update(score_tracking(truth, result))
    if not {"SEG", "TRA"} & set(scores):
        raise InputError(f"{truth}: has no SEG, so --no-tracking leaves nothing to score")
    return scores


def score_seg(truth: PathLike, result: PathLike, frames: range | None = None) -> dict[str, Any]:
    """Score the cells of a result, maskNNN.tif, by SEG against truth/SEG/man_segNNN.tif.

    Parameters
    ----------
    truth, result : path
    frames : range, optional
        The frames to score, of those annotated; by default all.

    Returns
    -------
    dict
        SEG; objects and matched, how many; per_frame, a list of dict: frame, SEG, objects, matched.

    Raises
    ------
    InputError
        If files are missing, damaged or differ in size, or no chosen frame is annotated.
    """
    folder = Path(truth) / "SEG"
    files = numbered_files(folder, "man_seg")
    chosen = {n: path for n, path in files.items() if frames is None or n in frames}
    if not chosen:
        raise InputError(f"{folder}: annotates none of the chosen frames, but {sorted(files)}")
    matches = _match(chosen, numbered_files(result, "mask"))
    if not any(len(frame.reference) for frame in matches.values()):
        raise InputError(f"{folder}: the chosen frames hold no cell")
    return {
        "SEG": seg(matches.values()),
        "objects": sum(len(frame.reference) for frame in matches.values()),
        "matched": sum(_matched(frame) for frame in matches.values()),
        "per_frame": [
            {
                "frame": number,
                "SEG": seg([frame]) if len(frame.reference) else float("nan"),
                "objects": len(frame.reference),
                "matched": _matched(frame),
            }
            for number, frame in matches.items()
        ],
    }


def score_tracking(truth: PathLike, result: PathLike) -> dict[str, Any]:
    """Score cells and tracks of a result, with res_track.txt, by DET and TRA against truth/TRA.

    Returns
    -------
    dict
        DET, TRA; operations, a dict of how many there are of each kind (see
        `unet.scoring.seg_det_tra.Operations`); surplus_frames, how many frames of the result come
        after the last one of the truth: they do not count.

    Raises
    ------
    InputError
        If files are missing, damaged or differ in size, or the table of the result does not say
        exactly what its masks hold.
    """
    markers = numbered_files(Path(truth) / "TRA", "man_track")
    lost = next((k for k, number in enumerate(markers) if k != number), None)
    if lost is not None:
        raise InputError(f"{truth}: TRA/man_track{lost:03d}.tif is missing")
    reference = read_tracks(Path(truth) / "TRA" / "man_track.txt")
    last = max([0, *(track.end for track in reference)])
    if last not in markers:
        raise InputError(f"{truth}: TRA/man_track{last:03d}.tif is missing; man_track.txt names it")
    table = Path(result) / TRACKS_FILE
    tracks = read_tracks(table)
    masks = numbered_files(result, "mask")
    surplus = [number for number in masks if number not in markers]
    tracks = _until(max(markers), tracks) if surplus else tracks
    matches = _match(markers, masks)
    _check_table(table, tracks, {masks[t].name: frame.result for t, frame in matches.items()})
    try:
        operations = count_operations(list(matches.values()), reference, tracks)
        scores = {"DET": det(operations), "TRA": tra(operations)}
    except InputError as error:
        raise InputError(f"{Path(truth) / 'TRA'}: {error}") from None
    return {**scores, "operations": operations._asdict(), "surplus_frames": len(surplus)}


def _until(last: int, tracks: list[Track]) -> list[Track]:
    """Return what tracks are up to a frame."""
    return [track._replace(end=min(track.end, last)) for track in tracks if track.begin <= last]


def _match(reference: Mapping[int, Path], result: Mapping[int, Path]) -> dict[int, Matches]:
    """Match the objects of the reference's frames with those of the result."""
    lost = next((number for number in reference if number not in result), None)
    if lost is not None:
        folder = next(iter(result.values())).parent
        raise InputError(f"{folder}: has no mask{lost:03d}.tif, as {reference[lost]} needs")
    wanted = open_frames(reference, masks=True)
    made = open_frames({number: result[number] for number in reference}, masks=True)
    if wanted.shape != made.shape:
        raise InputError(
            f"{made.path}: masks are {made.shape[1:]} (height, width), but {wanted.path} is "
            f"{wanted.shape[1:]}"
        )
    return {number: match_objects(wanted[z], made[z]) for z, number in enumerate(reference)}


def _matched(frame: Matches) -> int:
    return int(np.count_nonzero(frame.partners))


def _check_table(table: Path, tracks: list[Track], labels: Mapping[str, np.ndarray]) -> None:
    """Check that each mask, by its name, holds the labels that the table says, and no others."""
    listed: list[set] = [set() for _ in labels]
    for track in tracks:
        if track.end >= len(labels):
            raise InputError(
                f"{table}: track {track.label} ends in frame {track.end}, but the last frame is "
                f"{len(labels) - 1}"
            )
        for t in range(track.begin, track.end + 1):
            listed[t].add(track.label)
    for t, (said, (name, there)) in enumerate(zip(listed, labels.items())):
        held = set(there.tolist())
        if held - said:
            raise InputError(
                f"{table}: does not list label {min(held - said)} in frame {t}, but {name} holds it"
            )
        if said - held:
            raise InputError(
                f"{table}: lists label {min(said - held)} in frame {t}, but {name} does not hold it"
            )
