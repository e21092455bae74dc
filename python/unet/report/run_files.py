"""The files of a run, as far as they are there: choices, curves, scores, held-out slices.

What is there and cannot be read is told in the report and stops no training.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, TypeVar

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.score_file import read_json
from unet.training.history import CSV_NAME, read_history

CHOICES, SCORES, SEGMENT, HELD_OUT = "choices.json", "scores.json", "segment.json", "held-out.h5"
LABELS, WEIGHTS = "labels.png", "weights.caffemodel"
#: In `truth`: nobody has said what is there.
UNKNOWN = -1
# More held-out slices would make the report too large to send.
_MOST_SLICES = 8
#: Characters of a file's name that a button has room for.
SHORT = 28
_DATASETS = ("raw", "truth", "result", "slices")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes
    ----------
    number : int
        1, 2, ...
    planned : Mapping
        Its entry of the choices: iterations, base_lr, weighting.
    rows : list of dict
        Of its curve.csv, as `unet.training.history.read_history` gives them.
    """

    number: int
    planned: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]

    @property
    def iterations(self) -> int:
        """Iterations that are planned; 0: it is not known how many."""
        return int(number_of(self.planned.get("iterations")) or 0)

    @property
    def done(self) -> int:
        """Iterations so far."""
        return int(max((row["iteration"] + ("loss" in row) for row in self.rows), default=0))

    @property
    def seconds(self) -> float:
        """Time of training so far."""
        return max((row["seconds"] for row in self.rows), default=0.0)


@dataclass(frozen=True)
class HeldOutSlice:
    """A slice, or a part of one, that the network did not learn from.

    Attributes
    ----------
    place : int
        Which of those in held-out.h5.
    name : str
        What people call it.
    raw : ndarray, shape (channels, height, width)
        The intensities as they were given.
    truth, result : int32 ndarray, shape (height, width)
        Membranes: 1 inside cells, 0 membrane; cells: their numbers, 0 is background; classes: their
        numbers. In the truth `UNKNOWN` is not annotated.
    corner : tuple of int
        Row and column of the slice where it begins.
    """

    place: int
    name: str
    raw: np.ndarray
    truth: np.ndarray
    result: np.ndarray
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Run:
    """What is there of a run; what is not is empty.

    Attributes
    ----------
    folder : pathlib.Path
    choices, scores, segment : Mapping
        What choices.json, scores.json and segment.json hold.
    stages : tuple of Stage
    has_labels, has_weights, has_held_out : bool
    damaged : tuple of str
        A sentence on each file that cannot be read.
    """

    folder: Path
    choices: Mapping[str, Any]
    scores: Mapping[str, Any]
    segment: Mapping[str, Any]
    stages: tuple[Stage, ...]
    has_labels: bool
    has_weights: bool
    has_held_out: bool
    damaged: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What the network tells apart: membranes, cells or classes."""
        return str(self.choices.get("kind") or self.scores.get("kind") or "classes")

    def many_held_out(self) -> int:
        """Return how many slices are in held-out.h5, also those that `held_out` leaves out."""
        with h5py.File(os.fspath(self.folder / HELD_OUT), "r") as file:
            return len(file["slices"])

    def held_out(self) -> Iterator[HeldOutSlice]:
        """Read the slices that are shown: all, or those on which the result is worst, and others.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        path = self.folder / HELD_OUT
        try:
            with h5py.File(os.fspath(path), "r") as file:
                _check(path, file)
                numbers = file["slices"][()]
                parts = _parts(numbers, self.choices.get("split"))
                names = _names(numbers, parts, self.choices.get("split"))
                for place in _shown(file, self.kind):
                    raw = file["raw"][place]
                    yield HeldOutSlice(
                        place,
                        names[place],
                        raw if raw.ndim == 3 else raw[np.newaxis],
                        file["truth"][place].astype(np.int32),
                        file["result"][place].astype(np.int32),
                        _corner(parts[place]),
                    )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); remove it") from None


def read_run(folder: Path) -> Run:
    """Read what there is of a run in a folder."""
    damaged: list[str] = []

    def read(reader: Callable[[Path], _T], path: Path, empty: _T) -> _T:
        if not path.exists():
            return empty
        try:
            return reader(path)
        except InputError as error:
            damaged.append(str(error).replace(f"{folder}{os.sep}", ""))
            return empty

    choices = read(_read_object, folder / CHOICES, {})
    planned = _list(_dict(choices.get("solver")).get("stages"))
    stages = []
    number = 1
    while number <= len(planned) or (folder / f"training-{number}").is_dir():
        rows = read(read_history, folder / f"training-{number}" / CSV_NAME, [])
        known = _dict(planned[number - 1]) if number <= len(planned) else {}
        stages.append(Stage(number, known, rows))
        number += 1
    return Run(
        folder,
        choices,
        read(_read_object, folder / SCORES, {}),
        read(_read_object, folder / SEGMENT, {}),
        tuple(stages),
        *((folder / name).is_file() for name in (LABELS, WEIGHTS, HELD_OUT)),
        tuple(damaged),
    )


