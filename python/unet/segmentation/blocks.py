"""What of a stack is computed at a time: a slice, or a part of one that is too large for it."""

from __future__ import annotations

import math
from typing import NamedTuple

# A block's arrays take this share of the memory; the rest is for a pass.
_SHARE_OF_BLOCK = 0.25
# Slices are cut where their arrays take more.
_SHARE_OF_SLICE = 0.5
# Pixels a side. Smaller blocks are mostly border, and their files many.
_SMALLEST = 256


class Block(NamedTuple):
    """A rectangle of one slice.

    Attributes
    ----------
    z : int
        Of the slice in the stack.
    rows, columns : slice
        With start and stop, both within the slice.
    """

    z: int
    rows: slice
    columns: slice


def blocks_of(slices: range, size: tuple[int, int], block: tuple[int, int]) -> list[Block]:
    """Return the blocks of all slices, slice by slice and row by row.

    Parameters
    ----------
    slices : range
    size, block : tuple of int
        (height, width) of a slice and of a block; those at the lower and right edges are smaller.

    Examples
    --------
    >>> [one.columns.stop for one in blocks_of(range(1), (64, 100), (64, 64))]
    [64, 100]
    """
    rows, columns = (
        [slice(first, min(first + step, length)) for first in range(0, length, step)]
        for length, step in zip(size, block)
    )
    return [Block(z, down, across) for z in slices for down in rows for across in columns]


def bytes_a_pixel(channels: int, itemsize: int, classes: int) -> int:
    """Return the bytes that arrays take for a pixel of a block, beside the passes.

    Two blocks are in memory as they are read and scaled, the one that is computed and the next; its
    scores, their sum, what the soft-max makes of those of the block before, and what is written of
    the one before that.
    """
    return channels * (2 * itemsize + 12) + 4 * classes * 7 + 32


def choose_block(size: tuple[int, int], pixel: int, memory: float, factor: int) -> tuple[int, int]:
    """Choose what is computed and written at a time.

    Parameters
    ----------
    size : tuple of int
        (height, width) of a slice.
    pixel : int
        As of `bytes_a_pixel`.
    memory : float
        Bytes that blocks and passes may take.
    factor : int
        The network's downsample factor.

    Returns
    -------
    tuple of int
        (height, width): those of the slice if its arrays take up to half of the memory; else
        multiples of the factor, about as large along both axes, and such that the last blocks are
        hardly smaller than the others.

    Examples
    --------
    >>> choose_block((512, 512), 100, 1e9, 16), choose_block((20000, 20000), 100, 1e9, 16)
    ((512, 512), (1552, 1552))
    """
    height, width = size
    if height * width * pixel <= _SHARE_OF_SLICE * memory:
        return height, width
    side = max(_SMALLEST, math.isqrt(int(_SHARE_OF_BLOCK * memory) // pixel))
    along = [-(-length // (-(-length // side) * factor)) * factor for length in size]
    return min(along[0], height), min(along[1], width)
