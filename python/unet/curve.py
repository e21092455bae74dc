"""The record of a training: a CSV file, TensorBoard events and a picture."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from unet.program import atomic_path

CSV_NAME = "curve.csv"
PNG_NAME = "curves.png"
_FIRST = ["iteration", "seconds", "rate", "loss"]


def read_curve(path: Path) -> List[Dict[str, float]]:
    """Read the rows of a curve.csv; empty fields are left out of their row."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = []
        for row in csv.DictReader(file):
            try:
                rows.append({key: float(value) for key, value in row.items() if value and key})
            except (TypeError, ValueError):
                # The last line of a training that was killed may be cut off.
                continue
        return [row for row in rows if "iteration" in row]


class Curve:
    """Losses and scores over iterations, on disk.

    Parameters
    ----------
    folder : Path
        Gets curve.csv, curves.png and the TensorBoard events.
    start : int
        The iteration the training starts or goes on at; rows from there on are dropped.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        self._path = folder / CSV_NAME
        old = read_curve(self._path) if start and self._path.exists() else []
        self._rows = [
            row
            for row in old
            if row["iteration"] < start or ("loss" not in row and row["iteration"] <= start)
        ]
        self._before = max((row.get("seconds", 0.0) for row in self._rows), default=0.0)
        self._started = time.monotonic()
        self._board = _board(folder, start)

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _add(self, row: Dict[str, float]) -> None:
        self._rows.append(row)
        if self._board is not None:
            for key, value in row.items():
                if key not in ("iteration", "seconds") and math.isfinite(value):
                    self._board.add_scalar(key, value, int(row["iteration"]))

    def training(self, iteration: int, loss: float, rate: float) -> None:
        """Note the loss of an iteration, and its learning rate."""
        self._add(
            {"iteration": iteration, "seconds": round(self._seconds(), 3), "rate": rate, "loss": loss}
        )

    def test(self, iteration: int, scores: Dict[str, float]) -> None:
        """Note the scores of a test before an iteration."""
        self._add({"iteration": iteration, "seconds": round(self._seconds(), 3), **scores})

    def flush(self) -> None:
        """Bring the CSV file and the events up to date."""
        columns = list(_FIRST)
        for row in self._rows:
            columns.extend(key for key in row if key not in columns)
        with atomic_path(self._path) as path, open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for row in self._rows:
                writer.writerow({**row, "iteration": int(row["iteration"])})
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Write everything, and draw the curves."""
        self.flush()
        if self._board is not None:
            self._board.close()
        if self._rows:
            _draw(self._rows, self._folder)


def _board(folder: Path, start: int) -> Optional[Any]:
    try:
        from tensorboard.summary import Writer
    except ImportError:
        return None
    return Writer(str(folder / "tensorboard"), filename_suffix=f".from_{start}")


def _draw(rows: List[Dict[str, float]], folder: Path) -> None:
    try:
        from unet.report import draw_curves
    except ImportError:
        return
    draw_curves(rows, folder / PNG_NAME)
