"""Images as the plugin's networks take them: pixels of one size, grey values by one of four rules.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019), and its Fiji plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple

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
    sizes = tuple(shape) or size_after(image.shape[1:], scales)
    axes = [Rescaling(*one) for one in zip(image.shape[1:], scales, sizes)]
    return rescaled_part(lambda *window: image[(slice(None), *window)], axes, map(slice, sizes))


class Rescaling(NamedTuple):
    """How an axis is rescaled: its length, pixels that become of one, and its length then."""

    length: int
    scale: float
    size: int

    def source(self, wanted: slice) -> slice:
        """Return the pixels that those which are `wanted` are made of."""
        if self._is_none:
            return slice(*wanted.indices(self.size)[:2])
        low, high, _ = self._blend(wanted)
        return slice(int(min(low.min(), high.min())), int(max(low.max(), high.max())) + 1)

    def apply(self, image: np.ndarray, axis: int, wanted: slice) -> np.ndarray:
        """Return what is `wanted` along an axis of an image that holds its `source`."""
        if self._is_none:
            return image
        low, high, share = self._blend(wanted)
        first = min(low.min(), high.min())
        share = share.reshape((-1,) + (1,) * (image.ndim - 1 - axis))
        below, above = image.take(low - first, axis), image.take(high - first, axis)
        return ((1 - share) * below + share * above).astype(np.float32)

    @property
    def _is_none(self) -> bool:
        return self.scale == 1 and self.size == self.length

    def _blend(self, wanted: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = np.arange(*wanted.indices(self.size)[:2]) / self.scale
        before = np.floor(place).astype(np.intp)
        low, high = reflect(before, self.length), reflect(before + 1, self.length)
        return low, high, place - before


def rescaled_part(
    read: Callable[..., np.ndarray], axes: Sequence[Rescaling], part: Iterable[slice]
) -> np.ndarray:
    """Return a part of a rescaled image, float32 (channels, ...), equal to the bit.

    `read` gives, for a slice of each axis, that part of the image, (channels, ...).
    """
    part = list(part)
    result = np.asarray(read(*(axis.source(one) for axis, one in zip(axes, part))), np.float32)
    for number, (axis, one) in enumerate(zip(axes, part), 1):
        result = axis.apply(result, number, one)
    return result


def normalized(image: np.ndarray, kind: int) -> np.ndarray:
    """Return an image, float32 (channels, ...), with its grey values scaled, all channels together.

    `kind` is 0: as they are; 1: (v - min) / (max - min); 2: (v - mean) / standard deviation; 3:
    v / the square root of the greatest sum of squares over a pixel's channels. Images of one value
    only are shifted and not scaled, where that would divide by 0.
    """
    image = np.asarray(image, np.float32)
    return scaled_by(image, grey_range([image], kind))


def grey_range(parts: Iterable[np.ndarray], kind: int) -> tuple[float, float]:
    """Return what `normalized` subtracts from an image, and what it divides by.

    The image comes in parts, float32 (channels, ...), that do not overlap.
    """
    if kind == 0:
        return 0, 1
    if kind == 2:
        count, mean, squares = 0, 0.0, 0.0
        for one in parts:
            # Chan, Golub and LeVeque: means and sums of squares about them, put together.
            more, other = one.size, one.mean(dtype=np.float64)
            distance, count = other - mean, count + more
            squares += one.var(dtype=np.float64) * more
            squares += distance**2 * more * (count - more) / count
            mean += distance * more / count
        return mean, np.sqrt(squares / count)
    if kind == 3:
        norms = (np.square(one, dtype=np.float64).sum(axis=0).max() for one in parts)
        return 0, np.sqrt(max(norms))
    ends = [(one.min(), one.max()) for one in parts]
    low = min(least for least, _ in ends)
    return low, max(most for _, most in ends) - low


def scaled_by(image: np.ndarray, grey: tuple[float, float]) -> np.ndarray:
    """Return an image, float32, with its grey values shifted and scaled by a `grey_range`."""
    low, span = grey
    return image if (low, span) == (0, 1) else (image - np.float32(low)) / np.float32(span or 1)
