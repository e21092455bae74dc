"""The flags of the `caffe` program, read as gflags reads them."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH = 79
_INT32 = range(-(2**31), 2**31)
_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")

Value = str | int | bool


@dataclass(frozen=True)
class Flag:
    """A flag: its name, what it has if it is not given, and what it does."""

    name: str
    default: Value
    help: str

    @property
    def kind(self) -> str:
        """The name of its type."""
        return {str: "string", int: "int32", bool: "bool"}[type(self.default)]

    def read(self, text: str) -> Value | None:
        """Return the value that a text stands for, or None."""
        if isinstance(self.default, bool):
            word = text.lower()
            return word in _TRUE if word in _TRUE + _FALSE else None
        if isinstance(self.default, str):
            return text
        digits = re.fullmatch(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|\d+)", text)
        if digits is None:
            return None
        sign, body = digits.groups()
        number = int(sign + body, 16 if body[:2].lower() == "0x" else 10)
        return number if number in _INT32 else None

    def usage(self, value: Value) -> str:
        """Return the lines that explain it, `value` being the present one."""
        default, current = (
            f'"{v}"' if isinstance(v, str) else str(v).lower() for v in (self.default, value)
        )
        # What belongs together stays on one line.
        parts = [f"type: {self.kind}", f"default: {default}"]
        parts += [f"currently: {current}"] if value != self.default else []
        tail = " ".join(part.replace(" ", "\0") for part in parts)
        return textwrap.fill(
            f"-{self.name} ({self.help}) {tail}",
            _WIDTH,
            initial_indent=" " * 4,
            subsequent_indent=" " * 6,
            break_on_hyphens=False,
            break_long_words=False,
        ).replace("\0", " ")


CAFFE = (
    Flag(
        "gpu",
        "",
        "Optional; run in GPU mode on given device IDs separated by ','.Use '-gpu all' to run on "
        "all available GPUs. The effective training batch size is multiplied by the number of "
        "devices.",
    ),
    Flag("iterations", 50, "The number of iterations to run."),
    Flag("level", 0, "Optional; network level."),
    Flag("model", "", "The model definition protocol buffer text file."),
    Flag("phase", "", "Optional; network phase (TRAIN or TEST). Only used for 'time'."),
    Flag(
        "sighup_effect",
        "snapshot",
        "Optional; action to take when a SIGHUP signal is received: snapshot, stop or none.",
    ),
    Flag(
        "sigint_effect",
        "stop",
        "Optional; action to take when a SIGINT signal is received: snapshot, stop or none.",
    ),
    Flag("snapshot", "", "Optional; the snapshot solver state to resume training."),
    Flag("solver", "", "The solver definition protocol buffer text file."),
    Flag(
        "stage",
        "",
        "Optional; network stages (not to be confused with phase), separated by ','.",
    ),
    Flag(
        "weights",
        "",
        "Optional; the pretrained weights to initialize finetuning, separated by ','. Cannot be "
        "set simultaneously with snapshot.",
    ),
)
# Where glog writes; each also as an environment variable GLOG_name.
GLOG = (
    Flag("alsologtostderr", True, "log messages go to stderr in addition to logfiles"),
    Flag("log_dir", "", "If specified, logfiles are written into this directory."),
    Flag("logtostderr", False, "log messages go to stderr instead of logfiles"),
    Flag(
        "minloglevel",
        0,
        "Messages logged at a lower level than this don't actually get logged anywhere",
    ),
    Flag(
        "stderrthreshold",
        2,
        "log messages at or above this level are copied to stderr in addition to logfiles. This "
        "flag obsoletes --alsologtostderr.",
    ),
)
REPORTING = (
    Flag("help", False, "show help on all flags [tip: all flags can have two dashes]"),
    Flag("helpshort", False, "show help on only the main module for this program"),
    Flag("version", False, "show version and build info and exit"),
)
_ALL = {flag.name: flag for flag in (*CAFFE, *GLOG, *REPORTING)}


class FlagError(Exception):
    """Flags that do not exist, or have no such values: one line for each."""


class Flags(dict[str, Value]):
    """The value of every flag, by name and as attributes."""

    __getattr__ = dict.__getitem__


def parse(words: Sequence[str]) -> tuple[Flags, list[str]]:
    """Read a command line: `-flag value`, `-flag=value`, `-bool`, `-nobool`, with one dash or two.

    Parameters
    ----------
    words : sequence of str
        Without the program's name.

    Returns
    -------
    flags : Flags
    others : list of str
        Words that are no flags; they may stand anywhere, and all after "--" are.

    Raises
    ------
    FlagError
    """
    values = Flags({flag.name: flag.default for flag in _ALL.values()})
    errors: dict[str, str] = {}
    for flag in GLOG:
        given = flag.read(os.environ.get(f"GLOG_{flag.name}", ""))
        values[flag.name] = given or flag.default
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            others += rest
            break
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        negated = name.removeprefix("no")
        if name not in _ALL and negated in _ALL and not equals:
            if not isinstance(_ALL[negated].default, bool):
                kind = _ALL[negated].kind
                errors[name] = f"boolean value ({name}) specified for {kind} command line flag"
                continue
            name, equals, text = negated, "=", "false"
        if name not in _ALL:
            errors[name] = f"unknown command line flag '{name}'"
            continue
        flag = _ALL[name]
        if not equals and isinstance(flag.default, bool):
            text = "true"
        elif not equals:
            if not rest:
                raise FlagError(
                    f"flag '{word}' is missing its argument; flag description: {flag.help}"
                )
            text = rest.pop(0)
        value = flag.read(text)
        if value is None:
            errors[name] = f"illegal value '{text}' specified for {flag.kind} flag '{name}'"
        else:
            values[name] = value
    if errors:
        raise FlagError("\n".join(errors[name] for name in sorted(errors)))
    return values, others


def usage(values: Flags, *groups: Sequence[Flag]) -> str:
    """Return how the program is used, with the flags of some groups."""
    text = (
        "caffe: command line brew\n"
        "usage: caffe <command> <args>\n\n"
        "commands:\n"
        "  train           train or finetune a model\n"
        "  test            score a model\n"
        "  device_query    show GPU diagnostic information\n"
        "  time            benchmark model execution time\n"
    )
    for group in groups:
        text += "\n  Flags:\n" + "".join(f"{flag.usage(values[flag.name])}\n" for flag in group)
    return text
