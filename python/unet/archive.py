"""Zip archives that were downloaded, perhaps not whole."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator

from unet.errors import InputError


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
