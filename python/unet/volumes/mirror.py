"""Images that go on beyond their edges, mirrored (Ronneberger et al. 2015, Sec. 2 and Fig. 2)."""

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


def mirrored(
    image: np.ndarray,
    y: int,
    x: int,
    shape: tuple[int, int],
    reach: int | None = None,
    part_of: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Cut a tile from an image that is mirrored at its edges, periodically.

    Parameters
    ----------
    image : ndarray, shape (channels, height, width)
    y, x : int
        First pixel of the tile; may lie outside of the image.
    shape : tuple of int
        (height, width) of the tile.
    reach : int, optional
        Pixels beyond the last row and column that are mirrored; what lies farther out is 0. None:
        all are.
    part_of : tuple of int, optional
        (height, width) of an image of which `image` is a part, and the row and column at which the
        part begins: `y`, `x` and mirrors are those of the whole. Whatever of it the tile shows has
        to be in the part.

    Returns
    -------
    ndarray, shape (channels,) + shape
        As numpy's pad mode "reflect" continues the image; one pixel is continued as itself.
    """
    height, width, top, left = part_of or (*image.shape[-2:], 0, 0)
    rows = reflect(np.arange(y, y + shape[0]), height) - top
    columns = reflect(np.arange(x, x + shape[1]), width) - left
    # Several times as fast as indexing with arrays.
    tile = image.take(columns, axis=-1).take(rows, axis=-2)
    if reach is not None:
        tile[:, max(0, height + reach - y) :] = 0
        tile[:, :, max(0, width + reach - x) :] = 0
    return tile
