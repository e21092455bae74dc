"""Two networks on the same frames: their scores, what they cost, how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError, few
from unet.scoring.score_sequence import score_seg, score_tracking
from unet.scoring.seg_det_tra import match_objects, seg
from unet.tracking.ctc_format import numbered_files, open_frames


def find_truth(sequence: Path, dataset: Path) -> Path | None:
    """Return the ground truth of a sequence, if there is any of the same frames.

    Parameters
    ----------
    sequence : Path
        Folder of frames, DATASET/NN; NN_GT beside it is its ground truth.
    dataset : Path
        Another folder that may hold the same frames, and their ground truth.
    """
    beside = sequence.with_name(f"{sequence.name}_GT")
    if beside.is_dir():
        return beside
    other = dataset / sequence.name
    truth = other.with_name(f"{other.name}_GT")
    if not other.is_dir() or not truth.is_dir():
        return None
    files = [numbered_files(folder, "t") for folder in (sequence, other)]
    with open_frames(files[0], masks=False) as given, open_frames(files[1], masks=False) as known:
        same = list(files[0]) == list(files[1]) and given.shape == known.shape
        same = same and all(
            np.array_equal(given[z], known[z]) for z in (0, len(given) // 2, len(given) - 1)
        )
    if not same:
        print(f"{truth}: is of other frames than {sequence}, so it is not used")
    return truth if same else None


def known_scores(truth: Path | None, result: Path) -> dict[str, float]:
    """Return SEG, DET and TRA of a result, as far as there is ground truth for them."""
    found: dict[str, float] = {}
    if truth and (truth / "SEG").is_dir():
        found["SEG"] = score_seg(truth, result)["SEG"]
    if truth and (truth / "TRA").is_dir():
        tracking = score_tracking(truth, result)
        found.update(DET=tracking["DET"], TRA=tracking["TRA"])
    return found


def agreement(first: Path, second: Path) -> dict[str, float]:
    """Return how far two results agree.

    Parameters
    ----------
    first, second : Path
        Folders of the result format: maskNNN.tif.

    Returns
    -------
    dict
        pixels, the share of pixels that both call a cell or both call background; SEG, of the
        second's cells with the first's in the place of the truth, NaN where there are none.

    Raises
    ------
    InputError
        If their frames do not have the same numbers, or one is damaged.
    """
    same, total, frames = 0, 0, []
    files = [numbered_files(folder, "mask") for folder in (first, second)]
    alone = sorted(set(files[0]) ^ set(files[1]))
    if alone:
        raise InputError(f"{first} and {second}: only one of them has frames {few(alone)}")
    with open_frames(files[0], masks=True) as one, open_frames(files[1], masks=True) as other:
        for a, b in zip(one, other):
            same += int(np.count_nonzero((a > 0) == (b > 0)))
            total += a.size
            frames.append(match_objects(a, b))
    any_cell = any(len(frame.reference) for frame in frames)
    return {"pixels": same / total, "SEG": seg(frames) if any_cell else float("nan")}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of networks.

    Parameters
    ----------
    rows : sequence of dict
        sequence, network, seconds (a frame), peak_gib; SEG, DET, TRA where they are known; and
        agreement, as of `agreement`, with the row before.
    """
    heads = ("SEG", "DET", "TRA")
    lines = [
        f"{'sequence':10s}{'network':20s}"
        + "".join(f"{head:>8s}" for head in heads)
        + f"{'s/frame':>9s}{'GiB':>7s}"
    ]
    for row in rows:
        marks = "".join(f"{row[h]:8.4f}" if h in row else f"{'-':>8s}" for h in heads)
        lines.append(
            f"{row['sequence']:10s}{row['network']:20s}{marks}{row['seconds']:9.2f}"
            f"{row['peak_gib']:7.2f}"
        )
        if "agreement" in row:
            both = row["agreement"]
            lines.append(
                f"{'':10s}the two agree on {both['pixels']:.2%} of the pixels; SEG of ours against "
                f"theirs {both['SEG']:.4f}"
            )
    return "\n".join(lines)
