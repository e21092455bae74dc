"""Steps of a pipeline that are looked at and not run."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@functools.cache
def options_of(program: tuple[str, ...]) -> set[str]:
    """Return the options that a program of the repository has."""
    shown = subprocess.run(
        [sys.executable, *program, "--help"], capture_output=True, text=True, cwd=REPOSITORY
    )
    return set(re.findall(r"(?<![\w-])-{1,2}[a-z][\w-]*", shown.stdout))


def program_of(command: list[str]) -> tuple[str, ...]:
    """Return the program that a step runs, a file or -m and a module."""
    return tuple(command[: 2 if command[0] == "-m" else 1])


def unknown_options(command: list[str]) -> set[str]:
    """Return the options of a step that its program does not have."""
    program = program_of(command)
    given = {part for part in command[len(program) :] if re.match("--?[a-z]", part)}
    return given - options_of(program)
