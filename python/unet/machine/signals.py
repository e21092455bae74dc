"""Signals that ask a program to stop: they unwind it as Ctrl-C does, and can be held a while."""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

# Ctrl-C, what ends a job, and the terminal that closes.
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.05  # seconds
_IMPORTS = "<frozen importlib._bootstrap>"


class Stopped(KeyboardInterrupt):
    """The program was asked to stop, by the signal of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def signal_behind(error: BaseException, asked: Sequence[int] = ()) -> int | None:
    """Return the signal that an error is or was made of, None if there is none.

    A library that is interrupted while it is imported, or that calls Python from C, makes an error
    of its own out of it, "initialization failed", of which a reader of files may make another, "is
    the file whole?"; some forget what it was made of.

    Parameters
    ----------
    error : BaseException
    asked : sequence of int
        What `unwinding` gives: an error of which these know nothing has lost them.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        # What is replaced `from None`, but not what goes wrong while a signal is answered; except
        # that shutil.rmtree, before Python 3.13, then closes a descriptor a second time.
        replaced = cause.__suppress_context__ or getattr(cause, "errno", None) == errno.EBADF
        cause = cause.__cause__ or (cause.__context__ if replaced else None)
    if cause is not None:
        return cause.number if isinstance(cause, Stopped) else signal.SIGINT
    known: BaseException | None = error
    while known is not None and not isinstance(known, KeyboardInterrupt):
        known = known.__cause__ or known.__context__
    return asked[0] if asked and known is None else None


@contextlib.contextmanager
def unwinding() -> Iterator[list[int]]:
    """Have the signals that ask a program to stop raise `Stopped`; yields the numbers of those.

    Those that are ignored, as nohup has SIGHUP ignored, stay so. A job that is ended often gets
    several of them: after the first only Ctrl-C counts, so that what tidies up is not cut short.
    One that comes while a module is imported waits until it is: modules in C make other errors of
    it, forget it, or crash when the program ends. A second Ctrl-C does not.
    """
    asked: list[int] = []
    waiting: list[int] = []

    def stop(number: int, _frame: object) -> None:
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

    def answer(_number: int, _frame: object) -> None:
        if waiting:
            number = waiting.pop()
            handler = signal.getsignal(number)
            # It may be held now.
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
        for number in ASKING:
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


def ignore() -> None:
    """Ignore the signals that ask a program to stop, since it is ending anyway."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def noting() -> Iterator[list[int]]:
    """Have the signals that ask a program to stop noted for a while, unless they are ignored.

    Yields the numbers of those that have come. In a thread that gets no signals it stays empty.
    """
    seen: list[int] = []
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, lambda came, _frame: seen.append(came))
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold the signals that ask a program to stop until the context is left.

    For what must not be left in the middle: a few system calls, or a library that does not survive
    an exception in the functions that it calls.
    """
    with noting() as seen:
        yield
    for number in seen[:1]:
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, None)
        else:
            raise Stopped(number)
