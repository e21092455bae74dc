"""From a stack and its labels, or from a sequence, to a training set: the way there from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.names import PathLike
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import PICTURE, TRAINING_SET
from unet.plots import save_preview
from unet.preparation.ctc_sequence import (
    ANNOTATIONS,
    UNKNOWN,
    described,
    find_sequence,
    is_sequence,
    open_annotated,
    slices_of_frames,
)
from unet.preparation.make_training_set import (
    Summary,
    TrainingSetOptions,
    annotated_slice,
    make_training_set,
)
from unet.preparation.partial_annotation import IgnoreRule
from unet.preparation.training_set import TrainingSet
from unet.volumes import Stack, Volume, as_volume, chosen_slices

__all__ = ["Summary", "TrainingSetOptions", "prepare"]


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
    of_sequence = labels is None
    inputs = [one for one in (stack, labels) if isinstance(one, (str, os.PathLike))]
    if of_sequence:
        if not inputs or not is_sequence(stack):
            raise InputError(
                f"{stack}: name its labels as well; only DATASET/NN has them beside it, in "
                "NN_GT/SEG or NN_ST/SEG"
            )
        chosen.check_for_sequence()
        sequence = os.path.abspath(stack)
        inputs = [sequence, *(f"{sequence}_{kind.upper()}" for kind in ANNOTATIONS)]
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
    make = _of_sequence if of_sequence else _of_stack
    return make(stack, labels, output, chosen, preview, progress)


def _of_stack(
    stack: Stack,
    labels: Stack,
    output: PathLike,
    options: TrainingSetOptions,
    preview: PathLike | None,
    progress: bool,
) -> Summary:
    with as_volume(stack, "the stack") as raw, as_volume(labels, "the labels") as truth:
        count = len(raw)
        slices = chosen_slices(options.slices, count)
        balance = options.balance_slices
        summary = make_training_set(
            output,
            raw,
            truth,
            options,
            slices=slices,
            balance_slices=balance and chosen_slices(balance, count, "--balance-slices"),
            progress=progress,
        )
        if options.ignore_label is not None and not summary.ignored:
            remark = f"no pixel has the label {options.ignore_label} of --ignore-label"
            summary = summary._replace(remarks=(*summary.remarks, remark))
        return _with_preview(summary, truth, slices, preview)


def _of_sequence(
    folder: PathLike,
    _: None,
    output: PathLike,
    options: TrainingSetOptions,
    preview: PathLike | None,
    progress: bool,
) -> Summary:
    rule = IgnoreRule(options.unannotated, options.reach or 0.0, options.field_of_interest)
    annotated = open_annotated(find_sequence(folder, options.annotations), rule, options.frames)
    balance = options.balance_frames
    balanced = balance and slices_of_frames(annotated, balance, "--balance-frames")
    summary = make_training_set(
        output,
        annotated.raw,
        annotated.labels,
        replace(options, ignore_label=UNKNOWN, label_kind="instances"),
        balance_slices=balanced,
        notes={
            "frames": annotated.numbers,
            "annotations": options.annotations,
            "unannotated": annotated.rule.rule,
            "unannotated_reach": annotated.rule.reach,
            "unannotated_field": annotated.rule.field_of_interest,
        },
        progress=progress,
    )
    summary = summary._replace(sequence=tuple(described(annotated, balanced)))
    return _with_preview(summary, annotated.labels, range(len(annotated.numbers)), preview)


def _with_preview(
    summary: Summary, labels: Volume, slices: Sequence[int], path: PathLike | None
) -> Summary:
    """Write the preview of the middle slice, read back from the training set."""
    if path is None:
        return summary
    with TrainingSet(summary.output) as training_set:
        index = len(slices) // 2
        ignore = training_set.attributes.get("ignore_label")
        annotation = annotated_slice(labels, slices[index], summary.kind, ignore)
        image, weights = training_set.raw(index), training_set.weights(index)
    save_preview(path, image, annotation, weights, f"{labels.path}, slice {slices[index]}")
    return summary._replace(preview=path)
