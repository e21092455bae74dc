"""Words of messages that several modules need."""

from __future__ import annotations

from collections.abc import Sequence


def few(numbers: Sequence[int], most: int = 8) -> str:
    """Write the first of many numbers.

    Examples
    --------
    >>> few([3, 7, 12], most=2)
    '3, 7 and 1 more'
    """
    more = len(numbers) - most
    return ", ".join(map(str, numbers[:most])) + (f" and {more} more" if more > 0 else "")
