#!/usr/bin/env python3
"""Prove a GPU in two commands that each end in time, and leave what they know when killed.

    gpu_check.py proof -o FOLDER    speed and memory beside plain PyTorch; the tests that need a GPU
    gpu_check.py train -o FOLDER    the paper's net on ISBI 2012, its scores and its weights

The project need not be installed; Python, PyTorch, h5py, scikit-image, tifffile, protobuf, OpenCV,
llvmlite, matplotlib and pytest have to be there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "python"))

from child_programs import ending  # noqa: E402 - where it is not installed
from findings import Findings  # noqa: E402
from run_gpu_tests import run_tests  # noqa: E402
from time_on_gpu import (  # noqa: E402
    FEED_END,
    LAST_SECONDS,
    READY_SECONDS,
    TIMINGS_END,
    Bench,
    machine_at_hand,
    time_feed,
    time_net,
)
from train_on_gpu import train  # noqa: E402
from training_choice import WEIGHTING, WEIGHTINGS, check_device, solver_type  # noqa: E402
from unet.command.options import real, whole  # noqa: E402
from unet.command.running import run_program  # noqa: E402
from unet.errors import InputError  # noqa: E402
from unet.files.outputs import Output, guard_outputs  # noqa: E402
from unet.files.provenance import SCORE_FILE  # noqa: E402
from unet.machine.engine import PRECISIONS  # noqa: E402
from unet.training.history import CSV_NAME, PNG_NAME  # noqa: E402

SECONDS = 480


def prove(findings: Findings, options: argparse.Namespace) -> None:
    """Measure a device and test the engine on it: what is found goes into the findings.

    Nothing is timed beside the tests: they start when all else is over. Raises `InputError` if
    there is no GPU at all.
    """
    budget = findings.left
    shutil.rmtree(options.work, ignore_errors=True)
    benches = {precision: Bench(options, precision) for precision in options.precisions}
    with ending(benches):
        told, values = machine_at_hand(options.work)
        findings.note("machine", told, **values)
        if options.device != "cpu" and "GPU" not in values:
            raise InputError(f"--device {options.device}: PyTorch finds no GPU here; name cpu")
        for number, (precision, bench) in enumerate(benches.items()):
            bench.wait_until_ready(READY_SECONDS)
            left = TIMINGS_END * budget - findings.passed
            time_net(findings, options, precision, bench, left / (len(benches) - number))
            bench.kill()
    time_feed(findings, options, FEED_END * budget - findings.passed)
    run_tests(findings, options, findings.left - LAST_SECONDS)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    proof = commands.add_parser("proof", help="speed, memory, and the tests that need a GPU")
    proof.add_argument("--tile", type=whole(1), default=572, help="input size, 16k + 60")
    proof.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["tf32", "bf16", "fp32"]
    )
    proof.add_argument(
        "--rounds", type=whole(1), default=25, help="timings of each, if time allows (%(default)s)"
    )
    proof.set_defaults(run=prove)
    training = commands.add_parser("train", help="train, score, and store the weights")
    training.add_argument("--tile", type=whole(1), help="input size, 16k + 60 (the net's own)")
    training.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("ISBI_DIR") or None,
        help="folder of train-volume.tif and train-labels.tif (ISBI_DIR, else a phantom)",
    )
    training.add_argument(
        "--weights", type=Path, help="start from these: .caffemodel, HDF5 or a model folder"
    )
    training.add_argument("--solver", type=solver_type, help="SGD or Adam; by default the net's")
    training.add_argument("--weighting", choices=tuple(WEIGHTINGS), help="by default the net's")
    training.add_argument(
        "--iterations",
        type=whole(1),
        default=1_000_000,
        help="at most; by default as many as fit, over which the rate falls to 0",
    )
    training.add_argument("--rate", type=real(1e-9, 1), help="in place of the solver's base_lr")
    training.add_argument(
        "--refine",
        type=real(0, 1e6),
        default=0.0,
        metavar="SECONDS",
        help="of the training, at its end: with the weights of the gaps between cells (weighting "
        "gaps), at a third of the rate",
    )
    training.add_argument("--precision", choices=PRECISIONS, default="tf32", help="(%(default)s)")
    training.set_defaults(run=train)
    for command in (proof, training):
        command.add_argument(
            "--net", choices=tuple(WEIGHTING), default="unet", help="(%(default)s)"
        )
        command.add_argument("--device", default="0", help="cpu or the number of a GPU")
        command.add_argument(
            "--seconds", type=real(10, 1e6), default=SECONDS, help="for all of it (%(default)s)"
        )
        command.add_argument("-o", "--output", type=Path, required=True, help="folder of results")
        command.add_argument(
            "--work",
            type=Path,
            default=REPOSITORY / "runs" / "gpu-check" / "work",
            help="folder for what is needed on the way (runs/gpu-check/work)",
        )
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    options.work = options.work.resolve() / options.command
    options.output = options.output.resolve()
    if getattr(options, "weights", None):
        options.weights = options.weights.resolve()
    return options


def guard(options: argparse.Namespace) -> None:
    """Refuse to replace what no earlier check has left."""
    findings = options.output / f"{options.command}.json"
    guard_outputs([Output(findings, SCORE_FILE)], [])
    names = [f"{options.command}.txt"]
    if options.command == "train":
        names += [CSV_NAME, PNG_NAME]
    for path in (options.output / name for name in names):
        if path.exists() and not findings.exists():
            raise InputError(
                f"{path}: is there, and no {findings.name} beside it from an earlier check; name "
                "another folder"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two."""
    options = parse(argv)
    guard(options)
    findings = Findings(options.output, options.command, options.seconds)
    options.run(findings, options)
    findings.finish()
    print(findings.table)
    return 1 if findings.failed else 0


if __name__ == "__main__":
    run_program(main)
