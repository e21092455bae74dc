"""Pictures of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import matplotlib
import numpy as np

from unet.program import atomic_path

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (the backend must be chosen first)

_SMOOTH_SHARE = 50


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each value and up to `window` - 1 before it."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    return (sums[stop] - sums[start]) / (stop - start)


def draw_curves(rows: List[Dict[str, float]], path: Path) -> None:
    """Draw training loss, held-out scores and learning rate over the iterations.

    Parameters
    ----------
    rows : list of dict
        As `unet.curve.read_curve` gives them.
    path : Path
        The PNG file.
    """
    training = [row for row in rows if "loss" in row]
    tests = [row for row in rows if any(key.startswith("test") for key in row)]
    scores = sorted({key for row in tests for key in row if key.startswith("test")})
    losses = [key for key in scores if "loss" in key]
    others = [key for key in scores if key not in losses]
    panels = 2 + bool(others)
    figure, axes = plt.subplots(
        panels, 1, figsize=(8, 2.6 * panels), sharex=True, constrained_layout=True
    )
    iterations = np.array([row["iteration"] for row in training])
    loss = np.array([row["loss"] for row in training])
    if len(loss):
        axes[0].plot(iterations, loss, color="0.8", linewidth=0.7, label="one tile")
        window = max(1, len(loss) // _SMOOTH_SHARE)
        axes[0].plot(iterations, smoothed(loss, window), label=f"mean of {window}")
        top = np.percentile(loss, 99) * 1.1
        if np.isfinite(top) and top > 0:
            axes[0].set_ylim(0, top)
    for key in losses:
        points = [(row["iteration"], row[key]) for row in tests if key in row]
        axes[0].plot(*zip(*points), marker="o", markersize=3, label=f"held out ({key})")
    axes[0].set_ylabel("loss")
    axes[0].legend(frameon=False)
    for key in others:
        points = [(row["iteration"], row[key]) for row in tests if key in row]
        axes[1].plot(*zip(*points), marker="o", markersize=3, label=f"held out ({key})")
    if others:
        axes[1].set_ylabel("held-out score")
        axes[1].legend(frameon=False)
    axes[-1].plot(iterations, [row.get("rate", np.nan) for row in training], color="tab:green")
    axes[-1].set_ylabel("learning rate")
    axes[-1].set_xlabel("iteration")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
