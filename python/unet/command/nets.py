"""Write the prototxt files of the networks: those of prototxt/, or those for your training set."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from unet.command.options import add_overwrite, parse_slices, whole
from unet.errors import InputError
from unet.files.names import path_in_prototxt
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import NETWORK
from unet.network.geometry import FEWEST_LEVELS, LEVELS, MOST_LEVELS
from unet.network.nets import (
    OWN_ITERATIONS,
    WIDTHS,
    WINDOW,
    isbi_files,
    own_files,
    window_files,
    write_files,
)
from unet.network.phseg_v5 import NAME as PHSEG_V5
from unet.network.phseg_v5 import phseg_v5_files


def main(argv: Sequence[str] | None = None) -> None:
    """Write the checked-in prototxt files, or those of a network for your own training set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("net", nargs="?", choices=sorted([*WIDTHS, WINDOW]))
    parser.add_argument("--data", help="training set (HDF5) that tools/prepare.py wrote")
    parser.add_argument("--train-slices", metavar="A:B")
    parser.add_argument("--test-slices", metavar="A:B")
    parser.add_argument(
        "--tile",
        type=whole(1),
        help="input size, 16k + 60 with four unpadded levels; by default that of the net's own "
        "training; of sliding_window the window, 23, 47 or 95",
    )
    parser.add_argument(
        "--levels",
        type=whole(FEWEST_LEVELS, MOST_LEVELS),
        default=LEVELS,
        help="poolings (%(default)s)",
    )
    parser.add_argument(
        "--padded", action="store_true", help="pad the convolutions: scores as large as the input"
    )
    parser.add_argument("--iterations", type=whole(-(2**31)), default=OWN_ITERATIONS)
    parser.add_argument(
        "--solver", choices=("SGD", "Adam"), help="by default SGD for unet, Adam for unet_slim"
    )
    parser.add_argument("-o", "--output", default="prototxt", help="folder to write to")
    add_overwrite(parser)
    options = parser.parse_args(argv)
    if options.net is None:
        folders = {name: isbi_files(name) for name in WIDTHS}
        folders[PHSEG_V5] = phseg_v5_files()
        _guard([f"{folder}/{name}" for folder in folders for name in folders[folder]], options)
        for folder, files in folders.items():
            write_files(files, Path(options.output) / folder)
        return
    if not options.data:
        raise InputError("--data is missing: name the training set that tools/prepare.py wrote")
    common = dict(
        iterations=options.iterations, train=parse_slices(options.train_slices, "--train-slices")
    )
    folder = path_in_prototxt(options.output)
    if options.net == WINDOW:
        for name in ("test_slices", "levels", "padded", "solver"):
            if getattr(options, name) != parser.get_default(name):
                raise InputError(f"--{name.replace('_', '-')} is for a U-Net, not for {WINDOW}")
        window = {} if options.tile is None else dict(window=options.tile)
        files = window_files(options.data, folder, **window, **common)
    else:
        files = own_files(
            options.net,
            options.data,
            folder,
            tile=options.tile,
            test=parse_slices(options.test_slices, "--test-slices"),
            method=options.solver,
            levels=options.levels,
            padded=options.padded,
            **common,
        )
    _guard(files, options)
    write_files(files, Path(options.output))
    print(f"wrote {', '.join(sorted(files))} to {options.output}")


def _guard(files: Iterable[str], options: argparse.Namespace) -> None:
    """Refuse to write files where that would damage something."""
    outputs = [Output(Path(options.output, name), NETWORK) for name in files]
    guard_outputs(outputs, [options.data] if options.data else [], options.overwrite)
