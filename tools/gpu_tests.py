"""Run tests as one of several processes that share them; note each as a line of JSON.

    gpu_tests.py NOTES [options and files of pytest]

collects the tests and runs those groups of them whose numbers it reads from standard input, which
the processes share: eight bytes each, taken when the last group is done. Tests that differ in the
last part of their name alone, such as the precision, are a group: they share what they are held
against. What a test has recorded with pytest's `record_property` is noted with it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

# Bytes of a group's number on standard input.
NUMBER = "%07d\n"
_BYTES = len(NUMBER % 0)
# Characters of what a failed test says.
_LONGEST = 3000


class Notes:
    """A plugin of pytest; a file descriptor gives the numbers of the groups."""

    def __init__(self, path: Path, numbers: int) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed with the process
        self._numbers = numbers

    def _note(self, **values: Any) -> None:
        self._file.write(json.dumps(values, default=str) + "\n")
        self._file.flush()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(test=report.nodeid, outcome="failed", text=report.longreprtext[-_LONGEST:])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        groups: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            groups.setdefault(item.nodeid.rpartition(", ")[0] or item.nodeid, []).append(item)
        self._note(tests=len(session.items), groups=list(groups))
        of_number = list(groups.values())
        for number in iter(lambda: os.read(self._numbers, _BYTES), b""):
            group = of_number[int(number)]
            for item, following in zip(group, [*group[1:], None]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return True

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._note(begins=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._note(
                test=report.nodeid,
                outcome=report.outcome,
                seconds=round(report.duration, 3),
                properties=[list(pair) for pair in report.user_properties],
                text=report.longreprtext[-_LONGEST:],
            )


def main() -> int:
    """Run the tests."""
    notes, *options = sys.argv[1:]
    # pytest takes standard input away.
    return pytest.main(options, plugins=[Notes(Path(notes), os.dup(0))])


if __name__ == "__main__":
    sys.exit(main())
