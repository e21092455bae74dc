"""Score a prediction as its challenge did: membranes, cells and their tracks; or classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unet.errors import InputError, few
from unet.preparation.ctc_sequence import is_sequence
from unet.preparation.label_kind import MOST_CLASSES, LabelSurvey
from unet.preparation.label_values import numbered
from unet.preparation.labels import IGNORED, annotate, instances_from_binary, whole
from unet.preparation.membranes import NetworkSurvey
from unet.scoring.score_cells import UNKNOWN, score_cells
from unet.scoring.score_classes import score_classes
from unet.scoring.score_sequence import is_ground_truth, score_sequence
from unet.scoring.score_stack import score_stack
from unet.scoring.score_tables import ClassScores, SequenceScores, StackScores
from unet.volumes import Stack, Volume, as_volume, chosen_slices
from unet.volumes.file_numbers import are_named, chosen, places_of

LABEL_KINDS = ("auto", "binary", "membranes", "instances", "classes")


def score(
    truth: Stack,
    prediction: Stack,
    *,
    label_kind: str = "auto",
    label_threshold: float | None = None,
    ignore_label: int | None = None,
    classes: Sequence[int] | None = None,
    level: int | None = None,
    channel: int | None = None,
    time: int | None = None,
    scene: int | str | None = None,
    by_order: bool = False,
    slices: range | slice | None = None,
    every_third: bool = False,
    unscaled: bool = False,
    warping: bool = True,
    frames: range | None = None,
    tracking: bool = True,
    workers: int = 1,
    progress: bool = False,
) -> StackScores | ClassScores | SequenceScores:
    """Score a prediction against its ground truth.

    Parameters
    ----------
    truth : array or path
        Labels (slices, height, width), above 0 inside a cell, or whatever `unet.open_volume`
        opens; or a folder DATASET/NN_GT of the cell tracking challenge.
    prediction : array or path
        Probabilities of being inside a cell: float in [0, 1], uint8 (/255) or uint16 (/65535), or
        numbers of cells; of classes their numbers, or a channel of probabilities for each; or a
        folder DATASET/NN_RES: maskNNN.tif and res_track.txt.
    label_kind : {"auto", "binary", "membranes", "instances", "classes"}
        membranes: what is not 0 is membrane, not the inside of cells; instances: numbers of cells,
        which get thin borders where they touch, as in training; classes: numbers of classes, of
        which the IoU is scored. auto: by how they lie, never classes.
    label_threshold : float, optional
        Labels above it are inside a cell, the others are membrane.
    ignore_label : int, optional
        The label that means "not annotated": nothing counts there.
    classes : sequence of int, optional
        The labels that are classes 0, 1, ..., as they were trained with.
    level, channel, time, scene : int, optional
        Which part is scored, as of `unet.open_volume` (scene also by its name): of the labels, the
        prediction or both, wherever a file holds several.
    by_order : bool
        Whether files of two folders belong together in the order of their names, whatever their
        numbers; else by these.
    slices : range or slice, optional
        Of the labels; the prediction holds these or all.
    every_third : bool
        Score slices 2, 5, 8, ... alone, counted from 1, as the challenge does since 2016.
    unscaled : bool
        Take integers as they are, as the challenge did: every threshold means above 0.
    warping : bool
        Compute the warping error, the longest part.
    frames : range, optional
        Of a folder: the frames of SEG. DET and TRA are always of the whole sequence.
    tracking : bool
        Of a folder: compute DET and TRA.
    workers : int
        Processes.
    progress : bool
        Show a bar on standard error if it is a terminal.

    Returns
    -------
    StackScores, ClassScores or SequenceScores
        A dict; as text it is the table that `unet score` prints.

    Raises
    ------
    InputError
        If the two do not fit each other, or an option is for the other challenge.

    References
    ----------
    Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015. Ulman et al., Nature Methods 14,
    2017.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 1, 1, 1]])
    >>> scores = score(truth, np.array([[0.9, 0.8, 0.8, 0.3, 0.9, 0.9, 0.4]]))
    >>> scores["rand_error"], scores["pixel_error"]
    (0.0, 0.0)
    >>> print(scores)  # doctest: +ELLIPSIS
    labels      array  (1 x 1 x 7)
    prediction  array  (float64, taken as it is)
    ...
    """
    truth, prediction = (
        Path(one) if isinstance(one, (str, os.PathLike)) else one for one in (truth, prediction)
    )
    if isinstance(truth, Path) and is_sequence(truth):
        raise InputError(f"{truth}: holds the frames; name the ground truth, {truth}_GT")
    if label_kind not in LABEL_KINDS:
        raise InputError(f"label kind {label_kind!r}: give {', '.join(LABEL_KINDS)}")
    part = {"level": level, "channel": channel, "time": time, "scene": scene}
    part = {name: one for name, one in part.items() if one is not None}
    of_folder = isinstance(truth, Path) and is_ground_truth(truth)
    for option, given, is_for_folders in (
        ("--slices", slices is not None, False),
        ("--every-third", every_third, False),
        ("--unscaled", unscaled, False),
        ("--label-kind", label_kind != "auto", False),
        ("--label-threshold", label_threshold is not None, False),
        ("--ignore-label", ignore_label is not None, False),
        ("--classes", classes is not None, False),
        ("--by-order", by_order, False),
        *((f"--{name}", True, False) for name in part),
        ("--no-warping", not warping, False),
        ("--frames", frames is not None, True),
        ("--no-tracking", not tracking, True),
    ):
        if given and is_for_folders != of_folder:
            kind = "stacks of membranes" if of_folder else "the cell tracking challenge's folders"
            raise InputError(f"{option} is for {kind}")
    if of_folder:
        return SequenceScores(score_sequence(truth, prediction, frames, tracking=tracking))

    if classes is not None:
        if label_kind not in ("auto", "classes"):
            raise InputError(f"--classes says that labels are classes, not {label_kind}")
        label_kind = "classes"
    if label_threshold is not None and label_kind in ("instances", "classes"):
        raise InputError(f"--label-threshold says that labels are binary, not {label_kind}")
    channels = None if label_kind == "classes" else 1
    labels, predicted, numbers, surplus = _read(
        truth, prediction, part, slices, every_third, by_order, channels
    )
    names = [one if isinstance(one, Path) else "array" for one in (truth, prediction)]
    if classes is not None:
        named = numbered(as_volume(labels, str(names[0])), classes, ignore_label)
        labels, ignore_label = np.stack([named[z] for z in range(len(named))]), IGNORED
    unknown = np.zeros(labels.shape, bool) if ignore_label is None else labels == ignore_label
    if label_kind == "classes":
        truths = np.where(unknown, UNKNOWN, _whole(labels, names[0]))
        return _of_classes(truths, predicted, numbers, names, part)
    bits = [one.dtype.itemsize * 8 for one in (labels, predicted)]
    known = labels[~unknown]
    if label_threshold is not None:
        labels = labels > label_threshold
    elif known.size and known.min() < 0:
        raise InputError(
            f"{names[0]}: the label {known.min()} is negative: say --label-threshold 0 if what "
            f"is above 0 alone is inside cells, --ignore-label {known.min()} if it means not "
            f"annotated, or --slices A:B where slices are not annotated"
        )
    cells, kind = _true_cells(labels, label_kind, names[0], unknown)
    of_cells = {}
    numbered_cells = _number_cells(labels[~unknown])
    if _are_cell_numbers(predicted):
        asked = "auto" if kind == "membranes" else label_kind
        # Beside labels of two values numbers are no classes.
        found, how = _true_cells(predicted, asked, names[1], are_cells=not numbered_cells)
        probabilities = found.astype(np.float32)
        scaling = f"{predicted.dtype}, cell numbers taken as {how}"
        if label_kind != "binary" and (numbered_cells or kind == "binary"):
            truths = _whole(labels, names[0])
            if not numbered_cells:
                # The cells of a mask are its connected regions.
                truths = np.stack([instances_from_binary(one) for one in cells]).astype(np.int64)
            truths = np.where(unknown, UNKNOWN, truths)
            of_cells = {"of_cells": score_cells(zip(truths, predicted.astype(np.int64)))}
    else:
        probabilities, scaling = rescale(predicted, unscaled)
    # Where neither is a cell, the challenge counts nothing.
    probabilities[unknown] = 0
    scores = score_stack(cells, probabilities, warping=warping, workers=workers, progress=progress)
    for number, of_slice in zip(numbers, scores["per_slice"]):
        of_slice["slice"] = number
    return StackScores(
        scores,
        doubts=[*surplus, *_doubts(cells, probabilities)],
        labels=str(names[0]),
        prediction=str(names[1]),
        **of_cells,
        slices_without_cells=[one["slice"] for one in scores["per_slice"] if not one["cells"]],
        **part,
        label_kind=kind,
        label_threshold=label_threshold,
        label_bitdepth=bits[0],
        proposal_bitdepth=bits[1],
        prediction_scaling=scaling,
    )


def _read(
    truth: Stack,
    prediction: Stack,
    part: dict[str, int | str],
    slices: range | slice | None,
    every_third: bool,
    by_order: bool,
    channels: int | None,
) -> tuple[np.ndarray, np.ndarray, list[int], list[str]]:
    """Read the slices to be scored of both stacks, (slices, height, width), and number them.

    A prediction of several channels, if it may have them, is (slices, channels, height, width). The
    numbers are those in the labels, from 1. Last come sentences on what is not scored.
    """
    with (
        as_volume(truth, "labels", channels=1, part=part, if_several=True) as labels,
        as_volume(
            prediction,
            "prediction",
            channels=channels,
            as_slices=len(labels) > 1,
            part=part,
            if_several=True,
        ) as predicted,
    ):
        for option, asked in part.items():
            if option not in labels.among_several | predicted.among_several:
                raise InputError(
                    f"--{option} {asked}: neither {labels.path} nor {predicted.path} has several "
                    f"to choose from: leave it out"
                )
        of_labels, of_prediction = _choose(labels, predicted, slices, by_order)
        surplus = len(predicted) - len(of_prediction) if slices is None else 0
        told = [f"{surplus} of the {len(predicted)} predictions have no labels of their number"]
        if every_third:
            of_labels, of_prediction = of_labels[1::3], of_prediction[1::3]
            if not of_labels:
                raise InputError(
                    "--every-third starts with slice 2, and there is only one: leave it out"
                )
        labels.demand(of_labels)
        predicted.demand(of_prediction)
        numbers = [z + 1 for z in of_labels]
        pixels = _read_slices(labels, of_labels), _read_slices(predicted, of_prediction)
        return (*pixels, numbers, told if surplus else [])


def _read_slices(volume: Volume, places: Sequence[int]) -> np.ndarray:
    """Read slices, shape (slices, height, width), or with channels if there are several."""
    pixels = chosen(volume, places)[:]
    several = () if (volume.channels or 1) == 1 else (volume.channels,)
    return pixels.reshape((len(pixels), *several) + volume.shape[-2:])


def _choose(
    labels: Volume, prediction: Volume, slices: range | slice | None, by_order: bool
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the slices that are asked for: their places in the labels and in the prediction."""
    of_labels = chosen_slices(slices, len(labels))
    of_prediction: Sequence[int] = range(len(prediction))
    if not by_order and are_named(labels, prediction):
        of_prediction = places_of(chosen(labels, of_labels), prediction, "prediction")
    elif slices is not None and len(prediction) == len(labels):
        of_prediction = of_labels
    given, found = _describe(labels, len(of_labels)), _describe(prediction, len(of_prediction))
    if given != found:
        remedy = "" if slices else ", or say with --slices A:B which of the labels it holds"
        raise InputError(
            f"the labels are {given} and the prediction is {found}: they must be the same{remedy}"
        )
    return of_labels, of_prediction


