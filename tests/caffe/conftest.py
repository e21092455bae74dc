"""Judges of this folder: genuine Caffe, as programs and Python, and a GPU or its stand-in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

import caffe
from caffe import common
from tests.caffe.stand_in import StandIn, computing_on_stand_in


class Genuine:
    """Runs commands and Python code in genuine Caffe's root file system.

    Parameters
    ----------
    wrapper : str
        The program that runs a command there.
    """

    def __init__(self, wrapper: str) -> None:
        self._wrapper = wrapper

    def command(self, *words: str | os.PathLike) -> subprocess.CompletedProcess:
        """Run one command; its output comes back as text."""
        return subprocess.run(
            [self._wrapper, *map(str, words)], capture_output=True, text=True, cwd="/tmp"
        )

    def python(self, code: str, **values):
        """Run `code` with `caffe`, `np` and `values` in sight; return what it assigned to `result`.

        Values and result travel as JSON.
        """
        program = (
            "import json, os\n"
            "out = os.dup(1); os.dup2(2, 1)\n"  # Caffe and its users print as they like
            "import caffe, numpy as np\n"
            f"globals().update(json.loads({json.dumps(values)!r}))\n"
            "result = None\n"
            f"{code}\n"
            "os.write(out, json.dumps(result).encode())\n"
        )
        done = self.command("python3", "-c", program)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def genuine(reference) -> Genuine:
    """Return genuine Caffe."""
    return Genuine(reference.command[0])


@pytest.fixture
def gpu(monkeypatch) -> Iterator[StandIn]:
    """Compute on the stand-in for a GPU."""
    with computing_on_stand_in(monkeypatch) as mode:
        yield mode
    common.set_precision("fp32")


@pytest.fixture
def real_gpu() -> Iterator[None]:
    """Compute on a GPU."""
    caffe.set_mode_gpu()
    yield
    caffe.set_mode_cpu()
