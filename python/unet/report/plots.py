"""Pictures to look at: training set, outlines on an image, curves of a training, merged cells."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from unet.files.atomic import atomic_path
from unet.files.names import PathLike, printable
from unet.files.provenance import PICTURE, PNG_KEY, mark, save_marked_png
from unet.preparation.labels import IGNORED, Annotation
from unet.scoring.undersegmented import undersegmented

_PANEL_INCHES = 4.2
_PANEL_PIXELS = 1000
_GAP_COLOUR = (1.0, 0.15, 0.1)
_OUTLINE_COLOUR = (1.0, 0.85, 0.1)
# Orange and sky blue of Okabe and Ito: told apart with any colour vision, and on grey.
PREDICTED = (230, 159, 0)
TRUE = (86, 180, 233)
_OVERLAY_OPACITY = 0.85
# Overlays are enlarged to about this side, so that outlines are finer than what they go around.
_OVERLAY_SIDE = 1200
_OVERLAY_GAP = 8
# The smoothed loss is the mean over this share of the iterations.
_SMOOTH_SHARE = 50
_CURVE_COLOURS = ("#c23b22", "#2a6fbb", "#6a4c93", "#1b998b")
# Of which network a curve is, is not known: the challenge's pixel error, made for membranes, would
# be taken for the share of wrong pixels.
_SCORE_NAMES = {"misclassified": "misclassified pixels", "pixel_error": "1 − F-score of class 1"}
_ALONE, _MERGED = (0.34, 0.71, 0.91), (0.84, 0.37, 0.0)
_CELL_OPACITY = 0.55


def save_preview(
    path: PathLike, image: np.ndarray, annotation: Annotation, weights: np.ndarray, title: str
) -> None:
    """Write a PNG of raw, labels, borders and weights side by side.

    Parameters
    ----------
    path : path
    image : ndarray of float32, shape (channels, height, width)
        Intensities from 0 to 1; the first channel is shown.
    annotation : Annotation
    weights : ndarray of float32, shape (height, width)
        w(x).
    title : str
    """
    from matplotlib import cm

    # A panel has some 500 pixels a side; matplotlib takes a hundred bytes for each it is given.
    step = max(1, min(weights.shape) // _PANEL_PIXELS)
    part = (slice(None, None, step),) * 2
    image, weights = image[:1][(slice(None), *part)], weights[part]
    annotation = Annotation(
        annotation.classes[part], annotation.instances[part], _any(annotation.borders, step), 0
    )
    height, width = weights.shape
    figure = _figure(4 * _PANEL_INCHES + 1, _PANEL_INCHES * height / width + 0.8)
    axes = figure.subplots(1, 4)
    grey = np.clip(image[0], 0, 1)
    axes[0].imshow(grey, cmap="gray", vmin=0, vmax=1)

    classes = annotation.classes.astype(float)
    classes[annotation.classes == IGNORED] = np.nan
    cells = copy.copy(cm.gray)
    cells.set_bad("tab:blue")
    axes[1].imshow(classes, cmap=cells, vmin=0, interpolation="nearest")

    drawn = np.repeat(grey[..., None], 3, axis=2)
    drawn[_boundaries(annotation.instances, "inner")] = _OUTLINE_COLOUR
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
    _save(figure, path)


def _any(marked: np.ndarray, step: int) -> np.ndarray:
    """Return what is marked anywhere in blocks of `step` pixels a side, the last ones smaller."""
    rows = np.logical_or.reduceat(marked, range(0, marked.shape[0], step), axis=0)
    return np.logical_or.reduceat(rows, range(0, marked.shape[1], step), axis=1)


def draw_overlay(
    image: np.ndarray, probabilities: np.ndarray, truth: np.ndarray | None = None
) -> np.ndarray:
    """Draw a image, and beside it outlines of its regions: orange, over the true ones in blue.

    Parameters
    ----------
    image : float ndarray, shape (channels, height, width)
        0 is black and 1 is white; three channels are red, green and blue, others are averaged.
    probabilities : float ndarray, shape (classes, height, width)
        The region of a class is where it is the likeliest.
    truth : int or bool ndarray, shape (height, width), optional
        Classes or numbers of cells.

    Returns
    -------
    uint8 ndarray, shape (n height, 2 n width + 8, 3)
        Enlarged n times if the image is small.
    """
    height, width = image.shape[1:]
    scale = max(1, round(_OVERLAY_SIDE / max(height, width, _OVERLAY_SIDE // 16)))
    channels = image if len(image) == 3 else np.repeat(image.mean(0, keepdims=True), 3, 0)
    plain = np.stack([_enlarged(channel, scale) for channel in channels], axis=-1)
    plain = np.clip(plain, 0, 1) * 255
    drawn = plain.copy()
    if truth is not None:
        _draw_outlines(drawn, truth.repeat(scale, axis=0).repeat(scale, axis=1), TRUE)
    classes = np.argmax([_enlarged(channel, scale) for channel in probabilities], axis=0)
    _draw_outlines(drawn, classes, PREDICTED)
    gap = np.full((len(plain), _OVERLAY_GAP, 3), 255.0)
    return np.rint(np.concatenate([plain, gap, drawn], axis=1)).astype(np.uint8)


def save_overlay(
    path: Path, image: np.ndarray, probabilities: np.ndarray, truth: np.ndarray | None = None
) -> None:
    """Write the picture of `draw_overlay`, whose other parameters these are, as PNG."""
    from PIL import Image

    save_marked_png(path, Image.fromarray(draw_overlay(image, probabilities, truth)), PICTURE)


def _enlarged(channel: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge (height, width) by linear interpolation between pixel centres."""
    if scale == 1:
        return channel
    return ndimage.zoom(channel, scale, order=1, mode="nearest", grid_mode=True)


