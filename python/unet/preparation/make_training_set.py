"""Make a training set of an open stack and its labels, slice by slice, and say what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from unet.errors import InputError, few
from unet.files.names import PathLike
from unet.preparation.labels import (
    IGNORED,
    KINDS,
    Annotation,
    annotate,
    class_counts,
    class_weights,
    detect_kind,
    touch,
    whole,
    without_ignored,
)
from unet.preparation.training_set import TrainingSetWriter
from unet.preparation.weight_map import check_parameters, weight_map
from unet.volumes import Volume, intensity_range
from unet.volumes.row_strips import values_of

# So many times as far as nearly all grey values reach, none belongs to what is seen.
_FAR = 20


@dataclass(frozen=True)
class TrainingSetOptions:
    """How labels become weights, and intensities input.

    Attributes
    ----------
    label_kind : {"auto", "binary", "classes", "instances"}
        binary: 0 and anything else; classes: 0, 1, 2, ...; instances: a number for each cell, which
        get borders where they touch; auto: by the number of values.
    ignore_label : int, optional
        The label that means "not annotated".
    w0, sigma : float
        Weight of the gaps between cells, and its reach in pixels (Eq. 2 of the paper).
    balance : bool
        Whether the classes are balanced; else all weigh 1.
    normalise : bool
        Whether each slice is brought to the same mean and standard deviation when it is read.
    slices : range or slice, optional
        The slices to take; by default all.
    balance_slices : range or slice, optional
        The slices whose class frequencies are balanced, so that held-out slices can be kept out; by
        default those taken.
    frames, balance_frames : range, optional
        The same for the frames of a sequence, of which the annotated ones are taken.
    annotations : {"gt", "st"}
        Of a sequence: cells from NN_GT/SEG, drawn by people, or NN_ST/SEG.
    unannotated : {"none", "surroundings", "markers"}
        Of a sequence: where no cell is drawn is background, or unknown farther than `reach` from
        every cell, or within it of markers without a cell (see
        `unet.preparation.partial_annotation.IgnoreRule`).
    reach : float, optional
        In pixels; by default, for markers, as far as a drawn cell reaches from its own.
    field_of_interest : int
        Of a sequence: where no cell is drawn in so many pixels at the edges is unknown.
    """

    label_kind: str = "auto"
    ignore_label: int | None = None
    w0: float = 10.0
    sigma: float = 5.0
    balance: bool = True
    normalise: bool = False
    slices: range | slice | None = None
    balance_slices: range | slice | None = None
    frames: range | None = None
    balance_frames: range | None = None
    annotations: str = "gt"
    unannotated: str = "none"
    reach: float | None = None
    field_of_interest: int = 0

    def check_for_stack(self) -> None:
        """Raise `InputError` if there are options of a sequence."""
        for name in ("frames", "balance_frames", "reach"):
            if getattr(self, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} is for sequences, DATASET/NN")
        if self.annotations != "gt" or self.unannotated != "none" or self.field_of_interest:
            raise InputError(
                "--annotations, --unannotated and --field-of-interest are for sequences, DATASET/NN"
            )

    def check_for_sequence(self) -> None:
        """Raise `InputError` if there are options of a stack, or those of a sequence do not fit."""
        for name, given, remedy in (
            ("--label-kind", self.label_kind not in ("auto", "instances"), "they are instances"),
            ("--ignore-label", self.ignore_label is not None, "see --unannotated"),
            ("--slices", self.slices is not None, "use --frames"),
            ("--balance-slices", self.balance_slices is not None, "use --balance-frames"),
        ):
            if given:
                raise InputError(f"{name} is not for the labels of a sequence: {remedy}")
        if self.reach is not None and self.unannotated == "none":
            raise InputError("--reach belongs to --unannotated surroundings or markers")
        if self.reach is None and self.unannotated == "surroundings":
            raise InputError("--unannotated surroundings needs --reach PIXELS")
        if self.reach is not None and not self.reach > 0:
            raise InputError(f"--reach {self.reach:g}: give pixels, more than 0")


class Summary(NamedTuple):
    """What a training set was made of; as text, what the program prints.

    Attributes
    ----------
    output : str
        The file.
    size : int
        Its bytes.
    shape : tuple of int
        (slices, height, width).
    intensity_range : tuple of float, optional
        The grey values that become 0 and 1; None: each slice is normalised.
    w0, sigma : float
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
    preview : path, optional
        The picture of the middle slice.
    sequence : tuple of str
        What was taken of a sequence, a line each.
    """

    output: str
    size: int
    shape: tuple[int, int, int]
    intensity_range: tuple[float, float] | None
    w0: float
    sigma: float
    kind: str
    counts: np.ndarray
    weights: np.ndarray
    ignored: int
    cells: int
    vanished: int
    largest: float
    remarks: tuple[str, ...]
    preview: PathLike | None = None
    sequence: tuple[str, ...] = ()

    def __str__(self) -> str:
        slices, height, width = self.shape
        annotated = int(self.counts.sum())
        intensity = "each slice's mean becomes 1/2, its standard deviation 1/6"
        if self.intensity_range is not None:
            low, high = self.intensity_range
            intensity = f"{low:g} becomes 0, {high:g} becomes 1"
        lines = [
            f"grey values  {intensity}",
            f"labels       {self.kind}, {self.cells:,} cells in all slices",
        ]
        lines += [
            f"class {number}      {count / annotated:7.2%} of the pixels, weight {weight:.4f}"
            for number, (count, weight) in enumerate(zip(self.counts, self.weights))
        ]
        if self.ignored:
            share = self.ignored / (annotated + self.ignored)
            lines.append(f"ignored      {share:.2%} of the pixels")
        if self.vanished:
            lines.append(
                f"borders      {self.vanished:,} cells are so thin that they became all border"
            )
        lines.append(f"weights      w0 {self.w0:g}, sigma {self.sigma:g}: up to {self.largest:.3f}")
        lines += [f"look at this: {remark}" for remark in self.remarks]
        if self.preview is not None:
            lines.append(f"preview      {self.preview}")
        lines += self.sequence
        head = f"{self.output}: {slices} slices of {height} x {width}, {self.size:,} bytes"
        return "\n  ".join([head, *lines])


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
    options: TrainingSetOptions,
    *,
    slices: Sequence[int] | None = None,
    balance_slices: Sequence[int] | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Summary:
    """Make a training set of a stack and its labels that are open, slice by slice.

    Parameters
    ----------
    path : path
        The HDF5 file.
    raw : Volume, shape (slices, height, width) or (slices, channels, height, width)
    labels : Volume, shape (slices, height, width)
    options : TrainingSetOptions
        Its slices and those of sequences are not looked at.
    slices, balance_slices : sequence of int, optional
        In place of those of the options.
    notes : mapping, optional
        What else is recorded as attributes of the file.
    progress : bool

    Raises
    ------
    InputError
        As `prepare`.
    """
    shown = partial(tqdm, unit="slice", disable=None if progress else True, leave=False)
    _check_stacks(raw, labels)
    check_parameters(options.w0, options.sigma)
    if options.label_kind not in ("auto", *KINDS):
        raise InputError(f"label kind {options.label_kind!r}: give auto or {', '.join(KINDS)}")
    slices = range(raw.shape[0]) if slices is None else slices
    balance_slices = slices if balance_slices is None else balance_slices
    raw.demand(slices)
    labels.demand([*slices, *balance_slices])
    kind = options.label_kind
    if kind == "auto":
        try:
            kind = detect_kind(
                (_whole_slice(labels, z) for z in shown(slices, desc="look")), options.ignore_label
            )
        except InputError as error:
            raise _placed(error, labels) from None

    census = _count(labels, kind, options, slices, balance_slices, shown)
    counts, balance_counts = census.counts, census.balance_counts
    _demand_classes(labels, counts, kind)
    if not balance_counts.any():
        raise InputError(
            f"{labels.path}: no pixel of the slices to balance by is annotated: every label is the "
            f"ignored one"
        )
    classes = max(2, int(np.nonzero(counts + balance_counts)[0][-1]) + 1)
    weights = class_weights(balance_counts[:classes], options.balance)

    low, high = intensity_range(raw, slices)
    attributes = {
        "classes": classes,
        "grey_low": low,
        "grey_high": high,
        "normalise": options.normalise,
        "w0": options.w0,
        "sigma": options.sigma,
        "class_weights": weights,
        "class_counts": counts[:classes],
        "class_balance": options.balance,
        "label_kind": kind,
        "raw_source": raw.path,
        "labels_source": labels.path,
        "slices": np.asarray(slices, np.int64),
        "balance_slices": np.asarray(balance_slices, np.int64),
    }
    if options.ignore_label is not None:
        attributes["ignore_label"] = options.ignore_label
    attributes.update(notes or {})
    largest = 0.0
    flat: list[int] = []
    far: list[int] = []
    is_grey = raw.channels is not None and raw.channels > 1
    shape = (len(slices),) + labels.shape[1:]
    with TrainingSetWriter(path, shape, raw.dtype, attributes, raw.channels) as writer:
        for index, z in enumerate(shown(slices, desc="write")):
            annotation = annotated_slice(labels, z, kind, options.ignore_label)
            w = weight_map(
                annotation.instances,
                weights,
                labels=annotation.classes,
                w0=options.w0,
                sigma=options.sigma,
            )
            largest = max(largest, float(w.max()))
            image = raw[z]
            darkest, brightest = float(image.min()), float(image.max())
            if darkest == brightest:
                flat.append(z)
            elif max(low - darkest, brightest - high) > _FAR * (high - low):
                far.append(z)
            is_grey = is_grey and bool((image == image[:1]).all())
            writer.write(index, image, annotation.classes, w)
            del annotation, image, w
        if len(flat) == len(slices):
            raise InputError(
                f"{raw.path}: all pixels of each slice taken are of one grey value: there is "
                f"nothing to see; is this the stack of pictures?"
            )
    remarks = _remarks_on_labels(census, classes, labels.path)
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
        os.fspath(path),
        os.path.getsize(path),
        shape,
        None if options.normalise else (low, high),
        options.w0,
        options.sigma,
        kind,
        counts[:classes],
        weights,
        census.pixels - int(counts.sum()),
        census.cells,
        census.vanished,
        largest,
        tuple(remarks),
    )


@dataclass
class _Census:
    """What the labels of the slices taken hold, and of those to balance by the classes."""

    counts: np.ndarray
    balance_counts: np.ndarray
    pixels: int = 0
    cells: int = 0
    vanished: int = 0
    unannotated: list[int] = field(default_factory=list)
    merged: list[int] = field(default_factory=list)


def _count(
    labels: Volume,
    kind: str,
    options: TrainingSetOptions,
    slices: Sequence[int],
    balance_slices: Sequence[int],
    shown: partial,
) -> _Census:
    """Count classes, cells and what is unusual, slice by slice."""
    census = _Census(np.zeros(IGNORED, np.int64), np.zeros(IGNORED, np.int64))
    for z in shown(sorted({*slices, *balance_slices}), desc="count"):
        annotation = annotated_slice(labels, z, kind, options.ignore_label)
        found = class_counts(annotation.classes)
        if z in balance_slices:
            census.balance_counts += found
        if z in slices:
            census.counts += found
            census.pixels += annotation.classes.size
            census.cells += int(np.count_nonzero(values_of(annotation.instances)))
            census.vanished += annotation.vanished
            if not found.any():
                census.unannotated.append(z)
            is_binary = options.label_kind == "binary"
            if is_binary and touch(without_ignored(labels[z], options.ignore_label)):
                census.merged.append(z)
        # Not to be there while the next one is made.
        del annotation
    return census


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


def _remarks_on_labels(census: _Census, classes: int, path: str) -> list[str]:
    """Say which classes do not occur where they should, and what else is unusual."""
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
    if census.merged:
        told.append(
            f"labels of different numbers touch in slices {few(census.merged)} of {path}, and are "
            f"taken for one cell: --label-kind instances tells them apart"
        )
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
