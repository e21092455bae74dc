"""Make a training set: a stack and its labels, with the weight map, in one HDF5 file.

STACK may also be a sequence of the cell tracking challenge, DATASET/02, whose cells are drawn in
DATASET/02_GT/SEG/man_segNNN.tif: the training set holds the frames that are annotated.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unet.command.options import add_overwrite, parse_slices, whole
from unet.errors import InputError
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import PICTURE, TRAINING_SET
from unet.plots import save_preview
from unet.preparation.ctc_sequence import (
    ANNOTATIONS,
    UNKNOWN,
    AnnotatedFrames,
    find_sequence,
    is_sequence,
    listed,
    open_annotated,
)
from unet.preparation.labels import KINDS
from unet.preparation.partial_annotation import RULES, Unannotated
from unet.preparation.prepare import Recipe, Summary, annotated_slice, make_training_set
from unet.preparation.training_set import TrainingSet
from unet.volumes import Volume, open_volume


def progress(slices: Sequence[int], what: str) -> Iterable[int]:
    """Iterate over the slices under a progress bar, which a file or pipe does not get to see."""
    return tqdm(slices, desc=what, unit="slice", disable=None, leave=False)


def guard(options: argparse.Namespace, inputs: Sequence[str]) -> None:
    """Refuse outputs that would damage something, or are of another format than their name says."""
    if Path(options.output).suffix.lower() not in ("", ".h5", ".hdf5", ".hdf"):
        raise InputError(f"-o {options.output}: a training set is HDF5; name it .h5")
    outputs = [Output(options.output, TRAINING_SET)]
    if options.preview:
        if Path(options.preview).suffix.lower() != ".png":
            raise InputError(f"--preview {options.preview}: the picture is PNG; name it .png")
        outputs.append(Output(options.preview, PICTURE))
    guard_outputs(outputs, inputs, options.overwrite)


def write_preview(path: str, output: str, labels: Volume, slices: Sequence[int], kind: str) -> None:
    """Write the preview of the middle slice, read back from the training set."""
    with TrainingSet(output) as training_set:
        index = len(slices) // 2
        ignore = training_set.attributes.get("ignore_label")
        annotation = annotated_slice(labels, slices[index], kind, ignore)
        title = f"{labels.path}, slice {slices[index]}"
        picture, weights = training_set.raw(index), training_set.weights(index)
    save_preview(path, picture, annotation, weights, title)


def report(output: str, training_set: TrainingSet, summary: Summary) -> None:
    """Print what was written."""
    slices, height, width = training_set.shape
    annotated = int(summary.counts.sum())
    print(f"{output}: {slices} slices of {height} x {width}, {os.path.getsize(output):,} bytes")
    if training_set.grey_range is None:
        print("  grey values  each slice's mean becomes 1/2, its standard deviation 1/6")
    else:
        low, high = training_set.grey_range
        print(f"  grey values  {low:g} becomes 0, {high:g} becomes 1")
    print(f"  labels       {summary.kind}, {summary.cells:,} cells in all slices")
    for number, (count, weight) in enumerate(zip(summary.counts, summary.weights)):
        print(f"  class {number}      {count / annotated:7.2%} of the pixels, weight {weight:.4f}")
    if summary.ignored:
        print(f"  ignored      {summary.ignored / (annotated + summary.ignored):.2%} of the pixels")
    if summary.vanished:
        print(f"  borders      {summary.vanished:,} cells are so thin that they became all border")
    values = training_set.attributes
    w0, sigma = values["w0"], values["sigma"]
    print(f"  weights      w0 {w0:g}, sigma {sigma:g}: up to {summary.largest:.3f}")
    for remark in summary.remarks:
        print(f"  look at this: {remark}")


def frames_as_slices(annotated: AnnotatedFrames, text: str | None) -> list[int] | None:
    """Return the slices whose frames --balance-frames names."""
    if text is None:
        return None
    frames = parse_slices(text, "--balance-frames")
    chosen = [z for z, number in enumerate(annotated.numbers) if number in frames]
    if not chosen:
        raise InputError(
            f"--balance-frames {text}: none of them is taken, which are {listed(annotated.numbers)}"
        )
    return chosen


def open_frames_of_sequence(options: argparse.Namespace) -> AnnotatedFrames:
    """Open the annotated frames of the sequence that the command line names."""
    for name, given, remedy in (
        ("--label-kind", options.label_kind not in ("auto", "instances"), "they are instances"),
        ("--ignore-label", options.ignore_label is not None, "see --unannotated"),
        ("--slices", options.slices is not None, "use --frames"),
        ("--balance-slices", options.balance_slices is not None, "use --balance-frames"),
    ):
        if given:
            raise InputError(f"{name} is not for the labels of a sequence: {remedy}")
    if options.reach is not None and options.unannotated == "none":
        raise InputError("--reach belongs to --unannotated surroundings or markers")
    if options.reach is None and options.unannotated == "surroundings":
        raise InputError("--unannotated surroundings needs --reach PIXELS")
    if options.reach is not None and not options.reach > 0:
        raise InputError(f"--reach {options.reach:g}: give pixels, more than 0")
    return open_annotated(
        find_sequence(options.stack, options.annotations),
        Unannotated(options.unannotated, options.reach or 0.0, options.field),
        None if options.frames is None else parse_slices(options.frames, "--frames"),
    )


def notes_of(annotated: AnnotatedFrames, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a training set records of the sequence it was made of."""
    return {
        "frames": annotated.numbers,
        "annotations": options.annotations,
        "unannotated": annotated.rule.rule,
        "unannotated_reach": annotated.rule.reach,
        "unannotated_field": annotated.rule.field,
    }


