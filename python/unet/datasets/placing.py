"""The files of a data set, from a folder or a zip: checked, all or none, at nobody's expense."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Callable, TypeVar

from unet.errors import InputError
from unet.files.atomic import replace_parts
from unet.files.names import printable

T = TypeVar("T")
_PIECE = 1 << 20


def place(
    folder: Path,
    source: Path,
    fill: Callable[[Path], None],
    check: Callable[[Path], object],
    is_member: Callable[[str], bool],
    order: Callable[[str], object],
    overwrite: bool,
    same: Callable[[Path, Path], bool] = functools.partial(filecmp.cmp, shallow=False),
) -> None:
    """Put the files of a data set into a folder, in place of those that are there.

    What else the user has in the folder, and in the folders of the data set, stays; so does,
    unless `overwrite`, what the user has made of the data set's files.

    Parameters
    ----------
    folder, source : Path
        Where the files go, and where they come from, which errors name.
    fill, check : callable
        Puts the files into a new folder; reads all of them there. What they raise leaves `folder`
        as it was.
    is_member : callable
        Tells by a path, relative to the folder, whether a file is one of the data set's.
    order : callable
        Key by which the files and folders at the top are moved, smallest first.
    overwrite : bool
        Whether files are replaced that differ from those of the source.
    same : callable
        Tells of a file that is there and the new one whether nothing is lost with the first.

    Raises
    ------
    InputError
        If the folder holds files of the data set that the source lacks: among the new ones they
        would be taken for parts of it; or that differ from those of the source.
    """

    # A check reads for long; what is in the way is told before.
    def checked(fresh: Path) -> None:
        _keep_others(fresh, folder, source, is_member)
        check(fresh)
        if not overwrite:
            _keep_changed(fresh, folder, source, same)

    replace_parts(folder, source, fill, checked, order)


def _keep_changed(
    fresh: Path, folder: Path, source: Path, same: Callable[[Path, Path], bool]
) -> None:
    """Refuse to replace a file by another: somebody may have corrected it."""
    for path in sorted(fresh.rglob("*")):
        inside = path.relative_to(fresh)
        there = folder / inside
        # What a link leads to is not touched.
        linked = there.is_symlink() or (folder / inside.parts[0]).is_symlink()
        if path.is_file() and there.is_file() and not linked and not same(there, path):
            raise InputError(
                f"{there}: differs from what {source} holds; move it away, or replace it with "
                "--overwrite"
            )


def _keep_others(fresh: Path, folder: Path, source: Path, is_member: Callable[[str], bool]) -> None:
    """Copy what a user has put into the folders that are replaced, into the new ones."""
    for part in sorted(fresh.iterdir()):
        there = folder / part.name
        if not os.path.lexists(there):
            continue
        if there.is_dir() != part.is_dir():
            kind = "a folder" if there.is_dir() else "not a folder"
            raise InputError(f"{there}: is {kind}, other than in {source}; move it away")
        # What a link leads to is not touched.
        if part.is_dir() and not there.is_symlink():
            _keep_files(part, there, folder, source, is_member)


def _keep_files(
    part: Path, there: Path, folder: Path, source: Path, is_member: Callable[[str], bool]
) -> None:
    for path in sorted(there.rglob("*")):
        inside = path.relative_to(there)
        if (part / inside).exists() or (path.is_dir() and not path.is_symlink()):
            continue
        if is_member(path.relative_to(folder).as_posix()):
            raise InputError(
                f"{path}: is not in {source}, and would be taken for a part of what is; move it "
                f"away"
            )
        (part / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, part / inside, follow_symlinks=False)


def once(found: Iterable[tuple[str, T]], source: Path) -> dict[str, T]:
    """Return names and what belongs there; refuse a source that has two for one."""
    things: dict[str, T] = {}
    for name, thing in found:
        if name in things:
            raise InputError(f"{source}: holds {name} twice; name a source that holds one data set")
        things[name] = thing
    return things


def copy_files(files: Mapping[str, Path], fresh: Path) -> None:
    """Copy files into a folder, each under its name there."""
    for name, path in files.items():
        target = fresh / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


@contextlib.contextmanager
def open_zip(source: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a zip to read from; while it is open, what damage makes of it becomes `InputError`."""
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    # zipfile's own NotImplementedError is an unknown compression, its RuntimeError a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{source}: is no whole zip ({error}); remove it and run this again"
        ) from None


def unpack(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    fresh: Path,
    most: Callable[[str], int],
) -> None:
    """Unpack members of a zip into a folder, each under its name there.

    Zeros pack a thousandfold: `most` says how many bytes the file of a name may have; `InputError`
    is raised before there are more.
    """
    for name, member in members.items():
        # zipfile gives no more than this, whatever the stream goes on to hold.
        if member.file_size > most(name):
            raise InputError(
                f"{archive.filename}: {printable(member.filename)} would unpack to "
                f"{member.file_size:,} bytes, but no such file has more than {most(name):,}; it is "
                f"another archive, or damaged"
            )
        target = fresh / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as packed, open(target, "wb") as file:
            shutil.copyfileobj(packed, file, _PIECE)
