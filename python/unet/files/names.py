"""Names of files as text: what people and old disks call them need not be text at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Union

from unet.errors import InputError

#: What is taken for the name of a file or folder.
PathLike = Union[str, "os.PathLike[str]"]

# Control characters, and what Python puts for bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a name, or a text with one, so that any program can print, store and split it.

    It is valid UTF-8 in one line: control characters, and bytes that were no UTF-8 in the name of a
    file, are written as escapes.

    Examples
    --------
    >>> printable("10 \udcb5m.tif")
    '10 \\xb5m.tif'
    >>> printable("two\nlines.tif")
    'two\\x0alines.tif'
    """

    def escape(found: re.Match) -> str:
        code = ord(found.group())
        if 0xDC80 <= code <= 0xDCFF:
            # The byte that the name has there.
            code -= 0xDC00
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _UNPRINTABLE.sub(escape, text)


def natural_key(name: str) -> list:
    """Return a sorting key that puts z2.png before z10.png."""
    # Parts 1, 3, 5, ... are runs of digits; what else passes for a digit, such as the 2 of m², does
    # not read as a number.
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if k % 2 else (0, 0, part) for k, part in enumerate(parts)]


def path_in_prototxt(path: str | os.PathLike[str]) -> str:
    """Return a path as it can stand in a message of protobuf, which holds text.

    The path itself, or else from the working folder: the folders above may be no text.

    Raises
    ------
    InputError
        If the name is not UTF-8.
    """
    given = os.fspath(path)
    for candidate in (given, os.path.relpath(given)):
        if not re.search("[\ud800-\udfff]", candidate):
            return candidate
    raise InputError(
        f"{given}: is not UTF-8, as names in a prototxt must be; rename it, or name it by a link"
    )


def split_name(path: str) -> tuple[Path, str | None]:
    """Return the file and the dataset that the name of a stack means: FILE or FILE:/dataset."""
    if not os.path.exists(path) and ":" in path:
        file, inner = path.rsplit(":", 1)
        if os.path.exists(file):
            return Path(file), inner
    return Path(path), None
