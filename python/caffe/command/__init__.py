"""The `caffe` program: train, test, time, device_query; with genuine Caffe's flags and log."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from caffe.command import arguments
from caffe.command.device_query import device_query
from caffe.command.test import test
from caffe.command.timing import time
from caffe.command.train import train
from caffe.errors import CaffeError
from caffe.log import INFO, configure_log
from caffe.programs.run import run_program, terminal_is_the_output

COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "device_query": device_query,
    "test": test,
    "time": time,
    "train": train,
}
# The exit statuses of gflags.
EXIT_FLAGS = EXIT_HELP = 1
VERSION = "1.0.0"


def run(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    try:
        flags, words = arguments.parse(sys.argv[1:] if argv is None else argv)
    except arguments.FlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_FLAGS
    if flags.version:
        print(f"caffe version {VERSION}")
        return 0
    if flags.help or flags.helpshort or len(words) != 1:
        print(arguments.usage(), end="")
        return EXIT_HELP if flags.help or flags.helpshort else 0
    command = COMMANDS.get(words[0])
    if command is None:
        raise CaffeError(f"unknown action '{words[0]}'; there are {', '.join(COMMANDS)}")
    # In the environment for the processes that training may start, too.
    os.environ["GLOG_minloglevel"] = str(flags.minloglevel)  # noqa: SIM112
    configure_log(
        None,
        INFO if flags.alsologtostderr or flags.logtostderr else flags.stderrthreshold,
        "" if flags.logtostderr else flags.log_dir,
    )
    if command is not train and not flags.log_dir:
        terminal_is_the_output()
    command(flags)
    return 0


def main() -> None:
    """Run the program, and end the process."""
    run_program(run)