def _describe(volume: Volume, slices: int) -> str:
    """Say how many slices of which size."""
    height, width = volume.shape[-2:]
    return f"{slices} slice{'s' if slices > 1 else ''} of {height}x{width}"


def _of_classes(
    truth: np.ndarray,
    predicted: np.ndarray,
    numbers: Sequence[int],
    names: Sequence[str | Path],
    part: dict[str, int | str],
) -> ClassScores:
    """Score the IoU of classes, `UNKNOWN` where nobody annotated."""
    if truth.max() < 0:
        raise InputError(f"{names[0]}: no pixel of the slices scored is annotated")
    if truth.max() >= IGNORED:
        raise InputError(
            f"{names[0]}: the label {truth.max()} is no class number 0..{IGNORED - 1}: say "
            f"--ignore-label {truth.max()} if it means not annotated, or --classes N,N,... to name "
            f"the labels that are classes"
        )
    if predicted.ndim == 4:
        found, how = predicted.argmax(axis=1), f"{predicted.shape[1]} channels, the likeliest class"
        classes = predicted.shape[1]
    elif truth.max() <= 1 and (predicted.dtype.kind == "f" or predicted.max() > 1):
        probabilities, how = rescale(predicted, unscaled=False)
        found, how, classes = probabilities > 0.5, f"{how}, class 1 above 0.5", 2
    else:
        found, how = _whole(predicted, names[1]), f"{predicted.dtype}, class numbers"
        classes = max(2, int(found.max()) + 1)
        if found.min() < 0 or classes > IGNORED:
            raise InputError(
                f"{names[1]}: holds {found.min()} to {found.max()}, and class numbers are "
                f"0..{IGNORED - 1}: give those that `unet segment --classes` writes"
            )
    classes = max(classes, int(truth.max()) + 1)
    scores = score_classes(zip(truth, found), classes)
    for number, of_slice in zip(numbers, scores["per_slice"]):
        of_slice["slice"] = number
    return ClassScores(
        scores,
        labels=str(names[0]),
        prediction=str(names[1]),
        **part,
        slices=len(truth),
        height=truth.shape[1],
        width=truth.shape[2],
        classes=classes,
        label_kind="classes",
        prediction_scaling=how,
    )


