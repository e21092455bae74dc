"""Log lines in the form of glog, which programs that read Caffe's log expect; by `logging`."""

from __future__ import annotations

import contextlib
import getpass
import io
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from caffe.argument_checks import refused
from caffe.errors import CaffeError

INFO, WARNING, ERROR = 0, 1, 2
_NAMES = ("INFO", "WARNING", "ERROR")


def _level(severity: int) -> int:
    """Return the level of `logging` that is a severity of glog."""
    return logging.INFO + (logging.WARNING - logging.INFO) * severity


class _Logger(logging.Logger):
    """Asks GLOG_minloglevel, whenever it is to write, unless a level is set."""

    def isEnabledFor(self, level: int) -> bool:
        least = self.level
        if least == logging.NOTSET:
            try:
                least = _level(int(os.environ.get("GLOG_minloglevel", "0")))  # noqa: SIM112
            except ValueError:
                least = logging.INFO
        return level >= least and any(level >= handler.level for handler in self.handlers)


class _Formatter(logging.Formatter):
    """Writes Lmmdd hh:mm:ss.uuuuuu threadid file:line] text."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        stamp += f".{int(record.created % 1 * 1e6):06d} {threading.get_native_id():5d}"
        place = f"{getattr(record, 'file', record.filename)}:{record.lineno}"
        return f"{record.levelname[0]}{stamp} {place}] {record.getMessage()}"


def _lose(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Let a line be lost, as in genuine Caffe, whose reader has gone or whose disk is full."""
    if not isinstance(sys.exc_info()[1], OSError):
        raise


class _StderrHandler(logging.StreamHandler):
    """Writes to standard error, whatever that is by then."""

    handleError = _lose

    def __init__(self, severity: int) -> None:
        logging.Handler.__init__(self, _level(severity))
        self.setFormatter(_Formatter())

    @property
    def stream(self) -> TextIO:
        return io.StringIO() if sys.stderr is None else sys.stderr


class _FileHandler(logging.FileHandler):
    """Writes to PROGRAM.HOST.USER.log.LEVEL.DATE-TIME.PID, with a link PROGRAM.LEVEL there.

    The file is made for the first line.
    """

    handleError = _lose

    def __init__(self, folder: str, program: str, severity: int) -> None:
        level, host = _NAMES[severity], socket.gethostname()
        name = f"{program}.{host}.{getpass.getuser()}.log.{level}"
        name += f".{time.strftime('%Y%m%d-%H%M%S')}.{os.getpid()}"
        super().__init__(os.path.join(folder, name), "w", "utf-8", delay=True)
        self.setLevel(_level(severity))
        self.setFormatter(_Formatter())
        self._link = Path(folder, f"{program}.{level}")

    def _open(self) -> TextIO | None:
        try:
            file = super()._open()
        except OSError:
            return None
        file.write(
            f"Log file created at: {time.strftime('%Y/%m/%d %H:%M:%S')}\n"
            f"Running on machine: {socket.gethostname()}\n"
            "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
        )
        with contextlib.suppress(OSError):
            # Without the link, as where a file has its name, there are logs all the same.
            if self._link.is_symlink():
                self._link.unlink()
            self._link.symlink_to(Path(self.baseFilename).name)
        return file


_logger = _Logger("caffe")
_logger.addHandler(_StderrHandler(INFO))

log_info, log_warning, log_error = _logger.info, _logger.warning, _logger.error

# What is written once a process.
_said: set[str] = set()


class Log(logging.LoggerAdapter):
    """Writes lines that name a file of genuine Caffe, as programs that read its log expect."""

    def __init__(self, file: str) -> None:
        super().__init__(_logger, {"file": file})


def is_logged() -> bool:
    """Tell whether INFO lines are written anywhere."""
    return _logger.isEnabledFor(logging.INFO)


def log_warning_once(message: str) -> None:
    """Write a WARNING line, unless the process has written the same before."""
    if message not in _said:
        _said.add(message)
        _logger.warning(message, stacklevel=2)


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
        If `level` is not a number.
    """
    if not isinstance(level, int):
        raise refused("init_log", (level,), "the level is 0 (INFO), 1 (WARNING) or 2 (ERROR)")
    configure_log(level, INFO if stderr else ERROR)


def log(message: str) -> None:
    """Write an INFO line; as pycaffe's `log`.

    Raises
    ------
    TypeError
        If it is not a string.
    """
    if not isinstance(message, str):
        raise refused("log", (message,), "text is logged")
    _logger.info(message, stacklevel=2)


def configure_log(least: int | None, stderr: int, folder: str = "", program: str = "caffe") -> None:
    """Choose which lines go where, as glog's flags do.

    Parameters
    ----------
    least : int or None
        The lowest level that is logged at all; None: what GLOG_minloglevel says.
    stderr : int
        The lowest level that goes to standard error.
    folder : str
        Where files of all lines go too, one for each level and those above it. Nowhere, if empty.
    program : str
        What the files' names begin with.

    Raises
    ------
    CaffeError
        If the files cannot be written.
    """
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        raise CaffeError(
            f"{folder}: no log can be written there; log_dir names a folder that exists"
        )
    for handler in _logger.handlers:
        handler.close()
    # Level 0 would be `logging`'s word for none.
    _logger.setLevel(logging.NOTSET if least is None else max(1, _level(least)))
    _logger.handlers = [_StderrHandler(stderr)]
    if folder:
        _logger.handlers += [_FileHandler(folder, program, level) for level in range(3)]
