"""Hostile files: each is refused with bounded work, and the message says where it is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.caffe.files.hostile_files import TABLE

# Of Python, the standard library's among them: a text of two million lines takes half of this.
MAX_LINES = 50_000_000
MAX_MEGABYTES = 200
MAX_MESSAGE = 2000

CASES = [(reader, name) for reader, files in TABLE.items() for name in files]


@pytest.fixture(scope="module")
def results(repository) -> dict[str, dict]:
    """Return what all readers told of all files, from one process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.caffe.files.hostile_files"],
        capture_output=True,
        text=True,
        cwd=repository,
        # All of them together take half a minute: what takes that long hangs.
        timeout=3600,
        env=os.environ | {"GLOG_minloglevel": "3", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("reader", "name"), CASES, ids=[f"{r}: {n}" for r, n in CASES])
def test_a_hostile_file_is_refused_at_once_and_cheaply(reader, name, results):
    result = results[f"{reader}: {name}"]
    told = result["told"]
    assert result["kind"] == "CaffeError", result
    assert re.match(rf"/.*?/file{TABLE[reader][name][1]}", told, re.DOTALL), told
    assert len(told) < MAX_MESSAGE, told
    assert told.isprintable(), told
    assert result["lines"] < MAX_LINES, result
    assert result["megabytes"] < MAX_MEGABYTES, result
