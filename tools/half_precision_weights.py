"""Weights in half the bytes: HDF5 as Caffe reads it, in float16, in parts of a limited size.

Genuine Caffe, too, converts float16 to float32 when it reads. Parts are joined by

    cat NAME.h5.part*of* > NAME.h5
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unet.files.atomic import atomic_path

# Of a part.
PART_BYTES = 15 * 2**20
_PART = re.compile(r".+\.h5\.part(\d+)of(\d+)")


def write_half(net: Any, path: Path) -> None:
    """Write the parameters of a net as HDF5 in float16, in place of what is there.

    Raises `ValueError`, which names the layer, if one is not a finite number in float16.
    """
    with h5py.File(str(path), "w") as file:
        for name, blobs in net.params.items():
            for number, blob in enumerate(blobs):
                with np.errstate(over="ignore"):
                    half = blob.data.astype(np.float16)
                if not np.isfinite(half).all():
                    raise ValueError(f"{path}: layer '{name}' has values that float16 has not")
                file[f"data/{name}/{number}"] = half


def write_parts(whole: Path, folder: Path, size: int = PART_BYTES) -> list[Path]:
    """Put NAME.h5 into a folder as NAME.h5.part1ofN and so on, in place of parts that lie there.

    At any moment the folder holds all parts of one file. Returns their paths.
    """
    count = max(1, -(-whole.stat().st_size // size))
    old = set(find_parts(folder))
    parts = [folder / f"{whole.name}.part{number}of{count}" for number in range(1, count + 1)]
    with open(whole, "rb") as source:
        for part in parts:
            with atomic_path(part) as path:
                path.write_bytes(source.read(size))
    for part in old - set(parts):
        part.unlink()
    return parts


def find_parts(folder: Path) -> list[Path]:
    """Return the parts of files that lie in a folder."""
    return sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))
