"""Train a network: from a stack and its labels to a model folder, or by any solver prototxt.

    unet train STACK LABELS -o runs/mine

reads the labels, holds slices out, chooses network and solver by slices, device and time, trains,
scores what was held out, and leaves a folder that `unet segment STACK --model runs/mine` opens.
STACK alone may be a sequence of the cell tracking challenge, DATASET/02.

    unet train SOLVER.prototxt

runs a solver as it is, with progress, curves, snapshots and resume.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from unet.command.label_options import add_label_options, parse_label_options
from unet.command.options import add_device, real, whole
from unet.errors import InputError
from unet.experiment.options import FEWEST_MAPS, KINDS, MOST_MAPS, SOLVERS, flag_of
from unet.experiment.train import is_solver, train
from unet.machine.engine import PRECISIONS
from unet.network.geometry import FEWEST_LEVELS, MOST_LEVELS


def main(argv: Sequence[str] | None = None) -> None:
    """Train a network."""
    parser = make_parser()
    given = vars(parser.parse_args(argv))
    source, labels = given.pop("source"), given.pop("labels")
    if labels is None and is_solver(source):
        changed = [name for name, value in given.items() if value != parser.get_default(name)]
        print(f"trained: {_by_solver(source, given, changed)}")
        return
    print(_on_stack(source, labels, given, argv))


def _by_solver(solver: str, given: dict[str, Any], changed: list[str]) -> str:
    own = ("output", "weights", "iterations", "rate", "seconds", "average")
    own += ("overwrite", "device", "precision")
    strange = sorted({*changed} - {*own, "resume"})
    if strange:
        raise InputError(f"{flag_of(strange[0])} is for STACK LABELS: the solver {solver} says all")
    resume = given["resume"]
    options = {name: given[name] for name in own if given[name] is not None}
    # Without STATE the newest.
    return train(solver, resume=resume if resume else resume is not None, **options)


def _on_stack(
    stack: str, labels: str | None, given: dict[str, Any], argv: Sequence[str] | None
) -> object:
    for name in ("weights", "resume", "seconds"):
        if given.pop(name) is not None:
            raise InputError(f"--{name} is for a solver prototxt, and {stack} is none")
    output = given.pop("output")
    if output is None:
        raise InputError("-o is missing: name the model folder to make")
    parse_label_options(given)
    options = {name: value for name, value in given.items() if value is not None}
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["unet", "train", *words])
    return train(stack, labels, output, command=command, **options)


def held_out(text: str) -> list[int]:
    """Return the slices that "2,7,12", "20:30" or "none" name.

    >>> held_out("2,7"), held_out("20:23"), held_out("none")
    ([2, 7], [20, 21, 22], [])
    """
    if text == "none":
        return []
    if ":" not in text:
        return [whole(0)(one) for one in text.split(",")]
    first, stop = (whole(0)(one) for one in text.split(":", 1))
    if first >= stop:
        raise argparse.ArgumentTypeError(f"{text!r} holds no slice")
    return list(range(first, stop))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="unet train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="STACK|SOLVER", help="pictures; or a solver prototxt")
    add("labels", metavar="LABELS", nargs="?", help="of the pictures; none for DATASET/NN")
    add("-o", "--output", help="model folder; of a solver the folder for snapshots and curves")
    add(
        "--iterations",
        type=whole(-(2**31)),
        help="so many, however long they take; of a solver in place of its max_iter",
    )
    add("--rate", type=float, help="at the beginning; of a solver in place of its base_lr")
    add_device(parser, precision=False)
    add("--precision", choices=PRECISIONS, help="of convolutions: on a stack bf16 where there is")
    add(
        "--overwrite",
        action="store_true",
        default=None,
        help="begin anew, also where files of these names are that no training has left there",
    )
    add(
        "--average",
        type=float,
        metavar="PART",
        help="take the mean of the parameters over this part of the iterations, the last, too; on "
        "a stack 0.25, and the better is kept",
    )
    stack = parser.add_argument_group("on a stack").add_argument
    stack(
        "--from",
        dest="from_model",
        metavar="MODEL",
        help="begin as this trained network: its name, folder or weights",
    )
    stack("--minutes", type=real(0, 1e6), help="for the whole (20 on CPUs, 60 on GPUs)")
    stack(
        "--held-out",
        type=held_out,
        metavar="A:B|Z,Z,...|none",
        help="slices to hold out (spread, a fifth)",
    )
    stack("--kind", choices=KINDS, help="what is scored (by the labels)")
    stack("--no-normalise", dest="normalise", action="store_false", default=None)
    stack("--levels", type=whole(FEWEST_LEVELS, MOST_LEVELS), help="poolings")
    stack("--maps", type=whole(FEWEST_MAPS, MOST_MAPS), help="after the first convolution")
    stack("--padded", action="store_true", default=None, help="pad the convolutions")
    stack("--tile", type=whole(1), help="input size")
    stack("--solver", choices=SOLVERS, help="SGD with momentum 0.99, or Adam (Adam)")
    stack("--w0", type=float, help="weight of the gaps at the end (10); 0: none")
    stack("--sigma", type=float, help="its reach in pixels (5)")
    stack("--seed", type=whole(0), help="1")
    add_label_options(parser)
    solver = parser.add_argument_group("by a solver").add_argument
    solver("--weights", help="start from these parameters: .caffemodel, HDF5 or a model folder")
    solver(
        "--resume",
        nargs="?",
        const="",
        metavar="STATE",
        help="go on from this .solverstate, or from the run's newest whole snapshot if any",
    )
    solver(
        "--seconds",
        type=float,
        help="of wall clock for the iterations: fewer are done where they do not fit, over which a "
        "rate of policy poly falls the faster",
    )
    return parser
