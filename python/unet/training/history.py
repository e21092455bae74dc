"""The record of a training: a CSV file, TensorBoard events and an image."""

from __future__ import annotations

import csv
import math
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.atomic import atomic_path, sweep, writing
from unet.report.plots import draw_curves

CSV_NAME = "curve.csv"
PNG_NAME = "curves.png"
_FIRST = ["iteration", "seconds", "rate", "loss"]


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows of a curve.csv: column name -> value, without empty fields.

    Rows of a training iteration have `loss` and `rate`, those of a test `test_loss` and the other
    scores; both have `iteration` (parameter updates before it) and `seconds` (of training so far).
    An InputError names the line that is none.
    """
    rows = []
    with open(str(path), newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.DictReader(file)
        for row in lines:
            try:
                values = {key: float(value) for key, value in row.items() if value}
            except (TypeError, ValueError):
                values = {}
            if not {"iteration", "seconds"} <= set(values):
                raise InputError(
                    f"{path}: line {lines.line_num} is no row of a curve; move the file away"
                )
            rows.append(values)
    return rows


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write what `read_history` reads."""
    columns = list(dict.fromkeys([*_FIRST, *(key for row in rows for key in row)]))
    with atomic_path(path) as temporary, open(str(temporary), "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "iteration": int(row["iteration"])} for row in rows)


class History:
    """Losses and scores over iterations: curve.csv, curves.png and tensorboard/ in a folder.

    Rows of an earlier run from the iteration `start` on are dropped, for they are made again.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        self._path = folder / CSV_NAME
        # Also where none of them is written this time.
        sweep(folder, lambda name: name in (CSV_NAME, PNG_NAME))
        old = read_history(self._path) if start and self._path.exists() else []
        self._rows = [row for row in old if row["iteration"] < start]
        self._before = max((row["seconds"] for row in self._rows), default=0.0)
        self._started = time.monotonic()
        self._board = _Board.open(folder / "tensorboard", start)
        self._can_draw = True

    def training(self, iteration: int, loss: float, rate: float) -> None:
        """Note the loss of an iteration, and its learning rate."""
        self._add(iteration, {"rate": rate, "loss": loss})

    def test(self, iteration: int, scores: dict[str, float]) -> None:
        """Note the scores of a test before an iteration."""
        self._add(iteration, scores)

    def _add(self, iteration: int, values: dict[str, float]) -> None:
        seconds = self._before + time.monotonic() - self._started
        self._rows.append({"iteration": iteration, "seconds": round(seconds, 3), **values})
        if self._board is not None:
            self._board.add(iteration, values)

    def done(self) -> set[int]:
        """Return after which iterations of this run, as far as it is recorded, there are losses."""
        return {int(row["iteration"]) + 1 for row in self._rows if "loss" in row}

    def flush(self) -> None:
        """Bring the CSV file and the events up to date."""
        write_history(self._path, self._rows)
        if self._board is not None:
            self._board.flush()

    def draw(self) -> None:
        """Write everything, and draw the curves."""
        self.flush()
        if not self._rows or not self._can_draw:
            return
        try:
            draw_curves(self._rows, self._folder / PNG_NAME)
        except ImportError as error:
            self._can_draw = False
            print(f"no {PNG_NAME}: {error}; pip install matplotlib", file=sys.stderr)

    def close(self) -> None:
        """Write and draw everything, and end the events."""
        self.draw()
        if self._board is not None:
            self._board.close()


class _Board:
    """TensorBoard's events."""

    def __init__(self, folder: Path, start: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2, summary_pb2
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / f"events.out.tfevents.{name}"
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            # Not TensorBoard's own writer: its thread ends with a traceback when the disk is full.
            self._records = RecordWriter(open(self._path, "ab"))  # noqa: SIM115 - closed by close
        self._add(0, file_version="brain.Event:2")
        # Lets TensorBoard drop what a run that was killed had noted beyond its last snapshot.
        self._add(start, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    @classmethod
    def open(cls, folder: Path, start: int) -> _Board | None:
        try:
            return cls(folder, start)
        except ImportError as error:
            print(f"no TensorBoard events: {error}; pip install tensorboard", file=sys.stderr)
            return None

    def _add(self, iteration: int, **what: Any) -> None:
        event = self._event.Event(wall_time=time.time(), step=iteration, **what)
        with writing(self._path):
            self._records.write(event.SerializeToString())

    def add(self, iteration: int, values: dict[str, float]) -> None:
        summary = self._summary.Summary()
        for name, value in values.items():
            if math.isfinite(value):
                # "test_loss" is shown in the group "test".
                tag = name.replace("_", "/", 1) if name.startswith("test") else f"train/{name}"
                summary.value.add(tag=tag, simple_value=value)
        self._add(iteration, summary=summary)

    def flush(self) -> None:
        with writing(self._path):
            self._records.flush()

    def close(self) -> None:
        with writing(self._path):
            self._records.close()