def number_of(value: Any) -> float | None:
    """Return what JSON has for a number; None of all that is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _read_object(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no JSON object")
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check(path: Path, file: h5py.File) -> None:
    missing = [name for name in _DATASETS if name not in file]
    if missing:
        raise InputError(f"{path}: has no dataset {missing[0]}; remove it")
    raw, truth, result, slices = (file[name].shape for name in _DATASETS)
    fits = len(truth) == 3 and truth == result and slices == truth[:1]
    if not fits or len(raw) not in (3, 4) or (raw[0], *raw[-2:]) != truth:
        raise InputError(
            f"{path}: raw {raw}, truth {truth}, result {result} and slices {slices} do not belong"
            " together; remove it"
        )


def _parts(numbers: np.ndarray, split: Any) -> list[Any]:
    """Return what was held out: numbers of slices, and a dict of each part of one."""
    parts = _list(_dict(split).get("held_out"))
    return parts if len(parts) == len(numbers) else numbers.tolist()


def _corner(part: Any) -> tuple[int, int]:
    if not isinstance(part, dict):
        return 0, 0
    row, column = (int((part.get(key) or (0, 0))[0]) for key in ("rows", "columns"))
    return row, column


def _names(numbers: np.ndarray, parts: Sequence[Any], split: Any) -> list[str]:
    """Name slices by their numbers, and parts of one slice by their place in it."""
    names = []
    for number, part in zip(numbers, parts):
        name = f"{unit_of(split)} {name_of_slice(int(number), split, SHORT)}"
        names.append(f"{name}, {part_of_slice(part)}" if isinstance(part, dict) else name)
    return names


def name_of_slice(number: Any, split: Any, most: int | None = None) -> str:
    """Say which slice is meant: its number, and its file if the split of choices.json knows it.

    Of names with more than `most` characters the middle is left out.

    Examples
    --------
    >>> split = {"files": {"3": "img_017.png", "5": "experiment_19.tif"}}
    >>> name_of_slice(3, split), name_of_slice(4, split), name_of_slice(5, split, 12)
    ('3 (img_017.png)', '4', '5 (exp…t_19.tif)')
    """
    file = str(_dict(_dict(split).get("files")).get(str(number)) or "")
    if most is not None and len(file) > most:
        # Numbers stand at the end.
        head = (most - 1) // 3
        file = f"{file[:head]}…{file[head + 1 - most :]}"
    return f"{number} ({file})" if file else str(number)


def unit_of(split: Any) -> str:
    """Return what the split of choices.json divides: slices, or the frames of a sequence.

    >>> unit_of({"unit": "frame"}), unit_of({})
    ('frame', 'slice')
    """
    return str(_dict(split).get("unit") or "slice")


def part_of_slice(part: Mapping[str, Any]) -> str:
    """Say which part of a slice is meant by `rows` and `columns`, each [first, stop].

    Examples
    --------
    >>> part_of_slice({"z": 0, "rows": [0, 256], "columns": [256, 512]})
    'rows 0–255, columns 256–511'
    """
    words = []
    for key in ("rows", "columns"):
        first, stop = part.get(key) or (0, 0)
        words.append(f"{key} {first}–{stop - 1}")
    return ", ".join(words)


def _shown(file: h5py.File, kind: str) -> list[int]:
    """Choose slices: the two worst by their share of wrong pixels, the others spread evenly."""
    count = len(file["slices"])
    if count <= _MOST_SLICES:
        return list(range(count))
    shares = []
    for place in range(count):
        truth, result = file["truth"][place], file["result"][place]
        wrong = (truth > 0) != (result > 0) if kind == "cells" else truth != result
        shares.append(float(np.mean(wrong[truth != UNKNOWN])) if (truth != UNKNOWN).any() else 0.0)
    chosen = set(np.argsort(shares, kind="stable")[-2:].tolist())
    others = [place for place in range(count) if place not in chosen]
    spread = np.linspace(0, len(others) - 1, _MOST_SLICES - 2).round().astype(int)
    return sorted(chosen | {others[k] for k in spread})
