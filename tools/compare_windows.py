"""Of the comparison of sliding windows with a U-Net: its budget, numbers, table and picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unet.experiment.budget import measure
from unet.files.score_file import read_json, write_scores
from unet.machine.engine import open_engine
from unet.report.plots import save_comparison
from unet.scoring.border_errors import border_errors
from unet.training.history import CSV_NAME, read_history
from unet.volumes import read_volume

SCORES = ("rand_error", "pixel_error", "v_rand_thin", "v_info_thin")
# Side of what is drawn.
_SHOWN = 256


def settled(path: Path, solver: Path, minutes: float, device: str) -> int:
    """Return how many iterations of a training fit into minutes, measured when first asked.

    It is written down, so that a training that was stopped goes on to the same end.
    """
    if path.exists():
        found = read_json(path)
        if isinstance(found, dict) and found.get("minutes") == minutes:
            return int(found["iterations"])
    pace = measure(open_engine(device), solver, Path.cwd())
    many = max(1, int(60 * minutes / pace.iteration))
    write_scores(path, {"minutes": minutes, "seconds_a_step": pace.iteration, "iterations": many})
    return many


def numbers(folder: Path, truth: np.ndarray) -> dict[str, Any]:
    """Return what a network came to on held-out slices: scores, and where its wrong pixels lie."""
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    found = {name: scores[name] for name in SCORES}
    above = read_volume(folder / "probabilities.tif") > scores["pixel_error_threshold"]
    near, far = border_errors(truth, above)
    found.update(wrong_near_borders=near, wrong_elsewhere=far)
    curve = folder / "training" / CSV_NAME
    if curve.exists():
        last = read_history(curve)[-1]
        found.update(iterations=int(last["iteration"]) + 1, minutes=last["seconds"] / 60)
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows as a table of Markdown."""
    names = (*SCORES, "wrong_near_borders", "wrong_elsewhere")
    lines = [
        "| network | minutes | steps | " + " | ".join(n.replace("_", " ") for n in names) + " |",
        "| --- " * (len(names) + 3) + "|",
    ]
    for label, row in rows.items():
        minutes = f"{row['minutes']:.1f}" if "minutes" in row else "-"
        steps = f"{row['iterations']:,}" if "iterations" in row else "-"
        values = " | ".join(f"{row[name]:.4f}" for name in names)
        lines.append(f"| {label} | {minutes} | {steps} | {values} |")
    return "\n".join(lines)


def told(timing: Mapping[str, float]) -> str:
    """Return what a slice costs, in words."""
    slow, fast = timing["seconds_pixel_by_pixel"], timing["seconds_unet"]
    many = timing["multiply_adds_pixel_by_pixel"] / timing["multiply_adds_at_once"]
    return (
        f"a slice takes {slow:,.0f} s pixel by pixel (measured on {timing['pixels_measured']:,.0f} "
        f"pixels), {timing['seconds_at_once']:.1f} s with all windows at once, {fast:.2f} s by the "
        f"U-Net\n"
        f"redundancy: pixel by pixel each product is computed {many:.0f} times "
        f"({timing['multiply_adds_pixel_by_pixel']:.3g} multiply-adds a slice in place of "
        f"{timing['multiply_adds_at_once']:.3g}); the two differ by at most "
        f"{timing['largest_difference']:.1e}"
    )


def draw(
    path: Path, panels: Mapping[str, np.ndarray], rows: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw the middle of a slice, its truth, what the networks make of it, and their errors."""
    cut = {}
    for title, image in panels.items():
        top, left = ((side - min(side, _SHOWN)) // 2 for side in image.shape)
        cut[title] = image[top : top + _SHOWN, left : left + _SHOWN]
    errors = {
        label: (row["wrong_near_borders"], row["wrong_elsewhere"]) for label, row in rows.items()
    }
    save_comparison(path, cut, errors)
