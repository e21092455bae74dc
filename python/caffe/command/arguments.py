"""The flags of the `caffe` program, with one dash or two, and the net and devices they name."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from caffe import common
from caffe.errors import CaffeError
from caffe.net.net import Net

_INT32 = range(-(2**31), 2**31)
_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")
_COMMANDS = """commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time"""


class FlagError(Exception):
    """A flag that does not exist, or has no such value."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlagError(message)


def _whole(text: str) -> int:
    with contextlib.suppress(ValueError):
        value = int(text, 16 if "x" in text.lower() else 10)
        if value in _INT32:
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 32 bits")


def _truth(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() in _TRUE


def _from_environment(name: str, kind: Callable[[str], Any], default: Any) -> Any:
    """Return what the variable GLOG_NAME says of a flag of glog's."""
    try:
        return kind(os.environ.get(f"GLOG_{name}", "")) or default
    except argparse.ArgumentTypeError:
        return default


def _make_parser() -> _Parser:
    parser = _Parser(
        prog="caffe",
        usage="caffe <command> <args>",
        description=f"caffe: command line brew\n\n{_COMMANDS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )

    def add(name: str, default: str | int, what: str) -> None:
        kind = _whole if isinstance(default, int) else str
        metavar = "NUMBER" if isinstance(default, int) else "TEXT"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=what)

    add("gpu", "", "GPUs to run on, commas between their numbers, or all; by default the CPU")
    add("iterations", 50, "how many iterations test and time run")
    add("level", 0, "the net's level")
    add("model", "", "the net's prototxt")
    add("phase", "", "the net's phase, TRAIN or TEST, for time")
    add("sighup_effect", "snapshot", "what SIGHUP does to train: snapshot, stop or none")
    add("sigint_effect", "stop", "what SIGINT does to train: snapshot, stop or none")
    add("snapshot", "", "the solver state to go on from")
    add("solver", "", "the solver's prototxt")
    add("stage", "", "the net's stages, commas between them")
    add("weights", "", "parameters to begin with, commas between files; not with a snapshot")
    log = parser.add_argument_group("the log, also as environment variables GLOG_NAME")
    for name, kind, default, what in (
        ("alsologtostderr", _truth, True, "all lines go to standard error, too"),
        ("log_dir", str, "", "the folder where files of all lines are written"),
        ("logtostderr", _truth, False, "no files are written"),
        ("minloglevel", _whole, 0, "the lowest level that is logged: 0 INFO, 1 WARNING, 2 ERROR"),
        ("stderrthreshold", _whole, 2, "the lowest level that goes to standard error at any rate"),
    ):
        default = _from_environment(name, kind, default)
        log.add_argument(f"--{name}", type=kind, default=default, metavar="VALUE", help=what)
    for name, what in (("help", "show this"), ("helpshort", "show this"), ("version", "show it")):
        parser.add_argument(f"--{name}", type=_truth, default=False, metavar="", help=what)
    return parser


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read a command line: `-flag value`, `-flag=value`, `-bool`, `-nobool`, with one dash or two.

    Returns the value of every flag, in `given` the names of those on the command line, and the
    words that are not flags: they may stand anywhere, and all after "--" are. What cannot be read
    is a `FlagError`.
    """
    parser = _make_parser()
    end = words.index("--") if "--" in words else len(words)
    doubled = [_doubled(word, parser) for word in words[:end]]
    flags, others = parser.parse_known_args(doubled)
    flags.given = {word[2:].partition("=")[0] for word in doubled if word.startswith("--")}
    unknown = [word for word in others if word.startswith("--")]
    if unknown:
        raise FlagError(f"unknown command line flag '{unknown[0].lstrip('-').partition('=')[0]}'")
    return flags, [*others, *words[end + 1 :]]


def _doubled(word: str, parser: argparse.ArgumentParser) -> str:
    """Return a flag with two dashes, and one that is true or false with its value."""
    found = re.fullmatch(r"--?([a-z]\w*)(=.*)?", word, re.DOTALL)
    if found is None:
        return word
    name, value = found[1], found[2] or ""
    if not value:
        for stem, value in ((name, "=true"), (name.removeprefix("no"), "=false")):
            if isinstance(parser.get_default(stem), bool):
                return f"--{stem}{value}"
        value = ""
    return f"--{name}{value}"


def usage() -> str:
    """Return how the program is used."""
    return _make_parser().format_help()


def required(flags: argparse.Namespace, name: str, what: str) -> str:
    """Return a flag's value; a CaffeError if it is not given."""
    value = getattr(flags, name)
    if not value:
        raise CaffeError(f"need {what}: -{name} FILE")
    return value


def iterations(flags: argparse.Namespace) -> int:
    """Return the number of iterations to run; a CaffeError if it is not positive."""
    if flags.iterations < 1:
        raise CaffeError(f"-iterations {flags.iterations}: give a positive number")
    return flags.iterations


def stages(flags: argparse.Namespace) -> list[str]:
    """Return the stages of the net's state."""
    return flags.stage.split(",")


def net(flags: argparse.Namespace, phase: int) -> Net:
    """Make the net that -model, -level and -stage name."""
    return Net(flags.model, phase, level=flags.level, stages=stages(flags))


def gpus(text: str) -> list[int]:
    """Return the GPUs that -gpu names; a CaffeError if they are not numbers, or there are none."""
    if not text:
        return []
    if text == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise CaffeError("-gpu all: there is no GPU, PyTorch finds no CUDA device here")
        return list(range(count))
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise CaffeError(f"-gpu {text}: give numbers of GPUs, commas between them, or all")
    return [int(number) for number in text.split(",")]


def compute_on(gpu: int | None) -> None:
    """Compute on a GPU, or the CPU; a CaffeError if there is no such GPU."""
    if gpu is None:
        common.set_mode_cpu()
    else:
        common.set_device(gpu)
        common.set_mode_gpu()
