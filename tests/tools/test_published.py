"""The recipe `published` on a made release: random weights, a few small frames."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from run_recipe import main as run_recipe
from tests import release2015
from tests.conftest import REPOSITORY
from tests.unet.ctc_cases import write_picture
from unet.errors import InputError
from unet.tracking.ctc_format import Track, read_tracks, write_tracks

WIDTH = 2
SHAPE = (120, 130)
FRAMES = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder with the release's archive, and a model folder of ours."""
    folder = tmp_path_factory.mktemp("published")
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, *SHAPE)).astype(np.uint8)
    weights = release2015.random_weights(WIDTH)
    # So that everything is a cell: random scores have none that is large enough.
    weights["conv_u0d-score"][1][:] = -9, 9
    release = release2015.write_release(folder, WIDTH, frames, weights)
    (folder / "release.tar.gz").write_bytes(release2015.pack(release))
    model = folder / "model"
    model.mkdir()
    shutil.copy(REPOSITORY / "prototxt/unet_slim/deploy.prototxt", model)
    caffe.set_mode_cpu()
    caffe.set_random_seed(5)
    net = caffe.Net(str(model / "deploy.prototxt"), caffe.TEST)
    net.params["conv_u0d-score"][1].data[...] = -99, 99
    net.save(str(model / "weights.caffemodel"))
    return folder


def run(place: Path, out: Path, *words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "tools" / "run_recipe.py"), "published"]
    command += ["--device", "cpu", "--data", out / "release", "--model", place / "model"]
    command += ["-o", out / "results", "--truth", out / "none", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd="/tmp")


def main(words: list[str]) -> None:
    assert run_recipe(["published", *words]) is None


def test_both_networks_are_run_and_compared(place, tmp_path):
    done = run(place, tmp_path, "--from", place / "release.tar.gz")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results" / "scores.json").read_text())["rows"]
    assert [row["network"] for row in rows] == ["the authors', 2015", "ours"]
    # Both call every pixel a cell: one track, and no two pixels differ.
    assert rows[1]["agreement"] == {"pixels": 1.0, "SEG": 1.0}
    for name, row in zip(("authors", "ours"), rows):
        result = tmp_path / "results" / f"01_{name}" / "result"
        assert read_tracks(result / "res_track.txt") == [Track(1, 0, FRAMES - 1, 0)]
        assert row["seconds"] > 0
        assert 0.05 < row["peak_gib"] < 8
        assert "SEG" not in row
    assert re.search(r"01 +the authors', 2015 +- +- +- +\d", done.stdout)
    assert "the two agree on 100.00% of the pixels" in done.stdout


def test_ground_truth_beside_the_frames_is_scored(place, tmp_path, capsys):
    """One half of the picture is a cell: SEG is 1/2 by the definition of Jaccard's index."""
    release = tmp_path / "release"
    shutil.copytree(place / "u-net-release", release)
    truth = release / "PhC-C2DH-U373" / "01_GT"
    half = np.zeros(SHAPE, np.uint16)
    half[: SHAPE[0] // 2 + 1] = 1
    for kind, name in (("SEG", "man_seg"), ("TRA", "man_track")):
        for t in range(FRAMES):
            write_picture(truth / kind / f"{name}{t:03d}.tif", half)
    write_tracks(truth / "TRA" / "man_track.txt", [Track(1, 0, FRAMES - 1, 0)])
    main(
        ["--device", "cpu", "--from", str(release), "--data", str(tmp_path / "copy")]
        + ["--model", str(tmp_path / "none"), "-o", str(tmp_path / "results")]
    )
    (row,) = json.loads((tmp_path / "results" / "scores.json").read_text())["rows"]
    assert row["SEG"] == pytest.approx((SHAPE[0] // 2 + 1) / SHAPE[0])
    assert (row["DET"], row["TRA"]) == (1, 1)
    assert "there is no such model folder" in capsys.readouterr().out


def test_where_nothing_can_be_had_it_says_so(place, tmp_path):
    done = run(place, tmp_path, "--from", tmp_path / "absent.tar.gz")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"run_recipe.py: {tmp_path}/absent.tar.gz: there is no such folder or archive"
    ]
    assert not (tmp_path / "results").exists()


def test_a_program_that_fails_ends_it_with_its_status(place, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(place / "u-net-release", release)
    (release / "phseg_v5.caffemodel").write_bytes(b"no weights")
    done = run(place, tmp_path, "--from", release, "--data", tmp_path / "copy")
    assert done.returncode == 2
    assert "phseg_v5.caffemodel" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "scores.json").exists()


def test_no_output_takes_the_place_of_an_input_or_of_others_work(place, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(place / "u-net-release", release)
    results = tmp_path / "results"
    sequence = release / "PhC-C2DH-U373" / "01"
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    words = ["--device", "cpu", "--data", str(release), "--model", str(model)]
    lost = r"is, holds or lies in the input .*, which would be damaged"
    for output in (sequence, sequence.with_name("01_GT"), model, model / "deep"):
        with pytest.raises(InputError, match=lost):
            main([*words, "-o", str(output)])
    for name in ("scores.json", "01_authors/cells.tif", "01_ours/result/notes.txt"):
        path = results / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(InputError, match=r"exists, and is not a .* --overwrite"):
            main([*words, "-o", str(results)])
        assert path.read_text() == "mine"
        shutil.rmtree(results)
    assert not (model / "deep").exists()
    assert sorted(path.name for path in sequence.iterdir()) == ["t000.tif", "t001.tif"]
