"""Which cells that touch were not told apart, as a number and as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Union

import numpy as np

from unet.files.atomic import atomic_path
from unet.files.provenance import PICTURE, PNG_KEY, mark
from unet.overlay import outlines

PathLike = Union[str, "os.PathLike[str]"]
_PANEL_INCHES = 4.2
_ALONE, _MERGED = (0.34, 0.71, 0.91), (0.84, 0.37, 0.0)
_OPACITY = 0.55


def merged_cells(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
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
    >>> merged_cells(truth, np.array([[4, 4, 0, 0, 5, 5, 5, 5]]))
    array([2, 3])
    """
    numbers, place, areas = np.unique(truth, return_inverse=True, return_counts=True)
    components, component = np.unique(found, return_inverse=True)
    pairs = place.ravel() * len(components) + component.ravel()
    table = np.bincount(pairs, minlength=len(numbers) * len(components))
    table = table.reshape(len(numbers), len(components))
    covers = 2 * table > areas[:, None]
    covers[numbers == 0] = False
    covers[:, components == 0] = False
    return numbers[covers[:, covers.sum(axis=0) > 1].any(axis=1)]


def save_separation(
    path: PathLike, picture: np.ndarray, truth: np.ndarray, found: Mapping[str, np.ndarray]
) -> None:
    """Write the picture with its true cells, and beside it what was found of them.

    Parameters
    ----------
    path : path
        The PNG.
    picture : float ndarray, shape (height, width)
        0 is black and 1 is white.
    truth : int ndarray, shape (height, width)
    found : mapping of str to int ndarray, shape (height, width)
        Title of a result and its cells: blue, and orange where cells were merged.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = truth.shape
    count = 1 + len(found)
    size = (count * _PANEL_INCHES, _PANEL_INCHES * height / width + 0.4)
    figure = Figure(figsize=size, dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count)
    grey = np.repeat(np.clip(picture, 0, 1)[..., None], 3, axis=2)
    drawn = grey.copy()
    drawn[outlines(truth) & (truth > 0)] = _ALONE
    panels = {f"{len(np.unique(truth[truth > 0]))} cells": drawn}
    for title, cells in found.items():
        drawn = grey.copy()
        merged = np.isin(truth, merged_cells(truth, cells)) & (cells > 0)
        for where, colour in (((cells > 0) & ~merged, _ALONE), (merged, _MERGED)):
            drawn[where] += _OPACITY * (np.array(colour) - drawn[where])
        drawn[outlines(cells)] = 0
        panels[f"{title}: {len(merged_cells(truth, cells))} merged"] = drawn
    for axis, (title, panel) in zip(axes, panels.items()):
        axis.imshow(panel, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), format="png", metadata={PNG_KEY: mark(PICTURE)})
