"""How the programs end: with an exit status, and a sentence where the user made a mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from caffe.errors import CaffeError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


def run_program(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a program's `main` and leave the process with the right exit status.

    Parameters
    ----------
    main : callable
        Takes the arguments (None: the command line's), returns the exit status or None for 0.

    Notes
    -----
    A user's mistake (`CaffeError`, `OSError`, `MemoryError`) is one line on standard error and
    status 2; Ctrl-C is status 130; anything else is a bug and keeps its traceback.
    """
    try:
        status = main(None)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nothing is wrong with the input.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (CaffeError, OSError, MemoryError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error or type(error).__name__}", file=sys.stderr)
        status = EXIT_MISTAKE
    sys.exit(status)
