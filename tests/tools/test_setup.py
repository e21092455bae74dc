"""tools/setup: two at once, killed half-way, with a Python that only pretends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

# Seconds after which what should have ended has not.
LONG = 600

# Answers as Python does; `-m venv` makes an environment of itself, and pip takes its time. From
# .venv/half on it starts nothing but sleep: of a signal that comes while another program ends well
# bash takes no notice.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >>log ;;
    "-m pip install"*)
        echo begin >>log
        pause=$(cat pause)
        : >.venv/half
        sleep "$pause"
        [[ -e fails ]] && exit 1
        rm .venv/half
        echo end >>log ;;
    --version) echo Python 3.12 ;;
esac
exit 0
"""


@pytest.fixture
def place(tmp_path, repository) -> Path:
    """Return a folder with what tools/setup needs."""
    (tmp_path / "tools").mkdir()
    shutil.copy(repository / "tools" / "setup", tmp_path / "tools" / "setup")
    shutil.copy(repository / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "pause").write_text("0.5")
    return tmp_path


def start(place: Path) -> subprocess.Popen:
    command = ["make", "setup", f"PYTHON={place / 'python'}"]
    return subprocess.Popen(
        command, cwd=place, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def log(place: Path) -> list[str]:
    return (place / "log").read_text().split()


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_of_two_at_once_the_second_waits_and_finds_all_done(place):
    both = [start(place), start(place)]
    assert [process.wait(LONG) for process in both] == [0, 0]
    assert log(place) == ["venv", "begin", "end"]
    assert (place / ".venv" / "ready").exists()
    # Later ones install again only what has changed.
    assert start(place).wait(LONG) == 0
    assert log(place) == ["venv", "begin", "end"]
    later = time.time() + 5
    os.utime(place / "constraints.txt", (later, later))
    assert start(place).wait(LONG) == 0
    assert log(place) == ["venv", "begin", "end", "begin", "end"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_was_cut_short_is_made_anew(place, number):
    (place / "pause").write_text("30")
    process = start(place)
    wait_for(place / ".venv" / "half")
    os.killpg(process.pid, number)
    assert process.wait(LONG) != 0
    (place / "pause").write_text("0")
    assert start(place).wait(LONG) == 0
    assert log(place) == ["venv", "begin", "venv", "begin", "end"]
    assert not (place / ".venv" / "half").exists()


def test_what_pip_refuses_is_tried_again_in_the_same_environment(place):
    (place / "fails").touch()
    assert start(place).wait(LONG) != 0
    assert not (place / ".venv" / "ready").exists()
    (place / "fails").unlink()
    assert start(place).wait(LONG) == 0
    assert log(place) == ["venv", "begin", "begin", "end"]
