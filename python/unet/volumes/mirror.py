"""Pictures that go on beyond their edges, mirrored (Ronneberger et al. 2015, Sec. 2 and Fig. 2)."""

from __future__ import annotations

import numpy as np


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

    Examples
    --------
    >>> reflect(np.arange(-4, 5), 3)
    array([0, 1, 2, 1, 0, 1, 2, 1, 0])
    """
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.minimum(folded, period - folded)


def mirrored(picture: np.ndarray, y: int, x: int, shape: tuple[int, int]) -> np.ndarray:
    """Cut a tile from a picture that is mirrored at its edges, periodically.

    Parameters
    ----------
    picture : ndarray, shape (channels, height, width)
    y, x : int
        First pixel of the tile; may lie outside of the picture.
    shape : tuple of int
        (height, width) of the tile.

    Returns
    -------
    ndarray, shape (channels,) + shape
        As numpy's pad mode "reflect" continues the picture; one pixel is continued as itself.
    """
    rows = reflect(np.arange(y, y + shape[0]), picture.shape[-2])
    columns = reflect(np.arange(x, x + shape[1]), picture.shape[-1])
    # Several times as fast as indexing with arrays.
    return picture.take(columns, axis=-1).take(rows, axis=-2)
