"""Images as the plugin's networks take them: pixels of one size, grey values by one of four rules.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019), and its Fiji plugin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet.volumes.mirror import reflect

#: What the numbers stand for.
NORMALIZATIONS = {0: "none", 1: "min/max", 2: "zero mean, unit deviation", 3: "greatest norm 1"}


def size_after(shape: Sequence[int], scales: Sequence[float]) -> tuple[int, ...]:
    """Return how many pixels there are along each axis after `rescaled`: rounded half up."""
    return tuple(
        max(1, int(np.floor(length * scale + 0.5))) for length, scale in zip(shape, scales)
    )


def rescaled(image: np.ndarray, scales: Sequence[float], shape: Sequence[int] = ()) -> np.ndarray:
    """Return an image with pixels of another size, linear between neighbours.

    Parameters
    ----------
    image : ndarray, shape (channels, ...)
    scales : sequence of float
        Of each axis but the first: pixels that become of one.
    shape : sequence of int, optional
        Of the result but its first axis; by default as of `size_after`.

    Returns
    -------
    float32 ndarray
        Pixel k lies at k / scale; beyond the last pixel the mirrored ones count.
    """
    result = np.asarray(image, np.float32)
    sizes = tuple(shape) or size_after(image.shape[1:], scales)
    for axis, (scale, wanted) in enumerate(zip(scales, sizes), 1):
        length = result.shape[axis]
        if scale == 1 and wanted == length:
            continue
        place = np.arange(wanted) / scale
        before = np.floor(place).astype(np.intp)
        low, high = reflect(before, length), reflect(before + 1, length)
        share = (place - before).reshape((-1,) + (1,) * (result.ndim - 1 - axis))
        blended = (1 - share) * result.take(low, axis) + share * result.take(high, axis)
        result = blended.astype(np.float32)
    return result


def normalized(image: np.ndarray, kind: int) -> np.ndarray:
    """Return an image, float32 (channels, ...), with its grey values scaled, all channels together.

    `kind` is 0: as they are; 1: (v - min) / (max - min); 2: (v - mean) / standard deviation; 3:
    v / the square root of the greatest sum of squares over a pixel's channels. Images of one value
    only are shifted and not scaled, where that would divide by 0.
    """
    image = np.asarray(image, np.float32)
    low = {1: image.min(), 2: image.mean(dtype=np.float64)}.get(kind, 0)
    if kind == 1:
        span = image.max() - image.min()
    elif kind == 2:
        span = image.std(dtype=np.float64)
    elif kind == 3:
        span = np.sqrt(np.square(image, dtype=np.float64).sum(axis=0).max())
    else:
        return image
    return (image - np.float32(low)) / np.float32(span or 1)
