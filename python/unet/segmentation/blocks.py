"""What of a stack is computed at a time: a slice, or a part of one that is too large for it."""

from __future__ import annotations

from typing import NamedTuple


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