def _draw_outlines(drawn: np.ndarray, regions: np.ndarray, colour: tuple[int, int, int]) -> None:
    lines = _boundaries(regions, "thick")
    drawn[lines] += _OVERLAY_OPACITY * (np.array(colour, drawn.dtype) - drawn[lines])


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each value and up to `window` - 1 before it: float64 (n,).

    Examples
    --------
    >>> smoothed(np.array([1.0, 3.0, 5.0]), 2).tolist()
    [1.0, 2.0, 4.0]
    """
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    return (sums[stop] - sums[start]) / (stop - start)


def draw_curves(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Draw losses, held-out errors and the learning rate over the iterations of a training as PNG.

    The rows are those of `unet.training.history.read_history`.
    """
    training = [row for row in rows if np.isfinite(row.get("loss", np.nan))]
    names = sorted({key for row in rows for key in row if key.startswith("test")})
    losses = [name for name in names if name.endswith("loss")]
    errors = [name for name in names if name not in losses]
    heights = [3.0] + [2.2] * bool(errors) + [1.1]
    figure = _figure(8, sum(heights), constrained_layout=True)
    panels = figure.subplots(len(heights), 1, sharex=True, gridspec_kw=dict(height_ratios=heights))
    _draw_losses(panels[0], training, rows, losses)
    if errors:
        _draw_tests(panels[1], rows, errors)
        panels[1].set_ylabel("held-out error")
        panels[1].set_ylim(bottom=0)
        panels[1].legend(frameon=False, fontsize=9)
    panels[-1].plot(
        [row["iteration"] for row in training],
        [row["rate"] for row in training],
        color="0.35",
        linewidth=1.2,
    )
    panels[-1].set_ylabel("rate")
    panels[-1].set_ylim(bottom=0)
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    panels[-1].set_xlabel("iteration")
    for panel in panels:
        panel.grid(True, color="0.92", linewidth=0.8)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    _save(figure, path)


