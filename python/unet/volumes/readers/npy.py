"""Arrays that NumPy has saved as .npy, slice by slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unet.errors import InputError
from unet.volumes.images import Volume
from unet.volumes.readers.arrays import array_volume
from unet.volumes.readers.axes import Selection

#: The first bytes of such a file.
MAGIC = b"\x93NUM"


def open_npy(path: Path, selection: Selection | None = None) -> Volume:
    """Open a .npy file: (slices, height, width), (slices, channels, height, width), or a slice.

    Refused is a file that is cut off, and one of objects in place of numbers.
    """
    selection = selection or Selection()
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as an array of NumPy ({error}); is the file whole, and an "
            f"array of numbers?"
        ) from None
    for option in ("scene", "level"):
        selection.one_of(option, str(path), [""])
    return array_volume(str(path), array, None, None, selection, {})
