"""The procedure of the networks that the authors published in 2015, for PhC-C2DH-U373.

It differs from this project's own in its tiles, which join without overlap off the poolings' grid,
in the zeros beyond the mirrored border, and in fixed rules for what is a cell.

References
----------
u-net-release-2015-10-02, segmentAndTrack (Ronneberger et al. 2015, Sec. 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Callable

import numpy as np

from unet.segmentation.instances import CellRules
from unet.segmentation.segment import score_tiles
from unet.segmentation.tiles import BORDER, GRID
from unet.volumes.mirror import mirrored

# Tiles of a picture, one under the other.
TILES = 2
AVERAGE = "mirror"
# Components of up to 500 pixels are no cells.
RULES = CellRules(minimum_area=501)
# Pixels at the edges in which a cell does not count; the tracker follows it there nevertheless.
FIELD_OF_INTEREST = 50
TRACKER = "greedy"


def tile_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the network's input for a picture of `shape` = (height, width).

    Notes
    -----
    For each axis, d4a = ceil((wanted + 124) / 16) pixels of the lowest map give 16 d4a - 124 of
    output, at least the wanted, from 16 d4a + 60 of input. Wanted is the whole width and half of
    the height.

    Examples
    --------
    >>> tile_size((520, 696))
    (444, 892)
    """
    wanted = (-(-shape[0] // TILES), shape[1])
    lowest = (-(-(size + 124) // GRID) for size in wanted)
    height, width = (GRID * size + 60 for size in lowest)
    return height, width


def tile_rows(shape: tuple[int, int]) -> range:
    """Return the first output row of each tile: one under the other, up to the picture's end."""
    return range(0, shape[0], tile_size(shape)[0] - 2 * BORDER)


def score_pictures(
    net: Any,
    pictures: Iterable[np.ndarray],
    tile: tuple[int, int],
    *,
    together: int = 1,
    after_pass: Callable[[], None],
) -> Iterator[np.ndarray]:
    """Yield the scores before the soft-max of versions of a picture.

    Parameters
    ----------
    net, pictures, together, after_pass
        As for `unet.segmentation.segment.score_pictures`, in whose place this stands.
    tile : tuple of int
        `tile_size` of the pictures.

    Yields
    ------
    float32 ndarray, shape (classes, height, width)
    """

    def cover(shape: tuple[int, int], tile: tuple[int, int]) -> Iterator[tuple[int, int]]:
        return ((y, 0) for y in tile_rows(shape))

    return score_tiles(
        net, pictures, tile, cover, mirrored_once, together=together, after_pass=after_pass
    )


def mirrored_once(picture: np.ndarray, y: int, x: int, shape: tuple[int, int]) -> np.ndarray:
    """Cut a tile from a picture with 92 mirrored pixels around it, and zeros beyond these.

    Parameters
    ----------
    picture, y, x, shape
        As for `unet.volumes.mirror.mirrored`.

    Returns
    -------
    ndarray, shape (channels,) + shape
    """
    tile = mirrored(picture, y, x, shape)
    tile[:, max(0, picture.shape[1] + BORDER - y) :] = 0
    tile[:, :, max(0, picture.shape[2] + BORDER - x) :] = 0
    return tile
