"""Make a training set: a stack and its labels, with the weight map, in one HDF5 file.

STACK may also be a sequence of the cell tracking challenge, DATASET/02, whose cells are drawn in
DATASET/02_GT/SEG/man_segNNN.tif: the training set holds the frames that are annotated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unet.command.options import (
    add_by_order,
    add_ignore_label,
    add_label_threshold,
    add_overwrite,
    add_part,
    add_unannotated,
    parse_classes,
    parse_slices,
    whole,
)
from unet.preparation.ctc_sequence import ANNOTATIONS
from unet.preparation.labels import KINDS
from unet.preparation.prepare import prepare


def main(argv: Sequence[str] | None = None) -> None:
    """Make a training set."""
    options = vars(parse(argv))
    for name in ("slices", "balance_slices", "frames", "balance_frames"):
        options[name] = parse_slices(options[name], f"--{name.replace('_', '-')}")
    options["classes"] = parse_classes(options["classes"])
    print(prepare(**options, progress=True))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
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
        help="binary: 0 and anything else, which is inside cells; membranes: which is membrane; "
        "classes: 0, 1, 2, ...; instances: a number for each cell, which get borders where they "
        "touch (auto: by the number of values; membranes are a thin connected network)",
    )
    add_ignore_label(parser)
    add_unannotated(parser)
    add_label_threshold(parser)
    parser.add_argument(
        "--classes",
        metavar="N,N,...",
        help="the labels that are classes 0, 1, 2, ..., background first: 0,1,200; --classes=-1,1; "
        "0:3 is 0,1,2",
    )
    add_by_order(parser)
    add_part(parser, "of the pictures, and of labels that have several")
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
        "--field-of-interest",
        type=whole(-(2**31)),
        default=0,
        metavar="PIXELS",
        help="where no cell is drawn so close to the edge of the frame is unknown: cells outside "
        "the field of interest are not annotated (0; PhC-C2DH-U373 needs 50)",
    )
    return parser.parse_args(argv)
