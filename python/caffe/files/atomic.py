"""Files that are whole or absent.

`unet.files.atomic` keeps the same names and locks with code of its own: the method also runs on
genuine Caffe, without this package, and the engine without the method.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from caffe.errors import CaffeError

_LOCK = "lock"
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part", re.DOTALL)
_REASONS = {
    errno.ENOSPC: "the disk is full; make room, or name a place on another disk",
    errno.EDQUOT: "your share of the disk, its quota, is used up; make room, or name another place",
    errno.EFBIG: "it would be larger than the file system or the shell's ulimit -f allows",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "its folder may not be written to; name another place",
    errno.EPERM: "its folder may not be written to; name another place",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EEXIST: "a part of its path is a file, not a folder",
    errno.EIO: "the disk fails (input/output error); name a place on another disk",
}


def check_there(path: str) -> None:
    """Refuse a file that does not exist, in genuine Caffe's words and with the working folder."""
    if not os.path.exists(path):
        raise CaffeError(f"Could not open file {missing(path)}")


def missing(path: str) -> str:
    """Return the sentence about a file that does not exist."""
    from_where = "" if os.path.isabs(path) else f" in the working folder {os.getcwd()}"
    return f"{path}: no such file{from_where}"


def refuse_own_input(output: str | os.PathLike, *inputs: str | os.PathLike) -> None:
    """Refuse to write a file that is read, under whatever name."""
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise CaffeError(
                f"{os.fspath(output)}: is the input {os.fspath(path)}, which would be lost; name "
                "another output"
            )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to; on success it replaces `path`, else it is removed.

    Folders on the way are made: a snapshot is not lost because nobody made the folder for it. It is
    written in a folder beside `path`, .NAME.XXXXXXXX.part, that is locked; those that a killed
    process left of `path` are removed.

    Raises
    ------
    CaffeError
        If `path` is there and is not a file, or cannot be written: the disk is full, say.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise CaffeError(f"{target}: cannot be written, it is no regular file")
    sweep(target.parent, lambda name: name == _short(target.name))
    holder: Path | None = None
    try:
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            while holder is None:
                unique = f".{_short(target.name)}.{secrets.token_hex(4)}.part"
                holder, lock = _claim(target.with_name(unique))
        temporary = holder / target.name
        with _writing(target, holder):
            yield temporary
        with _writing(target):
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, target)
    finally:
        if holder is not None:
            _remove(holder)
            os.close(lock)


@contextlib.contextmanager
def _writing(target: Path, holder: Path | None = None) -> Iterator[None]:
    """Turn errors of writing into sentences that name the target.

    With a holder only those of files in it, and of files that the error does not name.
    """
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, (str, bytes)) else ""
        if holder is not None and named and not os.fsdecode(named).startswith(str(holder)):
            raise
        reason = _REASONS.get(error.errno, error.strerror or str(error))
        raise CaffeError(f"{target}: cannot be written: {reason}") from None


def sweep(folder: str | os.PathLike, of: Callable[[str], bool]) -> None:
    """Remove what killed processes left of files in a folder; what is still written stays.

    The folder may be missing; `of` tells by the name of a file whether it is meant.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        match = _TEMPORARY.fullmatch(name)
        if match and of(match[1]):
            _remove_unheld(Path(folder, name))


def _remove_unheld(holder: Path) -> None:
    # Where there are no locks, nobody can tell: everything stays.
    with contextlib.suppress(OSError):
        lock = os.open(holder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(holder)
        finally:
            os.close(lock)


def _remove(holder: Path) -> None:
    # Not by shutil.rmtree: before Python 3.13 a signal that comes while it closes a folder makes it
    # close that a second time, which is another error.
    for path in list(holder.iterdir()):
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        holder.rmdir()


def _claim(holder: Path) -> tuple[Path | None, int]:
    """Make a folder and lock it; None if somebody has swept it away meanwhile."""
    holder.mkdir()
    lock = os.open(holder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.fstat(lock), os.stat(holder / _LOCK))
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError:
        # A file system without locks: nobody sweeps there either.
        held = True
    if not held:
        os.close(lock)
        return None, -1
    return holder, lock


def _short(name: str) -> str:
    # Names are at most 255 bytes long.
    return os.fsdecode(os.fsencode(name)[:200])
