"""The program on slices that are larger than memory, and what it says of a run beforehand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import caffe
from tests.unet.watched import watch
from unet.command import segment
from unet.errors import InputError
from unet.volumes import read_volume, write_volume

PIXELS = np.random.default_rng(2).integers(0, 256, (1, 300, 281), np.uint8)
# GB in which blocks of 160 x 144 fit.
LITTLE = 12e6 / 2**30


@pytest.fixture
def run(repository: Path, tmp_path: Path, monkeypatch, capsys):
    """Return what runs the program and gives what it printed; half of the pixels are cells."""
    monkeypatch.setattr("unet.segmentation.blocks._SMALLEST", 64)
    shutil.copy(repository / "prototxt/unet_slim/deploy.prototxt", tmp_path)
    caffe.set_mode_cpu()
    caffe.set_random_seed(5)
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    net.save(str(tmp_path / "weights.caffemodel"))
    write_volume(tmp_path / "stack.tif", PIXELS)

    def call(*arguments: object) -> str:
        given = (tmp_path / "stack.tif", "--weights", tmp_path, "--device", "cpu", *arguments)
        segment.main([str(one) for one in given])
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(("kind", "holes"), [("tif", ["--fill-holes"]), ("zarr", [])])
def test_a_slice_in_blocks_is_written_as_a_whole_one(run, tmp_path, kind, holes):
    run("-o", tmp_path / "out.h5")
    # Where no pixel is near, so that cells are of the same pixels.
    middle = np.sort(read_volume(tmp_path / "out.h5"), axis=None)[40_000:50_000]
    widest = np.diff(middle).argmax()
    threshold = middle[widest : widest + 2].mean(dtype=np.float64)
    written = []
    for name, how in (("whole", ()), ("blocks", ("--memory", LITTLE))):
        folder = tmp_path / name
        folder.mkdir()
        files = [folder / f"{what}.{kind}" for what in ("out", "cells")]
        cut = ("--threshold", threshold, "--minimum-area", 9, "--overlay", folder / "shown.png")
        printed = run("-o", files[0], "--instances", files[1], *cut, *how, *holes)
        assert ("4 blocks of 160x144" in printed) == (name == "blocks")
        written.append([read_volume(file) for file in files])
        assert not list(folder.glob(".*"))
    (values, cells), (given, given_cells) = written
    np.testing.assert_allclose(given, values, rtol=0, atol=1e-5)
    assert cells.max() > 3
    assert ((cells > 0) & (values <= threshold)).any() == bool(holes)
    np.testing.assert_array_equal(given_cells, cells)
    one, other = (
        np.asarray(Image.open(tmp_path / name / "shown.png")).astype(int)
        for name in ("whole", "blocks")
    )
    assert np.abs(one - other).mean() < 0.1


def test_a_run_goes_on_by_the_blocks_with_which_it_began_whatever_is_free(
    run, tmp_path, monkeypatch
):
    passed = []

    def stops(picture):
        passed.append(picture)
        if len(passed) == 3:
            raise KeyboardInterrupt

    run("-o", tmp_path / "wanted.h5", "--memory", LITTLE)
    with monkeypatch.context() as patched:
        watch(patched, stops)
        with pytest.raises(KeyboardInterrupt):
            run("-o", tmp_path / "out.h5", "--memory", LITTLE)
    assert "going on: 2 of 4 blocks are done" in run("-o", tmp_path / "out.h5")
    given, wanted = (read_volume(tmp_path / f"{name}.h5") for name in ("out", "wanted"))
    np.testing.assert_array_equal(given, wanted)


def test_cells_that_take_more_to_be_split_are_refused_and_go_on_with_more(run, tmp_path):
    rules = ("--threshold", 0.32, "--watershed", 0.05, "--fill-holes", "--minimum-area", 3)
    run("--instances", tmp_path / "wanted.tif", *rules)
    told = r"--watershed: slice 0 has components that go through 300x281 .* 4 blocks, is kept"
    with pytest.raises(InputError, match=told):
        run("--instances", tmp_path / "cells.tif", *rules, "--memory", LITTLE)
    assert not (tmp_path / "cells.tif").exists()
    printed = run("--instances", tmp_path / "cells.tif", *rules)
    assert "going on: 4 of 4 blocks are done" in printed
    given, wanted = (read_volume(tmp_path / f"{name}.tif") for name in ("cells", "wanted"))
    assert wanted.max() > 3
    np.testing.assert_array_equal(given, wanted)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(run, tmp_path):
    before = sorted(tmp_path.iterdir())
    printed = run("-o", tmp_path / "out.h5", "--tta", "mirror", "--memory", LITTLE, "--dry-run")
    assert sorted(tmp_path.iterdir()) == before
    assert "4 blocks of 160x144, 4 versions" in printed
    tiles, passes = (int(re.search(rf"(\d+) {what}", printed)[1]) for what in ("tiles", "passes"))
    assert tiles == passes >= 16
    size = 300 * 281 * 4 / 2**20
    assert f"written {size:.2f} MB before compression, and {size:.2f} MB more until" in printed
    assert float(re.search(r"memory about ([\d.]+) GB", printed)[1]) <= LITTLE + 0.005
    printed = run("-o", tmp_path / "out.zarr", "--workers", "2", "--memory", LITTLE, "--dry-run")
    assert "in each of 2 processes; " in printed
    assert f"written {size:.2f} MB before compression; nothing" in printed
