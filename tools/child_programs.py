"""Programs of this repository that run beside a check, speak into a log, and die with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# Of what a program that failed has said, lines that are kept.
TAIL = 30


class Program:
    """A program of this repository that runs beside the check, and dies with it.

    What it says goes into a log. Its standard input is a pipe for the check to use if it is
    `asked`, else the descriptor `given`; so is its standard output if it `answers`.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        asked: bool = False,
        answers: bool = False,
        given: int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command, self._log = list(command), log
        self._began = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE if asked else given,
                stdout=subprocess.PIPE if answers else said,
                stderr=said,
                cwd=str(REPOSITORY),
                env={**os.environ, **_search_path(), **(environment or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._began

    @property
    def said(self) -> str:
        """The end of what it has said."""
        return "\n".join(self.everything.replace("\r", "\n").splitlines()[-TAIL:])

    @property
    def everything(self) -> str:
        """All that it has said."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float) -> str | None:
        """Wait for its end, at most so long; return what went wrong, if anything did."""
        try:
            status = self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.said}\nstopped after {self.seconds:.0f} s: the time was over"
        return None if status == 0 else f"{self.said}\nexit status {status}: {self.told}"

    @property
    def told(self) -> str:
        """The command as it could be typed."""
        return "python3 " + " ".join(self.command)

    def kill(self) -> None:
        """End it, and what it has started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):
                    file.close()


@contextlib.contextmanager
def ending(programs: Mapping[Any, Any]) -> Iterator[None]:
    """Kill programs at the end of a block, also when it is left by an error."""
    try:
        yield
    finally:
        for program in programs.values():
            program.kill()


def _search_path() -> dict[str, str]:
    """Return the variable by which programs find this repository where it is not installed."""
    folders = [REPOSITORY / "tools", REPOSITORY / "python", os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, map(str, folders)))}


def _die_with_parent() -> None:
    # prctl(PR_SET_PDEATHSIG, SIGKILL): a check that is killed leaves nothing on the GPU.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
