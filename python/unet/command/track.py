"""Follow cells through a sequence: the instances of each frame become tracks.

Written is the result format of the cell tracking challenge: a folder with mask000.tif, mask001.tif,
... of 16 bit, each cell with the number of its track, and res_track.txt, a line for each track: its
number, its first and last frame, and its parent, or 0. The files of a folder keep their numbers.
Instances are those of tools/segment.py --instances.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from unet.command.options import (
    add_by_order,
    add_label_threshold,
    add_overwrite,
    add_part,
    part_of,
    whole,
)
from unet.errors import InputError
from unet.segmentation import release2015
from unet.tracking.label_maps import LABEL_KINDS
from unet.tracking.linking import TRACKERS
from unet.tracking.track import track


def main(argv: Sequence[str] | None = None) -> None:
    """Track cells."""
    options = parse(argv)
    tracker, border = options.tracker or "assignment", options.field_of_interest or 0
    if options.procedure:
        if options.tracker or options.field_of_interest is not None:
            raise InputError(
                "--procedure 2015 fixes --tracker and --field-of-interest: leave these out"
            )
        tracker, border = release2015.TRACKER, release2015.FIELD_OF_INTEREST
    begin = time.perf_counter()
    result = track(
        options.instances,
        options.output,
        tracker=tracker,
        field_of_interest=border,
        label_kind=options.label_kind,
        label_threshold=options.label_threshold,
        by_order=options.by_order,
        **part_of(options),
        overwrite=options.overwrite,
    )
    print(f"{options.instances}: {result}; {time.perf_counter() - begin:.1f} s")
    print(f"written: {options.output}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "instances",
        metavar="INSTANCES",
        help="stack, folder of pictures, HDF5 or Zarr: 0 is none, other numbers are cells",
    )
    add_part(parser)
    add("-o", "--output", required=True, metavar="FOLDER", help="what is written")
    add(
        "--tracker",
        choices=tuple(TRACKERS),
        help="assignment: overlap and distance, bridges gaps, sees divisions; greedy: overlap "
        "alone, as the authors in 2015 (default: assignment)",
    )
    add(
        "--field-of-interest",
        type=whole(0),
        metavar="N",
        help="leave out cells that lie wholly in the N pixels at the edges (default: 0)",
    )
    add(
        "--procedure",
        choices=("2015",),
        help="as the authors in 2015: --tracker greedy --field-of-interest 50",
    )
    add(
        "--label-kind",
        choices=LABEL_KINDS,
        default="auto",
        help="binary: cells are the connected regions of what is not 0; instances: every number is "
        "a cell (auto: instances, but for maps of foreground, which are refused)",
    )
    add_label_threshold(parser)
    add_by_order(parser)
    add_overwrite(parser)
    return parser.parse_args(argv)
