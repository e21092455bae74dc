"""Score a segmentation against its ground truth as its challenge did.

A stack of membranes as the ISBI 2012 challenge: the 2012 challenge's warping error, Rand error and
pixel error, and V_rand and V_info after thinning as the later one, each at the threshold that suits
it best. Read the warping error together with the others: at a threshold where hardly a cell is left
it is low for free.

Where labels and prediction both number cells, also by how well these are told apart: SEG, and F1 at
intersections over unions of 0.5 to 0.9. Classes (--label-kind classes) by the IoU of each.

Cells and tracks, evaluate.py DATASET/NN_GT DATASET/NN_RES, as the cell tracking challenge: SEG, the
mean Jaccard index of the cells drawn; DET and TRA, what finding and tracking them by hand would
cost in comparison. The result holds maskNNN.tif of every frame and res_track.txt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unet.command.options import (
    add_by_order,
    add_ignore_label,
    add_label_threshold,
    add_overwrite,
    add_part,
    parse_classes,
    parse_slices,
    part_of,
    whole,
)
from unet.command.terminal import is_the_output
from unet.files.names import split_name
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import SCORE_FILE, STACK, may_replace
from unet.files.score_file import write_scores
from unet.machine.cores import available_cores
from unet.scoring.score import LABEL_KINDS, score


def main(argv: Sequence[str] | None = None) -> None:
    """Score a prediction, print the table and write the JSON."""
    arguments = parse(argv)
    if arguments.json:
        read = [arguments.labels, arguments.prediction]
        guard_outputs([Output(arguments.json, SCORE_FILE)], read, arguments.overwrite)
    else:
        is_the_output()
    _doubt_order(arguments.labels, arguments.prediction)
    scores = score(
        arguments.labels,
        arguments.prediction,
        **part_of(arguments),
        label_kind=arguments.label_kind,
        label_threshold=arguments.label_threshold,
        ignore_label=arguments.ignore_label,
        classes=parse_classes(arguments.classes),
        by_order=arguments.by_order,
        slices=parse_slices(arguments.slices),
        every_third=arguments.every_third,
        unscaled=arguments.unscaled,
        warping=arguments.warping,
        frames=parse_slices(arguments.frames, "--frames"),
        tracking=arguments.tracking,
        workers=arguments.workers,
        progress=True,
    )
    print(scores)
    if arguments.json:
        write_scores(arguments.json, scores)
        print(f"\nwritten: {arguments.json}")


def _doubt_order(labels: Path, prediction: Path) -> None:
    """Say so where the truth is an output of this project and the prediction is none."""
    truth, found = (split_name(str(one))[0] for one in (labels, prediction))
    if truth.exists() and may_replace(truth, STACK) and not may_replace(found, STACK):
        print(
            f"note: {labels} is an output of this project and is taken for the ground truth, which "
            f"comes first: is it not {prediction}?",
            file=sys.stderr,
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "labels", type=Path, help="ground truth: above 0 inside a cell, 0 = membrane; or NN_GT"
    )
    parser.add_argument(
        "prediction",
        type=Path,
        help="probability of being inside a cell: float in [0, 1], uint8 (/255) or uint16 "
        "(/65535); or NN_RES",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write every score: overall, per threshold, per slice (null where there is no value)",
    )
    parser.add_argument(
        "--label-kind",
        choices=LABEL_KINDS,
        default="auto",
        help="binary: cells are what is connected and above 0; membranes: what is connected and 0, "
        "all else is membrane; instances: numbers of cells, which get thin borders where they "
        "touch, as in tools/prepare.py, also in a prediction of such numbers; classes: numbers of "
        "classes (auto: by how they lie, never classes; membranes are a thin connected network)",
    )
    add_ignore_label(parser)
    add_label_threshold(parser)
    parser.add_argument(
        "--classes",
        metavar="N,N,...",
        help="the labels that are classes 0, 1, 2, ..., as of unet train: 0,128,255",
    )
    add_by_order(parser)
    add_part(parser, "where labels or prediction have several")
    parser.add_argument(
        "--no-warping",
        dest="warping",
        action="store_false",
        help="leave out the warping error, the longest part",
    )
    parser.add_argument(
        "--slices",
        metavar="A:B",
        help="score slices A to B - 1 of the labels, from 0; the prediction holds these or all",
    )
    parser.add_argument(
        "--frames",
        metavar="A:B",
        help="NN_GT: SEG of frames A to B - 1 alone, such as held-out ones; DET and TRA are always "
        "of the whole sequence",
    )
    parser.add_argument(
        "--no-tracking",
        dest="tracking",
        action="store_false",
        help="NN_GT: leave out DET and TRA, for which every frame and res_track.txt are needed",
    )
    parser.add_argument(
        "--every-third",
        action="store_true",
        help="score slices 2, 5, 8, ... alone, counted from 1, as the challenge does since 2016",
    )
    parser.add_argument(
        "--unscaled",
        action="store_true",
        help="take integers as they are, as the challenge did: every threshold means above 0",
    )
    parser.add_argument(
        "--workers",
        type=whole(1, 4096),
        default=available_cores(),
        metavar="N",
        help="processes (all cores: %(default)s)",
    )
    add_overwrite(parser)
    return parser.parse_args(argv)
