"""The program `fetch`: each name gets its own data, and what was found is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import release2015
from tests.conftest import REPOSITORY
from unet.command.fetch import main
from unet.errors import InputError


@pytest.fixture
def fetch(capsys):
    """Run the program; return what it prints."""

    def run(*words: str | Path) -> str:
        main([*map(str, words)])
        return capsys.readouterr().out

    return run


def test_the_release_from_an_archive(tmp_path, fetch):
    release = release2015.write_release(tmp_path, 1, np.zeros((2, 20, 30), np.uint8))
    (tmp_path / "local.tar.gz").write_bytes(release2015.pack(release))
    out = tmp_path / "new"
    words = ("release-2015", "--from", tmp_path / "local.tar.gz", "-o", out)
    said = fetch(*words)
    size = (out / "phseg_v5.caffemodel").stat().st_size
    assert f"{out}/phseg_v5.caffemodel: {size:,} bytes" in said
    assert f"{out}/PhC-C2DH-U373/01: 2 frames" in said
    (out / "phseg_v5-train.prototxt").write_text("layers { } # mine")
    with pytest.raises(InputError, match=r"phseg_v5-train\.prototxt: differs from what"):
        fetch(*words)
    assert (out / "phseg_v5-train.prototxt").read_text() == "layers { } # mine"
    fetch(*words, "--overwrite")
    assert "mine" not in (out / "phseg_v5-train.prototxt").read_text()


def test_data_sets_from_a_folder(tmp_path, shared_data, fetch):
    said = fetch("isbi2012", "--from", shared_data / "isbi2012", "-o", tmp_path / "isbi")
    assert "train-volume.tif: every pixel as tested" in said
    said = fetch("phc-u373", "--from", shared_data, "-o", tmp_path / "phc")
    assert f"{tmp_path}/phc/02: 115 frames" in said


def test_a_mistake_is_one_line(tmp_path):
    program = [sys.executable, str(REPOSITORY / "tools" / "fetch.py")]
    words = ["dic-hela", "--from", str(tmp_path / "absent"), "-o", str(tmp_path / "new")]
    done = subprocess.run([*program, *words], capture_output=True, text=True, cwd="/tmp")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "absent: there is no such folder or zip" in done.stderr


def test_phantoms_are_made(tmp_path, fetch):
    small = ("-o", tmp_path, "--slices", "1", "--size", "64")
    said = fetch("phantom", *small)
    assert f"{tmp_path}/train-labels.tif: 1 slices of 64 x 64" in said
    fetch("phantom-cells", *small, "--overwrite")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["phantom", "--from", "x"], "--from x: a phantom is made here; leave it out"),
        (["isbi2012", "--seed", "2"], "--seed is for phantoms: phantom and phantom-cells"),
    ],
)
def test_options_of_the_others_are_refused(words, told):
    with pytest.raises(InputError, match=told):
        main(words)
