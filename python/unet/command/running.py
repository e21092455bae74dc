"""How a program runs and ends: exit statuses, mistakes in one line, signals."""

from __future__ import annotations

import atexit
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from unet.command.terminal import never_in_the_way
from unet.errors import is_mistake
from unet.files.names import printable
from unet.machine.signals import ignore, signal_behind, unwinding

EXIT_MISTAKE = 2
# Plus the number of the signal: 130 for Ctrl-C.
EXIT_STOPPED = 128


def run_program(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a program's `main` and leave the process with the right exit status.

    `main` takes the arguments, None for the command line's, and returns the status, None for 0.

    Notes
    -----
    A user's mistake (`InputError`, `OSError`, `MemoryError`, an error of the engine) is one line on
    standard error and status 2; Ctrl-C, SIGTERM and SIGHUP undo what is half done and end with 128
    plus the signal's number; anything else is a bug and keeps its traceback. What becomes of the
    terminal does not matter, unless the program has called `unet.command.terminal.is_the_output`.
    """
    # What tifffile notes of a damaged file is told in a sentence, or does not matter.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    # Unloading takes libraries a moment, which changes nothing of the status.
    atexit.register(ignore)
    hook = sys.unraisablehook
    try:
        with never_in_the_way():
            status = _status(main)
    except KeyboardInterrupt:
        # In the moment before the work begins, or after it.
        status = EXIT_STOPPED + signal.SIGINT
    finally:
        sys.unraisablehook = hook
    sys.exit(status)


def _status(main: Callable[[Sequence[str] | None], int | None]) -> int | None:
    asked: list[int] = []
    try:
        # Within: a signal that comes when all is done is answered like one that comes before.
        with unwinding() as asked:
            status = main(None)
            sys.stdout.flush()
        return status
    except (KeyboardInterrupt, Exception) as error:
        number = signal_behind(error, asked)
        if number is not None:
            return _stopped(number)
        if not is_mistake(error):
            raise
        # Names may hold anything, line breaks too.
        text = printable(str(error)) or type(error).__name__
        print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr)
        return EXIT_MISTAKE


def _stopped(number: int) -> int:
    """Say that the program was stopped, unless by the reader that has gone; return the status."""
    # Of objects that it left half made, and that now go, nobody wants to hear.
    sys.unraisablehook = lambda lost: None
    if number != signal.SIGPIPE:
        print("stopped", file=sys.stderr)
    return EXIT_STOPPED + number
