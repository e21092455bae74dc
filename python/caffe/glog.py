"""Log lines in the form of glog, which programs that read Caffe's log expect."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

INFO, WARNING, ERROR = 0, 1, 2
_LETTERS = "IWE"


def write(level: int, message: str, depth: int = 1) -> None:
    """Write one line to standard error, unless GLOG_minloglevel silences its level.

    Parameters
    ----------
    level : int
        INFO, WARNING or ERROR.
    message : str
        The text after the bracket.
    depth : int
        How many frames up the line that speaks lies; it is named in the line.
    """
    try:
        silenced = level < int(os.environ.get("GLOG_minloglevel", "0"))  # noqa: SIM112
    except ValueError:
        silenced = False
    if silenced:
        return
    frame = sys._getframe(depth)
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    stamp += f".{int(now % 1 * 1e6):06d} {threading.get_native_id():5d}"
    sys.stderr.write(f"{_LETTERS[level]}{stamp} {place}] {message}\n")
    sys.stderr.flush()


def info(message: str) -> None:
    """Write an INFO line."""
    write(INFO, message, depth=2)


def warning(message: str) -> None:
    """Write a WARNING line."""
    write(WARNING, message, depth=2)


def error(message: str) -> None:
    """Write an ERROR line."""
    write(ERROR, message, depth=2)
