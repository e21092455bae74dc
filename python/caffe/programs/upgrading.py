"""What the upgrade programs share: two paths on the command line, and how it went."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from caffe.files.atomic import refuse_own_input
from caffe.log import log_error

EXIT_INCOMPLETE = EXIT_USAGE = 1


def two_paths(usage: str, argv: Sequence[str] | None) -> tuple[str, str] | None:
    """Return the input's and the output's path, or log the usage if these are not what is given."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 2:
        log_error(f"Usage: {usage}")
        return None
    return words[0], words[1]


def tell(source: str, target: str, needed: bool, complete: bool = True) -> int:
    """Log whether there was anything to do and whether it could be done; return the exit status.

    Raises
    ------
    CaffeError
        If it could not, and the file is to be upgraded in place: what is left out would be lost.
        Genuine Caffe writes it all the same.
    """
    if not needed:
        log_error(f"File already in latest proto format: {source}")
    if complete:
        return 0
    log_error("Encountered error(s) while upgrading prototxt; see details above.")
    refuse_own_input(target, source)
    return EXIT_INCOMPLETE
