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
        threshold = self.get("label_threshold")
        white = "what is not 0" if threshold is None else f"above {threshold:g}"
        kind = {
            "instances": ", instances with borders between them",
            "membranes": f", {white} is membrane",
        }.get(self["label_kind"], "" if threshold is None else f", {white} inside cells")
        lines = [
            f"labels      {self['labels']}  ({size}{kind})",
            f"prediction  {self['prediction']}  ({self['prediction_scaling']})",
            "",
            f"{'overall':<14}{'value':>11}  best above",
        ]
        lines += [
            f"{title:<14}{_number(self[key], 11)}  {_threshold(self, key)}" for key, title in shown
        ]
        if "of_cells" in self:
            lines += _of_cells(self["of_cells"])
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


class ClassScores(dict):
    """Scores of classes, keys as of `unet.scoring.score_classes.score_classes`, and of files."""

    def __str__(self) -> str:
        size = f"{self['slices']} x {self['height']} x {self['width']}, classes"
        classes = [f"iou_{number}" for number in range(self["classes"])]
        lines = [
            f"labels      {self['labels']}  ({size})",
            f"prediction  {self['prediction']}  ({self['prediction_scaling']})",
            "",
            f"{'overall':<14}{'value':>11}",
            f"{'mean IoU':<14}{_number(self['iou_mean'], 11)}",
            f"{'pixels right':<14}{_number(self['accuracy'], 11)}",
        ]
        lines += [f"{'IoU class ' + key[4:]:<14}{_number(self[key], 11)}" for key in classes]
        lines += ["", "slice" + "".join(f"{name:>13}" for name in ("mean IoU", "pixels right"))]
        lines[-1] += "".join(f"{'class ' + key[4:]:>13}" for key in classes)
        for one in self["per_slice"]:
            values = (one[key] for key in ("iou_mean", "accuracy", *classes))
            lines.append(f"{one['slice']:5d}" + "".join(_number(value, 13) for value in values))
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


def _of_cells(scores: dict[str, Any]) -> list[str]:
    """Write how well cells are told apart, whose numbers labels and prediction hold."""
    found = f"{scores['found_cells']} found, {scores['cells']} true"
    return [
        "",
        f"{'cells':<14}{'value':>11}  {found}",
        f"{'SEG':<14}{_number(scores['SEG'], 11)}",
        *(
            f"{f'F1, IoU {iou:.2f}':<14}{_number(value, 11)}"
            for iou, value in zip(scores["ious"], scores["f1_by_iou"])
        ),
        f"{'mean F1':<14}{_number(scores['f1_mean'], 11)}",
    ]


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
