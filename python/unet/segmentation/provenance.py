"""Where a segmentation comes from: program, weights, command, tiling, averaging."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from unet.files.names import PathLike
from unet.files.version import VERSION
from unet.segmentation.options import Plan
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


def sha256_of(path: PathLike) -> str:
    """Return the SHA-256 checksum of a file, as sha256sum prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            digest.update(piece)
    return digest.hexdigest()
