"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from caffe.errors import CaffeError


def check_there(path: str) -> None:
    """Refuse a file that does not exist; as genuine Caffe words it.

    Raises
    ------
    CaffeError
        Names the folder that a relative path counts from.
    """
    if not os.path.exists(path):
        raise CaffeError(f"Could not open file {missing(path)}")


def missing(path: str) -> str:
    """Return the sentence about a file that does not exist."""
    from_where = "" if os.path.isabs(path) else f" in the working folder {os.getcwd()}"
    return f"{path}: no such file{from_where}"


def read_list(path: str) -> str:
    """Return the text of a file that lists others.

    Raises
    ------
    CaffeError
        If it is missing, no regular file or no text.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CaffeError(f"'{path}': is no regular file")
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise CaffeError(f"'{path}': {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CaffeError(f"'{path}': is no text in UTF-8 (byte {error.start})") from None
    except ValueError:
        raise CaffeError(f"{path!r}: is no name of a file") from None


def refuse_own_input(output: str | os.PathLike, *inputs: str | os.PathLike) -> None:
    """Refuse to write a file that is read, under whatever name.

    Raises
    ------
    CaffeError
    """
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise CaffeError(
                f"{os.fspath(output)}: is the input {os.fspath(path)}, which would be lost; name "
                "another output"
            )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it over `path` on success, else remove it.

    Folders on the way are made: a snapshot is not lost because nobody made the folder for it.

    Raises
    ------
    CaffeError
        If `path` is there and is not a file.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise CaffeError(f"{target}: cannot be written, it is no regular file")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        # Made here, not by the writer, so that it has the rights the user's umask asks for.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
