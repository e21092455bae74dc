"""Train a network: run any solver prototxt, with progress, curves, snapshots and resume."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unet.command.options import add_device, whole
from unet.errors import InputError
from unet.machine.engine import open_engine
from unet.training.train import Training


def main(argv: Sequence[str] | None = None) -> None:
    """Train a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solver", help="solver prototxt; its paths count from the working folder")
    parser.add_argument(
        "--weights", help="start from these parameters: .caffemodel, HDF5 or a model folder"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="STATE",
        help="go on from this .solverstate, or from the run's newest whole snapshot if any",
    )
    add_device(parser)
    parser.add_argument(
        "--iterations", type=whole(-(2**31)), help="in place of the solver's max_iter"
    )
    parser.add_argument("--rate", type=float, help="in place of the solver's base_lr")
    parser.add_argument(
        "--seconds",
        type=float,
        help="of wall clock for the iterations: fewer are done where they do not fit, over which a "
        "rate of policy poly falls the faster",
    )
    parser.add_argument("-o", "--output", help="folder for snapshots and curves")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin in a folder with files of these names that no training has left there",
    )
    options = parser.parse_args(argv)
    if options.weights and options.resume:
        raise InputError("--weights and --resume STATE both say where to start: give one of them")
    caffe = open_engine(options.device, options.precision, graphs=True)
    with Training(
        caffe,
        options.solver,
        options.output,
        options.iterations,
        options.rate,
        options.seconds,
    ) as training:
        resumed = None
        if options.resume is not None:
            resumed = training.resume(options.resume or None, options.overwrite)
        if resumed is None:
            training.begin(options.weights, options.overwrite)
        begins = (
            f"goes on from {resumed}" if resumed else f"starts from {options.weights or 'fillers'}"
        )
        print(f"{options.solver}: {training.parameters:,} parameters; {begins}")
        begin, end = training.solver.iter, training.max_iter
        print(f"iterations {begin} to {end}")
        if begin >= end:
            print("nothing is left to train: --iterations asks for more")
        print(f"snapshots, curve.csv, curves.png, tensorboard: {training.folder}", flush=True)
        training.run()
        if training.solver.iter < end:
            print(f"ended at iteration {training.solver.iter}: {options.seconds:g} s are over")
        print(f"trained: {training.model}")
