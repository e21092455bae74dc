"""From a stack and its labels, or from a sequence, to a training set, slice by slice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from unet.errors import InputError, few
from unet.files.names import PathLike
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import PICTURE, TRAINING_SET
from unet.preparation.annotated_part import annotated_part
from unet.preparation.census import (
    annotated_slice,
    count_labels,
    demand_classes,
    placed,
    refuse_gaps,
    remarks_on,
    understood,
    whole_slice,
)
from unet.preparation.ctc_sequence import (
    ANNOTATIONS,
    UNKNOWN,
    described,
    find_sequence,
    is_sequence,
    open_annotated,
    slices_of_frames,
)
from unet.preparation.label_kind import detect_kind
from unet.preparation.label_values import above, numbered
from unet.preparation.labels import IGNORED, KINDS, class_weights
from unet.preparation.partial_annotation import IgnoreRule
from unet.preparation.summary import Summary
from unet.preparation.training_set import TrainingSet, TrainingSetWriter
from unet.preparation.training_set_options import TrainingSetOptions
from unet.preparation.weight_map import check_parameters, weight_map
from unet.report.plots import save_preview
from unet.volumes import Stack, Volume, as_volume, chosen_slices, intensity_range
from unet.volumes.file_numbers import chosen, places_of

__all__ = ["Summary", "TrainingSetOptions", "prepare"]

# So many times as far as nearly all grey values reach, none belongs to what is seen.
_FAR = 20


def prepare(
    stack: Stack,
    labels: Stack | None,
    output: PathLike,
    *,
    preview: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> Summary:
    """Make a training set: a stack and its labels, with the weight map, in one HDF5 file.

    Parameters
    ----------
    stack : array, shape (slices, [channels,] height, width), or path as `unet.open_volume` takes it
        The pictures; or the path of a sequence of the cell tracking challenge, DATASET/NN.
    labels : array or path, shape (slices, height, width); None for a sequence
        Of any of the kinds of `TrainingSetOptions`. Those of a sequence lie beside it, in NN_GT/SEG
        or NN_ST/SEG.
    output : path
        The training set, .h5.
    preview : path, optional
        A PNG of raw, labels, borders and weights of the middle slice.
    overwrite : bool
        Replace outputs that no program of this project has written.
    progress : bool
        Show bars on standard error if it is a terminal.
    **options
        Fields of `TrainingSetOptions`.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If the stacks do not fit each other, the labels are not of the kind, all annotated pixels of
        the slices taken are of one class, every picture is of one grey value, or an output would
        damage something.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> labels = np.zeros((2, 64, 64), np.uint8)
    >>> labels[:, 8:30, 8:30], labels[:, 8:30, 32:56] = 255, 255
    >>> image = labels // 2 + np.arange(64, dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = prepare(image, labels, f"{folder}/set.h5", w0=5)
    >>> summary.kind, summary.cells, summary.weights.round(3).tolist()
    ('binary', 4, [0.664, 2.024])
    """
    chosen = TrainingSetOptions(**options)
    inputs = files_of(stack, labels)
    if labels is None:
        chosen.check_for_sequence()
    else:
        chosen.check_for_stack()
    if Path(output).suffix.lower() not in ("", ".h5", ".hdf5", ".hdf"):
        raise InputError(f"-o {output}: a training set is HDF5; name it .h5")
    outputs = [Output(output, TRAINING_SET)]
    if preview is not None:
        if Path(preview).suffix.lower() != ".png":
            raise InputError(f"--preview {preview}: the picture is PNG; name it .png")
        outputs.append(Output(preview, PICTURE))
    guard_outputs(outputs, inputs, overwrite)
    with opened(stack, labels, chosen) as pair:
        summary = make_training_set(
            output,
            pair.raw,
            pair.labels,
            pair.options,
            slices=pair.slices,
            balance_slices=pair.balance_slices,
            notes=pair.notes,
            progress=progress,
        )
        summary = pair.remark(summary)
        return with_preview(summary, pair.labels, pair.slices, preview)


def files_of(stack: Stack, labels: Stack | None) -> list[str]:
    """Return the files and folders of a stack and its labels, or of a sequence without them.

    Raises
    ------
    InputError
        If there are no labels, and none beside the stack.
    """
    named = [os.fspath(one) for one in (stack, labels) if isinstance(one, (str, os.PathLike))]
    if labels is not None:
        return named
    if not named or not is_sequence(stack):
        raise InputError(
            f"{stack}: name its labels as well; only DATASET/NN has them beside it, in "
            "NN_GT/SEG or NN_ST/SEG"
        )
    sequence = os.path.abspath(stack)
    return [sequence, *(f"{sequence}_{kind.upper()}" for kind in ANNOTATIONS)]


class Pair(NamedTuple):
    """Pictures and labels that are open and belong together.

    Attributes
    ----------
    raw, labels : Volume
    options : TrainingSetOptions
        By which these labels are understood.
    slices, balance_slices : sequence of int
    notes : dict
        What the training set records of them.
    names : sequence of int
        The number of each slice in the stack, or of each frame in the sequence.
    ignored : int, optional
        What --ignore-label names.
    remarks, described : tuple of str
        What is unusual; what was taken of a sequence.
    """

    raw: Volume
    labels: Volume
    options: TrainingSetOptions
    slices: Sequence[int]
    balance_slices: Sequence[int]
    notes: dict[str, Any]
    names: Sequence[int]
    ignored: int | None = None
    remarks: tuple[str, ...] = ()
    described: tuple[str, ...] = ()

    def remark(self, summary: Summary) -> Summary:
        """Add what is known of these to what was made of them."""
        remarks = [*summary.remarks, *self.remarks]
        if self.ignored is not None and not summary.ignored:
            remarks.append(f"no pixel has the label {self.ignored} of --ignore-label")
        return summary._replace(remarks=tuple(remarks), sequence=self.described)


@contextlib.contextmanager
def opened(stack: Stack, labels: Stack | None, options: TrainingSetOptions) -> Iterator[Pair]:
    """Open a stack and its labels, or the annotated frames of a sequence, as `prepare` takes them.

    Raises
    ------
    InputError
        If they do not belong together.
    """
    if labels is None:
        yield _of_sequence(stack, options)
    else:
        with _of_stack(stack, labels, options) as pair:
            yield pair


@contextlib.contextmanager
def _of_stack(stack: Stack, labels: Stack, options: TrainingSetOptions) -> Iterator[Pair]:
    # Channels are of pictures; levels, time points and scenes labels may have, too.
    shared = {name: one for name, one in options.part.items() if name != "channel"}
    with (
        _labels(labels, shared) as truth,
        as_volume(
            stack, "the stack", as_slices=len(truth) > 1, colours=True, part=options.part
        ) as given,
    ):
        _check_labels(given, truth)
        places = range(len(given)) if options.by_order else places_of(truth, given)
        raw = chosen(given, places)
        count = len(raw)
        slices = chosen_slices(options.slices, count)
        balance = options.balance_slices
        balance = balance and chosen_slices(balance, count, "--balance-slices")
        notes: dict[str, Any] = dict(options.part)
        if options.label_threshold is not None:
            notes["label_threshold"] = options.label_threshold
        if options.classes is not None:
            notes["label_classes"] = list(options.classes)
        remarks = []
        if count < len(given):
            remarks.append(
                f"{len(given) - count} of the {len(given)} pictures of {given.path} have no labels "
                f"of their number in {truth.path}, and are left out"
            )
        truth, known = _by_values(truth, options)
        _check_sizes(raw, truth)
        part = annotated_part(truth, known, slices)
        remarks += part.remarks
        notes["slices"] = [places[z] for z in part.slices]
        balance = [z for z in balance or part.slices if z in part.slices or z not in slices]
        notes["balance_slices"] = [places[z] for z in balance]
        yield Pair(
            raw,
            part.labels,
            replace(known, ignore_label=part.ignore),
            part.slices,
            balance,
            notes,
            places,
            options.ignore_label,
            tuple(remarks),
        )


def _labels(labels: Stack, part: Mapping[str, Any]) -> Volume:
    """Open labels: one number a pixel."""
    volume = as_volume(labels, "the labels", as_slices=True, part=part, if_several=True)
    if volume.channels is None:
        return volume
    if volume.channels == 1:
        read, size = volume.read, (len(volume), *volume.shape[-2:])
        return volume.replaced(size, volume.dtype, lambda z: read(z)[0], None, "ZYX")
    volume.close()
    remedy = "save one of them (in Fiji: Image, Duplicate)"
    if volume.is_coloured:
        remedy = "save a number for each colour (in Fiji: Image, Type, 8-bit Color)"
    raise InputError(
        f"{volume.path}: labels have one number a pixel, not {volume.channels} channels"
        f"{' of colour' * volume.is_coloured}: {remedy}"
    )


def _by_values(labels: Volume, options: TrainingSetOptions) -> tuple[Volume, TrainingSetOptions]:
    """Return labels as --label-threshold or --classes understand them, and options for these."""
    ignore = options.ignore_label
    ignored = None if ignore is None else IGNORED
    if options.label_threshold is not None:
        labels = above(labels, options.label_threshold, ignore)
        return labels, replace(options, ignore_label=ignored)
    if options.classes is not None:
        labels = numbered(labels, options.classes, ignore)
        return labels, replace(options, label_kind="classes", ignore_label=ignored)
    return labels, options


def _of_sequence(folder: PathLike, options: TrainingSetOptions) -> Pair:
    unannotated = "none" if options.unannotated == "auto" else options.unannotated
    rule = IgnoreRule(unannotated, options.reach or 0.0, options.field_of_interest)
    annotated = open_annotated(find_sequence(folder, options.annotations), rule, options.frames)
    balance = options.balance_frames
    balanced = balance and slices_of_frames(annotated, balance, "--balance-frames")
    slices = range(len(annotated.numbers))
    return Pair(
        annotated.raw,
        annotated.labels,
        replace(options, ignore_label=UNKNOWN, label_kind="instances"),
        slices,
        balanced or slices,
        {
            "frames": annotated.numbers,
            "annotations": options.annotations,
            "unannotated": annotated.rule.rule,
            "unannotated_reach": annotated.rule.reach,
            "unannotated_field": annotated.rule.field_of_interest,
        },
        annotated.numbers,
        described=tuple(described(annotated, balanced)),
    )


def with_preview(
    summary: Summary,
    labels: Volume,
    slices: Sequence[int],
    path: PathLike | None,
    names: Sequence[str] | None = None,
) -> Summary:
    """Write the preview of the middle slice, read back from the training set.

    What each slice is called in it, if not by its place in the labels, is in `names`.
    """
    if path is None:
        return summary
    with TrainingSet(summary.output) as training_set:
        index = len(slices) // 2
        ignore = training_set.attributes.get("ignore_label")
        annotation = annotated_slice(labels, slices[index], summary.kind, ignore)
        image, weights = training_set.raw(index), training_set.weights(index)
    name = slices[index] if names is None else names[index]
    save_preview(path, image, annotation, weights, f"{labels.path}, slice {name}")
    return summary._replace(preview=path)


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
    _check_sizes(raw, labels)
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
                (whole_slice(labels, z) for z in shown(slices, desc="look")), options.ignore_label
            )
        except InputError as error:
            raise placed(error, labels) from None

    census = count_labels(labels, kind, options, slices, balance_slices, shown)
    counts, balance_counts = census.counts, census.balance_counts
    demand_classes(labels, counts, kind)
    if not balance_counts.any():
        raise InputError(
            f"{labels.path}: no pixel of the slices to balance by is annotated: every label is the "
            f"ignored one"
        )
    classes = max(2, int(np.nonzero(counts + balance_counts)[0][-1]) + 1)
    if options.classes is not None:
        classes = len(options.classes)
    elif kind == "classes":
        present = np.flatnonzero(counts + balance_counts).tolist()
        refuse_gaps(labels, present, classes, options.ignore_label)
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
    remarks = remarks_on(census, classes, labels.path)
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
        understood(kind, options, census),
        counts[:classes],
        weights,
        census.pixels - int(counts.sum()),
        census.cells,
        census.vanished,
        tuple(census.empty),
        largest,
        tuple(remarks),
        is_tissue=census.background.is_network,
    )


def _check_labels(raw: Volume, labels: Volume) -> None:
    if os.path.realpath(raw.path) == os.path.realpath(labels.path):
        raise InputError(
            f"{raw.path}: is given for the pictures and for their labels as well: name both, or "
            f"put labels that lie beside them into a folder of their own"
        )


def _check_sizes(raw: Volume, labels: Volume) -> None:
    if (raw.shape[0],) + raw.shape[-2:] != labels.shape:
        raise InputError(
            f"{labels.path}: the labels are {labels.shape} (slices, height, width), but "
            f"{raw.path} is {(raw.shape[0],) + raw.shape[-2:]}; give labels of the same slices, "
            f"in the same size"
        )
