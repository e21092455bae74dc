"""What all programs share: how a mistake is told, and that no output replaces an input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from unet.errors import InputError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


def _is_mistake(error: BaseException) -> bool:
    # The engine's own errors are recognised by their module: genuine Caffe has none to import.
    return isinstance(error, (InputError, OSError, MemoryError)) or (
        type(error).__module__.split(".")[0] == "caffe"
    )


def run_program(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a program's `main` and leave the process with the right exit status.

    Parameters
    ----------
    main : callable
        Takes the arguments (None: the command line's), returns the exit status or None for 0.

    Notes
    -----
    A user's mistake (`InputError`, `OSError`, `MemoryError`, an error of the engine) is one line on
    standard error and status 2; Ctrl-C is status 130; anything else is a bug and keeps its
    traceback.
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
    except Exception as error:
        if not _is_mistake(error):
            raise
        text = str(error) or type(error).__name__
        print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr)
        status = EXIT_MISTAKE
    sys.exit(status)


def refuse_own_inputs(outputs: Sequence[Path | str], inputs: Sequence[str]) -> None:
    """Refuse an output that would take the place of an input or of another, or lie among files.

    Parameters
    ----------
    outputs : sequence of path
    inputs : sequence of str
        As `unet.volumes.open_volume` takes them: FILE:/dataset is FILE.

    Raises
    ------
    InputError
    """
    files = [name if os.path.exists(name) else re.sub(r":[^:]*$", "", name) for name in inputs]
    for number, output in enumerate(outputs):
        path = Path(output).resolve()
        for name, place in zip(inputs, (Path(file).resolve() for file in files)):
            if path == place or path in place.parents or place in path.parents:
                raise InputError(
                    f"{output}: is, holds or lies in the input {name}, which would be damaged; "
                    f"name another output"
                )
        if path in [Path(other).resolve() for other in outputs[:number]]:
            raise InputError(f"{output}: is named for two outputs; name another for one")
