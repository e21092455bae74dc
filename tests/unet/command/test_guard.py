"""Every program, all its outputs over all its inputs: status 2, one sentence, nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import tifffile

from tests.conftest import REPOSITORY
from tests.unet.ctc_cases import make_case
from tests.unet.noise_set import write_noise_set
from unet.command import nets, prepare, segment, track
from unet.command import score as evaluate
from unet.command.running import run_program
from unet.volumes import write_volume
from unet.volumes.intensity import input_text

LOST = "is, holds or lies in the input "


class Case(NamedTuple):
    """A call of a program.

    Attributes
    ----------
    main : callable
    arguments : list of str
        Without outputs.
    inputs : list of str
        Files and folders that it reads.
    outputs : dict of str to str
        Option of an output and the suffix of its file; "" is a folder.
    """

    main: Callable
    arguments: list[str]
    inputs: list[str]
    outputs: dict[str, str]


SEGMENT = ["--weights", "model/weights.caffemodel", "--net", "model/deploy.prototxt"]
MODEL = ["model/weights.caffemodel", "model/deploy.prototxt", "model/input.json"]
FILES = {"-o": ".tif", "--classes": ".zarr", "--instances": ".h5", "--overlay": ".png"}
SEQUENCE = ["sets/01", "sets/01_GT", "sets/01_ST", "sets/01_GT/TRA/man_track.txt"]
SCORES, TRAINING = {"--json": ".json"}, {"-o": ".h5", "--preview": ".png"}
RESULT = ["sets/01_GT", "sets/01_RES", "sets/01_RES/res_track.txt", "sets/01_GT/SEG"]
CASES = {
    "evaluate": Case(evaluate.main, ["l.tif", "p.tif"], ["l.tif", "p.tif"], SCORES),
    "evaluate, datasets": Case(evaluate.main, ["d.h5:/v", "d.h5:/g/w"], ["d.h5"], SCORES),
    "evaluate, folders": Case(
        evaluate.main, ["pages", "p.tif"], ["pages", "pages/slice_0001.png"], SCORES
    ),
    "evaluate, challenge": Case(evaluate.main, ["sets/01_GT", "sets/01_RES"], RESULT, SCORES),
    "prepare": Case(prepare.main, ["p.tif", "l.tif"], ["p.tif", "l.tif"], TRAINING),
    "prepare, folders": Case(
        prepare.main, ["pages", "g.zarr:/0"], ["pages", "g.zarr", "g.zarr/zarr.json"], TRAINING
    ),
    "prepare, datasets": Case(prepare.main, ["d.h5:/v", "d.h5:/g/w"], ["d.h5"], TRAINING),
    "prepare, challenge": Case(prepare.main, ["sets/01"], SEQUENCE, TRAINING),
    "segment": Case(
        segment.main, ["p.tif", *SEGMENT, "--truth", "l.tif"], ["p.tif", "l.tif", *MODEL], FILES
    ),
    "segment, folders": Case(
        segment.main,
        ["pages", "--weights", "model", "--truth", "g.zarr:0"],
        ["pages", "pages/slice_0001.png", "g.zarr", *MODEL],
        {"-o": "", "--instances": ".zarr", "--overlay": ""},
    ),
    "segment, datasets": Case(segment.main, ["d.h5:/v", *SEGMENT], ["d.h5", *MODEL], FILES),
    "track": Case(track.main, ["l.tif"], ["l.tif"], {"-o": ""}),
    "track, folder": Case(track.main, ["pages"], ["pages", "pages/slice_0001.png"], {"-o": ""}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all inputs: stacks in every format, a data set, a model, a result."""
    folder = tmp_path_factory.mktemp("inputs")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 30)).astype(np.uint8)
    write_volume(folder / "p.tif", pixels)
    write_volume(folder / "l.tif", pixels > 99)
    write_volume(folder / "pages", pixels)
    with h5py.File(folder / "d.h5", "w") as file:
        file["v"], file["g/w"] = pixels, pixels > 99
    # As of a group: nothing here reads it.
    (folder / "g.zarr" / "0").mkdir(parents=True)
    (folder / "g.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    (folder / "g.zarr" / "0" / "zarr.json").write_text("{}")
    make_case(folder / "sets", 3, 0.1)
    (folder / "sets" / "01").mkdir()
    shutil.copytree(folder / "sets" / "01_GT" / "SEG", folder / "sets" / "01_ST" / "SEG")
    for mask in sorted((folder / "sets" / "01_RES").glob("mask*.tif")):
        frame = folder / "sets" / "01" / mask.name.replace("mask", "t")
        tifffile.imwrite(frame, tifffile.imread(mask).astype(np.uint8))
    (folder / "model").mkdir()
    shutil.copy(REPOSITORY / "prototxt/unet_slim/deploy.prototxt", folder / "model")
    (folder / "model" / "weights.caffemodel").write_bytes(b"years of training")
    (folder / "model" / "input.json").write_text(input_text(False))
    write_noise_set(folder / "set.h5")
    return folder


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of the folder."""
    shutil.copytree(files, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return the bytes of all files below a folder, and the names of all folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(
    main: Callable, arguments: list[str], capsys: pytest.CaptureFixture, folder: Path
) -> str:
    """Run a program that must end with status 2 and leave all as it was; return its sentence."""
    before = tree(folder)
    with pytest.raises(SystemExit) as ended:
        run_program(lambda _: main(arguments))
    assert ended.value.code == 2, arguments
    said = capsys.readouterr()
    assert said.err.count("\n") == 1, said.err
    assert "written" not in said.out
    assert tree(folder) == before, arguments
    return said.err


def words(case: Case, outputs: dict[str, str]) -> list[str]:
    """Return the command line; an output that the program demands is a free one if not given."""
    first = next(iter(case.outputs))
    named = {first: f"free{case.outputs[first]}", **outputs}
    return [*case.arguments, *(word for pair in named.items() for word in pair)]


@pytest.mark.parametrize("name", CASES)
def test_no_output_of_any_program_damages_an_input(place, capsys, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", [name])
    case = CASES[name]
    for option, suffix in case.outputs.items():
        for given in case.inputs:
            # A link has any suffix, so that nothing else is wrong with the output.
            link = Path(f"soft{suffix}")
            link.symlink_to(os.path.abspath(given))
            outputs = [str(link), f"{given}/new{suffix}"] if os.path.isdir(given) else [str(link)]
            for output in outputs:
                for overwrite in ([], ["--overwrite"]):
                    arguments = words(case, {option: output}) + overwrite
                    assert re.search(LOST, refused(case.main, arguments, capsys, place))
            link.unlink()


@pytest.mark.parametrize("name", CASES)
def test_the_work_of_others_is_not_replaced(place, capsys, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", [name])
    case = CASES[name]
    for option, suffix in case.outputs.items():
        path = place / f"mine{suffix}"
        for kind in ("file", "folder"):
            if kind == "file":
                path.write_text("mine")
            else:
                (path / "notes").mkdir(parents=True)
            said = refused(case.main, words(case, {option: path.name}), capsys, place)
            assert re.search(r"exists, and is not a .* --overwrite|is a folder; name a file", said)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_the_files_of_a_network_do_not_take_the_training_sets_place(place, capsys):
    call = ["unet_slim", "--data", "set.h5", "-o", "net"]
    os.mkdir("net")
    for name in ("train_val.prototxt", "solver.prototxt", "deploy.prototxt", "input.json"):
        for link in (os.link, os.symlink):
            link(os.path.abspath("set.h5"), f"net/{name}")
            assert re.search(LOST, refused(nets.main, [*call, "--overwrite"], capsys, place))
            os.unlink(f"net/{name}")
        Path("net", name).write_text("mine")
        said = refused(nets.main, call, capsys, place)
        assert f"net/{name}: exists, and is not a file of a network" in said
        os.unlink(f"net/{name}")
    nets.main(call)
    nets.main([*call, "--iterations", "9"])
    assert "max_iter: 9" in Path("net/solver.prototxt").read_text()


@pytest.mark.parametrize("name", ["folder", "file"])
def test_genuine_caffe_does_not_take_a_folders_place(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    before = tree(tmp_path)
    done = subprocess.run(
        [str(REPOSITORY / "tools" / "caffe-reference"), "--install", "file:///no/mirror"],
        env={**os.environ, "CAFFE_REFERENCE": str(tmp_path / name)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{name}: exists, and is not a root file system made by this program" in done.stderr
    assert tree(tmp_path) == before
