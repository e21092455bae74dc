"""Turn a training's log into tables: parse_log LOG FOLDER writes LOG.train and LOG.test there."""

from __future__ import annotations

import argparse
import csv
import functools
import os
from collections.abc import Sequence
from pathlib import Path

from caffe.errors import CaffeError
from caffe.files.atomic import atomic_path, refuse_own_input
from caffe.programs.log_parser import Row, read_training_log
from caffe.programs.run import run_program


def parse_log(path_to_log: str | os.PathLike) -> tuple[list[Row], list[Row]]:
    """Read the outputs of a training from its log: the rows of the tables.

    They are those of `caffe.programs.log_parser.TrainingLog`.

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
