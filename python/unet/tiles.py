"""Sizes of tiles, and mirrored tiles of a picture."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from unet.deform import reflect
from unet.errors import InputError

# Pixels that the unpadded convolutions lose on each side (Ronneberger et al. 2015, Fig. 1).
BORDER = 92


def check_tile(tile: Tuple[int, int]) -> None:
    """Refuse an input size that the network's four poolings cannot halve.

    Raises
    ------
    InputError
        Unless height and width are 16 k + 60 with k >= 8; names the nearest sizes.
    """
    for size in tile:
        if size < 188 or (size - 60) % 16:
            below = max(188, 60 + (size - 60) // 16 * 16)
            raise InputError(
                f"tile size {size} is not 16k + 60 with k >= 8; the nearest are {below} and {below + 16}"
            )


def mirrored(picture: np.ndarray, y: int, x: int, shape: Tuple[int, int]) -> np.ndarray:
    """Cut a tile from a picture that is mirrored at its edges, periodically.

    Parameters
    ----------
    picture : ndarray, shape (channels, height, width)
    y, x : int
        First pixel of the tile; may lie outside of the picture.
    shape : tuple of int
        (height, width) of the tile.
    """
    rows = reflect(np.arange(y, y + shape[0]), picture.shape[-2])
    columns = reflect(np.arange(x, x + shape[1]), picture.shape[-1])
    return np.ascontiguousarray(picture[..., rows, :][..., columns])
