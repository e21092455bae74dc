"""The command `unet`: the program that its first word names, and what it says of all of them."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from unet.command.running import EXIT_MISTAKE, run_program
from unet.errors import InputError

# What most people come for, in the order in which they need it.
USUAL = """\
  unet segment STACK --weights isbi2012_slim -o probabilities.tif --tta dihedral
  unet prepare STACK LABELS -o my.h5 --preview my.png
  unet nets unet_slim --data my.h5 --train-slices 0:20 --test-slices 20:30 -o runs/mine
  unet train runs/mine/solver.prototxt --resume
  unet score LABELS probabilities.tif --json scores.json"""

# Of each program what it does, and the module whose `main` does it.
PROGRAMS = {
    "prepare": ("a training set: a stack, its labels, their weight map", "unet.command.prepare"),
    "nets": ("prototxt of a network and its solver for a training set", "unet.command.nets"),
    "train": ("run a solver, with curves, snapshots and resume", "unet.command.train"),
    "segment": ("probabilities, labels or cells of a stack", "unet.command.segment"),
    "track": ("cells followed through a sequence", "unet.command.track"),
    "score": ("ISBI 2012's and the cell tracking challenge's", "unet.command.score"),
    "export": ("ONNX, or a package of bioimage.io, for other tools", "unet.command.export"),
    "fetch": ("data sets, and the authors' release of 2015", "unet.command.fetch"),
}


def help_text() -> str:
    """Return what `unet --help` prints."""
    programs = "\n".join(f"  {name:9s}{does}" for name, (does, _) in PROGRAMS.items())
    return f"{USUAL}\n\nPrograms; unet PROGRAM --help tells all of one:\n\n{programs}"


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the program that the first argument names with the others; return its exit status."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print(help_text())
        return None if name else EXIT_MISTAKE
    if name not in PROGRAMS:
        alike = difflib.get_close_matches(name, PROGRAMS, 1)
        remedy = f"did you mean {alike[0]}?" if alike else f"name one of {', '.join(PROGRAMS)}"
        raise InputError(f"there is no program {name[:40]!r}; {remedy}")
    # Usage and errors name it as it was called.
    sys.argv[0] = f"unet {name}"
    return importlib.import_module(PROGRAMS[name][1]).main(rest)


def run() -> None:
    """Run the command line."""
    run_program(main)
