"""A picture of what a training set says about one slice."""

from __future__ import annotations

import copy
import os
from typing import Union

import numpy as np
from scipy import ndimage

from unet.files.atomic import atomic_path
from unet.files.names import printable
from unet.files.provenance import PICTURE, PNG_KEY, mark
from unet.preparation.labels import IGNORED, Annotation

PathLike = Union[str, "os.PathLike[str]"]
_PANEL_INCHES = 4.2
_PANEL_PIXELS = 1000
_GAP_COLOUR = (1.0, 0.15, 0.1)
_OUTLINE_COLOUR = (1.0, 0.85, 0.1)


def outlines(instances: np.ndarray) -> np.ndarray:
    """Return where cells end: pixels of a cell with another or no cell among their 4 neighbours.

    Parameters
    ----------
    instances : ndarray of int, shape (height, width)
        0 is background.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    cross = ndimage.generate_binary_structure(2, 1)
    lowest = ndimage.grey_erosion(instances, footprint=cross)
    highest = ndimage.grey_dilation(instances, footprint=cross)
    return (instances > 0) & (lowest != highest)


def _any(marked: np.ndarray, step: int) -> np.ndarray:
    """Return what is marked anywhere in blocks of `step` pixels a side, the last ones smaller."""
    rows = np.logical_or.reduceat(marked, range(0, marked.shape[0], step), axis=0)
    return np.logical_or.reduceat(rows, range(0, marked.shape[1], step), axis=1)


def save_preview(
    path: PathLike, picture: np.ndarray, annotation: Annotation, weights: np.ndarray, title: str
) -> None:
    """Write a picture of raw, labels, borders and weights side by side.

    Parameters
    ----------
    path : path
        The PNG.
    picture : ndarray of float32, shape (channels, height, width)
        Grey values from 0 to 1; the first channel is shown.
    annotation : Annotation
    weights : ndarray of float32, shape (height, width)
        w(x).
    title : str

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    from matplotlib import cm
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A panel has some 500 pixels a side; matplotlib takes a hundred bytes for each it is given.
    step = max(1, min(weights.shape) // _PANEL_PIXELS)
    part = (slice(None, None, step),) * 2
    picture, weights = picture[:1][(slice(None), *part)], weights[part]
    annotation = Annotation(
        annotation.classes[part], annotation.instances[part], _any(annotation.borders, step), 0
    )
    height, width = weights.shape
    figure = Figure(figsize=(4 * _PANEL_INCHES + 1, _PANEL_INCHES * height / width + 0.8), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4)
    grey = np.clip(picture[0], 0, 1)
    axes[0].imshow(grey, cmap="gray", vmin=0, vmax=1)

    classes = annotation.classes.astype(float)
    classes[annotation.classes == IGNORED] = np.nan
    cells = copy.copy(cm.gray)
    cells.set_bad("tab:blue")
    axes[1].imshow(classes, cmap=cells, vmin=0, interpolation="nearest")

    drawn = np.repeat(grey[..., None], 3, axis=2)
    drawn[outlines(annotation.instances)] = _OUTLINE_COLOUR
    drawn[annotation.borders] = _GAP_COLOUR
    axes[2].imshow(drawn, interpolation="nearest")

    shown = axes[3].imshow(weights, cmap="inferno", vmin=0)
    # Inset, so that it takes no room from its panel and all four are of one size.
    figure.colorbar(shown, cax=axes[3].inset_axes([1.02, 0, 0.04, 1]))
    ignored = ", ignored blue" if (annotation.classes == IGNORED).any() else ""
    added = ", red: made background" if annotation.borders.any() else ""
    for axis, name in zip(
        axes, ("raw", f"labels{ignored}", f"borders of the cells{added}", "weights w(x)")
    ):
        axis.set_title(name, fontsize=10)
        axis.set_axis_off()
    # A dollar sign would begin a formula.
    figure.suptitle(printable(title).replace("$", r"\$"), fontsize=11)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), format="png", metadata={PNG_KEY: mark(PICTURE)})
