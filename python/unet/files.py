"""Files and folders that are whole or absent: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from unet.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`, which it replaces on success; else it is removed.

    Parameters
    ----------
    path : path
        The file to be written. Its folder is created.

    Yields
    ------
    pathlib.Path
        The path to write to, with the suffixes of `path`.

    Raises
    ------
    OSError
        If the folder cannot be made or the file cannot be renamed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=str(target.parent), prefix=f".{target.name}.", suffix="".join(target.suffixes)
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path` on success, else is removed.

    Parameters
    ----------
    path : pathlib.Path
        Its parent is created. Whoever calls makes sure that what is there may be replaced.

    Yields
    ------
    pathlib.Path

    Raises
    ------
    OSError
        If a folder cannot be made or renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(dir=str(path.parent), prefix=f".{path.name}."))
    try:
        fresh = holder / "new"
        fresh.mkdir()
        yield fresh
        if path.exists():
            os.replace(path, holder / "old")
        os.replace(fresh, path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def replace_parts(
    folder: Path,
    source: Path,
    fill: Callable[[Path], None],
    check: Callable[[Path], object],
    order: Callable[[str], object],
) -> None:
    """Fill a new folder, check it, and move what is in it into `folder`, in place of what is there.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is not there.
    source : pathlib.Path
        Where the files come from: what errors name.
    fill, check : callable
        Called with the new folder; what they raise leaves `folder` as it was.
    order : callable
        Key by which the parts are moved, smallest first: last comes what tells that all is there.

    Raises
    ------
    InputError
        If `check` raises it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder), prefix=".new") as temporary:
        fresh, old = Path(temporary, "fresh"), Path(temporary, "old")
        fresh.mkdir()
        old.mkdir()
        fill(fresh)
        try:
            check(fresh)
        except InputError as error:
            raise InputError(str(error).replace(str(fresh), str(source))) from None
        for part in sorted(os.listdir(fresh), key=order):
            if (folder / part).exists():
                os.replace(folder / part, old / part)
            os.replace(fresh / part, folder / part)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
