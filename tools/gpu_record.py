"""What a check of a machine has found so far, on disk; and the programs that it runs.

Both files are rewritten whole after every finding, so that a check which is killed leaves what it
knew.
"""

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

from unet.files.atomic import atomic_path
from unet.files.score_file import write_scores

REPOSITORY = Path(__file__).resolve().parent.parent
# Of what a program that failed has said, lines that are kept.
_TAIL = 30


class Record:
    """Findings of a check, as NAME.json and as the table NAME.txt in a folder.

    It may take so many seconds from now on; `failed` tells whether a finding is a failure.
    """

    def __init__(self, folder: Path, name: str, seconds: float) -> None:
        self._folder, self._name = folder, name
        self._began = time.monotonic()
        self._budget = seconds
        self._found: dict[str, dict[str, Any]] = {}
        self.failed = False

    @property
    def passed(self) -> float:
        """Seconds since the check began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until it is to be over."""
        return self._budget - self.passed

    def note(self, item: str, table: str, **values: Any) -> None:
        """Write down a finding, its lines and its values in JSON, in place of an earlier one."""
        self._found[item] = {"at": round(self.passed, 1), "table": table, **values}
        self._write()

    def fail(self, item: str, error: str) -> None:
        """Write down what went wrong."""
        self.failed = True
        lines = error.strip().splitlines()[-_TAIL:]
        self.note(
            item, f"{item}: FAILED\n" + "\n".join(f"    {line}" for line in lines), error=error
        )

    def finish(self) -> None:
        """Write down that all is done."""
        self.note("end", f"done in {self.passed:.0f} s of {self._budget:.0f} s")

    @property
    def table(self) -> str:
        """What was found, to be read."""
        return "\n\n".join(finding["table"] for finding in self._found.values())

    def _write(self) -> None:
        values = {
            item: {key: value for key, value in finding.items() if key != "table"}
            for item, finding in self._found.items()
        }
        known = {"seconds": self._budget, "found": values}
        write_scores(self._folder / f"{self._name}.json", known)
        with atomic_path(self._folder / f"{self._name}.txt") as path:
            path.write_text(self.table + "\n", encoding="utf-8")


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
        return "\n".join(self.everything.replace("\r", "\n").splitlines()[-_TAIL:])

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