def _whole(labels: np.ndarray, path: str | Path) -> np.ndarray:
    """Return labels as int64."""
    try:
        return whole(labels).astype(np.int64)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _number_cells(labels: np.ndarray) -> bool:
    """Tell whether labels, (pixels,), have a number for each cell."""
    return labels.dtype.kind in "iuf" and len(np.unique(labels)) > 2


def _true_cells(
    stack: np.ndarray,
    kind: str,
    path: str | Path,
    unknown: np.ndarray | None = None,
    are_cells: bool = False,
) -> tuple[np.ndarray, str]:
    """Return which pixels are inside a cell, and what kind of labels said so.

    The challenge's scores are of the 4-connected components of a picture of cells and membrane.
    Numbers of cells that touch become one as a network learns it: thin borders are put between.
    What is `unknown` is none. Where numbers `are_cells`, few of them are no classes, either.
    """
    survey, asked = LabelSurvey(), kind
    unknown = np.zeros(stack.shape, bool) if unknown is None else unknown
    if unknown.any():
        stack = np.where(unknown, stack.dtype.type(0), stack)
    try:
        for image in stack:
            survey.add(image)
        if kind == "auto":
            kind = _kind_of(survey, stack, unknown, are_cells)
        if kind == "membranes":
            cells = (stack == 0) & ~unknown
        elif kind == "instances":
            cells = np.stack([annotate(image, "instances").classes > 0 for image in stack])
        else:
            cells = stack > 0
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not cells.any():
        inside = "0" if kind == "membranes" else "above 0"
        raise InputError(
            f"{path}: no pixel of the slices scored is {inside}, so there is no cell to score; is "
            f"this the right stack?"
        )
    if asked == "auto" and cells.all() and len(survey.values) > 1:
        raise InputError(
            f"{path}: the values are {few(survey.values)}, and no pixel is 0, which is membrane: "
            f"give membrane the value 0, or say --label-threshold N if what is not above N is it"
        )
    return cells, kind


