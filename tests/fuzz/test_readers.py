"""The readers survive valid files, the corpus of what they once did not, and some seconds more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz import readers, targets

SECONDS = 8


@pytest.mark.slow
def test_readers_survive_the_corpus_and_a_short_fuzz(repository, tmp_path):
    words = ["--seconds", str(SECONDS), "--seed", "0", "--finds", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.readers", *words],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    assert len(results) == len(readers.TARGETS)
    for result in results:
        # All of the corpus, and something beside it.
        assert result["executions"] > len(list((readers.CORPUS / result["reader"]).glob("*")))


def test_a_reader_that_fails_is_found(tmp_path, monkeypatch):
    def read(path) -> None:
        if b"7" in path.read_bytes():
            raise IndexError("seven")

    monkeypatch.setitem(
        readers.TARGETS,
        "bad",
        targets.Target(read, lambda: [b"12345"], lambda rng, data: data + rng.randbytes(50), "."),
    )
    result = readers.fuzz("bad", 2, 0, tmp_path)
    assert result["finds"] == 1
    assert (tmp_path / "bad-0-0").read_bytes() == b"7"


def test_a_reader_that_works_too_much_is_found(tmp_path, monkeypatch):
    def read(path) -> None:
        for _ in range(int(path.read_bytes())):
            (lambda: None)()

    monkeypatch.setitem(readers.TARGETS, "slow", targets.Target(read, list, None, "."))
    path = tmp_path / "file"
    for calls, wrong in ((readers.MAX_WORK // 2, ""), (readers.MAX_WORK, "lines and calls")):
        path.write_text(str(calls))
        assert wrong in readers.verdict("slow", path, set())
        assert bool(readers.verdict("slow", path, set())) == bool(wrong)
