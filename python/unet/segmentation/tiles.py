"""Sizes of tiles, mirrored tiles of a picture, and the tiling that costs least.

Output tiles are 16k - 124 pixels, but the network's result moves along with its input only in steps
of 16, the four poolings' common grid. So tiles stand at multiples of 16, each overlapping the next
by the 4 output pixels left over; then what is put together equals one pass over the whole mirrored
picture.

References
----------
Ronneberger et al. 2015, Sec. 2 and Fig. 2 (overlap-tile strategy).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unet.errors import InputError

# Pixels that the unpadded convolutions lose on each side (Ronneberger et al. 2015, Fig. 1).
BORDER = 92
# Pixels of the input to one of the lowest map: four poolings.
GRID = 16
SMALLEST = 188
# Caffe counts the elements of a blob in a signed 32-bit integer.
_MOST_ELEMENTS = 2**31 - 1


def check_tile(tile: tuple[int, int]) -> None:
    """Refuse an input size that the network's four poolings cannot halve.

    Raises
    ------
    InputError
        Unless height and width are 16 k + 60 with k >= 8; names the nearest sizes.
    """
    for size in tile:
        if size < SMALLEST or (size - 60) % GRID:
            below = max(SMALLEST, 60 + (size - 60) // GRID * GRID)
            raise InputError(
                f"tile size {size} is not 16k + 60 with k >= 8; the nearest are {below} and "
                f"{below + GRID}"
            )


def tile_starts(length: int, tile: int) -> range:
    """Return where along one axis the output tiles begin.

    Parameters
    ----------
    length : int
        Pixels of the picture along the axis.
    tile : int
        Input size.

    Returns
    -------
    range
        First output pixel of each tile: multiples of 16 that leave no gap.

    Raises
    ------
    InputError
        If the tile is no valid size, or its 4 output pixels cannot cover a longer axis.

    Examples
    --------
    >>> list(tile_starts(512, 572)), list(tile_starts(512, 700))
    ([0, 384], [0])
    """
    check_tile((tile, tile))
    output = tile - 2 * BORDER
    if length <= output:
        return range(1)
    step = output // GRID * GRID
    if not step:
        raise InputError(
            f"tile size {tile} gives {output} pixels, less than the 16 that tiles are apart: it "
            f"suits pictures up to {output} pixels; take {tile + GRID} or more for {length}"
        )
    count = 1 + -(-(length - output) // step)
    return range(0, count * step, step)


def tile_places(shape: tuple[int, int], tile: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield (row, column) of the first output pixel of every tile of a picture.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the picture.
    tile : tuple of int
        (height, width) of the network's input.

    Raises
    ------
    InputError
        As `tile_starts`.
    """
    rows, columns = (tile_starts(length, size) for length, size in zip(shape, tile))
    return ((y, x) for y in rows for x in columns)


def count_tiles(shape: tuple[int, int], tile: tuple[int, int]) -> int:
    """Return how many passes a picture takes; arguments and errors as those of `tile_places`."""
    rows, columns = (len(tile_starts(length, size)) for length, size in zip(shape, tile))
    return rows * columns


@dataclass(frozen=True)
class PassCost:
    """What one pass of a network takes, as a function of the input size.

    The height and the width of every map of an unpadded network are linear in those of the input,
    so two sizes tell all. `unet.model.pass_cost` measures a net.

    Attributes
    ----------
    sizes : int ndarray, shape (maps, 2)
        Height and width of each map for an input of 188 x 188.
    growth : float ndarray, shape (maps, 2)
        Pixels that they grow by for a pixel of the input.
    channels : int ndarray, shape (maps,)
        Values that are kept for a pixel of the map.
    live : bool ndarray, shape (moments, maps)
        Which maps are in memory at the same time.
    multiply_adds : int ndarray, shape (maps,)
        Multiply-adds for a pixel of the map.
    workspace : int ndarray, shape (maps,)
        Values for a pixel of the map that its layer needs for itself, for as long as it runs.
    workspaces_add : bool
        Whether all layers keep their workspaces, as genuine Caffe's do, or one at a time has one.
    """

    sizes: np.ndarray
    growth: np.ndarray
    channels: np.ndarray
    live: np.ndarray
    multiply_adds: np.ndarray
    workspace: np.ndarray
    workspaces_add: bool

    def pixels(self, tile: tuple[int, int]) -> np.ndarray:
        """Pixels of each map, float64 (maps,), for an input of `tile` = (height, width)."""
        return np.prod(self.sizes + self.growth * (np.asarray(tile) - SMALLEST), axis=1)

    def work(self, tile: tuple[int, int]) -> float:
        """Multiply-adds of one pass."""
        return float(self.pixels(tile) @ self.multiply_adds)

    def memory(self, tile: tuple[int, int]) -> float:
        """Bytes of one pass; infinite where a map has more values than Caffe can count."""
        pixels = self.pixels(tile)
        values = pixels * self.channels
        if values.max() > _MOST_ELEMENTS:
            return np.inf
        workspaces = pixels * self.workspace
        workspace = workspaces.sum() if self.workspaces_add else workspaces.max()
        return 4.0 * float((self.live @ values).max() + workspace)


def choose_tile(shape: tuple[int, int], cost: PassCost, memory: float) -> tuple[int, int]:
    """Choose the input size that segments a picture with the fewest multiply-adds.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the picture.
    cost : PassCost
    memory : float
        Bytes that a pass may take.

    Returns
    -------
    tuple of int
        (height, width) of the tiles; of equal ones that with the fewest.

    Raises
    ------
    InputError
        If not even the smallest tiles fit.
    """
    rows, columns = (_candidates(length) for length in shape)
    best: tuple[float, int, tuple[int, int]] | None = None
    for height, down in rows:
        for width, across in columns:
            tile, tiles = (height, width), down * across
            key = (tiles * cost.work(tile), tiles, tile)
            if (best is None or key < best) and cost.memory(tile) <= memory:
                best = key
    if best is None:
        tile = (rows[-1][0], columns[-1][0])
        raise InputError(
            f"a pass of the smallest tiles, {tile[0]}x{tile[1]}, takes about "
            f"{cost.memory(tile) / 2**20:.0f} MB, but {memory / 2**20:.0f} MB are free for it: end "
            f"other programs, or give more with --memory"
        )
    return best[2]


def _candidates(length: int) -> list[tuple[int, int]]:
    """Return, for every number of tiles along an axis, the smallest size: (size, number)."""
    smallest = SMALLEST if length <= SMALLEST - 2 * BORDER else SMALLEST + GRID
    whole = max(smallest, -(-(length + 124) // GRID) * GRID + 60)
    best: dict[int, int] = {}
    for size in range(whole, smallest - 1, -GRID):
        best[len(tile_starts(length, size))] = size
    return [(size, number) for number, size in best.items()]
