"""Run tests as one of several processes; note each, when it begins and ends, as a line of JSON.

    gpu_tests.py NOTES NUMBER COUNT [options and files of pytest]

collects the tests, waits for a line on standard input or its end, and runs each COUNT-th test, from
NUMBER on, counted from 0. Tests that differ in the last part of their name alone, such as the
precision, count as one: they share what they are held against. What a test has recorded with
pytest's `record_property` is noted with it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import pytest

# Characters of what a failed test says.
_LONGEST = 3000


class Notes:
    """A plugin of pytest.

    Parameters
    ----------
    path : Path
    number, count : int
        Which of how many processes this is.
    start : file
        Gives the line.
    """

    def __init__(self, path: Path, number: int, count: int, start: IO[str]) -> None:
        self._start = start
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed with the process
        self._number, self._count = number, count

    def _note(self, **values: Any) -> None:
        self._file.write(json.dumps(values, default=str) + "\n")
        self._file.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        groups = dict.fromkeys(_group(item) for item in items)
        mine = set(list(groups)[self._number :: self._count])
        items[:] = [item for item in items if _group(item) in mine]
        self._note(tests=len(items))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        self._start.readline()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(test=report.nodeid, outcome="failed", text=report.longreprtext[-_LONGEST:])

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


def _group(item: pytest.Item) -> str:
    return item.nodeid.rpartition(", ")[0] or item.nodeid


def main() -> int:
    """Run the tests."""
    notes, number, count, *options = sys.argv[1:]
    # pytest takes standard input away.
    start = open(os.dup(0))  # noqa: SIM115 - closed with the process
    return pytest.main(options, plugins=[Notes(Path(notes), int(number), int(count), start)])


if __name__ == "__main__":
    sys.exit(main())
