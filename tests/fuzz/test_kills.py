"""Programs survive some kills, and one that does not is found out."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz import kills

KILLS = 32


@pytest.mark.slow
def test_programs_survive_some_kills(repository):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kills", "--count", str(KILLS), "--seed", "3"],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split() == ["all", str(KILLS), "0", "0", "0"]


@pytest.fixture
def case(tmp_path, monkeypatch) -> kills.Case:
    """Return a case of a program that a test gives; its input and older result are there."""
    for name, text in (("input", "input"), ("out", "old")):
        (tmp_path / "work" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "work" / name).write_text(text)
    found = kills.Case("bad", "bad", [], calls=4, template=tmp_path / "work")
    found.old = kills.tree(tmp_path / "work")
    found.new = {**found.old, "out": kills.hashlib.sha256(b"new").hexdigest()}
    return found


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (lambda folder: (folder / "out").write_text("ne"), ["torn: out"]),
        (lambda folder: (folder / "out").unlink(), ["lost: out"]),
        (lambda folder: (folder / "input").write_text(""), ["torn: input"]),
        (lambda folder: (folder / "rest.tmp").touch(), ["torn: rest.tmp"]),
        (lambda folder: (folder / ".out.0123abcd.part").mkdir(), []),
        (lambda folder: (folder / "out").write_text("new"), []),
        (lambda folder: None, []),
    ],
)
def test_what_a_kill_may_not_leave_is_told(case, then, told):
    then(case.template)
    assert list(kills.compare(case, case.template)) == told


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (lambda folder: (folder / ".out.0123abcd.part").mkdir(), ["left: .out.0123abcd.part"]),
        (lambda folder: (folder / "rest.tmp").touch(), ["left: rest.tmp"]),
        (lambda folder: (folder / "out").unlink(), ["lost: out is not as of an undisturbed run"]),
        (lambda folder: None, []),
    ],
)
def test_what_the_next_run_may_not_leave_is_told(case, then, told):
    (case.template / "out").write_text("new")
    then(case.template)
    assert list(kills.compare_end(case, case.template)) == told


def test_a_program_is_killed_at_the_call_that_is_aimed_at(case, tmp_path, monkeypatch):
    def program() -> None:
        for number in range(4):
            Path(str(number)).mkdir()
            time.sleep(0.01)

    monkeypatch.setitem(kills.PROGRAMS, "bad", program)
    pid = kills._fork(case, case.template, [], kills.Aim(signal.SIGKILL, 3))
    assert kills._wait(pid, 60) == -signal.SIGKILL
    assert sorted(name for name in kills.tree(case.template) if name.isdigit()) == ["0", "1"]


def test_a_status_or_traceback_that_no_signal_explains_is_told(case, monkeypatch):
    def program() -> None:
        raise SystemExit(3)

    monkeypatch.setitem(kills.PROGRAMS, "bad", program)
    case.calls, case.seconds = 99, 60
    _, wrong = kills.kill(case, case.template, [], signal.SIGTERM, random.Random(0), fresh=False)
    assert wrong == ["torn: status 3: nothing said"]


@pytest.mark.slow
def test_a_segmentation_survives_a_dozen_kills(repository):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kills", "--count", "12", "--seed", "5"]
        + ["--only", "segment"],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split() == ["all", "12", "0", "0", "0"]