def report_sequence(annotated: AnnotatedFrames, balanced: Sequence[int] | None) -> None:
    """Print which frames were taken, and what is not drawn in them."""
    numbers, rule = annotated.numbers, annotated.rule
    print(f"  frames       {listed(numbers)}")
    if balanced is not None:
        print(
            f"  balance      slices {balanced[0]}:{balanced[-1] + 1}, frames "
            f"{numbers[balanced[0]]:03d} to {numbers[balanced[-1]]:03d}"
        )
    if annotated.undrawn:
        count = sum(annotated.undrawn.values())
        print(
            f"  not drawn    {count} cell{'s have' if count > 1 else ' has'} a marker only, in "
            f"frames {listed(list(annotated.undrawn))}"
        )
    told = {
        "none": "background",
        "surroundings": f"unknown farther than {rule.reach:g} pixels from the cells",
        "markers": f"unknown within {rule.reach:.1f} pixels of markers without a cell",
    }
    field = f"; unknown within {rule.field} pixels of the edge" if rule.field else ""
    print(f"  unannotated  {told[rule.rule]}{field}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stack",
        metavar="STACK",
        help="TIFF, PNG folder, HDF5 (FILE.h5:/dataset) or Zarr: the pictures; or DATASET/NN",
    )
    parser.add_argument(
        "labels",
        metavar="LABELS",
        nargs="?",
        help="their labels, in any of these formats; left out for DATASET/NN",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.h5", help="the training set")
    parser.add_argument(
        "--label-kind",
        choices=("auto",) + KINDS,
        default="auto",
        help="binary: 0 and anything else; classes: 0, 1, 2, ...; instances: a number for each "
        "cell, which get borders where they touch (auto: by the number of values)",
    )
    parser.add_argument(
        "--ignore-label",
        type=whole(-(2**63), 2**64 - 1),
        metavar="N",
        help="the label that means: not annotated",
    )
    parser.add_argument(
        "--w0", type=float, default=10.0, help="weight of the gaps between cells (10)"
    )
    parser.add_argument(
        "--sigma", type=float, default=5.0, help="reach of that weight in pixels (5)"
    )
    parser.add_argument(
        "--no-class-balance",
        dest="balance",
        action="store_false",
        help="all classes weigh 1, whatever their frequencies",
    )
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="bring each slice to the same mean and standard deviation, where slices differ in "
        "brightness and contrast",
    )
    parser.add_argument(
        "--slices", metavar="A:B", help="take slices A up to, not including, B (all)"
    )
    parser.add_argument(
        "--balance-slices",
        metavar="A:B",
        help="the slices whose class frequencies count, to leave held-out ones out (those taken)",
    )
    parser.add_argument(
        "--preview", metavar="PNG", help="picture of raw, labels, borders and weights side by side"
    )
    add_overwrite(parser)
    sequence = parser.add_argument_group("sequences of the cell tracking challenge")
    sequence.add_argument(
        "--frames", metavar="A:B", help="take the annotated ones of frames A to B - 1 (all)"
    )
    sequence.add_argument(
        "--balance-frames",
        metavar="A:B",
        help="the frames whose class frequencies count, to leave held-out ones out (those taken)",
    )
    sequence.add_argument(
        "--annotations",
        choices=ANNOTATIONS,
        default="gt",
        help="cells from NN_GT/SEG (gt, drawn by people) or NN_ST/SEG (st)",
    )
    sequence.add_argument(
        "--unannotated",
        choices=RULES,
        default="none",
        help="where no cell is drawn is background (none), or unknown, weight 0: farther than "
        "--reach from every cell (surroundings); around each marker of NN_GT/TRA that lies in no "
        "cell, the connected region of undrawn pixels within --reach of it (markers)",
    )
    sequence.add_argument(
        "--reach",
        type=float,
        metavar="PIXELS",
        help="for --unannotated (markers: as far as a drawn cell reaches from its own marker)",
    )
    sequence.add_argument(
        "--field",
        type=whole(-(2**31)),
        default=0,
        metavar="PIXELS",
        help="where no cell is drawn so close to the edge of the frame is unknown: cells outside "
        "the field of interest are not annotated (0; PhC-C2DH-U373 needs 50)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make a training set."""
    options = parse_arguments(argv)
    if options.labels is None and not is_sequence(options.stack):
        raise InputError(
            f"{options.stack}: name its labels as well; only DATASET/NN has them beside it, in "
            "NN_GT/SEG or NN_ST/SEG"
        )
    if options.labels is None:
        prepare_sequence(options)
    else:
        prepare_stack(options)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe that the command line names."""
    return Recipe(
        options.w0,
        options.sigma,
        options.balance,
        options.ignore_label,
        options.label_kind,
        options.normalise,
    )


def prepare_stack(options: argparse.Namespace) -> None:
    """Make a training set of a stack and its labels."""
    for name in ("frames", "balance_frames", "reach"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is for sequences, DATASET/NN")
    if options.annotations != "gt" or options.unannotated != "none" or options.field:
        raise InputError("--annotations, --unannotated and --field are for sequences, DATASET/NN")
    guard(options, [options.stack, options.labels])
    with open_volume(options.stack) as raw, open_volume(options.labels) as labels:
        count = raw.shape[0]
        slices = parse_slices(options.slices, "--slices", count)
        balance_slices = (
            None
            if options.balance_slices is None
            else parse_slices(options.balance_slices, "--balance-slices", count)
        )
        summary = make_training_set(
            options.output,
            raw,
            labels,
            recipe_of(options),
            slices=slices,
            balance_slices=balance_slices,
            progress=progress,
        )
        if options.ignore_label is not None and not summary.ignored:
            remark = f"no pixel has the label {options.ignore_label} of --ignore-label"
            summary = summary._replace(remarks=(*summary.remarks, remark))
        tell(options, labels, slices, summary)


def prepare_sequence(options: argparse.Namespace) -> None:
    """Make a training set of the annotated frames of a sequence."""
    sequence = os.path.abspath(options.stack)
    guard(options, [sequence, *(f"{sequence}_{kind.upper()}" for kind in ANNOTATIONS)])
    annotated = open_frames_of_sequence(options)
    balanced = frames_as_slices(annotated, options.balance_frames)
    summary = make_training_set(
        options.output,
        annotated.raw,
        annotated.labels,
        recipe_of(options)._replace(ignore=UNKNOWN, kind="instances"),
        balance_slices=balanced,
        notes=notes_of(annotated, options),
        progress=progress,
    )
    tell(options, annotated.labels, range(len(annotated.numbers)), summary)
    report_sequence(annotated, balanced)


def tell(
    options: argparse.Namespace, labels: Volume, slices: Sequence[int], summary: Summary
) -> None:
    """Print what was written, and write the preview that was asked for."""
    with TrainingSet(options.output) as training_set:
        report(options.output, training_set, summary)
    if options.preview:
        write_preview(options.preview, options.output, labels, slices, summary.kind)
        print(f"  preview      {options.preview}")
