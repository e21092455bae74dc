"""What a check of a GPU has found so far: NAME.json and the table NAME.txt in a folder.

Both are rewritten whole after every finding, so that a check which is killed leaves what it knew.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from child_programs import TAIL
from unet.files.atomic import atomic_path
from unet.files.score_file import write_scores


class Findings:
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
        lines = error.strip().splitlines()[-TAIL:]
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
