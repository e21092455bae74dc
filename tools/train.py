"""Train a network: run any solver prototxt, with progress, curves, snapshots and resume."""

from __future__ import annotations

import argparse
from typing import Optional, Sequence

from unet.engine import open_engine
from unet.program import run_program
from unet.training import Training


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solver", help="solver prototxt")
    parser.add_argument("--weights", help="start from these parameters (.caffemodel or HDF5)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="STATE",
        help="go on from this .solverstate, or from the newest snapshot of the run",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or the number of a GPU")
    parser.add_argument("--iterations", type=int, help="in place of the solver's max_iter")
    parser.add_argument("-o", "--output", help="folder for snapshots and curves")
    options = parser.parse_args(argv)
    caffe = open_engine(options.device)
    training = Training(caffe, options.solver, options.output, options.iterations)
    if options.resume is None:
        training.begin(options.weights)
    else:
        print(f"going on from {training.resume(options.resume or None)}")
    net = training.solver.net
    print(
        f"training {getattr(net, 'name', '') or options.solver}: {training.parameters:,} parameters, "
        f"iterations {training.solver.iter} to {training.max_iter}"
    )
    print(f"snapshots and curves: {training.folder}", flush=True)
    training.run()
    print(f"trained: {training.model}")


if __name__ == "__main__":
    run_program(main)
