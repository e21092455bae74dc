"""Deformation and intensity of training tiles: pure functions on arrays.

Coordinates are (row, column) in pixels of the slice, pixel centres at whole numbers. Cubic
interpolation is Keys' convolution with a = -1/2 (Catmull-Rom) throughout: it goes through the given
values, continues straight lines, and keeps more of an image's grain than linear interpolation.

References
----------
Ronneberger et al. 2015, Sec. 3.1 (data augmentation).
Keys, Cubic convolution interpolation for digital image processing, IEEE Trans. ASSP 29, 1981.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unet.volumes.mirror import reflect

# Pixels that are sampled at a time: their temporaries stay in the cache of one core.
_BLOCK = 8192


class TileRandom:
    """The random numbers of one tile, the same with every version of numpy.

    They are made here of the raw stream of a bit generator, which is promised to stay (NEP 19):
    other formulas, such as RandomState's, would cut other tiles than those of earlier trainings.

    Seed and tile, 0 to 2**64 - 1, are the key of a Philox counter: every pair has its own stream.

    >>> TileRandom(1, 5).uniform(0, 1) == TileRandom(1, 5).uniform(0, 1)
    True
    """

    def __init__(self, seed: int, tile: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, tile], np.uint64))

    def _unit(self, count: int) -> np.ndarray:
        """Draw float64 numbers above 0 and below 1."""
        return ((self._bits.random_raw(count) >> np.uint64(12)) + 0.5) * 2.0**-52

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between low and high."""
        return low + (high - low) * float(self._unit(1)[0])

    def below(self, stop: int) -> int:
        """Draw a whole number from 0 to stop - 1."""
        return int(stop * self._unit(1)[0])

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw float64 numbers of standard normal distribution (Box and Muller 1958)."""
        radius, angle = self._unit(2 * int(np.prod(shape))).reshape((2,) + shape)
        return np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)


def keys_weights(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights of the values at -1, 0, 1 and 2 at a point t (Keys 1981, Eq. 15).

    >>> [weight.tolist() for weight in keys_weights(np.array([0.5]))]
    [[-0.0625], [0.5625], [0.5625], [-0.0625]]
    """
    t2 = t * t
    last = (t2 * t - t2) * t.dtype.type(0.5)
    first = (t2 - t) * t.dtype.type(0.5) - last
    # All four sum to 1 and have the first moment t.
    second = t + first - 2 * last
    return first, 1 - first - second - last, second, last


def grid_weights(points: int, size: int) -> np.ndarray:
    """Return the weights (size, points) by which a coarse grid's values give those of the pixels.

    Float64, along an axis: the first of at least 2 points lies on the first pixel and the last one
    on the last; beyond them the values go on in a straight line.

    >>> grid_weights(2, 3)
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])
    """
    position = np.linspace(0, points - 1, size)
    cell = np.minimum(position.astype(int), points - 2)
    weights = np.zeros((size, points + 2))
    for offset, weight in enumerate(keys_weights(position - cell)):
        weights[np.arange(size), cell + offset] = weight
    # The value before the first point is twice the first less the second, and likewise at the end.
    weights[:, 1] += 2 * weights[:, 0]
    weights[:, 2] -= weights[:, 0]
    weights[:, -2] += 2 * weights[:, -1]
    weights[:, -3] -= weights[:, -1]
    return weights[:, 1:-1]


