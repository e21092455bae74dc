"""Standard output and error: what becomes of them keeps no program from what it was asked for."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from unet.machine.signals import Stopped


class _Stream:
    """A text stream that takes everything, also where the reader has gone or the disk is full.

    Its `error` says why some could not be written; where it `decides`, that ends the program.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.error: OSError | None = None
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
            self.error = error
            with contextlib.suppress(io.UnsupportedOperation):
                # What is left in buffers, and what programs started from here say, goes nowhere.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if self.decides:
                if error.errno == errno.EPIPE:
                    raise Stopped(signal.SIGPIPE) from None
                raise OSError(error.errno, error.strerror, self._name) from None


@contextlib.contextmanager
def never_in_the_way() -> Iterator[None]:
    """Let nothing that is printed fail for a while, whether streams are closed, broken or full."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened, an output perhaps, becomes standard output.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        out = _Stream(sys.stdout or nowhere, "standard output")
        err = _Stream(sys.stderr or nowhere, "standard error")
        sys.stdout, sys.stderr = out, err
        try:
            yield
            out.flush()
            if out.error is not None and out.error.errno != errno.EPIPE and not out.decides:
                print(f"standard output: {out.error.strerror}; not all was shown", file=err)
        finally:
            # What tells of the end of the program is lost, if at all, in silence.
            out.decides = False
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def is_the_output() -> None:
    """Say that standard output is all that the program writes, so that without it, it ends."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.decides = True
