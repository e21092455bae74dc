"""The readers of stacks survive some seconds of damaged files, and what they once did not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz import volumes

SECONDS = 2


@pytest.mark.slow
def test_readers_of_stacks_survive_a_short_fuzz(repository, tmp_path):
    words = ["--seconds", str(SECONDS), "--seed", "0", "--finds", str(tmp_path)]
    # One of each kind of file.
    names = ["imagej", "bigtiff", "png", "hdf5", "training_set", "zarr", "tracks"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.volumes", *words, "--readers", *names],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    assert [result["reader"] for result in results] == names
    assert all(result["executions"] > 3 for result in results)


def test_a_reader_that_fails_is_found(tmp_path, monkeypatch):
    def read(path) -> None:
        if path.read_bytes() != b"1234":
            raise IndexError("changed")

    target = (read, lambda path: path.write_bytes(b"1234"))
    monkeypatch.setitem(volumes.TARGETS, "bad", target)
    result = volumes.fuzz("bad", 0.5, 0, tmp_path)
    assert result["finds"] == 1
    assert (tmp_path / "bad-1-0").exists()
