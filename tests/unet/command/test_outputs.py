"""Programs on full and read-only disks, and without a terminal: what is written, told and left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

import caffe
from tests.conftest import REPOSITORY, SmallDisk
from tests.unet.command.test_ending import full, gone
from unet.command import fetch, prepare, segment, track
from unet.command import score as evaluate
from unet.datasets import cell_tracking_challenge as ctc
from unet.errors import InputError
from unet.files import score_file
from unet.network import nets
from unet.volumes import write_volume

SHAPE = (3, 60, 70)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Return a folder with a stack, labels, cells, a model, and a data set in a zip."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    write_volume(folder / "stack.tif", rng.integers(0, 256, SHAPE, np.uint8))
    write_volume(folder / "labels.tif", rng.random(SHAPE) < 0.9)
    numbers = rng.permutation(60000)[: 3 * 6 * 7].reshape(3, 6, 7).astype(np.uint16)
    write_volume(folder / "cells.tif", numbers.repeat(10, axis=1).repeat(10, axis=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nets.WIDTHS, "tiny", 2)
        net = nets.deploy_net("tiny")
    (folder / "model").mkdir()
    (folder / "model" / "deploy.prototxt").write_text(str(net))
    caffe.set_mode_cpu()
    caffe.set_random_seed(1)
    model = caffe.Net(str(folder / "model" / "deploy.prototxt"), caffe.TEST)
    model.save(str(folder / "model" / "weights.caffemodel"))
    with zipfile.ZipFile(folder / "DIC-C2DH-HeLa.zip", "w") as file:
        for number in range(2):
            picture = rng.integers(0, 256, SHAPE[1:], np.uint8)
            tifffile.imwrite(folder / "t.tif", np.tile(picture, (9, 9)), photometric="minisblack")
            file.write(folder / "t.tif", f"DIC-C2DH-HeLa/01/t{number:03d}.tif")
    return folder


@pytest.fixture(params=["full", "read-only"])
def disk(request, small_disk) -> SmallDisk:
    """Return a disk that is full but for some bytes, or read-only; with an older output on it."""
    (small_disk / "old.tif").write_text("old")
    if request.param == "full":
        status = os.statvfs(small_disk)
        (small_disk / "filling").write_bytes(bytes(status.f_bavail * status.f_frsize - 4096))
        yield small_disk
    else:
        with small_disk.read_only():
            yield small_disk


MODEL = ["--weights", "model", "--device", "cpu"]
LABELS = ["labels.tif", "--label-kind", "binary"]


@pytest.mark.parametrize(
    ("main", "words", "output"),
    [
        *(
            (segment.main, ["stack.tif", *MODEL, "-o", f"DISK/{name}"], name)
            for name in ("out.tif", "out.h5", "out.zarr", "out", "new/deep/out.tif")
        ),
        (segment.main, ["stack.tif", *MODEL, "-o", "o.tif", "--instances", "DISK/l.tif"], "l.tif"),
        (segment.main, ["stack.tif", *MODEL, "-o", "o.h5", "--instances", "DISK/l.h5"], "l.h5"),
        (segment.main, ["stack.tif", *MODEL, "-o", "o.tif", "--overlay", "DISK/seen"], "seen"),
        (segment.main, ["stack.tif", *MODEL, "-o", "o.tif", "--overlay", "DISK/s.png"], "s.png"),
        (prepare.main, ["stack.tif", *LABELS, "-o", "DISK/set.h5"], "set.h5"),
        (prepare.main, ["stack.tif", *LABELS, "-o", "set.h5", "--preview", "DISK/p.png"], "p.png"),
        (track.main, ["cells.tif", "-o", "DISK/RES"], "RES"),
        (
            evaluate.main,
            ["labels.tif", "stack.tif", "--every-third", "--no-warping", "--json", "DISK/s.json"],
            "s.json",
        ),
        (fetch.main, ["dic-hela", "--from", "DIC-C2DH-HeLa.zip", "-o", "DISK/data"], "data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_room_is_a_sentence_that_names_the_output(
    inputs, disk, monkeypatch, tmp_path, main, words, output
):
    monkeypatch.chdir(tmp_path)
    for path in inputs.iterdir():
        os.symlink(path, path.name)
    known = ctc.DATASETS["dic-hela"]._replace(size=(540, 630))
    monkeypatch.setitem(ctc.DATASETS, "dic-hela", known)
    if "--json" in words:
        # Else they fit into the last page.
        monkeypatch.setattr(score_file, "_as_json", lambda scores: ["0" * 20000])
    before = sorted(os.listdir(disk))
    told = rf"^{disk}/{output}: cannot be written: the (disk is full|file system is read-only)"
    with pytest.raises(InputError, match=told):
        main([word.replace("DISK", str(disk)) for word in words])
    assert sorted(os.listdir(disk)) == before
    assert (disk / "old.tif").read_text() == "old"


@pytest.mark.parametrize(("terminal", "status"), [(gone, 128 + signal.SIGPIPE), (full, 2)])
def test_scores_without_a_reader_are_an_error_unless_a_file_holds_them(inputs, terminal, status):
    tool = str(REPOSITORY / "tools" / "evaluate.py")
    words = ["labels.tif", "stack.tif", "--every-third", "--no-warping"]
    for output, expected in (([], status), (["--json", "s.json", "--overwrite"], 0)):
        command = [sys.executable, tool, *words, *output]
        done = subprocess.run(command, cwd=inputs, stdout=terminal(), stderr=terminal())
        assert done.returncode == expected
    assert (inputs / "s.json").exists()