def _kind_of(survey: LabelSurvey, stack: np.ndarray, unknown: np.ndarray, are_cells: bool) -> str:
    """Tell whether labels number cells that touch, or are membranes."""
    if len(survey.values) <= 2:
        white = NetworkSurvey()
        for image, hidden in zip(stack, unknown):
            white.add(image != 0, ~hidden)
        return "membranes" if white.is_network else "binary"
    if not survey.touching:
        return "binary"
    survey.refuse_pictures()
    if are_cells or len(survey.values) > MOST_CLASSES:
        return "instances"
    raise InputError(
        f"labels of {len(survey.values)} values ({few(survey.values, 4)}) touch, which can be "
        f"cells as well as classes; say --label-kind instances to put borders between them, "
        f"--label-kind classes to score the IoU of each class, or --label-kind binary to take all "
        f"above 0 for the inside of cells"
    )


def _are_cell_numbers(prediction: np.ndarray) -> bool:
    """Tell whether a prediction numbers its cells, as tools/segment.py --instances does."""
    if prediction.dtype.kind not in "iu" or prediction.max() == np.iinfo(prediction.dtype).max:
        return False
    survey = LabelSurvey()
    for image in prediction:
        survey.add(image)
    return len(survey.values) > 2 and survey.lie_as_labels()


