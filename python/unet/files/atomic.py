"""Files and folders that are whole or absent, whatever happens to the program that writes them.

They are written in a folder beside their place, .NAME.XXXXXXXX.part, and moved there when they are
done. The folder holds a file, `lock`, which its program keeps locked: the next program that writes
the same output removes the folders that nobody holds, those of programs that were killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Callable

from unet.errors import InputError
from unet.machine.signals import held

# In a folder of temporaries: its lock, what is new, what was there, and what is to be moved.
_LOCK, _NEW, _OLD, _PARTS = "lock", "new", "old", "parts.json"
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part", re.DOTALL)
# So often a folder of temporaries is made anew after somebody has swept it away.
_CLAIMS = 100
# So often a folder is removed into which something is written meanwhile, and a write's seconds.
_REMOVALS, _WRITTEN = 5, 0.02
# Names are at most 255 bytes long.
_LONGEST = 200
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
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
# Syncs at a time: a file system then writes its journal once for several files.
_SYNCS = 8
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CannotWrite(InputError):
    """An output cannot be written; the reason is the system's, and what to do."""

    def __init__(self, target: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{os.fspath(target)}: cannot be written: {reason}")
        self.target, self.reason = os.fspath(target), reason


@contextlib.contextmanager
def writing(target: str | os.PathLike) -> Iterator[None]:
    """Turn every OSError into `CannotWrite`, which names the output as the user does."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno, error.strerror or f"{error}; is the disk full?")
        raise CannotWrite(target, reason) from None


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path of the same name, which replaces `path` on success; else it is removed.

    Nothing is there yet. The folder of `path` is created.

    Raises
    ------
    InputError
        If `path` is there and is not a file, or cannot be written: the disk is full, say.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise InputError(f"{target}: is {kind}; name another output")
    with _holder(target.parent, target.name, target) as holder:
        temporary = holder / target.name
        with _failing_writes(target, holder):
            yield temporary
        with writing(target):
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o777)
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, target)
            sync(target.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path` on success, else is removed.

    Its parent is created. Whoever calls makes sure that what is there may be replaced.
    """
    path = Path(path)
    with _holder(path.parent, path.name, path) as holder:
        with writing(path):
            fresh = holder / _NEW / path.name
            fresh.mkdir(parents=True)
        with _failing_writes(path, holder):
            yield fresh
        with writing(path):
            _move(holder, path.parent, [path.name])


@contextlib.contextmanager
def atomic_parts(
    folder: Path, order: Callable[[str], object] = lambda part: part
) -> Iterator[Path]:
    """Give an empty folder whose content moves into `folder` on success, all of it or nothing.

    What is in `folder` under other names stays. A move that a kill interrupts is brought to its end
    by the next `atomic_parts` or `sweep_parts` of the folder.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is not there.
    order : callable
        Key by which the parts are moved, smallest first: last comes what tells that all is there.
    """
    folder = Path(folder)
    with _holder(folder, _PARTS, folder) as holder:
        with writing(folder):
            fresh = holder / _NEW
            fresh.mkdir()
        with _failing_writes(folder, holder):
            yield fresh
        with writing(folder):
            _move(holder, folder, sorted(os.listdir(fresh), key=order))


def replace_parts(
    folder: Path,
    source: Path,
    fill: Callable[[Path], None],
    check: Callable[[Path], object],
    order: Callable[[str], object],
) -> None:
    """Fill a new folder, check it, and move what is in it into `folder`, in place of what is there.

    What `fill` and `check` raise, called with the new folder, leaves `folder` as it was. Errors
    name `source`, where the files come from; `order` is that of `atomic_parts`.
    """
    with atomic_parts(folder, order) as fresh:
        fill(fresh)
        try:
            check(fresh)
        except InputError as error:
            raise InputError(str(error).replace(str(fresh), str(source))) from None


def sync(path: Path) -> None:
    """Have a file, or what was made, renamed and removed in a folder, be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some file systems have no such call for folders.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(paths: Iterable[Path]) -> None:
    """Have what is in files be on the disk: of many in a fraction of the time of one by one."""
    paths = list(paths)

    def sync_file(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    if len(paths) < 2:
        for path in paths:
            sync_file(path)
        return
    with ThreadPoolExecutor(min(len(paths), _SYNCS), "sync") as threads:
        list(threads.map(sync_file, paths))


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that gets its name when it is whole and on the disk; then that is, too.

    A kill may leave .NAME.XXXXXXXX.partial beside it.
    """
    write_all_durably([(path, write)])


def write_all_durably(files: Iterable[tuple[Path, Callable[[BinaryIO], object]]]) -> None:
    """Do for several files what `write_durably` does for one, with as many syncs at a time.

    An error of one is raised when those before it are whole and on the disk.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, write in files:
            # Of a name of its own: another process may be writing the same.
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
            with _removed_unless_whole(temporary), open(temporary, "wb") as file:
                write(file)
            written.append((temporary, path))
    finally:
        with _removed_unless_whole(*(temporary for temporary, _ in written)):
            sync_files(temporary for temporary, _ in written)
            for temporary, path in written:
                os.replace(temporary, path)
        for folder in dict.fromkeys(path.parent for _, path in written):
            sync(folder)


@contextlib.contextmanager
def _removed_unless_whole(*temporaries: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise


def sync_all(folder: Path) -> None:
    """Have all that is in a folder be on the disk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def is_temporary(name: str) -> bool:
    """Tell whether a folder's name is that of something being written, or left by a kill."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep_parts(folder: str | os.PathLike) -> None:
    """Remove what a killed `atomic_parts` left in a folder; a move it had begun is finished."""
    sweep(folder, lambda name: name == _PARTS)


def sweep(folder: str | os.PathLike, of: Callable[[str], bool]) -> None:
    """Remove what killed programs left of outputs in a folder; what a program still writes stays.

    The folder may be missing; `of` tells by the name of an output whether it is meant.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        match = _TEMPORARY.fullmatch(name)
        if match and of(match[1]):
            _remove_unheld(Path(folder, name))


def sweep_of(output: Path) -> None:
    """Remove what killed programs left of one output beside it."""
    short = _short(output.name)
    sweep(output.parent, lambda other: other == short)


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST])


