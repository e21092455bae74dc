"""Where a segmentation comes from: program, weights, command, tiling, averaging."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet.files.names import PathLike
from unet.files.version import VERSION
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.segment import TTA

_PIECE = 1 << 20


def describe(plan: Plan, weights: PathLike, command: str) -> dict[str, Any]:
    """Return the note that `VolumeWriter` puts into the metadata of what is written.

    Parameters
    ----------
    plan : Plan
    weights : path
        File of the weights.
    command : str

    Returns
    -------
    dict
        Of what JSON holds. No time and no place: the same computation has the same note.
    """
    return {
        "program": f"unet-in-caffe {VERSION}",
        "command": command,
        "weights": Path(weights).name,
        "weights_sha256": sha256_of(weights),
        "stack": os.path.basename(plan.stack),
        "slices": [plan.slices.start, plan.slices.stop, plan.slices.step],
        "tile": list(plan.tiling.tile),
        "tiles_of_a_slice": len(plan.tiling.origins),
        "averaging": plan.tta,
        "orientations": len(TTA[plan.tta]),
        "grey": "each slice normalised" if plan.intensity is None else list(plan.intensity),
    }


def command_of(
    stack: PathLike,
    part: Mapping[str, Any],
    network: Mapping[str, Any],
    options: SegmentationOptions,
) -> str:
    """Return the command by all that the values depend on: neither machine nor names of outputs.

    Parameters
    ----------
    stack : path
        As it was named.
    part : mapping
        Of the stack: level, channel, time, scene.
    network : mapping
        How it was named: model, weights, net.
    options : SegmentationOptions

    Examples
    --------
    >>> command_of("a.tif", {"time": 2}, {"model": "isbi2012"}, SegmentationOptions(tta="mirror"))
    'unet segment a.tif --time 2 --model isbi2012 --tta mirror'
    """
    slices, tile = options.slices, options.tile
    if slices is not None:
        end = "" if slices.stop in (None, sys.maxsize) else slices.stop
        slices = f"{slices.start or 0}:{end}"
    fixed = options.procedure is not None
    values = {
        **part,
        **network,
        "tta": None if fixed else options.tta,
        "procedure": options.procedure,
        "tile": None if tile is None else f"{tile[0]}x{tile[1]}",
        "slices": slices,
        "grey": options.intensity,
        "normalise": options.normalise,
        **({} if fixed else options.rules.changed()),
    }
    command = ["unet", "segment", str(stack)]
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            command += [flag if value else flag.replace("--", "--no-", 1)]
        elif value is not None:
            command += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(command)


def sha256_of(path: PathLike) -> str:
    """Return the SHA-256 checksum of a file, as sha256sum prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            digest.update(piece)
    return digest.hexdigest()
