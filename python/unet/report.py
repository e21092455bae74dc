"""Pictures of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.files.atomic import atomic_path
from unet.files.provenance import PICTURE, PNG_KEY, mark

# The smoothed loss is the mean over this share of the iterations.
_SMOOTH_SHARE = 50
_COLOURS = ("#c23b22", "#2a6fbb", "#6a4c93", "#1b998b")


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each value and up to `window` - 1 before it.

    Parameters
    ----------
    values : ndarray, shape (n,)
    window : int

    Returns
    -------
    ndarray, float64, shape (n,)

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
    """Draw training and held-out loss, held-out errors and learning rate over the iterations.

    Parameters
    ----------
    rows : sequence of dict
        As `unet.training.history.read_curve` gives them.
    path : Path
        The PNG file.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = [row for row in rows if np.isfinite(row.get("loss", np.nan))]
    names = sorted({key for row in rows for key in row if key.startswith("test")})
    losses = [name for name in names if name.endswith("loss")]
    errors = [name for name in names if name not in losses]
    heights = [3.0] + [2.2] * bool(errors) + [1.1]
    figure = Figure(figsize=(8, sum(heights)), constrained_layout=True)
    FigureCanvasAgg(figure)
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
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), dpi=120, metadata={PNG_KEY: mark(PICTURE)})


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
    for name, colour in zip(names, _COLOURS):
        points = [(row["iteration"], row[name]) for row in rows if name in row]
        group, _, score = name.partition("_")
        place = "held out" if group == "test" else f"held out {group[len('test') :]}"
        panel.plot(
            *zip(*points),
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            label=f"{place}, {score.replace('_', ' ')} {points[-1][1]:.4f}",
        )
