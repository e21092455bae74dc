"""Log lines in the form of glog, which programs that read Caffe's log expect."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from caffe.argument_checks import refused
from caffe.errors import CaffeError

INFO, WARNING, ERROR = 0, 1, 2
_NAMES = ("INFO", "WARNING", "ERROR")


@dataclass
class _Settings:
    """Which lines go where.

    Attributes
    ----------
    least : int or None
        Lower levels are not written; None: the variable GLOG_minloglevel says so.
    stderr : int
        The lowest level that goes to standard error.
    folder : Path or None
        Where files of the lines lie.
    program : str
        What the files' names begin with.
    files : dict of int to TextIO
        Level -> the file of its lines and those of higher levels, once there are any.
    """

    least: int | None
    stderr: int
    folder: Path | None
    program: str
    files: dict[int, TextIO]


_settings = _Settings(None, INFO, None, "", {})
# What is written once a process.
_said: set[str] = set()


def is_logged(level: int = INFO) -> bool:
    """Tell whether lines of a level are written anywhere."""
    least = _settings.least
    if least is None:
        try:
            least = int(os.environ.get("GLOG_minloglevel", "0"))  # noqa: SIM112
        except ValueError:
            least = INFO
    return level >= least and (level >= _settings.stderr or _settings.folder is not None)


def write(level: int, message: str, depth: int = 1, file: str | None = None) -> None:
    """Write one line to standard error, unless GLOG_minloglevel silences its level.

    Parameters
    ----------
    level : int
        INFO, WARNING or ERROR.
    message : str
        The text after the bracket.
    depth : int
        How many frames up the line that speaks lies; it is named in the line.
    file : str, optional
        Named in its place: genuine Caffe's file.
    """
    if not is_logged(level):
        return
    frame = sys._getframe(depth)
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    place = f"{file or Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    stamp += f".{int(now % 1 * 1e6):06d} {threading.get_native_id():5d}"
    line = f"{_NAMES[level][0]}{stamp} {place}] {message}\n"
    # As in genuine Caffe a log that cannot be written stops nothing: its reader may have gone, its
    # disk may be full.
    if level >= _settings.stderr and sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(line)
            sys.stderr.flush()
    if _settings.folder is not None:
        with contextlib.suppress(OSError):
            _write_to_files(level, line)


def _write_to_files(level: int, line: str) -> None:
    for below in range(level + 1):
        if below not in _settings.files:
            _settings.files[below] = _open(_settings.folder, _settings.program, _NAMES[below])
        _settings.files[below].write(line)


def log_info(message: str) -> None:
    """Write an INFO line."""
    write(INFO, message, depth=2)


def log_warning(message: str) -> None:
    """Write a WARNING line."""
    write(WARNING, message, depth=2)


def log_warning_once(message: str) -> None:
    """Write a WARNING line, unless the process has written the same before."""
    if message not in _said:
        _said.add(message)
        write(WARNING, message, depth=2)


def log_error(message: str) -> None:
    """Write an ERROR line."""
    write(ERROR, message, depth=2)


class Log:
    """Writes lines that name a file of genuine Caffe, as programs that read its log expect.

    Parameters
    ----------
    file : str
        Such as "solver.cpp".
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def info(self, message: str) -> None:
        """Write an INFO line."""
        write(INFO, message, depth=2, file=self.file)

    def warning(self, message: str) -> None:
        """Write a WARNING line."""
        write(WARNING, message, depth=2, file=self.file)

    def error(self, message: str) -> None:
        """Write an ERROR line."""
        write(ERROR, message, depth=2, file=self.file)


def number(value: float) -> str:
    """Return a number as C++ prints it: 6 significant digits."""
    return f"{float(value):g}"


def init_log(level: int = INFO, stderr: bool = False) -> None:
    """Choose what is logged from now on, in place of GLOG_minloglevel; as pycaffe's `init_log`.

    Parameters
    ----------
    level : int
        The lowest level that is: 0 INFO, 1 WARNING, 2 ERROR.
    stderr : bool
        Write all of it to standard error; else errors only. (Genuine Caffe then writes the rest to
        files in /tmp, which nobody asked for.)

    Raises
    ------
    TypeError
        If `level` is no number.
    """
    if not isinstance(level, int):
        raise refused("init_log", (level,), "the level is 0 (INFO), 1 (WARNING) or 2 (ERROR)")
    configure_log(level, INFO if stderr else ERROR)


def log(message: str) -> None:
    """Write an INFO line; as pycaffe's `log`.

    Raises
    ------
    TypeError
        If it is no string.
    """
    if not isinstance(message, str):
        raise refused("log", (message,), "text is logged")
    write(INFO, message, depth=2)


def configure_log(least: int | None, stderr: int, folder: str = "", program: str = "caffe") -> None:
    """Choose which lines go where, as glog's flags do.

    Parameters
    ----------
    least : int or None
        The lowest level that is logged at all; None: what GLOG_minloglevel says.
    stderr : int
        The lowest level that goes to standard error.
    folder : str
        Where files of all lines go too, one for each level and those above it: named PROGRAM.HOST.
        USER.log.LEVEL.DATE-TIME.PID, with a link PROGRAM.LEVEL. Nowhere, if empty.
    program : str
        What the files' names begin with.

    Raises
    ------
    CaffeError
        If the files cannot be written.
    """
    global _settings
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        raise CaffeError(
            f"{folder}: no log can be written there; log_dir names a folder that exists"
        )
    for file in _settings.files.values():
        file.close()
    _settings = _Settings(least, stderr, Path(folder) if folder else None, program, {})


def _open(folder: Path, program: str, level: str) -> TextIO:
    host, now = socket.gethostname(), time.localtime()
    name = f"{program}.{host}.{getpass.getuser()}.log.{level}"
    path = folder / f"{name}.{time.strftime('%Y%m%d-%H%M%S', now)}.{os.getpid()}"
    file = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    file.write(
        f"Log file created at: {time.strftime('%Y/%m/%d %H:%M:%S', now)}\n"
        f"Running on machine: {host}\n"
        "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
    )
    link = folder / f"{program}.{level}"
    with contextlib.suppress(OSError):
        # Without the link, as where a file has its name, there are logs all the same.
        if link.is_symlink():
            link.unlink()
        link.symlink_to(path.name)
    return file
