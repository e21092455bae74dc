"""What all programs share: how they end, and that no output damages what is there."""

from __future__ import annotations

import argparse
import atexit
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Union

from unet.errors import InputError
from unet.names import printable
from unet.provenance import is_folder, refuse_foreign
from unet.signals import Stopped, ignore, unwinding
from unet.terminal import never_in_the_way
from unet.volumes import split_name

PathLike = Union[str, "os.PathLike[str]"]

EXIT_MISTAKE = 2
# Plus the number of the signal: 130 for Ctrl-C.
EXIT_STOPPED = 128


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
    standard error and status 2; Ctrl-C, SIGTERM and SIGHUP undo what is half done and end with 128
    plus the signal's number; anything else is a bug and keeps its traceback. What becomes of the
    terminal does not matter, unless the program has called `unet.terminal.is_the_output`.
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
    try:
        # Within: a signal that comes when all is done is answered like one that comes before.
        with unwinding():
            status = main(None)
            sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        # Of objects that it left half made, and that now go, nobody wants to hear.
        sys.unraisablehook = lambda lost: None
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        if number != signal.SIGPIPE:
            print("stopped", file=sys.stderr)
        return EXIT_STOPPED + number
    except Exception as error:
        if not _is_mistake(error):
            raise
        # Names may hold anything, line breaks too.
        text = printable(str(error)) or type(error).__name__
        print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr)
        return EXIT_MISTAKE


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        # Of many digits Python reads no number.
        value = int(text) if re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text) else None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is not a whole number from {low} to {high}"
            )
        return value

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number {low:g} to {high:g}")
        return value

    return parse


class Output(NamedTuple):
    """What a program is going to write.

    Attributes
    ----------
    path : path
    kind : str
        As `unet.provenance` names it.
    """

    path: PathLike
    kind: str


def guard_outputs(
    outputs: Sequence[Output], inputs: Iterable[PathLike], overwrite: bool = False
) -> None:
    """Refuse outputs that would damage something; called before a program opens the first.

    Parameters
    ----------
    outputs : sequence of Output
    inputs : iterable of path
        All files and folders that the program reads, also as FILE:/dataset.
    overwrite : bool
        Whether the user allows to replace what no program of this project has written. Inputs are
        never replaced.

    Raises
    ------
    InputError
        See `refuse_own_inputs` and `unet.provenance.refuse_foreign`.
    """
    refuse_own_inputs([output.path for output in outputs], inputs)
    for path, kind in outputs:
        if os.path.isdir(path) and not is_folder(path, kind):
            raise InputError(f"{path}: is a folder; name a file in it")
        if not overwrite:
            refuse_foreign(path, kind)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite to a program's options."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace outputs that are there already, also those that this program has not "
        "written; a folder with all that is in it (never an input)",
    )


def refuse_own_inputs(outputs: Sequence[PathLike], inputs: Iterable[PathLike]) -> None:
    """Refuse outputs that would damage an input or each other, or that are no place for a file.

    Parameters
    ----------
    outputs : sequence of path
    inputs : iterable of path
        As `unet.volumes.open_volume` takes them: FILE:/dataset is FILE.

    Raises
    ------
    InputError
        If an output is an input, another output or a folder that the process works in; lies in one,
        or holds one, by its path or, under whatever name, on the disk; is named as the dataset of
        a file, or is neither file nor folder.
    """
    named = [_Place(output) for output in outputs]
    for number, output in enumerate(named):
        _refuse_strange(output)
        for other in named[:number]:
            if output.overlaps(other):
                what = f"is, holds or lies in the other output {other.name}"
                if output.name == other.name:
                    what = "is named for two outputs"
                raise InputError(f"{output.name}: {what}; name another for one of them")
    for name in inputs:
        for place in _places_of(split_name(os.fspath(name))[0], outputs):
            for output in named:
                if output.overlaps(place):
                    raise InputError(
                        f"{output.name}: is, holds or lies in the input {os.fspath(name)}, which "
                        "would be damaged; name another output"
                    )
    here = _Place(os.getcwd())
    for output in named:
        if here.lies_in(output):
            raise InputError(f"{output.name}: is or holds the working folder; name another output")


def _refuse_strange(output: _Place) -> None:
    path = Path(output.name)
    file, colon, _ = output.name.rpartition(":")
    if colon and (
        Path(file).suffix.lower() in (".h5", ".hdf5", ".hdf", ".zarr")
        or (os.path.exists(file) and not path.exists())
    ):
        raise InputError(
            f"{output.name}: an output is a file of its own, not a dataset in one; name another "
            f"file, and copy the dataset into {file} from there"
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{output.name}: is neither a file nor a folder; name another output")


class _Place:
    """Where a path leads, behind all links: its own name and folders, and their numbers on disk."""

    def __init__(self, path: PathLike) -> None:
        self.name = os.fspath(path)
        resolved = Path(path).resolve()
        self._paths = [resolved, *resolved.parents]
        self._numbers = [_number_on_disk(place) for place in self._paths]

    def lies_in(self, other: _Place) -> bool:
        """Tell whether this is the other place or lies in it."""
        # Hard links have one number, as have names that differ in case on some file systems.
        return other._paths[0] in self._paths or (
            other._numbers[0] is not None and other._numbers[0] in self._numbers
        )

    def overlaps(self, other: _Place) -> bool:
        """Tell whether one of the two lies in the other."""
        return self.lies_in(other) or other.lies_in(self)


def _number_on_disk(path: PathLike) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _places_of(file: Path, outputs: Sequence[PathLike]) -> Iterator[_Place]:
    """Yield an input and, if it is a folder, what is in it and elsewhere as well."""
    yield _Place(file)
    if not file.is_dir():
        return
    # Files of which the folder may hold another name.
    numbers = {
        _number_on_disk(output)
        for output in outputs
        if os.path.isfile(output) and os.stat(output).st_nlink > 1
    }
    for folder, folders, files in os.walk(str(file)):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.path.islink(path) or (numbers and _number_on_disk(path) in numbers):
                yield _Place(path)
