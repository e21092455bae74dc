"""From a stack and its labels to a training set, slice by slice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Union

import numpy as np

from unet.errors import InputError, few
from unet.preparation.label_kinds import detect_kind, touch
from unet.preparation.labels import (
    IGNORED,
    Annotation,
    annotate,
    class_counts,
    class_weights,
    whole,
)
from unet.preparation.training_set import TrainingSetWriter
from unet.preparation.weight_map import check_parameters, weight_map
from unet.volumes import Volume, grey_range
from unet.volumes.row_strips import values_of

PathLike = Union[str, "os.PathLike[str]"]
Progress = Callable[[Sequence[int], str], Iterable[int]]


# So many times as far as nearly all grey values reach, none belongs to what is seen.
_FAR = 20


class Recipe(NamedTuple):
    """How labels become weights, and grey values input; see `make_training_set`."""

    w0: float = 10.0
    sigma: float = 5.0
    balance: bool = True
    ignore: int | None = None
    kind: str = "auto"
    normalise: bool = False


class Summary(NamedTuple):
    """What a training set was made of.

    Attributes
    ----------
    kind : str
        Kind of the labels: binary, classes or instances.
    counts : ndarray of int64, shape (K,)
        Annotated pixels of each class, over all slices written.
    weights : ndarray of float64, shape (K,)
        wc of each class.
    ignored : int
        Pixels not annotated.
    cells : int
        Cells, counted in every slice by itself.
    vanished : int
        Cells so thin that the borders between touching cells took all of their pixels in a slice.
    largest : float
        Largest weight.
    remarks : tuple of str
        What is unusual enough to be looked at, a sentence each.
    """

    kind: str
    counts: np.ndarray
    weights: np.ndarray
    ignored: int
    cells: int
    vanished: int
    largest: float
    remarks: tuple[str, ...]


def annotated_slice(labels: Volume, index: int, kind: str, ignore: int | None) -> Annotation:
    """Return the classes and cells of one slice of a label stack; errors name file and slice."""
    try:
        return annotate(labels[index], kind, ignore)
    except InputError as error:
        raise _placed(error, labels, f": slice {index}") from None


def _whole_slice(labels: Volume, index: int) -> np.ndarray:
    """Return one slice of a label stack as it is; errors name file and slice."""
    try:
        return whole(labels[index])
    except InputError as error:
        raise _placed(error, labels, f": slice {index}") from None


def _placed(error: InputError, labels: Volume, place: str = "") -> InputError:
    """Return an error that names the labels, as those of reading them do already."""
    text = str(error)
    return error if text.startswith(labels.path) else InputError(f"{labels.path}{place}: {text}")


def make_training_set(
    path: PathLike,
    raw: Volume,
    labels: Volume,
    recipe: Recipe,
    *,
    slices: Sequence[int] | None = None,
    balance_slices: Sequence[int] | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress = lambda items, _: items,
) -> Summary:
    """Make a training set of a stack and its labels, slice by slice.

    Parameters
    ----------
    path : path
        The HDF5 file.
    raw : Volume, shape (slices, height, width) or (slices, channels, height, width)
    labels : Volume, shape (slices, height, width)
    recipe : Recipe
        w0 and sigma of the weight map, whether the classes are balanced, which label means "not
        annotated", the kind of labels (auto, or one of `unet.preparation.labels.KINDS`), and
        whether each slice is normalised when it is read.
    slices : sequence of int, optional
        The slices to take; by default all.
    balance_slices : sequence of int, optional
        The slices whose class frequencies are balanced, so that held-out slices can be kept out;
        by default those taken.
    notes : mapping, optional
        What else is recorded as attributes of the file.
    progress : callable
        Given numbers of slices and what is done to them, iterates over the numbers.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If the stacks do not fit each other, the labels are not of the kind, all annotated pixels of
        the slices taken are of one class, or every picture is of one grey value: from either
        nothing can be learnt.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3.
    """
    _check_stacks(raw, labels)
    check_parameters(recipe.w0, recipe.sigma)
    slices = range(raw.shape[0]) if slices is None else slices
    balance_slices = slices if balance_slices is None else balance_slices
    raw.demand(slices)
    labels.demand([*slices, *balance_slices])
    kind = recipe.kind
    if kind == "auto":
        try:
            kind = detect_kind(
                (_whole_slice(labels, z) for z in progress(slices, "look")), recipe.ignore
            )
        except InputError as error:
            raise _placed(error, labels) from None

    counts = np.zeros(IGNORED, np.int64)
    balance_counts = counts.copy()
    pixels = cells = vanished = 0
    unannotated: list[int] = []
    merged: list[int] = []
    for z in progress(sorted({*slices, *balance_slices}), "count"):
        annotation = annotated_slice(labels, z, kind, recipe.ignore)
        found = class_counts(annotation.classes)
        if z in balance_slices:
            balance_counts += found
        if z in slices:
            counts += found
            pixels += annotation.classes.size
            cells += int(np.count_nonzero(values_of(annotation.instances)))
            vanished += annotation.vanished
            if not found.any():
                unannotated.append(z)
            if recipe.kind == "binary" and touch(_annotated(labels[z], recipe.ignore)):
                merged.append(z)
        # Not to be there while the next one is made.
        del annotation
    _demand_classes(labels, counts, kind)
    if not balance_counts.any():
        raise InputError(
            f"{labels.path}: no pixel of the slices to balance by is annotated: every label is the "
            f"ignored one"
        )
    classes = max(2, int(np.nonzero(counts + balance_counts)[0][-1]) + 1)
    weights = class_weights(balance_counts[:classes], recipe.balance)

    low, high = grey_range(raw, slices)
    attributes = {
        "classes": classes,
        "grey_low": low,
        "grey_high": high,
        "normalise": recipe.normalise,
        "w0": recipe.w0,
        "sigma": recipe.sigma,
        "class_weights": weights,
        "class_counts": counts[:classes],
        "class_balance": recipe.balance,
        "label_kind": kind,
        "raw_source": raw.path,
        "labels_source": labels.path,
        "slices": np.asarray(slices, np.int64),
        "balance_slices": np.asarray(balance_slices, np.int64),
    }
    if recipe.ignore is not None:
        attributes["ignore_label"] = recipe.ignore
    attributes.update(notes or {})
    largest = 0.0
    flat: list[int] = []
    far: list[int] = []
    is_grey = raw.channels is not None and raw.channels > 1
    shape = (len(slices),) + labels.shape[1:]
    with TrainingSetWriter(path, shape, raw.dtype, attributes, raw.channels) as writer:
        for index, z in enumerate(progress(slices, "write")):
            annotation = annotated_slice(labels, z, kind, recipe.ignore)
            w = weight_map(
                annotation.instances,
                weights,
                labels=annotation.classes,
                w0=recipe.w0,
                sigma=recipe.sigma,
            )
            largest = max(largest, float(w.max()))
            picture = raw[z]
            darkest, brightest = float(picture.min()), float(picture.max())
            if darkest == brightest:
                flat.append(z)
            elif max(low - darkest, brightest - high) > _FAR * (high - low):
                far.append(z)
            is_grey = is_grey and bool((picture == picture[:1]).all())
            writer.write(index, picture, annotation.classes, w)
            del annotation, picture, w
        if len(flat) == len(slices):
            raise InputError(
                f"{raw.path}: all pixels of each slice taken are of one grey value: there is "
                f"nothing to see; is this the stack of pictures?"
            )
    ignored = pixels - int(counts.sum())
    remarks = _remarks(counts[:classes], balance_counts[:classes])
    if unannotated:
        remarks.append(f"no pixel is annotated in slices {few(unannotated)} of {labels.path}")
    if merged:
        remarks.append(
            f"labels of different numbers touch in slices {few(merged)} of {labels.path}, and are "
            f"taken for one cell: --label-kind instances tells them apart"
        )
    if is_grey:
        remarks.append(
            f"the {raw.channels} channels of {raw.path} are the same, and the network takes as "
            f"many: save it as grey pictures"
        )
    if far:
        remarks.append(
            f"slices {few(far)} of {raw.path} hold grey values far from {low:g} to {high:g}, where "
            f"nearly all are: dead or hot pixels, or another unit?"
        )
    if flat:
        remarks.append(f"all pixels are of one grey value in slices {few(flat)} of {raw.path}")
    return Summary(
        kind, counts[:classes], weights, ignored, cells, vanished, largest, tuple(remarks)
    )


def _annotated(labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """Return labels, 0 where they are the one that means: not annotated."""
    return labels if ignore is None else np.where(labels == ignore, labels.dtype.type(0), labels)


def _demand_classes(labels: Volume, counts: np.ndarray, kind: str) -> None:
    """Refuse slices in which at most one class occurs."""
    present = np.flatnonzero(counts)
    if len(present) > 1:
        return
    if not len(present):
        raise InputError(f"{labels.path}: no pixel is annotated: every label is the ignored one")
    if present[0] == 0:
        what = "background (label 0)"
    elif kind == "classes":
        what = f"of class {present[0]}"
    else:
        what = "inside cells (none has the label 0, which is background)"
    raise InputError(
        f"{labels.path}: all annotated pixels of the slices taken are {what}, and a network learns "
        f"to tell classes apart; are these the labels, and the slices that are annotated?"
    )


def _remarks(counts: np.ndarray, balance_counts: np.ndarray) -> list[str]:
    """Say which classes do not occur where they should."""
    told = []
    absent = np.flatnonzero(counts == 0).tolist()
    if absent:
        told.append(
            f"class numbers {few(absent)} do not occur, but the network gets scores for all of "
            f"0 to {len(counts) - 1}: number the classes without gaps"
        )
    unbalanced = np.flatnonzero((balance_counts == 0) & (counts > 0)).tolist()
    if unbalanced:
        told.append(f"class {few(unbalanced)} does not occur in the slices to balance by: weight 1")
    return told


def _check_stacks(raw: Volume, labels: Volume) -> None:
    if os.path.realpath(raw.path) == os.path.realpath(labels.path):
        raise InputError(f"{raw.path}: is given for the pictures and for their labels as well")
    if labels.channels is not None:
        raise InputError(
            f"{labels.path}: labels have one number a pixel, not {labels.channels} channels "
            f"(colour?): save them as grey numbers"
        )
    if (raw.shape[0],) + raw.shape[-2:] != labels.shape:
        raise InputError(
            f"{labels.path}: the labels are {labels.shape} (slices, height, width), but "
            f"{raw.path} is {(raw.shape[0],) + raw.shape[-2:]}; give labels of the same slices, "
            f"in the same size"
        )
