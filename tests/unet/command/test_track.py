"""The program that tracks: what it writes, and how it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import unet
from tests.unet.ctc_cases import write_picture
from unet.command import track
from unet.command.terminal import never_in_the_way
from unet.errors import InputError
from unet.tracking.ctc_format import Track, open_masks, read_tracks, write_tracks
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


# --- frames by the numbers of their files -----------------------------------------------------


def save_frames(folder: Path, name: str, frames: dict) -> Path:
    for number, frame in frames.items():
        write_picture(folder / name.format(number), frame)
    return folder


def moving_cells(count: int) -> list[np.ndarray]:
    """Return frames of two cells of 8 x 8 that move by a pixel from frame to frame."""
    frames = np.zeros((count, 40, 60), np.uint16)
    for t in range(count):
        frames[t, 5:13, 4 + t % 30 : 12 + t % 30] = 1
        frames[t, 25:33, 50 - t % 30 : 58 - t % 30] = 2
    return list(frames)


def test_masks_keep_the_numbers_of_their_files(tmp_path, capsys):
    truth = moving_cells(6)
    given = {t: np.where(truth[t], 5 - truth[t], 0) for t in (0, 1, 2, 4, 5)}
    masks = save_frames(tmp_path / "masks", "mask{:03d}.tif", given)
    run(masks, "-o", tmp_path / "01_RES")
    names = sorted(os.listdir(tmp_path / "01_RES"))
    assert names == [*(f"mask{t:03d}.tif" for t in range(6)), "res_track.txt"]
    said = capsys.readouterr().out
    assert "there is no file of frame 3, taken for a frame in which no cell was seen" in said
    save_frames(tmp_path / "01_GT" / "SEG", "man_seg{:03d}.tif", dict(enumerate(truth)))
    save_frames(tmp_path / "01_GT" / "TRA", "man_track{:03d}.tif", dict(enumerate(truth)))
    write_tracks(tmp_path / "01_GT" / "TRA" / "man_track.txt", [Track(n, 0, 5, 0) for n in (1, 2)])
    scores = unet.score(tmp_path / "01_GT", tmp_path / "01_RES")
    # In frame 3 each cell is drawn where it was between its neighbours: all is right.
    assert [frame["SEG"] for frame in scores["per_frame"]] == [1] * 6
    assert scores["TRA"] == 1


def test_a_sequence_that_begins_late_keeps_its_numbers(tmp_path):
    frames = {t + 7: frame for t, frame in enumerate(moving_cells(3))}
    run(save_frames(tmp_path / "m", "m{}.tif", frames), "-o", tmp_path / "res")
    assert sorted(os.listdir(tmp_path / "res"))[:3] == [f"mask{t:03d}.tif" for t in (7, 8, 9)]
    assert read_tracks(tmp_path / "res" / "res_track.txt") == [Track(1, 7, 9, 0), Track(2, 7, 9, 0)]


def test_unpadded_names_are_frames_in_the_order_of_their_numbers(tmp_path):
    frames = moving_cells(120)
    run(save_frames(tmp_path / "m", "t{}.tif", dict(enumerate(frames))), "-o", tmp_path / "res")
    assert np.array_equal(masks_of(tmp_path / "res") > 0, np.stack(frames) > 0)


def test_a_sequence_without_a_cell_is_told(tmp_path, capsys):
    write_volume(tmp_path / "empty.h5", np.zeros((2, 20, 20), np.uint16))
    run(tmp_path / "empty.h5", "-o", tmp_path / "res")
    assert "in 2 frames; look at this: no frame has a cell that counts" in capsys.readouterr().out


def test_above_999_frames_all_names_have_four_digits(tmp_path):
    frames = np.zeros((1001, 4, 6), np.uint8)
    frames[:, 1:3, 1:4] = 7
    unet.track(frames, tmp_path / "res")
    names = [*(f"mask{t:04d}.tif" for t in range(1001)), "res_track.txt"]
    assert sorted(os.listdir(tmp_path / "res")) == names
    assert read_tracks(tmp_path / "res" / "res_track.txt") == [Track(1, 0, 1000, 0)]


def test_numbers_that_leave_out_most_frames_are_refused_or_taken_in_order(tmp_path):
    frames = {10 * t: frame for t, frame in enumerate(moving_cells(4))}
    masks = save_frames(tmp_path / "m", "m{:02d}.tif", frames)
    with pytest.raises(InputError, match=r"numbered 0, 10, 20 and 1 more, so 27 .* --by-order"):
        run(masks, "-o", tmp_path / "res")
    run(masks, "-o", tmp_path / "res", "--by-order")
    assert sorted(os.listdir(tmp_path / "res"))[:4] == [f"mask{t:03d}.tif" for t in range(4)]


def test_an_old_result_that_was_looked_at_is_replaced(labels, tmp_path):
    run(labels, "-o", tmp_path / "res")
    for name in (".DS_Store", "._mask000.tif", "Thumbs.db", "desktop.ini", ".directory"):
        (tmp_path / "res" / name).write_bytes(b"left by a file manager")
    run(labels, "-o", tmp_path / "res")
    assert len(os.listdir(tmp_path / "res")) == 6
    run(tmp_path / "res", "-o", tmp_path / "again")
    np.testing.assert_array_equal(masks_of(tmp_path / "again"), masks_of(tmp_path / "res"))


def test_names_that_are_not_utf_8(tmp_path, capsys):
    frames = dict(enumerate(moving_cells(2)))
    masks = save_frames(tmp_path / "\udce4", "\udcb5_{}.tif", frames)
    with never_in_the_way():
        run(masks, "-o", tmp_path / "res\udcfc")
    assert len(masks_of(tmp_path / "res\udcfc")) == 2


def test_maps_are_told_apart_into_cells_or_refused(labels, tmp_path):
    frames = read_volume(labels)
    write_volume(tmp_path / "map.h5", (frames > 0).astype(np.uint8))
    with pytest.raises(InputError, match=r"map\.h5:.* 0 and 1 \(several regions in frame 0\)"):
        run(tmp_path / "map.h5", "-o", tmp_path / "res")
    run(tmp_path / "map.h5", "-o", tmp_path / "res", "--label-kind", "binary")
    run(labels, "-o", tmp_path / "of_cells")
    pairs = np.stack([masks_of(tmp_path / name).ravel() for name in ("res", "of_cells")])
    # Numbered by where they are, not by the numbers given.
    assert np.unique(pairs, axis=1).T.tolist() == [[0, 0], [1, 2], [2, 1]]
    write_volume(tmp_path / "likely.h5", (frames > 0) * np.float32(0.8))
    run(tmp_path / "likely.h5", "-o", tmp_path / "likely", "--label-threshold", "0.5")
    np.testing.assert_array_equal(masks_of(tmp_path / "likely"), masks_of(tmp_path / "res"))
    run(tmp_path / "map.h5", "-o", tmp_path / "one", "--label-kind", "instances")
    assert len(read_tracks(tmp_path / "one" / "res_track.txt")) == 1


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
