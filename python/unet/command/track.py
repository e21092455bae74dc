"""Follow cells through a sequence: the labels of each frame become tracks.

Written is the result format of the cell tracking challenge: a folder with mask000.tif, mask001.tif,
... of 16 bit, each cell with the number of its track, and res_track.txt, a line for each track: its
number, its first and last frame, and its parent, or 0. Labels are those of tools/segment.py
--labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from unet.command.options import add_overwrite, whole
from unet.errors import InputError
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import RESULT
from unet.segmentation import release2015 as procedure2015
from unet.tracking.ctc_format import write_masks
from unet.tracking.track import track_cells
from unet.tracking.trackers import TRACKERS
from unet.volumes import open_volume


def main(argv: Sequence[str] | None = None) -> None:
    """Track cells."""
    options = parse(argv)
    guard_outputs([Output(options.out, RESULT)], [options.labels], options.overwrite)
    tracker, border = options.tracker or "assignment", options.field_of_interest or 0
    if options.procedure:
        if options.tracker or options.field_of_interest is not None:
            raise InputError(
                "--procedure 2015 fixes --tracker and --field-of-interest: leave these out"
            )
        tracker, border = procedure2015.TRACKER, procedure2015.FIELD_OF_INTEREST
    begin = time.perf_counter()
    with open_volume(options.labels, channels=1) as labels:
        frames = len(labels)
        try:
            result = track_cells(labels, tracker, border)
        except InputError as error:
            where = "" if str(error).startswith(labels.path) else f"{labels.path}: "
            raise InputError(f"{where}{error}") from None
        write_masks(options.out, result.masks, result.tracks, overwrite=options.overwrite)
    children = sum(track.parent > 0 for track in result.tracks)
    print(
        f"{options.labels}: {len(result.tracks)} tracks, {children} of them with a parent, in "
        f"{frames} frames; {time.perf_counter() - begin:.1f} s"
    )
    print(f"written: {options.out}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "labels", help="stack, folder of pictures, HDF5 or Zarr: 0 is none, other numbers are cells"
    )
    add("-o", "--out", required=True, metavar="FOLDER", help="what is written")
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
    add_overwrite(parser)
    return parser.parse_args(argv)
