"""Make a training set: a stack and its labels, with the weight map, in one HDF5 file.

STACK may also be a sequence of the cell tracking challenge, DATASET/02, whose cells are drawn in
DATASET/02_GT/SEG/man_segNNN.tif: the training set holds the frames that are annotated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unet.command.label_options import add_label_options, parse_label_options
from unet.command.options import add_overwrite, parse_slices
from unet.preparation.prepare import prepare


def main(argv: Sequence[str] | None = None) -> None:
    """Make a training set."""
    options = vars(parse(argv))
    parse_label_options(options)
    for name in ("balance_slices", "balance_frames"):
        options[name] = parse_slices(options[name], f"--{name.replace('_', '-')}")
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
    sequence = add_label_options(parser)
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
        "--balance-slices",
        metavar="A:B",
        help="the slices whose class frequencies count, to leave held-out ones out (those taken)",
    )
    parser.add_argument(
        "--preview", metavar="PNG", help="picture of raw, labels, borders and weights side by side"
    )
    add_overwrite(parser)
    sequence.add_argument(
        "--balance-frames",
        metavar="A:B",
        help="the frames whose class frequencies count, to leave held-out ones out (those taken)",
    )
    return parser.parse_args(argv)
