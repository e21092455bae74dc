"""What tools/segment.py was asked for: its command line, and what that means for a stack."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from unet.command.options import add_device, add_overwrite, real, whole
from unet.errors import InputError
from unet.machine.memory import pass_memory
from unet.model.modeldef import read_modeldef
from unet.model.open_net import is_modeldef
from unet.segmentation import release2015 as procedure2015
from unet.segmentation.instances import CellRules, check_rules
from unet.segmentation.segment import VERSIONS, score_pictures
from unet.segmentation.tiles import PassCost, check_tile, choose_tile, count_tiles
from unet.volumes import Volume, grey_range, open_volume
from unet.volumes.intensity import is_normalised


def parse(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("stack", help="TIFF, PNG, folder of them, HDF5 or Zarr (FILE:/dataset names one inside)")
    add(
        "--weights",
        required=True,
        help=".caffemodel, HDF5 weights, or a model folder (weights.caffemodel, deploy.prototxt); "
        "the authors' phseg_v5.caffemodel or a NAME.caffemodel.h5 of the Fiji plugin",
    )
    add(
        "--net",
        metavar="DEPLOY",
        help="prototxt or .modeldef.h5 (default, beside the weights: deploy.prototxt; of published "
        "ones NAME-train.prototxt, NAME.modeldef.h5)",
    )
    add("-o", "--out", metavar="OUT", help=".tif, .h5, .zarr, .png, or a folder of PNG")
    add(
        "--output",
        choices=("probability", "labels", "both"),
        default="probability",
        help="what is written; of both, the labels go beside OUT as OUT_labels (%(default)s)",
    )
    add(
        "--dtype",
        choices=("float32", "uint8"),
        help="of probabilities; uint8 is 255 for 1 (default: float32, uint8 where OUT is PNG)",
    )
    add(
        "--average",
        choices=tuple(VERSIONS),
        help="average over 4 mirrored, 4 rotated or all 8 versions of each slice (default: none)",
    )
    add(
        "--procedure",
        choices=("2015",),
        help="segment as the authors did with their networks of 2015: fixes --tile (2 tiles joined "
        "without overlap), --average mirror and --minimum-area 501; then tools/track.py "
        "--procedure 2015",
    )
    add("--tile", metavar="N|HxW", help="input size, 16k + 60 (default: the cheapest that fits)")
    add(
        "--memory",
        type=real(0, 1e9),
        metavar="GB",
        help="a pass may take (default: most of what is free, half of it on a GPU)",
    )
    add_device(parser)
    add("--slices", metavar="A:B", help="segment slices A to B - 1, from 0 (default: all)")
    add(
        "--grey",
        nargs=2,
        type=real(-1e30, 1e30),
        metavar=("LOW", "HIGH"),
        help="grey values that become 0 and 1 (default: 0 and 255 for 8 bit; else the stack's 0.1 "
        "and 99.9 percentiles)",
    )
    add(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        help="bring each slice to the same mean and standard deviation, in place of --grey "
        "(default: as the network was trained, which input.json beside DEPLOY says)",
    )
    add(
        "--overlay",
        metavar="PATH",
        help="pictures beside their outlines: .png shows the middle slice, a folder all of them",
    )
    add("--truth", help="true labels, drawn in the overlay under the outlines")
    add("--labels", metavar="FILE", help="write the cells' numbers, in the formats of OUT")
    add_overwrite(parser)
    cells = parser.add_argument_group("what is a cell of --labels").add_argument
    cells(
        "--threshold",
        type=float,
        metavar="T",
        help="probability of a cell above which a pixel is one (default: the likeliest class)",
    )
    cells(
        "--minimum-area", type=whole(0), metavar="N", help="drop cells below N pixels (default: 1)"
    )
    cells("--fill-holes", action="store_true", help="background inside a cell is part of it")
    cells(
        "--watershed",
        type=float,
        metavar="D",
        help="split cells that touch where the probability falls by D between two peaks, say 0.2",
    )
    cells(
        "--label-dtype",
        choices=("uint16", "uint32"),
        default="uint16",
        help="uint32 holds more than 65535 cells a slice (%(default)s)",
    )
    return parser.parse_args(argv)


def output_paths(options: argparse.Namespace) -> dict[str, Path]:
    """Return what is written where: "probability", "labels", "cells" -> path."""
    if options.overlay and Path(options.overlay).suffix.lower() not in ("", ".png"):
        raise InputError(
            f"--overlay {options.overlay}: name a .png, or a folder (no suffix) for all slices"
        )
    cells = {"cells": Path(options.labels)} if options.labels else {}
    if options.out is None:
        if not cells:
            raise InputError("name what to write: -o OUT, --labels FILE or both")
        return cells
    out = Path(options.out)
    if options.output != "both":
        return {options.output: out, **cells}
    beside = out.with_name(f"{out.stem}_labels{out.suffix}")
    return {"probability": out, "labels": beside, **cells}


def cell_rules(options: argparse.Namespace) -> CellRules:
    """Return what makes a cell of --labels."""
    area = 1 if options.minimum_area is None else options.minimum_area
    rules = CellRules(options.threshold, area, options.fill_holes, options.watershed)
    if not options.labels and rules != CellRules():
        raise InputError(
            "--threshold, --minimum-area, --fill-holes and --watershed say what is a cell of "
            "--labels: name that file as well"
        )
    check_rules(rules)
    if options.procedure is None:
        return rules
    fixed = {
        "--tile": options.tile,
        "--average": options.average,
        "--threshold": options.threshold,
        "--minimum-area": options.minimum_area,
        "--fill-holes": options.fill_holes or None,
        "--watershed": options.watershed,
    }
    given = [name for name, value in fixed.items() if value is not None]
    if given:
        raise InputError(f"--procedure 2015 fixes {given[0]}: leave one of them out")
    return procedure2015.RULES


def parse_tile(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of "N" or "HxW"."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text.strip())
    if not found:
        raise InputError(f"--tile {text}: give one size or HEIGHTxWIDTH, such as 572 or 572x700")
    tile = int(found[1]), int(found[2] or found[1])
    check_tile(tile)
    return tile


def choose_grey(
    options: argparse.Namespace, volume: Volume, prototxt: Path
) -> tuple[float, float] | None:
    """Return the grey values that become 0 and 1; None: each slice is normalised."""
    if options.grey:
        if options.normalise:
            raise InputError("--grey and --normalise: give one of them")
        if options.grey[0] == options.grey[1]:
            raise InputError(f"--grey {options.grey[0]:g} {options.grey[1]:g}: give two values")
        return tuple(options.grey)
    if options.normalise is None and is_modeldef(prototxt):
        raise InputError(
            f"{prototxt}: scales grey values by normalization_type "
            f"{read_modeldef(prototxt).normalization_type}, a number of the plugin's that is "
            f"not known here: give --grey LOW HIGH, --normalise or --no-normalise"
        )
    normalise = is_normalised(prototxt) if options.normalise is None else options.normalise
    return None if normalise else grey_range(volume)


def open_truth(
    path: str | None, volume: Volume, slices: range, opened: contextlib.ExitStack
) -> Callable[[int], np.ndarray] | None:
    """Return what gives the true labels of a slice of the stack, by its number."""
    if path is None:
        return None
    truth = opened.enter_context(open_volume(path, channels=1))
    fits = len(truth) in (len(volume), len(slices)) and truth.shape[-2:] == volume.shape[-2:]
    if not fits:
        raise InputError(
            f"{path}: is {truth.shape}, but the stack is {volume.shape}: give labels of all of "
            f"its slices, or of those chosen"
        )
    first = 0 if len(truth) == len(volume) else slices.start
    return lambda z: truth[z - first].reshape(volume.shape[-2:])


def choose_tiles(
    tile: tuple[int, int] | None,
    shape: tuple[int, int],
    cost: PassCost,
    options: argparse.Namespace,
) -> tuple[tuple[int, int], int, Callable[..., Iterator[np.ndarray]]]:
    """Return the input size, the tiles of a picture, and what scores one in such tiles."""
    if options.memory is not None and not options.memory > 0:
        raise InputError(f"--memory {options.memory:g}: must be above 0")
    free = pass_memory(options.device) if options.memory is None else options.memory * 2**30
    if options.procedure:
        tile = procedure2015.tile_size(shape)
        tiles, score = len(procedure2015.tile_rows(shape)), procedure2015.score_pictures
        asked, remedy = f"--procedure {options.procedure}", "leave it out"
    else:
        tile = tile or choose_tile(shape, cost, free)
        tiles, score = count_tiles(shape, tile), score_pictures
        asked, remedy = f"--tile {tile[0]}x{tile[1]}", "take a smaller tile"
    if cost.memory(tile) > free:
        raise InputError(
            f"{asked}: a pass takes about {cost.memory(tile) / 2**30:.1f} GB, {free / 2**30:.1f} "
            f"GB are free for it; {remedy}, or insist with --memory"
        )
    return tile, tiles, score