def rigid_matrix(angle: float, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    """Return the 2x2 matrix from offsets in the tile to those in the slice: mirror, then turn."""
    cosine, sine = np.cos(angle), np.sin(angle)
    mirror = np.array([-1.0 if flip_rows else 1.0, -1.0 if flip_columns else 1.0])
    return np.array([[cosine, -sine], [sine, cosine]]) * mirror


def tile_coordinates(
    shape: tuple[int, int],
    centre: tuple[float, float],
    matrix: np.ndarray,
    displacements: np.ndarray | None = None,
) -> np.ndarray:
    """Say where in the slice each pixel of a tile is taken from.

    Pixel p of the tile of `shape` comes from centre + matrix (p - shape // 2 + d(p)). Displacements
    (2, m, n) are rows and columns, in pixels, by which the points of a coarse grid are displaced,
    whose outer points lie on the outer pixels; d is interpolated bicubically between them (Sec.
    3.1). Returns float32 (2, height, width), which may lie outside of the slice.
    """
    rows, columns = (np.arange(size) - size // 2 for size in shape)
    coordinates = np.empty((2,) + tuple(shape), np.float32)
    for axis, out in enumerate(coordinates):
        along_rows = (centre[axis] + matrix[axis, 0] * rows).astype(np.float32)
        along_columns = (matrix[axis, 1] * columns).astype(np.float32)
        np.add(along_rows[:, None], along_columns, out=out)
    if displacements is None:
        return coordinates
    down = grid_weights(displacements.shape[1], shape[0])
    across = grid_weights(displacements.shape[2], shape[1]).astype(np.float32)
    for axis, out in enumerate(coordinates):
        grid = matrix[axis, 0] * displacements[0] + matrix[axis, 1] * displacements[1]
        # No matrix product: the order of its sums, so the last bit, may depend on the threads.
        at_rows = (down[:, :, None] * grid).sum(axis=1).astype(np.float32)
        for point in range(grid.shape[1]):
            out += at_rows[:, point, None] * across[:, point]
    return coordinates


class Window:
    """The part of a slice of `shape` that a tile's coordinates need, mirrored beyond its edges."""

    def __init__(self, coordinates: np.ndarray, shape: tuple[int, int]) -> None:
        self._coordinates = coordinates
        self._origin = []
        self._indices = []
        for along, size in zip(coordinates, shape):
            # The cubic reaches from one pixel before to two pixels behind a point, which may be
            # rounded up to the next whole pixel where the origin is subtracted from it.
            first, last = (int(np.floor(point)) for point in (along.min(), along.max()))
            self._origin.append(first - 1)
            self._indices.append(reflect(np.arange(first - 1, last + 4), size))

    def _cut(self, image: np.ndarray) -> np.ndarray:
        rows, columns = self._indices
        return image[rows].take(columns, axis=1)

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        rows, columns = self._coordinates
        step = max(1, _BLOCK // rows.shape[1])
        for first in range(0, rows.shape[0], step):
            block = slice(first, first + step)
            yield (
                block,
                rows[block] - np.float32(self._origin[0]),
                columns[block] - np.float32(self._origin[1]),
            )

    def cubic(self, image: np.ndarray) -> np.ndarray:
        """Sample a float32 image of the slice at the coordinates by Keys' cubic convolution."""
        window = self._cut(image)
        stride = window.shape[1]
        flat = window.ravel()
        result = np.empty(self._coordinates.shape[1:], np.float32)
        for block, rows, columns in self._blocks():
            top = rows.astype(np.intp)
            left = columns.astype(np.intp)
            down = keys_weights(rows - top.astype(np.float32))
            across = keys_weights(columns - left.astype(np.float32))
            index = (top - 1) * stride + (left - 1)
            total = np.zeros_like(rows)
            for row_weight in down:
                line = across[0] * flat.take(index)
                for weight in across[1:]:
                    index += 1
                    line += weight * flat.take(index)
                line *= row_weight
                total += line
                index += stride - 3
            result[block] = total
        return result

    def nearest(self, *images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Take the nearest pixel of each image, so that labels and weights stay together."""
        windows = [self._cut(image) for image in images]
        stride = windows[0].shape[1]
        results = [np.empty(self._coordinates.shape[1:], image.dtype) for image in images]
        for block, rows, columns in self._blocks():
            index = (rows + np.float32(0.5)).astype(np.intp) * stride
            index += (columns + np.float32(0.5)).astype(np.intp)
            for window, result in zip(windows, results):
                result[block] = window.ravel().take(index)
        return tuple(results)


def jitter_intensity(
    image: np.ndarray, contrast: float, brightness: float, gamma: float
) -> np.ndarray:
    """Change intensities: v -> max(v, 0)**gamma, stretched about its mean, then shifted.

    In the unit of the network's input, where 0 and 1 are the ends of the data's range. A contrast
    and a gamma of 1 leave the values as they are, the latter negative ones too.
    """
    if gamma != 1:
        image = np.maximum(image, np.float32(0)) ** np.float32(gamma)
    if contrast == 1 and brightness == 0:
        return image
    mean = float(image.mean(dtype=np.float64))
    return image * np.float32(contrast) + np.float32(mean * (1 - contrast) + brightness)
