"""What was held out, segmented and scored; the threshold and minimum area that suit it best.

A run's held-out.h5 holds, of n slices or quadrants:

/raw            ([n, channels,] n, height, width), the type of the source
/truth          int32 (n, height, width): membranes: 1 inside cells, 0 membrane; cells: their
                numbers, 0 is background; classes: their numbers; -1 not annotated
/probabilities  float16 (n, classes, height, width)
/result         int32 (n, height, width), of what the truth is, at the threshold picked
/slices         int64 (n,), the slices of the stack
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unet.files.atomic import atomic_path
from unet.files.names import PathLike
from unet.files.provenance import KEY, mark
from unet.files.score_file import write_scores
from unet.model.defaults import SEGMENT, write_defaults
from unet.model.model import Model
from unet.report.plots import save_overlay
from unet.scoring.score_cells import (
    UNKNOWN,
    cell_counts,
    cell_overlaps,
    f1,
    score_cells,
    without_unknown,
)
from unet.scoring.score_classes import score_classes
from unet.scoring.score_stack import score_stack
from unet.scoring.undersegmented import undersegmented
from unet.segmentation.instances import InstanceRules, find_instances
from unet.volumes.intensity import intensity_range, is_normalised, scale_intensity

#: What a network's truth can be, and the scores that are shown of it, in their order.
SCORES = {
    "membranes": ("rand_error", "pixel_error", "warping_error", "v_rand_thin", "v_info_thin"),
    "cells": ("SEG", "f1_mean", "f1_0.50", "f1_0.70", "f1_0.90", "precision", "recall"),
    "classes": ("iou_mean", "accuracy"),
}
HELD_OUT, SCORE_FILE, OVERLAY = "held-out.h5", "scores.json", "overlay.png"
# Of cells; the challenge's of membranes are 0, 0.1, ..., 1.
_THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
# Depths by which cells are split, tried where half the threshold merges more than this part of the
# true ones; with so many slices at most, for a split takes a second for a million pixels.
_DEPTHS, _MERGED, _SPLIT = (0.1, 0.2, 0.4), 0.05, 4


def judge(
    model: Model,
    raw: Sequence[np.ndarray],
    truth: np.ndarray,
    folder: PathLike,
    *,
    kind: str,
    slices: Sequence[int],
    tta: str = "mirror",
    intensity: tuple[float, float] | None = None,
    warping: bool = True,
    workers: int = 1,
) -> dict[str, Any]:
    """Segment what was held out, score it, pick threshold and minimum area, and write all down.

    Into the folder: held-out.h5, scores.json, segment.json (the defaults of `unet segment` with
    this model) and overlay.png, each whole or not at all.

    Parameters
    ----------
    model : Model
        As `unet.load` gives it.
    raw : sequence of ndarray, each ([channels,] height, width)
        The pictures; all of one size.
    truth : int ndarray, shape (n, height, width)
        As in held-out.h5.
    folder : path
        Of the run.
    kind : {"membranes", "cells", "classes"}
    slices : sequence of int, length n
        Of which slices of the stack they are.
    tta : str
        As of `unet.segmentation.options.SegmentationOptions`.
    intensity : tuple of float, optional
        The grey values that become 0 and 1, of a network whose input is not normalised.
    warping : bool
        Of membranes: compute the warping error, the longest part.
    workers : int
        Processes that score.

    Returns
    -------
    dict
        What scores.json holds: kind; scores, a dict of numbers; threshold, a dict of chosen, curve
        (a list of [threshold, score]) and score, which it is; of cells minimum_area likewise, and
        watershed where many are merged without it; and slices, a list of dict: slice, and the
        scores of each.

    Raises
    ------
    InputError
        If the pictures are not what the network takes.
    """
    folder = Path(folder)
    raw = np.stack(list(raw))
    truth = np.asarray(truth, np.int32)
    stack = raw if raw.ndim == 4 else raw[:, np.newaxis]
    options = {} if intensity is None else {"intensity": intensity}
    given = model.segment(stack, tta=tta, **options)
    probabilities = np.stack([1 - given, given], axis=1) if model.classes == 2 else given
    judged = _JUDGES[kind](probabilities, truth, warping, workers)
    result, rules, scores, picked = judged
    _write_held_out(folder / HELD_OUT, raw, truth, probabilities, result, slices)
    per_slice = [
        {"slice": int(z), **{name: one[name] for name in _shown(kind, one)}}
        for z, one in zip(slices, scores["per_slice"])
    ]
    found = {
        "kind": kind,
        "scores": {name: scores[name] for name in _shown(kind, scores)},
        **picked,
        "slices": per_slice,
    }
    middle = len(truth) // 2
    image = scale_intensity(
        stack[middle],
        None if is_normalised(model.prototxt) else intensity or intensity_range(raw),
    )
    shown = probabilities[middle]
    if rules.threshold is not None:
        shown = np.stack([np.full_like(shown[0], rules.threshold), 1 - shown[0]])
    save_overlay(folder / OVERLAY, image, shown, np.maximum(truth[middle], 0))
    write_defaults(folder / SEGMENT, rules, tta)
    write_scores(folder / SCORE_FILE, found)
    return found


def _shown(kind: str, scores: dict[str, Any]) -> list[str]:
    """Return the names of the numbers that are kept of scores."""
    classes = [name for name in scores if name.startswith("iou_") and name != "iou_mean"]
    wanted = [*SCORES[kind], *(classes if kind == "classes" else ())]
    return [name for name in wanted if name in scores]


_Judged = tuple[np.ndarray, InstanceRules, dict[str, Any], dict[str, Any]]


def _judge_membranes(
    probabilities: np.ndarray, truth: np.ndarray, warping: bool, workers: int
) -> _Judged:
    """Score as the ISBI 2012 challenge; the threshold is that of the least Rand error.

    It scores what is cell in the truth or in the result: where nobody annotated, neither is.
    """
    inside = np.where(truth == UNKNOWN, np.float32(0), probabilities[:, 1])
    scores = score_stack(truth > 0, inside, warping=warping, workers=workers)
    curve = list(zip(scores["thresholds"], scores["rand_fscore_by_threshold"]))
    threshold = _pick(curve)
    rules = InstanceRules(threshold=threshold)
    picked = {"threshold": _told(threshold, curve, "Rand F-score, 1 - Rand error")}
    return (probabilities[:, 1] > threshold).astype(np.int32), rules, scores, picked


def _judge_cells(probabilities: np.ndarray, truth: np.ndarray, *_: object) -> _Judged:
    """Score SEG and F1; threshold, minimum area and depth are those of the greatest mean F1."""
    areas = [np.bincount(one[one > 0]) for one in truth]
    areas = np.concatenate([one[one > 0] for one in areas])
    candidates = _minimum_areas(areas)
    curves = {
        threshold: _f1_by_area(probabilities, truth, threshold, candidates)
        for threshold in _THRESHOLDS
    }
    threshold = _pick([(one, float(np.max(values))) for one, values in curves.items()])
    of_areas = list(zip(candidates, curves[threshold]))
    area = _pick_area(of_areas)
    place = candidates.index(area)
    curve = [(one, values[place]) for one, values in curves.items()]
    rules = InstanceRules(threshold=threshold, minimum_area=area)
    result = np.stack([find_instances(one, rules) for one in probabilities])
    score = "mean F1 at IoU 0.5 to 0.9"
    picked = {
        "threshold": _told(threshold, curve, score),
        "minimum_area": _told(area, of_areas, score),
    }
    # The threshold may be what parts cells, at the price of dim ones.
    lower = rules._replace(threshold=round(threshold / 2, 3))
    if _merged(truth, [find_instances(one, lower) for one in probabilities]) > _MERGED:
        rules, of_depths = _split_cells(probabilities, truth, rules)
        picked["watershed"] = _told(rules.watershed or 0, of_depths, score)
        if rules.watershed:
            picked["threshold"]["chosen"] = rules.threshold
            for name in ("threshold", "minimum_area"):
                picked[name]["score"] = f"{score}, cells not split"
            result = np.stack([find_instances(one, rules) for one in probabilities])
    return result, rules, score_cells(zip(truth, result)), picked


def _judge_classes(probabilities: np.ndarray, truth: np.ndarray, *_: object) -> _Judged:
    """Score the IoU of each class where it is the likeliest: of classes there is no threshold."""
    result = probabilities.argmax(axis=1).astype(np.int32)
    scores = score_classes(zip(truth, result), probabilities.shape[1])
    return result, InstanceRules(), scores, {}


_JUDGES = {"membranes": _judge_membranes, "cells": _judge_cells, "classes": _judge_classes}


def _f1_by_area(
    probabilities: np.ndarray, truth: np.ndarray, threshold: float, candidates: Sequence[int]
) -> list[float]:
    """Return the mean F1 of a threshold with each minimum area; 0 where there is no cell."""
    rules = InstanceRules(threshold=threshold)
    overlaps = [
        cell_overlaps(*without_unknown(true, find_instances(one, rules)))
        for one, true in zip(probabilities, truth)
    ]
    return [
        float(np.nan_to_num(f1(sum(cell_counts(*one, area) for one in overlaps)).mean()))
        for area in candidates
    ]


def _merged(truth: np.ndarray, result: Sequence[np.ndarray]) -> float:
    """Return the share of true cells that a found one covers together with another."""
    pairs = [without_unknown(*one) for one in zip(truth, result)]
    cells = sum(len(np.unique(true[true > 0])) for true, _ in pairs)
    return sum(len(undersegmented(*one)) for one in pairs) / max(1, cells)


def _split_cells(
    probabilities: np.ndarray, truth: np.ndarray, rules: InstanceRules
) -> tuple[InstanceRules, list[tuple[float, float]]]:
    """Return the best of rules and of those that split cells, and (depth, mean F1) of these.

    The threshold may become half as high.
    """
    some = np.unique(np.linspace(0, len(truth) - 1, _SPLIT).round().astype(int))
    tried = [rules] + [
        rules._replace(threshold=threshold, watershed=depth)
        for depth in _DEPTHS
        for threshold in (rules.threshold, round(rules.threshold / 2, 3))
    ]
    scores = []
    for one in tried:
        found = (find_instances(given, one) for given in probabilities[some])
        scores.append(float(np.nan_to_num(score_cells(zip(truth[some], found))["f1_mean"])))
    of_depths = [
        (depth, max(f1 for one, f1 in zip(tried, scores) if (one.watershed or 0) == depth))
        for depth in (0, *_DEPTHS)
    ]
    return tried[int(np.argmax(scores))], of_depths


def _minimum_areas(areas: np.ndarray) -> list[int]:
    """Return the minimum areas that are tried: 1, then by halves octaves up to half the median."""
    most = np.median(areas) / 2 if len(areas) else 1
    steps = range(1, 2 * int(np.log2(max(1, most))) + 1)
    return sorted({1, *(int(2 ** (step / 2)) for step in steps)})


def _pick(curve: Sequence[tuple[float, float]]) -> float:
    """Return the threshold of the greatest score; of several the one nearest to a half."""
    best = max(score for _, score in curve)
    return float(min((one for one, score in curve if score == best), key=lambda t: abs(t - 0.5)))


def _pick_area(curve: Sequence[tuple[int, float]]) -> int:
    """Return the minimum area of the greatest score: 1 if that has it, else the middle of those.

    The least of them is hardly above the largest false cell of these slices; others may hold
    larger ones.
    """
    best = [area for area, score in curve if score == max(one for _, one in curve)]
    return best[0] if best[0] == 1 else best[len(best) // 2]


def _told(chosen: float, curve: Sequence[tuple[float, float]], score: str) -> dict[str, Any]:
    return {"chosen": chosen, "curve": [list(point) for point in curve], "score": score}


def _write_held_out(
    path: Path,
    raw: np.ndarray,
    truth: np.ndarray,
    probabilities: np.ndarray,
    result: np.ndarray,
    slices: Sequence[int],
) -> None:
    arrays = {
        "raw": raw,
        "truth": truth,
        "probabilities": probabilities.astype(np.float16),
        "result": result,
    }
    with atomic_path(path) as fresh, h5py.File(os.fspath(fresh), "w") as file:
        file.attrs[KEY] = np.bytes_(mark("held-out slices"))
        file["slices"] = np.asarray(slices, np.int64)
        for name, array in arrays.items():
            file.create_dataset(
                name,
                data=array,
                chunks=(1,) + array.shape[1:],
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
