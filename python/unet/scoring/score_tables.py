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

    Keys are those of `unet.scoring.score_stack.score_stack` and of the JSON that the program
    writes; as text it is the table that the program prints.
    """

    def __str__(self) -> str:
        shown = [(key, title) for key, title in _SCORES if key in self]
        size = f"{self['slices']} x {self['height']} x {self['width']}"
        kind = ", instances with borders between them" if self["label_kind"] == "instances" else ""
        if self.get("label_threshold") is not None:
            kind = f", above {self['label_threshold']:g} inside cells"
        lines = [
            f"labels      {self['labels']}  ({size}{kind})",
            f"prediction  {self['prediction']}  ({self['prediction_scaling']})",
            "",
            f"{'overall':<14}{'value':>11}  best above",
        ]
        lines += [
            f"{title:<14}{_number(self[key], 11)}  {_threshold(self, key)}" for key, title in shown
        ]
        lines += _remarks(self)
        lines += ["", "each slice by itself, with its own best thresholds"]
        lines.append("slice" + "".join(f"{title:>20}" for _, title in shown))
        for one in self["per_slice"]:
            values = (
                "-" if math.isnan(one[key]) else f"{one[key]:14.6f} > {_threshold(one, key)}"
                for key, _ in shown
            )
            lines.append(f"{one['slice']:5d}" + "".join(f"{value:>20}" for value in values))
        return "\n".join(lines)


class SequenceScores(dict):
    """The cell tracking challenge's scores of a result, keys as of `score_sequence`."""

    def __str__(self) -> str:
        lines = [f"truth   {self['truth']}", f"result  {self['result']}", ""]
        if "SEG" in self:
            cells = f"{self['matched']} of {self['objects']} cells matched"
            lines.append(f"SEG   {self['SEG']:.6f}  {len(self['per_frame'])} frames, {cells}")
        if "TRA" in self:
            counts = self["operations"]
            lines += [
                f"DET   {self['DET']:.6f}  of {counts['objects']} objects {counts['FN']} missing, "
                f"{counts['FP']} false, {counts['NS']} to split",
                f"TRA   {self['TRA']:.6f}  of {counts['links']} links {counts['EA']} missing, "
                f"{counts['ED']} false, {counts['EC']} of the wrong kind",
            ]
            if self["surplus_frames"]:
                lines.append(
                    f"frames of the result after the last one of the truth, which do not count: "
                    f"{self['surplus_frames']}"
                )
        if "SEG" in self:
            lines += ["", f"frame{'SEG':>11}  matched"]
            lines += [
                f"{one['frame']:5d}{_number(one['SEG'], 11)}  {one['matched']} of {one['objects']}"
                for one in self["per_frame"]
            ]
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
