"""Grey pictures that programs saved as colour: three equal channels, or grey and transparency."""

from __future__ import annotations

import numpy as np

from unet.errors import InputError
from unet.volumes.images import Volume
from unet.volumes.readers.axes import Selection

# Rows and columns of a slice that are looked at when it is opened.
_LOOK = 1024


def grey_if_equal(volume: Volume, selection: Selection) -> Volume:
    """Return a stack of RGB, RGBA or grey with transparency as grey, if that is what it holds.

    Transparency is left out where as many channels are needed as are left then. Whether the first,
    the middle and the last slice are grey is looked at now, all others when they are read: a
    coloured one is an `InputError`.

    Parameters
    ----------
    volume : Volume, shape (slices, channels, height, width)
    selection : Selection
        Nothing is changed where as many `channels` are needed as there are.
    """
    have, needed = volume.channels, selection.channels
    volume.is_coloured = True
    if selection.as_stored or have not in (2, 3, 4) or needed == have:
        return volume
    if needed == have - 1 and needed in (1, 3):
        return _of(volume, (len(volume), *([needed] if needed > 1 else []), *volume.shape[-2:]))
    if needed not in (None, 1) or (have > 2 and not _looks_grey(volume)):
        return volume
    return _of(volume, (len(volume), *volume.shape[-2:]))


def _of(volume: Volume, shape: tuple[int, ...]) -> Volume:
    """Return a stack without transparency, of three channels or grey."""

    def colours(z: int, image: np.ndarray) -> np.ndarray:
        if len(shape) == 4:
            return image[:3]
        if len(image) > 2 and not _is_grey(image):
            raise InputError(
                f"{volume.path}: slice {z} is coloured, but others are grey saved as colour: take "
                f"one channel with --channel"
            )
        return image[0]

    axes = volume.calibration.axes
    return volume.replaced(
        shape,
        volume.dtype,
        lambda z: colours(z, volume.read(z)),
        None
        if volume.part is None
        else lambda z, rows, columns: colours(z, volume.part(z, rows, columns)),
        axes if len(shape) == 4 else axes.replace("C", ""),
    )


def _is_grey(image: np.ndarray) -> bool:
    return np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])


def _looks_grey(volume: Volume) -> bool:
    """Tell whether some slices are grey; a picture of one colour, such as white, does not say."""
    missing = set(volume.missing)
    there = [z for z in range(len(volume)) if z not in missing]
    says = False
    for z in sorted({there[k] for k in (0, len(there) // 2, -1)} if there else ()):
        middle = [slice(max(0, size // 2 - _LOOK), size // 2 + _LOOK) for size in volume.shape[-2:]]
        image = volume.region(z, *middle)
        if not _is_grey(image):
            return False
        says = says or image[0].min() < image[0].max()
    return says
