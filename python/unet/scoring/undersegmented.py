"""Undersegmentation: which cells that touch were not told apart."""

from __future__ import annotations

import numpy as np

from unet.scoring.seg_det_tra import match_objects


def undersegmented(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the true cells that one found cell covers together with another.

    Parameters
    ----------
    truth, found : int ndarray, shape (height, width)
        Number of the cell of each pixel, 0 is background.

    Returns
    -------
    int ndarray, shape (merged,)
        Numbers of `truth`: of the found cells that cover more than half of a true cell each, as SEG
        of the cell tracking challenge matches them, those that cover two or more.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 2, 2, 3, 3]])
    >>> undersegmented(truth, np.array([[4, 4, 0, 0, 5, 5, 5, 5]]))
    array([2, 3])
    """
    matches = match_objects(truth, found)
    found_numbers, times = np.unique(matches.partners, return_counts=True)
    several = found_numbers[(times > 1) & (found_numbers > 0)]
    return matches.reference[np.isin(matches.partners, several)]
