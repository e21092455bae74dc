"""Train a network: run any solver prototxt, with progress, curves, snapshots and resume."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unet.command.options import add_device, whole
from unet.training.train import train


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
    model = train(
        options.solver,
        options.output,
        options.weights,
        # Without STATE the newest.
        resume=options.resume if options.resume else options.resume is not None,
        iterations=options.iterations,
        rate=options.rate,
        seconds=options.seconds,
        device=options.device,
        precision=options.precision,
        overwrite=options.overwrite,
    )
    print(f"trained: {model}")