def _draw_losses(
    panel: Any,
    training: list[dict[str, float]],
    rows: Sequence[dict[str, float]],
    names: Sequence[str],
) -> None:
    if training:
        iterations = np.array([row["iteration"] for row in training])
        loss = np.array([row["loss"] for row in training])
        window = max(1, len(loss) // _SMOOTH_SHARE)
        panel.plot(iterations, loss, color="0.85", linewidth=0.6, label="training, one tile")
        panel.plot(
            iterations,
            smoothed(loss, window),
            color="0.25",
            linewidth=1.4,
            label=f"training, mean of {window}",
        )
        # A few outliers of the first iterations would flatten all the rest.
        held_out = [row[name] for row in rows for name in names if name in row]
        panel.set_ylim(0, 1.15 * max([np.percentile(loss, 98), 1e-6] + held_out))
    _draw_tests(panel, rows, names)
    panel.set_ylabel("loss")
    if training or names:
        panel.legend(frameon=False, fontsize=9)


def _draw_tests(panel: Any, rows: Sequence[dict[str, float]], names: Sequence[str]) -> None:
    for name, colour in zip(names, _CURVE_COLOURS):
        points = [(row["iteration"], row[name]) for row in rows if name in row]
        group, _, score = name.partition("_")
        said = _SCORE_NAMES.get(score, score.replace("_", " "))
        place = "held out" if group == "test" else f"held out {group[len('test') :]}"
        panel.plot(
            *zip(*points),
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            label=f"{place}, {said}: {points[-1][1]:.4f}",
        )


def save_undersegmented(
    path: PathLike, image: np.ndarray, truth: np.ndarray, found: Mapping[str, np.ndarray]
) -> None:
    """Write a PNG of an image with its true cells, and beside it what was found of them.

    Parameters
    ----------
    path : path
    image : float ndarray, shape (height, width)
        0 is black and 1 is white.
    truth : int ndarray, shape (height, width)
    found : mapping of str to int ndarray, shape (height, width)
        Title of a result and its cells: blue, and orange where cells were merged.
    """
    height, width = truth.shape
    count = 1 + len(found)
    figure = _figure(count * _PANEL_INCHES, _PANEL_INCHES * height / width + 0.4)
    axes = figure.subplots(1, count)
    grey = np.repeat(np.clip(image, 0, 1)[..., None], 3, axis=2)
    drawn = grey.copy()
    drawn[_boundaries(truth, "inner")] = _ALONE
    panels = {f"{len(np.unique(truth[truth > 0]))} cells": drawn}
    for title, cells in found.items():
        drawn = grey.copy()
        merged = np.isin(truth, undersegmented(truth, cells)) & (cells > 0)
        for where, colour in (((cells > 0) & ~merged, _ALONE), (merged, _MERGED)):
            drawn[where] += _CELL_OPACITY * (np.array(colour) - drawn[where])
        drawn[_boundaries(cells, "thick")] = 0
        panels[f"{title}: {len(undersegmented(truth, cells))} merged"] = drawn
    for axis, (title, panel) in zip(axes, panels.items()):
        axis.imshow(panel, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    _save(figure, path)


def save_comparison(
    path: PathLike,
    panels: Mapping[str, np.ndarray],
    errors: Mapping[str, tuple[float, float]],
) -> None:
    """Draw a slice, its truth and what networks make of it, and where their wrong pixels lie.

    Parameters
    ----------
    path : path
    panels : mapping of str to ndarray, shape (height, width)
        Title and grey values, 0 is black and 1 is white.
    errors : mapping of str to tuple of float
        Name of a network and its shares of wrong pixels near borders and elsewhere.
    """
    columns = (len(panels) + 2) // 2
    figure = _figure(columns * _PANEL_INCHES * 0.8, 2 * (_PANEL_INCHES * 0.8 + 0.3))
    axes = figure.subplots(2, columns).ravel()
    for axis, (title, image) in zip(axes, panels.items()):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
    for axis in axes:
        axis.set_axis_off()
    axis = axes[-1]
    axis.set_axis_on()
    places = np.arange(len(errors))
    for side, (what, colour) in enumerate(
        (("within 2 px of a border", "#e69f00"), ("elsewhere", "#56b4e9"))
    ):
        shares = [100 * pair[side] for pair in errors.values()]
        axis.bar(places + 0.4 * side - 0.2, shares, 0.4, color=colour, label=what)
    names = [name.replace(" ", "\n").replace("_", "\n") for name in errors]
    axis.set_xticks(places, names, fontsize=8)
    axis.set_title("wrong pixels, %", fontsize=10)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    _save(figure, path)


def _boundaries(regions: np.ndarray, mode: str) -> np.ndarray:
    # It takes longer to import than most programs to start.
    from skimage.segmentation import find_boundaries

    return find_boundaries(regions, mode=mode, connectivity=1)


def _figure(width: float, height: float, **options: Any) -> Any:
    """Return an empty figure, in inches, that no window and no global state belongs to."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, **options)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: PathLike) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), format="png", metadata={PNG_KEY: mark(PICTURE)})
