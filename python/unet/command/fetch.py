"""Get a data set, make a phantom of one, or get the authors' release of 2015; say what there is.

What is downloaded is checked and goes on where a connection broke; --from takes a folder or an
archive in its place, as do the variables ISBI_DIR and CTC_DIR. Only the files of the known layout
are unpacked. data/README.md says what each data set is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unet.command.options import add_overwrite, whole
from unet.datasets import cell_tracking_challenge, isbi2012, phantom, release2015
from unet.errors import InputError

NAMES = ("isbi2012", *cell_tracking_challenge.DATASETS, "release-2015", *phantom.KINDS)


def main(argv: Sequence[str] | None = None) -> None:
    """Get a data set."""
    options = parse(argv)
    more = {"overwrite": options.overwrite}
    if options.output is not None:
        more["folder"] = options.output
    made = {"slices": options.slices, "size": options.size, "seed": options.seed}
    made = {name: number for name, number in made.items() if number is not None}
    if options.name in phantom.KINDS:
        if options.source:
            raise InputError(f"--from {options.source}: a phantom is made here; leave it out")
        told = phantom.fetch(options.name, **made, **more)
    elif made:
        raise InputError(f"--{next(iter(made))} is for phantoms: {' and '.join(phantom.KINDS)}")
    elif options.name == "isbi2012":
        told = isbi2012.describe(isbi2012.fetch(source=options.source, **more))
    elif options.name == "release-2015":
        told = release2015.describe(release2015.fetch(source=options.source, **more))
    else:
        sequences = cell_tracking_challenge.fetch(options.name, source=options.source, **more)
        told = cell_tracking_challenge.describe(options.name, next(iter(sequences.values())).parent)
    print("\n".join(told))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", choices=NAMES)
    add("--from", dest="source", metavar="FOLDER_OR_ARCHIVE", help="take it there")
    add("-o", "--output", metavar="FOLDER", help="where it goes (data/...)")
    add("--slices", type=whole(1), metavar="N", help="of a phantom (30)")
    add("--size", type=whole(1), metavar="N", help="pixels along a phantom (512; cells: 384)")
    add("--seed", type=whole(0), metavar="N", help="another number, another phantom (1)")
    add_overwrite(parser)
    return parser.parse_args(argv)