def _remove_unheld(holder: Path) -> None:
    # Held: stays. Where there are no locks, so does everything.
    with contextlib.suppress(OSError):
        lock = os.open(holder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (holder / _PARTS).exists():
                _finish_move(holder, holder.parent)
            remove_folder(holder)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _holder(folder: Path, name: str, target: Path) -> Iterator[Path]:
    """Give a folder of temporaries for `name` in `folder`, locked; remove it at the end."""
    short = _short(name)
    sweep_of(folder / name)
    made: list[Path] = []
    holder: Path | None = None
    try:
        with held(), writing(target):
            for _ in range(_CLAIMS):
                made += make_folders(folder)
                holder, lock = _claim(folder / f".{short}.{secrets.token_hex(4)}.part")
                if holder is not None:
                    break
            else:
                # As in /proc.
                raise InputError(
                    f"{target}: cannot be written: no folder can be made in {folder}; name another "
                    f"place"
                )
        yield holder
    finally:
        with held():
            if holder is not None:
                remove_folder(holder)
                os.close(lock)
            for parent in reversed(made):
                # Those that hold something stay.
                with contextlib.suppress(OSError):
                    parent.rmdir()


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it and can be removed; signals wait for the end."""
    with held():
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                return
            # A thread, such as zarr's, may just have written in it.
            time.sleep(_WRITTEN)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return those that were missing, the topmost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _claim(holder: Path) -> tuple[Path | None, int]:
    """Make a folder of temporaries and lock it; None if somebody has swept it away meanwhile."""
    try:
        holder.mkdir()
        lock = os.open(holder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except (FileExistsError, FileNotFoundError):
        if not holder.parent.is_dir():
            raise
        return None, -1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held_by_us = os.path.samestat(os.fstat(lock), os.stat(holder / _LOCK))
    except (BlockingIOError, FileNotFoundError):
        held_by_us = False
    except OSError:
        # A file system without locks: nobody sweeps there either.
        held_by_us = True
    if not held_by_us:
        os.close(lock)
        return None, -1
    return holder, lock


@contextlib.contextmanager
def _failing_writes(target: Path, holder: Path) -> Iterator[None]:
    """Tell of writes in the holder that fail as `writing` does; other errors pass, as of reads."""
    try:
        yield
    except CannotWrite as error:
        if not error.target.startswith(str(holder)):
            raise
        # A part of this output.
        raise CannotWrite(target, error.reason) from None
    except OSError as error:
        named = error.filename if isinstance(error.filename, (str, bytes)) else ""
        inside = os.fsdecode(named).startswith(str(holder))
        if not inside and (named or error.errno not in _OF_WRITING):
            raise
        with writing(target):
            raise


def _move(holder: Path, folder: Path, names: Sequence[str]) -> None:
    """Move what is new into `folder`; from here on a kill is made good by the next sweep."""
    fresh = holder / _NEW
    # Their inodes tell later which of them are still to be moved.
    parts = {name: (fresh / name).stat().st_ino for name in names}
    listed = holder / f"{_PARTS}.new"
    listed.write_text(json.dumps(parts))
    sync_all(holder)
    os.replace(listed, holder / _PARTS)
    sync(holder)
    sync(folder)
    _finish_move(holder, folder)


def _finish_move(holder: Path, folder: Path) -> None:
    with held():
        for name, inode in json.loads((holder / _PARTS).read_text()).items():
            new, place = holder / _NEW / name, folder / name
            if not new.exists() or new.stat().st_ino != inode:
                continue
            if place.exists() and not _exchange(new, place):
                (holder / _OLD).mkdir(exist_ok=True)
                os.replace(place, holder / _OLD / name)
            if new.exists() and new.stat().st_ino == inode:
                os.replace(new, place)
        sync(folder)


def _exchange(new: Path, place: Path) -> bool:
    """Have two paths change places at once; False where the system cannot."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    names = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(place), _RENAME_EXCHANGE)
    return exchange is not None and exchange(*names) == 0
