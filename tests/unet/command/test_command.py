"""The command `unet`: which program runs, and what is said where none does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from unet.command import PROGRAMS, main
from unet.errors import InputError


def unet(*words: str) -> subprocess.CompletedProcess:
    """Run the command as its installed script does."""
    text = "import sys; sys.argv[0] = '/bin/unet'; from unet.command import run; run()"
    return subprocess.run([sys.executable, "-c", text, *words], capture_output=True, text=True)


def test_help_begins_with_the_lines_of_the_five_usual_steps(capsys):
    assert main(["--help"]) is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [
        ["unet", name] for name in ("segment", "prepare", "nets", "train", "score")
    ]
    assert {line.split()[0] for line in lines if line} >= PROGRAMS.keys()
    assert main([]) == 2
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_has_help_under_its_name(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unet"])
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"unet {name} [-h]" in capsys.readouterr().out


def test_a_mistyped_program_is_one_sentence():
    done = unet("segmnet", "a.tif")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "unet: there is no program 'segmnet'; did you mean segment?\n"
    with pytest.raises(InputError, match=r"no program 'xyz'; name one of prepare, nets, train"):
        main(["xyz"])


def test_a_program_tells_a_mistake_under_its_name(tmp_path):
    done = unet("score", f"{tmp_path}/a.tif", f"{tmp_path}/b.tif")
    assert done.returncode == 2
    assert done.stderr == f"unet score: {tmp_path}/a.tif: there is no such file or folder\n"


def test_only_what_the_program_needs_is_imported():
    text = (
        "import sys; from unet.command import main; main(['--help']); "
        "print(sorted({'numpy', 'torch', 'caffe', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("name", ["prepare", "train", "segment", "track", "fetch"])
def test_the_programs_in_tools_are_the_same(name):
    text = (REPOSITORY / "tools" / f"{name}.py").read_text()
    assert f"from {PROGRAMS[name][1]} import main" in text
