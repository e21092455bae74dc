"""What data layers read from: lists of files, and what a file or folder really is."""

from __future__ import annotations

import os
import stat

from caffe.errors import CaffeError
from caffe.files.atomic import missing

# How files begin.
_BEGINNINGS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"II*\0", "a picture (TIFF)"),
    (b"MM\0*", "a picture (TIFF)"),
    (b"II+\0", "a picture (BigTIFF)"),
    (b"MM\0+", "a picture (BigTIFF)"),
    (b"GIF8", "a picture (GIF)"),
    (b"BM", "a picture (BMP)"),
    (b"\x93NUMPY", "an array of numpy"),
    (b"PK\x03\x04", "a zip"),
    (b"\x1f\x8b", "a gzip file"),
)
_LONGEST = max(len(beginning) for beginning, _ in _BEGINNINGS)


def kind_of(path: str) -> str:
    """Return what is at a path, such as "an HDF5 file", or "" if that is not known."""
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "data.mdb")):
            return "an LMDB database"
        if os.path.isfile(os.path.join(path, "CURRENT")):
            return "a LevelDB database"
        return "a folder"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        if os.path.basename(path) == "data.mdb":
            return "the file of an LMDB database"
        with open(path, "rb") as file:
            start = file.read(_LONGEST)
    except OSError:
        return ""
    return next((kind for beginning, kind in _BEGINNINGS if start.startswith(beginning)), "")


def told(path: str, wanted: str) -> str:
    """Return the sentence about a file that is missing, or is not what is wanted, in words."""
    if not os.path.exists(path):
        return missing(path)
    kind = kind_of(path)
    return f"{path}: is {kind}, not {wanted}" if kind else f"{path}: is not {wanted}"


def read_list(path: str, entries: str) -> str:
    """Return the text of a file that lists others: `entries` says what each line names.

    Raises
    ------
    CaffeError
        If it is missing, not a regular file or not text; says what it is.
    """
    remedy = f"source names a text file, of which each line has {entries}"
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
        if not regular or kind_of(path):
            wanted = "a list" if regular else "a regular file"
            raise CaffeError(f"{told(path, wanted)}; {remedy}")
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise CaffeError(f"{missing(path)}; {remedy}") from None
    except OSError as error:
        raise CaffeError(f"{path}: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError as error:
        raise CaffeError(f"{path}: is not text in UTF-8 (byte {error.start}); {remedy}") from None
    except ValueError:
        raise CaffeError(f"{path!r}: is not the name of a file") from None
