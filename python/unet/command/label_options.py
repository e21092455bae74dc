"""Options that say how labels are understood, of the programs that learn from them."""

from __future__ import annotations

import argparse
from typing import Any

from unet.command.options import (
    add_by_order,
    add_ignore_label,
    add_label_threshold,
    add_part,
    add_unannotated,
    parse_classes,
    parse_slices,
    whole,
)
from unet.preparation.ctc_sequence import ANNOTATIONS
from unet.preparation.labels import KINDS


def add_label_options(parser: argparse.ArgumentParser) -> Any:
    """Add the options of `unet.preparation.training_set_options.TrainingSetOptions` on labels.

    Returns the group of those for sequences of the cell tracking challenge.
    """
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
        "--slices", metavar="A:B", help="take slices A up to, not including, B (all)"
    )
    sequence = parser.add_argument_group("sequences of the cell tracking challenge")
    sequence.add_argument(
        "--frames", metavar="A:B", help="take the annotated ones of frames A to B - 1 (all)"
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
    return sequence


def parse_label_options(options: dict[str, Any]) -> None:
    """Read slices, frames and classes, which were given as texts, in place."""
    for name in ("slices", "frames"):
        options[name] = parse_slices(options[name], f"--{name}")
    options["classes"] = parse_classes(options["classes"])
