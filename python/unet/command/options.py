"""Options that several programs take: numbers, A:B, HxW, parts of files, devices, --overwrite."""

from __future__ import annotations

import argparse
import math
import re
import sys
from typing import Callable

from unet.errors import InputError
from unet.machine.engine import PRECISIONS
from unet.preparation.training_set_options import UNANNOTATED
from unet.segmentation.instances import InstanceRules


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        # Of many digits Python reads no number.
        value = int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text) else None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is not a whole number from {low} to {high}"
            )
        return value

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number {low:g} to {high:g}")
        return value

    return parse


def parse_slices(text: str | None, option: str = "--slices") -> range | None:
    """Return the slices that "A:B" means: from A up to, not including, B.

    Parameters
    ----------
    text : str, optional
        Without A from the first, without B to `sys.maxsize`; `unet.volumes.chosen_slices` says
        which a stack holds. None is None.
    option : str
        That gives them, for messages.

    Raises
    ------
    InputError
        If it is no such range, or an empty one.

    Examples
    --------
    >>> parse_slices("20:30")
    range(20, 30)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{0,18}):([0-9]{0,18})", text.strip())
    first, stop = (int(part) if part else None for part in found.groups()) if found else (0, 0)
    chosen = range(first or 0, sys.maxsize if stop is None else stop)
    if not chosen:
        raise InputError(f"{option} {text}: give A:B with 0 <= A < B")
    return chosen


def parse_classes(text: str | None) -> list[int] | None:
    """Return the labels that "0,1,200" or "0:3" name, from A up to, not including, B; None is None.

    Raises
    ------
    InputError
        If it names none.

    Examples
    --------
    >>> parse_classes("200,0:3")
    [200, 0, 1, 2]
    """
    if text is None:
        return None
    labels: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?\s*", part)
        if not found:
            raise InputError(
                f"--classes {text[:40]}: give labels, background first, as 0,1,200 or 0:3"
            )
        first = int(found[1])
        # Far fewer are taken, which is told where they are counted.
        labels += range(first, min(int(found[2]), first + 1000)) if found[2] else [first]
    return labels


def parse_tile(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of "N" or "HxW"; None is None."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text.strip())
    if not found:
        raise InputError(f"--tile {text}: give one size or HEIGHTxWIDTH, such as 572 or 572x700")
    return int(found[1]), int(found[2] or found[1])


def add_device(parser: argparse.ArgumentParser, precision: bool = True) -> None:
    """Add --device, and --precision, as `unet.machine.engine.open_engine` takes them."""
    parser.add_argument(
        "--device", default="auto", help="auto, cpu or the number of a GPU (%(default)s)"
    )
    if not precision:
        return
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of convolutions; bf16 where the hardware has it, else fp32 (%(default)s)",
    )


def add_part(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add --level, --channel, --time and --scene; `part_of` reads them.

    Parameters
    ----------
    parser : ArgumentParser
    of : str
        Of which of several files a part is chosen, for the help.
    """
    add, of = parser.add_argument, f" {of}" if of else ""
    add("--level", type=whole(0), metavar="N", help=f"of a pyramid{of} (default: 0, the finest)")
    add("--channel", type=whole(0), metavar="N", help=f"take this channel only, from 0{of}")
    add("--time", type=whole(0), metavar="N", help=f"take this time point only, from 0{of}")
    add("--scene", metavar="N|NAME", help=f"take this picture of a file that holds several{of}")


def part_of(arguments: argparse.Namespace) -> dict[str, int | str | None]:
    """Return what --level, --channel, --time and --scene say, as keywords of `open_volume`."""
    return {name: getattr(arguments, name) for name in ("level", "channel", "time", "scene")}


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add --model, --weights and --net, as `unet.model.find_model` takes them."""
    network = parser.add_mutually_exclusive_group(required=True).add_argument
    network(
        "--model",
        metavar="NAME|FOLDER",
        help="isbi2012_slim or another network that comes with this; a model folder "
        "(weights.caffemodel, deploy.prototxt), such as `unet train` leaves, with what suits it "
        "best (segment.json)",
    )
    network(
        "--weights",
        metavar="FILE|FOLDER",
        help="the same, or a file: .caffemodel or HDF5 weights; the authors' phseg_v5.caffemodel "
        "or a NAME.caffemodel.h5 of the Fiji plugin",
    )
    beside = "deploy.prototxt; of published ones NAME-train.prototxt, NAME.modeldef.h5"
    parser.add_argument(
        "--net", help=f"prototxt or .modeldef.h5 (default, beside the weights: {beside})"
    )


def add_cells(parser: argparse.ArgumentParser) -> None:
    """Add what is a cell of --instances."""
    cells = parser.add_argument_group("what is a cell of --instances").add_argument
    above = "probability above which a pixel is in a cell (default: the likeliest class)"
    cells("--threshold", type=float, metavar="T", help=above)
    cells("--minimum-area", type=whole(0), metavar="N", help="in pixels (default: 1)")
    cells(
        "--fill-holes",
        action=argparse.BooleanOptionalAction,
        help="background inside a cell is part of it",
    )
    split = "split cells where the probability falls by D between two peaks, say 0.2; 0: do not"
    cells("--watershed", type=float, metavar="D", help=split)


def rules_of(arguments: argparse.Namespace) -> InstanceRules:
    """Return what the flags of `add_cells` say."""
    given = {name: getattr(arguments, name) for name in InstanceRules._fields}
    return InstanceRules(**{name: value for name, value in given.items() if value is not None})


def add_label_threshold(parser: argparse.ArgumentParser) -> None:
    """Add --label-threshold."""
    parser.add_argument(
        "--label-threshold",
        type=real(-(2.0**63), 2.0**64),
        metavar="N",
        help="labels above N are inside cells, all others are not: of masks that were scaled or "
        "saved as JPEG, of probabilities",
    )


def add_ignore_label(parser: argparse.ArgumentParser) -> None:
    """Add --ignore-label."""
    parser.add_argument(
        "--ignore-label",
        type=whole(-(2**63), 2**64 - 1),
        metavar="N",
        help="the label that means: not annotated",
    )


def add_unannotated(parser: argparse.ArgumentParser) -> None:
    """Add --unannotated and --reach."""
    parser.add_argument(
        "--unannotated",
        choices=UNANNOTATED,
        default="auto",
        help="what has no label is background (none), or unknown, weight 0: slices without any "
        "label (slices); beyond the box of a slice's labels, too (boxes); farther than --reach "
        "from every cell (surroundings); of a sequence, around each marker of NN_GT/TRA that lies "
        "in no cell, the connected region of undrawn pixels within --reach of it (markers). auto: "
        "slices without a label if they are more than half, beyond boxes that tissue fills, and "
        "255 beside 0 and 1; of a sequence none",
    )
    parser.add_argument(
        "--reach",
        type=float,
        metavar="PIXELS",
        help="for --unannotated (markers: as far as a drawn cell reaches from its own marker)",
    )


def add_by_order(parser: argparse.ArgumentParser) -> None:
    """Add --by-order."""
    parser.add_argument(
        "--by-order",
        action="store_true",
        help="files of folders belong together in the order of their names, whatever the numbers "
        "in these (by these numbers)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite to a program's options."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace outputs that are there already, also those that this program has not "
        "written; a folder with all that is in it (never an input)",
    )
