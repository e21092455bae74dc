"""Run the tests that need a GPU in several processes that share them; each notes lines of JSON.

    run_gpu_tests.py NOTES [options and files of pytest]

is one of the processes: it collects the tests and runs those groups of them whose numbers it reads
from standard input, which the processes share: eight bytes each, taken when the last group is done.
Tests that differ in the last part of their name alone, such as the precision, are a group: they
share what they are held against. What a test has recorded with pytest's `record_property` is noted
with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from child_programs import REPOSITORY, Program, ending
from findings import Findings
from unet.machine.cores import available_cores

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


def files_of_gpu_tests() -> list[str]:
    """Return the files of tests that need a GPU: others may need what is not there."""
    tests = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    return [str(test) for test in tests if "mark.gpu" in test.read_text(encoding="utf-8")]


def run_tests(findings: Findings, options: argparse.Namespace, seconds: float) -> None:
    """Run the tests that need a GPU, in several processes, for as long as there is time."""
    over = time.monotonic() + seconds
    # Two cores are left to the system and the GPU's own threads.
    count = max(1, available_cores() - 2)
    notes = [options.work / f"tests-{number}.jsonl" for number in range(count)]
    # Plugins of pytest that happen to be installed may want what is not.
    environment = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    how = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    # Each process takes from here what to run next.
    given, numbers = os.pipe()
    programs = {
        number: Program(
            ["tools/run_gpu_tests.py", str(path), *how, *files_of_gpu_tests()],
            path.with_suffix(".log"),
            given=given,
            environment=environment,
        )
        for number, path in enumerate(notes)
    }
    os.close(given)
    with ending(programs):
        # All collect the same: one tells what there is.
        while time.monotonic() < over and not any(map(_lines, notes)):
            if all(program.process.poll() is not None for program in programs.values()):
                break
            time.sleep(0.1)
        lines = [line for path in notes for line in _lines(path)]
        names = next((line["groups"] for line in lines if "groups" in line), [])
        # Whole networks take longest: none of them is to be the last.
        order = sorted(range(len(names)), key=lambda number: "networks" not in names[number])
        with contextlib.suppress(BrokenPipeError):
            os.write(numbers, "".join(NUMBER % number for number in order).encode())
        os.close(numbers)
        late = list(programs)
        while late and time.monotonic() < over:
            time.sleep(min(1.0, max(0.0, over - time.monotonic())))
            _note_tests(findings, notes)
            late = [number for number in late if programs[number].process.poll() is None]
    left = _note_tests(findings, notes)
    if left:
        told = f"tests that were not run or not ended: {left}"
        findings.note("tests, not run", told, tests=left)
    for number, program in programs.items():
        # 0: passed; 1: failed, which is noted of each test; 5: there was none.
        if number not in late and program.process.returncode not in (0, 1, 5):
            status = f"exit status {program.process.returncode}"
            findings.fail(f"tests, process {number}", f"{program.said}\n{status}")


def _lines(notes: Path) -> list[dict[str, Any]]:
    """Return what a process has noted so far."""
    found = []
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []:
        # The last may be under way.
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _note_tests(findings: Findings, notes: list[Path]) -> int:
    """Note what tests have said so far; return how many have not ended."""
    planned, results, running = 0, {}, []
    for path in notes:
        begun = None
        for found in _lines(path):
            planned = max(planned, found.get("tests", 0))
            begun = found.get("begins", begun)
            if "outcome" in found:
                # What cannot be collected, all processes find.
                results[found["test"]] = found
                begun = None
        if begun:
            running.append(begun)
    counts = Counter(found["outcome"] for found in results.values())
    failed = [found for found in results.values() if found["outcome"] == "failed"]
    parity = [
        value
        for found in results.values()
        for name, value in found.get("properties", ())
        if name == "gpu_parity"
    ]
    ended = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    lines = [f"tests that need a GPU: {planned}; {ended or 'none ended'}"]
    lines += parity_table(parity)
    lines += [f"  FAILED {found['test']}\n      {_last_error(found['text'])}" for found in failed]
    findings.note(
        "tests",
        "\n".join(lines),
        planned=planned,
        counts=dict(counts),
        parity=parity,
        running=running,
        failed=[{key: found[key] for key in ("test", "text")} for found in failed],
    )
    findings.failed = findings.failed or bool(failed)
    return planned - sum("seconds" in found for found in results.values())


def parity_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return lines with the largest difference of each kind of cases from the CPU's float32.

    Of the rows, as tests/gpu records them, `worst` is a fraction of the largest value of an array.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["suite"], row["mode"]), []).append(row)
    lines = []
    if groups:
        lines.append(f"  {'against the CPU':26s}{'in':>12s}{'cases':>7s}{'worst':>9s}")
    for (suite, mode), group in sorted(groups.items()):
        cases = sum(row["cases"] for row in group)
        wrong = sum(len(row["mistakes"]) for row in group)
        worst = max(group, key=lambda row: row["worst"])
        remark = f"{wrong} TOO FAR OFF" if wrong else f"{worst['part']}: {worst['where']}"
        lines.append(f"  {suite:26s}{mode:>12s}{cases:7d}{worst['worst']:9.1e}  {remark}")
    return lines


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("E ")] or text.splitlines()[-1:]
    return lines[0][:200] if lines else ""


def main() -> int:
    """Run the tests."""
    notes, *options = sys.argv[1:]
    # pytest takes standard input away.
    return pytest.main(options, plugins=[Notes(Path(notes), os.dup(0))])


if __name__ == "__main__":
    sys.exit(main())
