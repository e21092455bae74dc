"""A user's mistake is one line that names the file, status 2, and nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unet.ctc_cases import make_case
from unet.volumes import write_volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with labels, a file that is cut off, foreign work and a damaged result."""
    write_volume(tmp_path / "labels.tif", np.zeros((5, 120, 130), np.uint16))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "labels.tif").read_bytes()[:5000])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    make_case(tmp_path, 3, 0.1)
    (tmp_path / "01_RES" / "mask003.tif").unlink()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("prepare.py no.tif labels.tif -o x.h5", "no.tif: there is no such file or folder"),
        ("track.py labels.tif -o mine", "mine: exists, and is not a tracking result"),
        ("evaluate.py labels.tif no.tif --json s.json", "no.tif: there is no such file or folder"),
        ("segment.py cut.tif --weights 01_GT -o x.tif", "01_GT"),
        ("evaluate.py labels.tif cut.tif --json s.json", "cut.tif"),
        ("evaluate.py 01_GT 01_RES --json s.json", "01_RES: has no mask003.tif"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, repository, arguments, said):
    before = sorted(folder.rglob("*"))
    program, *words = arguments.split()
    command = [sys.executable, str(repository / "tools" / program), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"{program}: ") and said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
