"""How the programs end: with an exit status, and a sentence where the user made a mistake.

As the method's programs do by unet.command.running, unet.machine.signals and unet.command.terminal,
which also run on genuine Caffe, without this package; the engine runs without the method.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from caffe.errors import CaffeError

EXIT_MISTAKE = 2
# Plus the number of the signal: 130 for Ctrl-C.
EXIT_STOPPED = 128
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.05  # seconds
_IMPORTS = "<frozen importlib._bootstrap>"


class Stopped(KeyboardInterrupt):
    """The program was asked to stop, by the signal of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def run_program(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a program's `main` and leave the process with the right exit status.

    `main` takes the arguments, None for the command line's, and returns the status, None for 0.

    Notes
    -----
    A user's mistake (`CaffeError`, `OSError`, `MemoryError`) is one line on standard error and
    status 2; Ctrl-C, SIGTERM and SIGHUP undo what is half done and end with 128 plus the signal's
    number; anything else is a bug and keeps its traceback. What becomes of the terminal does not
    matter, unless the program has called `terminal_is_the_output`.
    """
    # Unloading takes libraries a moment, which changes nothing of the status.
    atexit.register(_ignore)
    hook = sys.unraisablehook
    try:
        with _streams():
            status = _status(main)
    except KeyboardInterrupt:
        # In the moment before the work begins, or after it.
        status = EXIT_STOPPED + signal.SIGINT
    finally:
        sys.unraisablehook = hook
    sys.exit(status)


def terminal_is_the_output() -> None:
    """Say that what is printed and logged is all the program makes: without a reader, it ends."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Stream):
            stream.decides = True


def _status(main: Callable[[Sequence[str] | None], int | None]) -> int | None:
    asked: list[int] = []
    try:
        # Within: a signal that comes when all is done is answered like one that comes before.
        with _unwinding() as asked:
            status = main(None)
            sys.stdout.flush()
        return status
    except (KeyboardInterrupt, Exception) as error:
        number = _signal_behind(error, asked)
        if number is not None:
            return _stopped(number)
        if not isinstance(error, (CaffeError, OSError, MemoryError)):
            raise
        print(f"{Path(sys.argv[0]).stem}: {str(error) or type(error).__name__}", file=sys.stderr)
        return EXIT_MISTAKE


def _signal_behind(error: BaseException, asked: Sequence[int]) -> int | None:
    """Return the signal that an error is, or was made of by a library; `asked` are all there were.

    What goes wrong while a signal is answered is an error; one that knows of no signal has lost it.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        # What is replaced `from None` as well, and what shutil.rmtree, before Python 3.13, makes of
        # it, which closes a descriptor a second time.
        replaced = cause.__suppress_context__ or getattr(cause, "errno", None) == errno.EBADF
        cause = cause.__cause__ or (cause.__context__ if replaced else None)
    if cause is not None:
        return cause.number if isinstance(cause, Stopped) else signal.SIGINT
    known: BaseException | None = error
    while known is not None and not isinstance(known, KeyboardInterrupt):
        known = known.__cause__ or known.__context__
    return asked[0] if asked and known is None else None


def _stopped(number: int) -> int:
    # Of objects that it left half made, and that now go, nobody wants to hear.
    sys.unraisablehook = lambda lost: None
    if number != signal.SIGPIPE:
        print("stopped", file=sys.stderr)
    return EXIT_STOPPED + number


@contextlib.contextmanager
def _unwinding() -> Iterator[list[int]]:
    """Have signals raise `Stopped`, unless they are ignored; after the first, only Ctrl-C does.

    Yields the numbers of those that have. While a module is imported they wait, up to a second
    Ctrl-C: modules in C make other errors of them, forget them, or crash when the program ends.
    """
    asked: list[int] = []
    waiting: list[int] = []

    def stop(number: int, frame: object) -> None:
        if asked and number != signal.SIGINT:
            return
        if _is_importing() and not (waiting and number == signal.SIGINT):
            answer_later(number)
            return
        asked.append(number)
        raise Stopped(number)

    def answer_later(number: int) -> None:
        # Not by a thread: it cannot be started while another one is.
        waiting[:] = [number]
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    def answer(number: int, frame: object) -> None:
        if waiting:
            number = waiting.pop()
            handler = signal.getsignal(number)
            # A solver may have its own now.
            if callable(handler):
                handler(number, None)

    def once_more(lost: Any) -> None:
        """Answer a signal again whose exception Python dropped, as in a destructor."""
        if not isinstance(lost.exc_value, Stopped):
            hook(lost)
            return
        asked.clear()
        answer_later(lost.exc_value.number)

    before, hook = {}, sys.unraisablehook
    try:
        sys.unraisablehook = once_more
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, answer)
        for number in _ASKING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
        yield asked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _is_importing() -> bool:
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename != _IMPORTS:
        frame = frame.f_back
    return frame is not None


def _ignore() -> None:
    for number in _ASKING:
        signal.signal(number, signal.SIG_IGN)


class _Stream:
    """A text stream that takes everything, also where the reader has gone or the disk is full."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.decides = False

    def write(self, text: str) -> int:
        with self._losing():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                code = self._stream.encoding
                self._stream.write(text.encode(code, "backslashreplace").decode(code))
        return len(text)

    def flush(self) -> None:
        with self._losing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(io.UnsupportedOperation):
                # What is left in buffers, and what processes started from here say, goes nowhere.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if self.decides:
                if error.errno == errno.EPIPE:
                    raise Stopped(signal.SIGPIPE) from None
                raise CaffeError(f"{self._name}: {error.strerror}") from None


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Let nothing that is printed fail for a while, whether streams are closed, broken or full."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened, a snapshot perhaps, becomes standard error.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        out = _Stream(sys.stdout or nowhere, "standard output")
        err = _Stream(sys.stderr or nowhere, "standard error")
        sys.stdout, sys.stderr = out, err
        try:
            yield
        finally:
            out.decides = err.decides = False
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
