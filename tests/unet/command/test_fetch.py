"""tools/fetch.py: each name gets its own data, and what was found is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import release2015
from tests.conftest import REPOSITORY


def fetch(*words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "tools" / "fetch.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/tmp")


def test_the_release_from_an_archive(tmp_path):
    release = release2015.write_release(tmp_path, 1, np.zeros((2, 20, 30), np.uint8))
    (tmp_path / "local.tar.gz").write_bytes(release2015.pack(release))
    out = tmp_path / "new"
    done = fetch("release-2015", "--from", tmp_path / "local.tar.gz", "-o", out)
    assert done.returncode == 0, done.stderr
    size = (out / "phseg_v5.caffemodel").stat().st_size
    assert f"{out}/phseg_v5.caffemodel: {size:,} bytes" in done.stdout
    assert f"{out}/PhC-C2DH-U373/01: 2 frames" in done.stdout
    (out / "phseg_v5-train.prototxt").write_text("layers { } # mine")
    again = ["release-2015", "--from", tmp_path / "local.tar.gz", "-o", out]
    done = fetch(*again)
    assert done.returncode == 2
    assert "phseg_v5-train.prototxt: differs from what" in done.stderr
    assert (out / "phseg_v5-train.prototxt").read_text() == "layers { } # mine"
    done = fetch(*again, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "mine" not in (out / "phseg_v5-train.prototxt").read_text()


def test_data_sets_from_a_folder(tmp_path, shared_data):
    done = fetch("isbi2012", "--from", shared_data / "isbi2012", "-o", tmp_path / "isbi")
    assert "train-volume.tif: every pixel as tested" in done.stdout, done.stderr
    done = fetch("phc-u373", "--from", shared_data, "-o", tmp_path / "phc")
    assert f"{tmp_path}/phc/02: 115 frames" in done.stdout, done.stderr


def test_a_mistake_is_one_line(tmp_path):
    done = fetch("dic-hela", "--from", tmp_path / "absent", "-o", tmp_path / "new")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "absent: there is no such folder or zip" in done.stderr


@pytest.mark.parametrize("name", ["isbi2012", "ctc", "release2015", "phantom"])
def test_each_data_set_is_a_program_of_its_own(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "data" / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "--overwrite" in done.stdout
