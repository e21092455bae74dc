"""What a label stack holds, slice by slice: its classes, cells, and what is unusual about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from unet.errors import InputError, few
from unet.preparation.label_kind import refuse_largest, touch
from unet.preparation.labels import (
    IGNORED,
    Annotation,
    annotate,
    class_counts,
    listed,
    whole,
    without_ignored,
)
from unet.preparation.membranes import NetworkSurvey
from unet.preparation.swapped_masks import SwapSurvey
from unet.preparation.training_set_options import TrainingSetOptions
from unet.volumes import Volume
from unet.volumes.row_strips import values_of

# More need not be remembered to tell what labels are.
_MOST_VALUES = 4096


def annotated_slice(labels: Volume, index: int, kind: str, ignore: int | None) -> Annotation:
    """Return the classes and cells of one slice of a label stack; errors name file and slice."""
    try:
        return annotate(labels[index], kind, ignore)
    except InputError as error:
        raise placed(error, labels, f": slice {index}") from None


def whole_slice(labels: Volume, index: int) -> np.ndarray:
    """Return one slice of a label stack as whole numbers; errors name file and slice."""
    try:
        return whole(labels[index])
    except InputError as error:
        raise placed(error, labels, f": slice {index}") from None


def placed(error: InputError, labels: Volume, place: str = "") -> InputError:
    """Return an error that names the labels, as those of reading them do already."""
    text = str(error)
    return error if text.startswith(labels.path) else InputError(f"{labels.path}{place}: {text}")


@dataclass
class Census:
    """What the labels of the slices taken hold, and of those to balance by the classes.

    Attributes
    ----------
    counts, balance_counts : ndarray of int64, shape (255,)
        Annotated pixels of each class, in the slices taken and in those to balance by.
    pixels, cells, vanished, slices : int
    values : set of int
        The labels, without the one that means: not annotated; of very many the ends and 0.
    unannotated, empty, merged : list of int
        Slices without an annotated pixel; of background alone; in which binary labels of several
        numbers touch.
    background : NetworkSurvey
        Whether it is a thin connected network.
    swap : SwapSurvey
        Of binary labels: whether they look as if black and white were swapped.
    """

    counts: np.ndarray
    balance_counts: np.ndarray
    pixels: int = 0
    cells: int = 0
    vanished: int = 0
    values: set[int] = field(default_factory=set)
    unannotated: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    slices: int = 0
    merged: list[int] = field(default_factory=list)
    background: NetworkSurvey = field(default_factory=NetworkSurvey)
    swap: SwapSurvey = field(default_factory=SwapSurvey)

    def note(self, values: Sequence[int]) -> None:
        """Add the labels of a slice to those that are known."""
        # Of truth values, as in pictures of one bit, 1 and not True.
        self.values.update(map(int, values))
        if len(self.values) > _MOST_VALUES:
            ordered = sorted(self.values)
            self.values = {*ordered[:8], *ordered[-8:], *({0} & self.values)}


def count_labels(
    labels: Volume,
    kind: str,
    options: TrainingSetOptions,
    slices: Sequence[int],
    balance_slices: Sequence[int],
    shown: partial,
) -> Census:
    """Count classes, cells and what is unusual, slice by slice."""
    census = Census(np.zeros(IGNORED, np.int64), np.zeros(IGNORED, np.int64))
    for z in shown(sorted({*slices, *balance_slices}), desc="count"):
        annotation = annotated_slice(labels, z, kind, options.ignore_label)
        found = class_counts(annotation.classes)
        if z in balance_slices:
            census.balance_counts += found
        if z in slices:
            census.counts += found
            census.pixels += annotation.classes.size
            census.background.add(annotation.classes == 0, annotation.classes != IGNORED)
            if kind == "binary":
                census.swap.add(annotation.classes == 1, annotation.classes == 0)
            census.cells += int(np.count_nonzero(values_of(annotation.instances)))
            census.vanished += annotation.vanished
            census.slices += 1
            if not found.any():
                census.unannotated.append(z)
            elif not found[1:].any():
                census.empty.append(z)
            image = labels[z]
            census.note(values_of(image).tolist())
            is_binary = options.label_kind == "binary"
            if is_binary and touch(without_ignored(image, options.ignore_label)):
                census.merged.append(z)
            del image
        # Not to be there while the next one is made.
        del annotation
    census.values.discard(options.ignore_label)
    if kind == "instances" and options.label_kind == "auto":
        try:
            refuse_largest(census.values, labels.dtype)
        except InputError as error:
            raise placed(error, labels) from None
    return census


def refuse_gaps(
    labels: Volume, present: list[int], classes: int, ignore: int | None = None
) -> None:
    """Refuse class numbers of which none is background, or that leave out more than there are."""
    told = f"{labels.path}: the class numbers are {few(present)}, "
    if present[0] != 0:
        raise InputError(
            f"{told}and none is 0, which is background: say --classes {listed(present)} to number "
            f"them from 0, background first"
            + ("" if ignore == 0 else f", or --classes 0:{classes} if other slices hold class 0")
        )
    if 2 * len(present) < classes:
        raise InputError(
            f"{told}and the network would get scores for all of 0 to {classes - 1}: say --classes "
            f"{listed(present)} to number them without gaps, --ignore-label {present[-1]} if that "
            f"means not annotated, or --classes 0:{classes} if all are meant"
        )


def understood(kind: str, options: TrainingSetOptions, census: Census) -> str:
    """Say which labels are what."""
    values = sorted(census.values - {0})
    if options.classes is not None:
        return "; ".join(
            f"{label} is class {number}" for number, label in enumerate(options.classes[:8])
        ) + ("; ..." if len(options.classes) > 8 else "")
    if options.label_threshold is not None:
        above = f"above {options.label_threshold:g}"
        if kind == "membranes":
            return _membranes(above, options, "the rest")
        return f"{above} is inside cells"
    if kind == "classes":
        return "the labels are the classes"
    numbers = few(values, 3) if len(values) < 4 else f"{values[0]} to {values[-1]}"
    if kind == "membranes":
        return _membranes(numbers, options, "0")
    is_background = "0 is background" if 0 in census.values else "none is background"
    return (
        f"{numbers} {'inside cells' if kind == 'binary' else 'number the cells'}, {is_background}"
    )


def _membranes(white: str, options: TrainingSetOptions, other: str) -> str:
    """Say that what is not 0 is membrane, and why."""
    if options.label_kind != "auto":
        return f"{white} is membrane, {other} inside cells, which is class 1"
    return (
        f"{white} is membrane, for it is a thin connected network, and {other} inside cells, which "
        f"is class 1 (--label-kind binary if it is cells)"
    )


def demand_classes(labels: Volume, counts: np.ndarray, kind: str) -> None:
    """Refuse slices in which at most one class occurs."""
    present = np.flatnonzero(counts)
    if len(present) > 1:
        return
    if not len(present):
        raise InputError(f"{labels.path}: no pixel is annotated: every label is the ignored one")
    if present[0] == 0:
        what = "membrane" if kind == "membranes" else "background (label 0)"
    elif kind == "classes":
        what = f"of class {present[0]}"
    elif kind == "membranes":
        what = "inside cells (label 0)"
    else:
        what = (
            "inside cells (none has the label 0, which is background; if another is, name the "
            "classes, background first, as --classes 1,2)"
        )
    raise InputError(
        f"{labels.path}: all annotated pixels of the slices taken are {what}, and a network learns "
        f"to tell classes apart; are these the labels, and the slices that are annotated?"
    )


def remarks_on(census: Census, classes: int, path: str) -> list[str]:
    """Say in sentences which classes do not occur where they should, and what else is unusual."""
    told = []
    counts, balance_counts = census.counts[:classes], census.balance_counts[:classes]
    absent = np.flatnonzero(counts == 0).tolist()
    if absent:
        told.append(
            f"class numbers {few(absent)} do not occur, but the network gets scores for all of "
            f"0 to {classes - 1}: number the classes without gaps"
        )
    unbalanced = np.flatnonzero((balance_counts == 0) & (counts > 0)).tolist()
    if unbalanced:
        told.append(f"class {few(unbalanced)} does not occur in the slices to balance by: weight 1")
    if census.unannotated:
        told.append(f"no pixel is annotated in slices {few(census.unannotated)} of {path}")
    if len(census.empty) > 2 and 2 * len(census.empty) > census.slices:
        told.append(
            f"{len(census.empty)} of the {census.slices} slices have no cell: if nobody annotated "
            f"them, leave them out with --slices A:B"
        )
    if census.swap.parts:
        white = few(sorted(census.values - {0}), 3)
        told.append(
            f"what is {white} in {path} is one whole around {census.swap.parts} parts of 0, and "
            f"taken for cells: if the parts are the cells, invert the labels (in Fiji: Edit, "
            f"Invert)"
        )
    if census.merged:
        told.append(
            f"labels of different numbers touch in slices {few(census.merged)} of {path}, and are "
            f"taken for one cell: --label-kind instances tells them apart"
        )
    return told