def rescale(prediction: np.ndarray, unscaled: bool) -> tuple[np.ndarray, str]:
    """Return the prediction as float32 in [0, 1], and in words what was done to it."""
    dtype = prediction.dtype
    if dtype.kind == "f":
        low, high = prediction.min(), prediction.max()
        if np.isnan(low):
            raise InputError("the prediction holds NaN: mend or mask it before it is scored")
        # Sums of probabilities in single precision may pass 1 by their rounding.
        if low < -1e-6 or high > 1 + 1e-6:
            raise InputError(
                f"the prediction reaches from {low!s} to {high!s}: give probabilities in [0, 1]"
            )
        return prediction.astype(np.float32), f"{dtype}, taken as it is"
    if unscaled:
        return prediction.astype(np.float32), f"{dtype}, taken as it is, unscaled"
    if prediction.min() >= 0 and prediction.max() <= 1:
        return prediction.astype(np.float32), f"{dtype} of 0 and 1, taken as it is"
    if dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"a prediction of type {dtype} has no known range: save it as float, uint8 or uint16"
        )
    top = np.iinfo(dtype).max
    scaled = prediction.astype(np.float32) / np.float32(top)
    return scaled, f"{dtype}, rescaled to [0, 1] by 1/{top}"


def _doubts(cells: np.ndarray, probabilities: np.ndarray) -> list[str]:
    """Say in sentences why a prediction may not be what is to be scored."""
    told = []
    low, high = probabilities.min(), probabilities.max()
    if low == high:
        return [f"the prediction is {low!s} everywhere"]
    if high < 0.5:
        told.append(f"the prediction nowhere exceeds {high!s}: are these probabilities?")
    inside = float(probabilities[cells].mean(dtype=np.float64))
    if not cells.all():
        outside = float(probabilities[~cells].mean(dtype=np.float64))
        if inside < outside:
            told.append(
                f"the prediction is lower inside the true cells ({inside:.3f} in the mean) than "
                f"outside ({outside:.3f}): is it inverted?"
            )
    return told
