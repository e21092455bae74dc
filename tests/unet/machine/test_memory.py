"""How much memory a pass may take, as the machine tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unet.machine import memory


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what puts a program in the place of nvidia-smi."""

    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        memory._told_free.cache_clear()

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield put
    memory._told_free.cache_clear()


def test_what_a_gpu_has_said_holds_for_a_while(nvidia_smi, monkeypatch):
    nvidia_smi('echo x >> "$0.asked"; echo 4000')
    monkeypatch.setattr(memory.time, "monotonic", lambda: 1000.0)
    assert memory.free_on_gpu(0) == memory.free_on_gpu(0) == 4000 * 2**20
    monkeypatch.setattr(memory.time, "monotonic", lambda: 1100.0)
    assert memory.free_on_gpu(0) == 4000 * 2**20
    program = Path(os.environ["PATH"].split(os.pathsep)[0]) / "nvidia-smi.asked"
    assert program.read_text().count("x") == 2


def test_a_gpu_is_asked_for_what_is_free_on_it(nvidia_smi, monkeypatch):
    nvidia_smi('for last; do :; done; test "$last" = 1 && echo 1000 || echo 4000')
    assert memory.free_on_gpu(0) == 4000 * 2**20
    assert memory.free_on_gpu(1) == 1000 * 2**20
    assert memory.pass_memory("1") == 500 * 2**20
    assert memory.pass_memory("auto") == 2000 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert memory.free_on_gpu(0) == 1000 * 2**20
    assert memory.free_on_gpu(1) == 4000 * 2**20


@pytest.mark.parametrize("script", ["exit 9", "echo", "echo '[N/A]'"])
def test_a_gpu_that_does_not_answer_is_taken_for_a_small_one(nvidia_smi, script):
    nvidia_smi(script)
    assert memory.free_on_gpu(0) is None
    assert memory.pass_memory("0") == 2 * 2**30
    # No GPU at all, as far as one can tell.
    assert memory.pass_memory("auto") == pytest.approx(memory.pass_memory("cpu"), rel=0.5)


@pytest.mark.parametrize(
    ("folder", "limit", "used", "prefix"),
    [
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_files_that_a_container_has_read_do_not_count_as_taken(
    tmp_path, monkeypatch, folder, limit, used, prefix
):
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    (place / limit).write_text("3000\n")
    (place / used).write_text("2500\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_ram() == 500
    (place / "memory.stat").write_text(f"{prefix}active_file 7\n{prefix}inactive_file 900\n")
    assert memory.free_ram() == 1400
    (place / "memory.stat").write_text("anon 7\n")
    assert memory.free_ram() == 500
    (place / limit).write_text("max\n")
    assert memory.free_ram() > 3000
