"""Signals that ask a program to stop: they unwind it as Ctrl-C does, and can be held a while."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Ctrl-C, what ends a job, and the terminal that closes.
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.05  # seconds


class Stopped(KeyboardInterrupt):
    """The program was asked to stop, by the signal of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def signal_behind(error: BaseException) -> int | None:
    """Return the signal that an error is or was made of, None if there is none.

    A library that is interrupted while it is imported, or that calls Python from C, makes an error
    of its own out of it: "initialization failed".
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    if cause is None:
        return None
    return cause.number if isinstance(cause, Stopped) else signal.SIGINT


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Have the signals that ask a program to stop raise `Stopped`.

    Those that are ignored, as nohup has SIGHUP ignored, stay so. A job that is ended often gets
    several of them: after the first only Ctrl-C counts, so that what tidies up is not cut short.
    """
    asked = False

    def stop(number: int, _frame: object) -> None:
        nonlocal asked
        if asked and number != signal.SIGINT:
            return
        asked = True
        raise Stopped(number)

    def once_more(lost: Any) -> None:
        """Send a signal again whose exception Python dropped, as in a destructor."""
        nonlocal asked
        if not isinstance(lost.exc_value, Stopped):
            hook(lost)
            return
        asked = False
        threading.Timer(_AGAIN, os.kill, (os.getpid(), lost.exc_value.number)).start()

    before, hook = {}, sys.unraisablehook
    try:
        sys.unraisablehook = once_more
        for number in ASKING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


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
