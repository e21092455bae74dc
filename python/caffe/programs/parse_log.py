"""Turn a training's log into tables: parse_log LOG FOLDER writes LOG.train and LOG.test there.

The log may be genuine Caffe's or this engine's.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import functools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from caffe.errors import CaffeError
from caffe.files.atomic import atomic_path, refuse_own_input
from caffe.programs.run import run_program

# The prefix of glog, whose older releases leave out the year, and the text.
_LINE = re.compile(r"[IWEF](?:\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d\.\d+) +\d+ [^\]]*\] (.*)")
_VALUE = r"([-+]?(?:[\d.][\d.eE+-]*|nan|inf))"
_ITERATION = re.compile(r"Iteration (\d+)")
_LOSS = re.compile(rf"Iteration \d+.*, loss = {_VALUE}")
_RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)")
_OUTPUT = re.compile(rf"(Train|Test) net output #(\d+): (\S+) = {_VALUE}")

Row = dict[str, float]


class Point(NamedTuple):
    """A value at an iteration."""

    iteration: float
    seconds: float
    value: float


@dataclass
class TrainingLog:
    """What a log tells, in its order; a log of several runs has iterations twice.

    Attributes
    ----------
    train, test : list of dict
        One row for each time the outputs were printed: "NumIters", "Seconds", "LearningRate", then
        the outputs by name. The rate is the last that was printed before them, that of the row
        before, as in the tables of Caffe's own script; the first row has the second one's.
    losses : list of Point
        The training loss, averaged over the solver's average_loss iterations.
    rates : list of Point
        The learning rate.
    """

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    losses: list[Point] = field(default_factory=list)
    rates: list[Point] = field(default_factory=list)


def _lines(path: str) -> Iterator[tuple[int, datetime.date, float, str]]:
    """Yield (years since the first line, date in 2000, seconds since midnight, text)."""
    years = month = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            found = _LINE.match(line)
            if not found:
                continue
            try:
                date = datetime.date(2000, int(found[1]), int(found[2]))
            except ValueError:
                continue
            years += date.month < month
            month = date.month
            time = 3600 * int(found[3]) + 60 * int(found[4]) + float(found[5])
            yield years, date, time, found[6]


def _seconds(path: str) -> Iterator[tuple[float, str]]:
    """Yield (seconds since the line with "Solving", text); negative before it."""
    lines = list(_lines(path))
    # A year of 366 days where the log says so; any other is taken for an ordinary one.
    leap = next((years for years, date, _, _ in lines if (date.month, date.day) == (2, 29)), -1)
    first_day = datetime.date(2000 - leap, 1, 1)

    def absolute(years: int, date: datetime.date, time: float) -> float:
        month = datetime.date(first_day.year + years, date.month, 1)
        return 86400.0 * ((month - first_day).days + date.day) + time

    start = next((absolute(*when) for *when, text in lines if "Solving" in text), None)
    if start is None:
        raise CaffeError(f"{path}: has no line that says 'Solving': is it the log of a training?")
    for *when, text in lines:
        yield round(absolute(*when) - start, 6), text


def read_training_log(path: str | os.PathLike) -> TrainingLog:
    """Read a log.

    Parameters
    ----------
    path : path
        What a training wrote to standard error. Logs of a training that was resumed may follow each
        other in one file.

    Returns
    -------
    TrainingLog
        Seconds count from the first line that says "Solving".

    Raises
    ------
    CaffeError
        If there is no such line in it.
    OSError
        If it cannot be read.
    """
    log = TrainingLog()
    iteration, rate = None, math.nan
    rows = {"Train": log.train, "Test": log.test}
    current: dict[str, Row] = {}
    for seconds, text in _seconds(os.fspath(path)):
        if "Solving" in text:
            # A resumed training begins at an iteration that may just have been printed.
            current = {}
        if found := _ITERATION.search(text):
            iteration = float(found[1])
            current = {kind: row for kind, row in current.items() if row["NumIters"] == iteration}
        if iteration is None:
            continue
        if found := _RATE.search(text):
            rate = float(found[1])
            log.rates.append(Point(iteration, seconds, rate))
        if found := _LOSS.search(text):
            log.losses.append(Point(iteration, seconds, float(found[1])))
        if found := _OUTPUT.search(text):
            kind = found[1]
            if kind not in current:
                current[kind] = {"NumIters": iteration, "Seconds": seconds, "LearningRate": rate}
                rows[kind].append(current[kind])
            current[kind][found[3]] = float(found[4])
    for table in (log.train, log.test):
        # The rate of an iteration is printed after its outputs: none before the first ones.
        if len(table) > 1:
            table[0]["LearningRate"] = table[1]["LearningRate"]
    return log


def parse_log(path_to_log: str | os.PathLike) -> tuple[list[Row], list[Row]]:
    """Read the outputs of a training from its log: the rows of the tables.

    They are those of `TrainingLog`.

    Raises
    ------
    CaffeError
        If the file is not the log of a training.
    OSError
        If it cannot be read.
    """
    log = read_training_log(path_to_log)
    return log.train, log.test


def save_csv_files(
    logfile_path: str | os.PathLike,
    output_dir: str | os.PathLike,
    train_dict_list: Sequence[Row],
    test_dict_list: Sequence[Row],
    delimiter: str = ",",
    verbose: bool = False,
) -> None:
    """Write the rows of `parse_log` to LOG.train and LOG.test in `output_dir`."""
    train, test = tables_of(logfile_path, output_dir)
    write_csv(train, train_dict_list, delimiter, verbose)
    write_csv(test, test_dict_list, delimiter, verbose)


def tables_of(logfile_path: str | os.PathLike, output_dir: str | os.PathLike) -> tuple[Path, Path]:
    """Return the paths of LOG.train and LOG.test in `output_dir`."""
    name = Path(logfile_path).name
    return Path(output_dir, f"{name}.train"), Path(output_dir, f"{name}.test")


def write_csv(
    output_filename: str | os.PathLike,
    dict_list: Sequence[Row],
    delimiter: str,
    verbose: bool = False,
) -> None:
    """Write rows as a table with one line of names; no file for no rows.

    What a row lacks and another has is an empty cell.
    """
    if not dict_list:
        if verbose:
            print(f"Not writing {output_filename}; no lines to write")
        return
    names = list(dict.fromkeys(name for row in dict_list for name in row))
    with (
        atomic_path(output_filename) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(dict_list)
    if verbose:
        print(f"Wrote {output_filename}")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="parse_log",
        description="Turn a training's log into two tables, LOG.train and LOG.test.",
    )
    parser.add_argument("logfile_path", help="the log")
    parser.add_argument("output_dir", help="the folder to write the tables to")
    parser.add_argument("--verbose", action="store_true", help="say what is written")
    parser.add_argument("--delimiter", default=",", help="between columns (default: a comma)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Turn a log into tables."""
    options = parse_args(argv)
    if len(options.delimiter) != 1:
        raise CaffeError(f"--delimiter must be one character, not {options.delimiter!r}")
    for output in tables_of(options.logfile_path, options.output_dir):
        refuse_own_input(output, options.logfile_path)
    train, test = parse_log(options.logfile_path)
    save_csv_files(
        options.logfile_path, options.output_dir, train, test, options.delimiter, options.verbose
    )


run = functools.partial(run_program, main)


if __name__ == "__main__":
    run()
