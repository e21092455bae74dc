"""Scores as text: the tables that the program prints, with what has to be said beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unet.errors import few

#: Key and title of the scores in the table, in its order.
_SCORES = (
    ("rand_error", "Rand error"),
    ("pixel_error", "pixel error"),
    ("warping_error", "warping error"),
    ("v_rand_thin", "V_rand (thin)"),
    ("v_info_thin", "V_info (thin)"),
)


class StackScores(dict):
    """The ISBI 2012 challenge's scores of a stack, as `unet.scoring.score.score` gives them.

    Keys are those of `unet.scoring.isbi.score_stack` and of the JSON that the program writes; as
    text it is the table that the program prints.
    """

    def __str__(self) -> str:
        return _table_of_stack(self)


class SequenceScores(dict):
    """The cell tracking challenge's scores of a result, keys as those of `unet.scoring.ctc`."""

    def __str__(self) -> str:
        return _table_of_sequence(self)


def _table_of_stack(scores: dict[str, Any]) -> str:
    """Write the scores as text: overall with the best thresholds, then slice by slice."""
    shown = [(key, title) for key, title in _SCORES if key in scores]
    size = f"{scores['slices']} x {scores['height']} x {scores['width']}"
    kind = ", instances with borders between them" if scores["label_kind"] == "instances" else ""
    lines = [
        f"labels      {scores['labels']}  ({size}{kind})",
        f"prediction  {scores['prediction']}  ({scores['prediction_scaling']})",
        "",
        f"{'overall':<14}{'value':>11}  best above",
    ]
    lines += [
        f"{title:<14}{_number(scores[key], 11)}  {_threshold(scores, key)}" for key, title in shown
    ]
    lines += _remarks(scores)
    lines += ["", "each slice by itself, with its own best thresholds"]
    lines.append("slice" + "".join(f"{title:>20}" for _, title in shown))
    for one in scores["per_slice"]:
        values = (
            "-" if math.isnan(one[key]) else f"{one[key]:14.6f} > {_threshold(one, key)}"
            for key, _ in shown
        )
        lines.append(f"{one['slice']:5d}" + "".join(f"{value:>20}" for value in values))
    return "\n".join(lines)


def _number(value: float, width: int) -> str:
    """Write a score; a dash where there is none."""
    return f"{'-':>{width}}" if math.isnan(value) else f"{value:{width}.6f}"


def _threshold(scores: dict[str, Any], key: str) -> str:
    """Write the threshold at which a score is best; a dash where there is none."""
    value = scores[f"{key}_threshold"]
    return "-" if math.isnan(value) else f"{value:.1f}"


def _remarks(scores: dict[str, Any]) -> list[str]:
    """Say in sentences which slices the scores of regions are of, and where they mean nothing."""
    told = list(scores["doubts"])
    empty = scores["slices_without_cells"]
    if empty:
        told.append(
            f"{_of_slices(empty, 'no true cell')}: Rand error, V_rand and V_info are those of the "
            f"other {scores['slices'] - len(empty)}"
        )
    whole = [one["slice"] for one in scores["per_slice"] if one["cells"] == 1]
    if whole:
        told.append(f"{_of_slices(whole, 'one true cell only')}: V_info of such a slice is 0")
    return [""] + told if told else []


def _of_slices(numbers: Sequence[int], what: str) -> str:
    """Say that slices hold something."""
    several = len(numbers) > 1
    return f"slice{'s' * several} {few(numbers)} hold{'s' * (not several)} {what}"


def _table_of_sequence(scores: dict[str, Any]) -> str:
    """Write SEG, DET and TRA as text, what DET and TRA are made of, and SEG frame by frame."""
    lines = [f"truth   {scores['truth']}", f"result  {scores['result']}", ""]
    if "SEG" in scores:
        cells = f"{scores['matched']} of {scores['objects']} cells matched"
        lines.append(f"SEG   {scores['SEG']:.6f}  {len(scores['per_frame'])} frames, {cells}")
    if "TRA" in scores:
        counts = scores["operations"]
        lines += [
            f"DET   {scores['DET']:.6f}  of {counts['objects']} objects {counts['FN']} missing, "
            f"{counts['FP']} false, {counts['NS']} to split",
            f"TRA   {scores['TRA']:.6f}  of {counts['links']} links {counts['EA']} missing, "
            f"{counts['ED']} false, {counts['EC']} of the wrong kind",
        ]
        if scores["surplus_frames"]:
            lines.append(
                f"frames of the result after the last one of the truth, which do not count: "
                f"{scores['surplus_frames']}"
            )
    if "SEG" in scores:
        lines += ["", f"frame{'SEG':>11}  matched"]
        lines += [
            f"{one['frame']:5d}{_number(one['SEG'], 11)}  {one['matched']} of {one['objects']}"
            for one in scores["per_frame"]
        ]
    return "\n".join(lines)
