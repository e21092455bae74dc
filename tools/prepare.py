"""Make a training set: a stack and its labels, with the weight map, in one HDF5 file."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from unet.errors import InputError
from unet.labels import KINDS
from unet.preparation import Recipe, Summary, annotated_slice, make_training_set
from unet.preview import save_preview
from unet.program import run_program
from unet.training_set import TrainingSet
from unet.volumes import Volume, open_volume


def parse_slices(text: str | None, count: int, option: str) -> range | None:
    """Return the slices that "A:B" means in a stack of `count`: from A up to, not including, B."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d*):(\d*)", text.strip())
    first, stop = (int(part) if part else None for part in found.groups()) if found else (0, 0)
    chosen = range(first or 0, count if stop is None else stop)
    if not chosen or chosen.stop > count:
        raise InputError(
            f"{option} {text}: give A:B with 0 <= A < B <= {count}, the slices of the stack"
        )
    return chosen


def progress(slices: Sequence[int], what: str) -> Iterable[int]:
    """Iterate over the slices under a progress bar, which a file or pipe does not get to see."""
    return tqdm(slices, desc=what, unit="slice", disable=None, leave=False)


def refuse_own_input(output: str, *inputs: str) -> None:
    """Raise `InputError` if the output would take the place of an input."""
    for name in inputs:
        file = name if os.path.exists(name) else name.rsplit(":", 1)[0]
        if os.path.exists(output) and os.path.exists(file) and os.path.samefile(output, file):
            raise InputError(
                f"{output}: is also an input, which would be lost; name another output"
            )


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


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stack",
        metavar="STACK",
        help="TIFF, PNG folder, HDF5 (FILE.h5:/dataset) or Zarr: the pictures",
    )
    parser.add_argument("labels", metavar="LABELS", help="their labels, in any of these formats")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.h5", help="the training set")
    parser.add_argument(
        "--label-kind",
        choices=("auto",) + KINDS,
        default="auto",
        help="binary: 0 and anything else; classes: 0, 1, 2, ...; instances: a number for each "
        "cell, which get borders where they touch (auto: by the number of values)",
    )
    parser.add_argument(
        "--ignore-label", type=int, metavar="N", help="the label that means: not annotated"
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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make a training set."""
    options = parse_arguments(argv)
    refuse_own_input(options.output, options.stack, options.labels)
    recipe = Recipe(
        options.w0,
        options.sigma,
        options.balance,
        options.ignore_label,
        options.label_kind,
        options.normalise,
    )
    with open_volume(options.stack) as raw, open_volume(options.labels) as labels:
        count = raw.shape[0]
        slices = parse_slices(options.slices, count, "--slices") or range(count)
        balance_slices = parse_slices(options.balance_slices, count, "--balance-slices")
        summary = make_training_set(
            options.output,
            raw,
            labels,
            recipe,
            slices=slices,
            balance_slices=balance_slices,
            progress=progress,
        )
        with TrainingSet(options.output) as training_set:
            report(options.output, training_set, summary)
        if options.preview:
            write_preview(options.preview, options.output, labels, slices, summary.kind)
            print(f"  preview      {options.preview}")


if __name__ == "__main__":
    run_program(main)
