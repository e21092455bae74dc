"""What a program may write where: no output damages an input, another output or foreign files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unet.errors import InputError
from unet.files.names import PathLike, split_name
from unet.files.provenance import is_folder, refuse_foreign


class Output(NamedTuple):
    """What a program is going to write, of a kind of `unet.files.provenance`."""

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
        See `refuse_own_inputs` and `unet.files.provenance.refuse_foreign`.
    """
    refuse_own_inputs([output.path for output in outputs], inputs)
    for path, kind in outputs:
        if os.path.isdir(path) and not is_folder(path, kind):
            raise InputError(f"{path}: is a folder; name a file in it")
        if not overwrite:
            refuse_foreign(path, kind)


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
