"""Hostile files: each is refused within 1 s and 200 MB, and the message says where it is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.caffe.hostile_files import TABLE

# Of the processor; half that is the most on one that has nothing else to do.
MAX_SECONDS = 1.0
MAX_MEGABYTES = 200
MAX_MESSAGE = 2000

CASES = [(reader, name) for reader, files in TABLE.items() for name in files]


@pytest.fixture(scope="module")
def results(repository) -> dict[str, dict]:
    """Return what all readers told of all files, from one process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.caffe.hostile_files"],
        capture_output=True,
        text=True,
        cwd=repository,
        timeout=300,
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
    assert result["seconds"] < MAX_SECONDS, result
    assert result["megabytes"] < MAX_MEGABYTES, result
