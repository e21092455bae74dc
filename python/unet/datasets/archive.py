"""Zip archives that were downloaded, perhaps not whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator

from unet.errors import InputError
from unet.files.names import printable

_PIECE = 1 << 20


@contextlib.contextmanager
def open_zip(source: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a zip to read from; while it is open, what damage makes of it becomes a sentence.

    Parameters
    ----------
    source : path

    Yields
    ------
    zipfile.ZipFile

    Raises
    ------
    InputError
        If it is no zip, or a damaged one, or packed in a way that Python does not know.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    # zipfile's own NotImplementedError is an unknown compression, its RuntimeError a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{source}: is no whole zip ({error}); remove it and run this again"
        ) from None


def unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: str | os.PathLike[str], most: int
) -> None:
    """Unpack a member of a zip into a file, a piece of it in memory at a time.

    Parameters
    ----------
    archive : zipfile.ZipFile
    member : zipfile.ZipInfo
    target : path
    most : int
        Bytes that it may have: zeros pack a thousandfold.

    Raises
    ------
    InputError
        If it would have more.
    """
    # zipfile gives no more than this, whatever the stream goes on to hold.
    if member.file_size > most:
        raise InputError(
            f"{archive.filename}: {printable(member.filename)} would unpack to "
            f"{member.file_size:,} bytes, but no such file has more than {most:,}; it is another "
            f"archive, or damaged"
        )
    with archive.open(member) as packed, open(target, "wb") as file:
        shutil.copyfileobj(packed, file, _PIECE)
