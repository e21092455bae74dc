"""A stack by jobs of SLURM: what is submitted, and that those jobs compute it."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import segment_on_slurm
from unet.command.segment import main as segment
from unet.errors import InputError
from unet.volumes import read_volume, write_volume

pytest.importorskip("dask_jobqueue", reason="needs dask_jobqueue")

# Takes a job as sbatch does, keeps its script, and runs it at once on this machine.
SBATCH = f"""\
    #!{sys.executable}
    import pathlib, shutil, subprocess, sys
    folder = pathlib.Path(__file__).parent
    script = shutil.copy(sys.argv[-1], folder / f"job{{len(list(folder.glob('job*')))}}.sh")
    with open(folder / "log", "a") as log:
        process = subprocess.Popen(["bash", script], stdout=log, stderr=log, start_new_session=True)
    (folder / f"pid{{process.pid}}").touch()
    print("Submitted batch job", process.pid)
"""
SCANCEL = f"""\
    #!{sys.executable}
    import contextlib, os, pathlib, signal, sys
    for number in sys.argv[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(number), signal.SIGTERM)
        (pathlib.Path(__file__).parent / f"pid{{number}}").unlink()
"""
OPTIONS = ["--weights", "isbi2012_slim", "--device", "cpu"]


@pytest.fixture()
def slurm(tmp_path, monkeypatch):
    """A machine on which jobs of SLURM are submitted."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(textwrap.dedent(text))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
def test_jobs_write_what_one_process_does_and_are_ended(slurm, tmp_path):
    stack = np.random.default_rng(0).integers(0, 256, (4, 120, 100), np.uint8)
    write_volume("stack.tif", stack)
    segment(["stack.tif", *OPTIONS, "-o", "alone.tif"])
    given = ["--jobs", "2", "--cores", "1", "--job-memory", "2GB", "--logs", str(tmp_path / "logs")]
    segment_on_slurm.main([*given, "stack.tif", *OPTIONS, "-o", "out.tif"])
    np.testing.assert_array_equal(read_volume("out.tif"), read_volume("alone.tif"))
    assert len(list(slurm.glob("job*.sh"))) == 2
    assert not list(slurm.glob("pid*")), "jobs go on"


def test_the_script_asks_slurm_for_what_was_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--cores", "8", "--job-memory", "16GB", "--walltime", "01:30:00", "--partition", "gpu"]
    given += ["--account", "lab", "--directive", "gres=gpu:1", "--print-job"]
    segment_on_slurm.main([*given, "stack.tif", *OPTIONS, "-o", "out.tif"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("#!")
    for line in (
        "-p gpu",
        "-A lab",
        "--cpus-per-task=8",
        "--mem=15G",
        "-t 01:30:00",
        "--gres=gpu:1",
    ):
        assert f"#SBATCH {line}" in lines
    assert "export OMP_NUM_THREADS=8" in lines
    assert lines[-1].startswith(f"{sys.executable} -m ") and "--nthreads 1" in lines[-1]
    assert list(Path().iterdir()) == []


def test_where_there_is_no_slurm_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not there"):
        segment_on_slurm.main(["stack.tif", *OPTIONS, "-o", "out.tif"])
