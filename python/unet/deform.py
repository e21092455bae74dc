"""Geometry and grey values of training tiles: elastic deformation, rotation, sampling."""

from __future__ import annotations

from typing import Tuple

import numpy as np

# Rows that are sampled at a time: their temporaries stay in the cache of one core.
_BLOCK_ROWS = 32


def cubic_basis(points: int, size: int) -> np.ndarray:
    """Return the weights by which `points` grid values give `size` pixel values along one axis.

    Parameters
    ----------
    points : int
        Grid points; the first lies on the first pixel, the last on the last.
    size : int
        Pixels.

    Returns
    -------
    ndarray of float64, shape (size, points)
        Rows sum to 1. Cubic convolution (Keys, a = -1/2), the outermost grid values repeated outwards.
    """
    position = np.linspace(0, points - 1, size)
    left = np.minimum(np.floor(position).astype(int), max(points - 2, 0))
    t = position - left
    weights = np.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ],
        axis=1,
    )
    basis = np.zeros((size, points))
    rows = np.arange(size)
    for offset in range(4):
        column = np.clip(left + offset - 1, 0, points - 1)
        np.add.at(basis, (rows, column), weights[:, offset])
    return basis


def displacement_field(grid: np.ndarray, shape: Tuple[int, int]) -> np.ndarray:
    """Interpolate displacement vectors on a coarse grid to every pixel, bicubically.

    Parameters
    ----------
    grid : ndarray of float, shape (2, points, points)
        Displacements in pixels along y and x; the corner points lie on the corner pixels.
    shape : tuple of int
        (height, width).

    Returns
    -------
    ndarray of float32, shape (2, height, width)

    References
    ----------
    Ronneberger et al. 2015, Sec. 3.1: random displacement vectors on a coarse 3 by 3 grid, Gaussian
    with 10 pixels standard deviation, per-pixel displacements by bicubic interpolation.
    """
    down = cubic_basis(grid.shape[1], shape[0])
    across = cubic_basis(grid.shape[2], shape[1])
    return np.einsum("ip,apq,jq->aij", down, grid, across, optimize=True).astype(np.float32)


def reflect(index: np.ndarray, size: int) -> np.ndarray:
    """Fold indices into 0..size-1 by mirrors on the edge pixels, which are not repeated.

    Parameters
    ----------
    index : ndarray of int
        Any integers.
    size : int

    Returns
    -------
    ndarray of int
        As numpy's pad mode "reflect", repeated periodically.
    """
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.minimum(folded, period - folded)


def tile_coordinates(
    shape: Tuple[int, int],
    centre: Tuple[float, float],
    angle: float,
    mirror: bool,
    displacement: np.ndarray,
) -> np.ndarray:
    """Return where in the slice each pixel of a tile is taken from.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the tile.
    centre : tuple of float
        (y, x) of the slice, in pixels, on which the centre of the tile comes to lie.
    angle : float
        Rotation in radians.
    mirror : bool
        Flip the tile along x before it is rotated.
    displacement : ndarray of float32, shape (2, height, width)
        In pixels, added to the tile's own grid before mirror and rotation.

    Returns
    -------
    ndarray of float32, shape (2, height, width)
        y and x in pixels of the slice; may lie outside of it.
    """
    height, width = shape
    y = displacement[0] + (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    x = displacement[1] + (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    if mirror:
        x = -x
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.stack(
        [
            cosine * y - sine * x + np.float32(centre[0]),
            sine * y + cosine * x + np.float32(centre[1]),
        ]
    )


class Window:
    """The part of a slice that a tile's coordinates need, mirrored where it leaves the slice.

    Parameters
    ----------
    coordinates : ndarray of float32, shape (2, height, width)
        y and x in pixels of the slice.
    shape : tuple of int
        (height, width) of the slice.
    """

    def __init__(self, coordinates: np.ndarray, shape: Tuple[int, int]) -> None:
        self._indices = []
        self._origin = []
        for axis, size in enumerate(shape):
            first = int(np.floor(coordinates[axis].min()))
            last = int(np.floor(coordinates[axis].max())) + 1
            self._origin.append(first)
            self._indices.append(reflect(np.arange(first, last + 1), size))
        self._coordinates = coordinates

    def _cut(self, image: np.ndarray) -> np.ndarray:
        rows, columns = self._indices
        return np.ascontiguousarray(image[rows][:, columns])

    def _blocks(self):
        y, x = self._coordinates
        for first in range(0, y.shape[0], _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            yield block, y[block] - np.float32(self._origin[0]), x[block] - np.float32(self._origin[1])

    def linear(self, image: np.ndarray) -> np.ndarray:
        """Sample an image at the coordinates by bilinear interpolation.

        Parameters
        ----------
        image : ndarray of float32, shape (slice height, slice width)

        Returns
        -------
        ndarray of float32, shape (height, width)
        """
        window = self._cut(image)
        stride = window.shape[1]
        flat = window.ravel()
        result = np.empty(self._coordinates.shape[1:], np.float32)
        for block, y, x in self._blocks():
            top = y.astype(np.int32)
            left = x.astype(np.int32)
            dy = y - top
            dx = x - left
            place = top.astype(np.intp) * stride + left
            upper = flat.take(place)
            upper += (flat.take(place + 1) - upper) * dx
            place += stride
            lower = flat.take(place)
            lower += (flat.take(place + 1) - lower) * dx
            upper += (lower - upper) * dy
            result[block] = upper
        return result

    def nearest(self, *images: np.ndarray) -> Tuple[np.ndarray, ...]:
        """Take the nearest pixel of each image, so that labels and weights stay together.

        Parameters
        ----------
        *images : ndarray, shape (slice height, slice width)

        Returns
        -------
        tuple of ndarray, shape (height, width)
            Of the images' dtypes.
        """
        windows = [self._cut(image) for image in images]
        stride = windows[0].shape[1]
        results = [np.empty(self._coordinates.shape[1:], image.dtype) for image in images]
        for block, y, x in self._blocks():
            place = (y + np.float32(0.5)).astype(np.intp) * stride
            place += (x + np.float32(0.5)).astype(np.intp)
            for window, result in zip(windows, results):
                result[block] = window.ravel().take(place)
        return tuple(results)
