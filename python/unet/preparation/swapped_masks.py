"""Do masks look as if black and white were swapped: is white one whole around many black parts?"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from unet.volumes.row_strips import count_values

# So much of the white is one component of its slice, and so much at most of the black.
_ONE, _MANY_PARTS = 0.9, 0.5
# Black parts in all slices together, and in each on average: of tissue with few holes there are
# less.
_PARTS, _PARTS_A_SLICE = 5, 3
_EIGHT = np.ones((3, 3), bool)
# So many slices are looked at, of each the middle.
_SLICES, _WINDOW = 16, 1024


class SwapSurvey:
    """What lies around what in masks of some slices.

    Notes
    -----
    Cells are many parts, and what lies between them is one, or falls into few: where nearly all
    that is marked is one 4-connected component of its slice, and what is left are many 8-connected
    ones of which none is most of it, the labels may mean the opposite of what they say.
    """

    def __init__(self) -> None:
        self._slices = self._parts = 0
        self._white = self._largest_white = self._black = self._largest_black = 0

    def add(self, white: np.ndarray, black: np.ndarray) -> None:
        """Look at a slice: two bool arrays, (height, width), which leave out what is unknown."""
        middle = tuple(
            slice(max(0, (size - _WINDOW) // 2), (size + _WINDOW) // 2) for size in white.shape
        )
        of_white, of_black = _areas(white[middle], None), _areas(black[middle], _EIGHT)
        if self._slices == _SLICES or not len(of_white) or not len(of_black):
            return
        self._slices += 1
        self._parts += len(of_black)
        self._white += int(of_white.sum())
        self._largest_white += int(of_white.max())
        self._black += int(of_black.sum())
        self._largest_black += int(of_black.max())

    @property
    def parts(self) -> int:
        """How many parts lie within what is marked; 0 where masks look as they should."""
        is_one = self._largest_white >= _ONE * self._white
        are_many = self._parts >= max(_PARTS, _PARTS_A_SLICE * self._slices)
        are_alike = self._largest_black <= _MANY_PARTS * self._black
        return self._parts if is_one and are_many and are_alike else 0


def _areas(mask: np.ndarray, neighbours: np.ndarray | None) -> np.ndarray:
    parts, many = ndimage.label(mask, neighbours)
    return count_values(parts, many + 1)[1:]


def are_swapped(mask: np.ndarray) -> bool:
    """Tell whether the mask of one slice looks as if black and white were swapped.

    Examples
    --------
    >>> cells = np.zeros((60, 60), bool)
    >>> for row in range(5, 60, 20):
    ...     cells[row : row + 9, 5:14] = cells[row : row + 9, 35:44] = True
    >>> are_swapped(cells), are_swapped(~cells)
    (False, True)
    """
    survey = SwapSurvey()
    survey.add(mask, ~mask)
    return survey.parts > 0
