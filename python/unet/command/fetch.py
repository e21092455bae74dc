"""Get a data set, or the authors' release of 2015, and say what was found.

What is downloaded is checked and goes on where a connection broke; --from takes a folder or an
archive in its place. Only the files of the known layout are unpacked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Callable

from unet.command.options import add_overwrite
from unet.datasets import ctc, isbi2012, release2015

# Of each name the program that gets it, from the arguments after the name.
FETCHED: dict[str, Callable[[list[str]], None]] = {
    "release-2015": release2015.main,
    "isbi2012": isbi2012.main,
    "phc-u373": lambda rest: ctc.main(["phc-u373", *rest]),
    "dic-hela": lambda rest: ctc.main(["dic-hela", *rest]),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Get a data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(FETCHED))
    parser.add_argument("--from", dest="source", metavar="FOLDER_OR_ARCHIVE", help="take it there")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where it goes (data/...)")
    add_overwrite(parser)
    options = parser.parse_args(argv)
    given = {"--from": options.source, "-o": options.output}
    words = [word for pair in given.items() if pair[1] for word in pair]
    FETCHED[options.name](words + ["--overwrite"] * options.overwrite)
