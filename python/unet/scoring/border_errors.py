"""Where the wrong pixels of a proposal lie: near the borders of membranes, or away from them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def border_errors(truth: np.ndarray, found: np.ndarray, near: float = 2.0) -> tuple[float, float]:
    """Return the share of wrong pixels among those near a border of the truth, and among the rest.

    Near a border places are misjudged; away from it, what something is.

    Parameters
    ----------
    truth, found : bool ndarray, shape (slices, height, width)
        Inside a cell or not; slices are pictures of their own.
    near : float
        Pixels, centre to centre, to the nearest pixel of the other class.

    Returns
    -------
    tuple of float
        NaN where there is no such pixel.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 1, 1, 0, 0, 0, 0]]], bool)
    >>> border_errors(truth, np.array([[[0, 1, 1, 1, 1, 0, 0, 0]]], bool), near=1)
    (0.5, 0.16666666666666666)
    """
    close = np.zeros(truth.shape, bool)
    for z, labels in enumerate(truth):
        if labels.all() or not labels.any():
            continue
        for side in (labels, ~labels):
            close[z] |= side & (ndimage.distance_transform_edt(side) <= near)
    wrong = truth != found
    return tuple(
        float(wrong[part].mean()) if part.any() else float("nan") for part in (close, ~close)
    )
