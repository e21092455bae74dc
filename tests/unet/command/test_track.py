"""The program that tracks: what it writes, and how it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import unet
from unet.command import track
from unet.errors import InputError
from unet.tracking.ctc_format import Track, open_masks, read_tracks
from unet.tracking.track import track_cells
from unet.volumes import read_volume, write_volume

PROGRAM = Path(__file__).parents[3] / "tools" / "track.py"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return five frames: a cell that is lost once, and one that only enters the middle."""
    frames = np.zeros((5, 120, 130), np.uint16)
    for t, x in enumerate((70, 70, 70, 70, 70)):
        if t != 2:
            frames[t, 60:70, x : x + 10] = 3 + t
    for t, x in enumerate((20, 30, 36, 42, 48)):
        frames[t, 50:64, x : x + 14] = 9
    write_volume(tmp_path / "labels.tif", frames)
    return tmp_path / "labels.tif"


def masks_of(folder: Path) -> np.ndarray:
    return open_masks(folder)[:]


def run(*arguments: object) -> None:
    track.main([str(one) for one in arguments])


def test_result_of_the_default(labels, tmp_path, capsys):
    run(labels, "-o", tmp_path / "res")
    assert read_tracks(tmp_path / "res" / "res_track.txt") == [Track(1, 0, 4, 0), Track(2, 0, 4, 0)]
    masks = masks_of(tmp_path / "res")
    result = track_cells(read_volume(labels), "assignment")
    np.testing.assert_array_equal(masks, np.stack(list(result.masks)))
    printed = capsys.readouterr().out
    assert "2 tracks, 0 of them with a parent, in 5 frames" in printed
    assert f"written: {tmp_path / 'res'}" in printed
    assert sorted(os.listdir(tmp_path / "res"))[:2] == ["mask000.tif", "mask001.tif"]


def test_from_python_the_masks_are_an_array_or_those_of_the_output(labels, tmp_path):
    here, there = unet.track(read_volume(labels)), unet.track(labels, tmp_path / "res")
    np.testing.assert_array_equal(here.masks, there.masks[:])
    assert here.tracks == there.tracks
    assert str(here) == str(there) == "2 tracks, 0 of them with a parent, in 5 frames"
    with pytest.raises(InputError, match="tracker 'best': give greedy or assignment"):
        unet.track(labels, tracker="best")


def test_procedure_2015(labels, tmp_path):
    run(labels, "-o", tmp_path / "res", "--procedure", "2015")
    # Greedy: the lost cell is a new one. Of 130 columns, 50 to 79 count.
    assert read_tracks(tmp_path / "res" / "res_track.txt") == [
        Track(1, 0, 1, 0),
        Track(2, 3, 4, 0),
        Track(3, 3, 4, 0),
    ]
    run(labels, "-o", tmp_path / "same", "--tracker", "greedy", "--field-of-interest", 50)
    np.testing.assert_array_equal(masks_of(tmp_path / "res"), masks_of(tmp_path / "same"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.tif", "-o", "res"], "absent.tif: there is no such file"),
        (["labels.tif", "-o", "labels.tif"], "is, holds or lies in the input"),
        (["labels.tif", "-o", "."], "is, holds or lies in the input"),
        (["labels.tif", "-o", "res", "--field-of-interest", "60"], "leaves nothing of .* 120x130"),
        (["labels.tif", "-o", "res", "--procedure", "2015", "--tracker", "greedy"], "fixes"),
        (["likely.h5", "-o", "res"], "frame 0 holds numbers that are not whole"),
        (["nan.h5", "-o", "res"], "nan.h5:.* slice 0 holds NaN"),
        (["classes.tif", "-o", "res"], "classes.tif: holds a map of foreground"),
        (["colour.tif", "-o", "res"], "colour.tif: has 3 channels"),
    ],
)
def test_what_makes_no_sense_is_refused(labels, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    frames = read_volume(labels)
    write_volume("likely.h5", (frames / 10).astype(np.float32))
    write_volume("nan.h5", np.full((2, 120, 130), np.nan, np.float32))
    write_volume("classes.tif", frames > 0)
    write_volume("colour.tif", np.zeros((2, 3, 20, 20), np.uint16))
    before = sorted(os.listdir())
    with pytest.raises(InputError, match=said):
        run(*arguments)
    assert sorted(os.listdir()) == before


def test_genuine_caffes_python_tracks_alike(labels, tmp_path, reference):
    run(labels, "-o", tmp_path / "ours")
    ended = subprocess.run(
        [*reference.command, str(PROGRAM), str(labels), "-o", str(tmp_path / "theirs")],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ended.returncode == 0, ended.stderr
    np.testing.assert_array_equal(masks_of(tmp_path / "ours"), masks_of(tmp_path / "theirs"))
