"""Plot training logs: plot_training_log CHART_TYPE PICTURE.png LOG [LOG ...]."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from caffe.errors import CaffeError
from caffe.files.atomic import atomic_path, refuse_own_input
from caffe.programs.parse_log import Point, TrainingLog, read_training_log
from caffe.programs.run import run_program

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _test_output(word: str) -> Callable[[TrainingLog], list[Point]]:
    """Return what gets the first test output whose name has `word` in it."""

    def get(log: TrainingLog) -> list[Point]:
        names = dict.fromkeys(name for row in log.test for name in list(row)[3:])
        name = next((name for name in names if word in name.lower()), None)
        return [
            Point(row["NumIters"], row["Seconds"], row[name]) for row in log.test if name in row
        ]

    return get


class Chart(NamedTuple):
    """What is plotted, and over what."""

    value: str
    points: Callable[[TrainingLog], list[Point]]
    over: str

    @property
    def title(self) -> str:
        """The name of the chart type."""
        return f"{self.value} vs. {self.over}"


# The place in the list is the number of the chart type.
CHARTS = [
    Chart(value, points, over)
    for value, points in (
        ("Test accuracy", _test_output("acc")),
        ("Test loss", _test_output("loss")),
        ("Train learning rate", lambda log: log.rates),
        ("Train loss", lambda log: log.losses),
    )
    for over in ("Iters", "Seconds")
]


def make_figure(chart_type: int, log_files: Sequence[str | os.PathLike]) -> Figure:
    """Plot one line for each log, of a type that is an index in `CHARTS`.

    Raises
    ------
    CaffeError
        If a log is none, or has nothing of what is to be plotted.
    OSError
        If a log cannot be read.
    """
    from matplotlib.figure import Figure

    chart = CHARTS[chart_type]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for path in log_files:
        log = read_training_log(path)
        points = chart.points(log)
        if not points:
            printed = ", ".join(dict.fromkeys(name for row in log.test for name in list(row)[3:]))
            raise CaffeError(
                f"{path}: has no {chart.value.lower()}; its test outputs: {printed or 'none'}"
            )
        along = [point.seconds if chart.over == "Seconds" else point.iteration for point in points]
        axes.plot(along, [point.value for point in points], marker=".", label=Path(path).name)
    axes.set_title(chart.title)
    axes.set_xlabel(chart.over)
    axes.set_ylabel(chart.value)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    kinds = "\n".join(f"  {number}: {chart.title}" for number, chart in enumerate(CHARTS))
    parser = argparse.ArgumentParser(
        prog="plot_training_log",
        description="Plot the logs of trainings.",
        epilog=f"chart types:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("chart_type", type=int, choices=range(len(CHARTS)))
    parser.add_argument("path_to_png", help="the picture")
    parser.add_argument("log_files", nargs="+", metavar="log", help="what a training logged")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Plot logs."""
    options = parse_args(argv)
    refuse_own_input(options.path_to_png, *options.log_files)
    figure = make_figure(options.chart_type, options.log_files)
    with atomic_path(options.path_to_png) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


run = functools.partial(run_program, main)


if __name__ == "__main__":
    run()
