"""Masks and tables of tracks survive the way to files and back, or are refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from tests.unet.ctc_cases import write_picture
from unet.errors import InputError
from unet.tracking.ctc_format import (
    Track,
    numbered_files,
    open_frames,
    open_masks,
    read_tracks,
    write_masks,
    write_tracks,
)

TRACKS = [Track(1, 0, 2, 0), Track(300, 0, 0, 0), Track(65535, 1, 2, 300)]


@pytest.fixture
def masks():
    numbers = np.random.default_rng(0).integers(0, 70, (3, 20, 30)) * 949
    numbers[0, 0, 0] = 65535
    return numbers


def test_masks_and_tracks_come_back(tmp_path, masks):
    write_masks(tmp_path / "02_RES", iter(masks), iter(TRACKS), numbers=range(3))
    got = open_masks(tmp_path / "02_RES")[:]
    assert got.dtype == np.uint16
    assert np.array_equal(got, masks)
    assert read_tracks(tmp_path / "02_RES" / "res_track.txt") == TRACKS
    with tifffile.TiffFile(tmp_path / "02_RES" / "mask002.tif") as file:
        assert (file.pages[0].dtype, file.pages[0].shape) == (np.uint16, (20, 30))


def test_a_result_is_replaced_whole_but_nothing_else(tmp_path, masks):
    write_masks(tmp_path / "02_RES", masks, TRACKS)
    write_masks(tmp_path / "02_RES", masks[:1])
    assert os.listdir(tmp_path / "02_RES") == ["mask000.tif"]
    (tmp_path / "02_RES" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"02_RES: exists, and is not a tracking result"):
        write_masks(tmp_path / "02_RES", masks)
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("value", [-1, 65536])
def test_numbers_beyond_16_bit_leave_nothing_behind(tmp_path, masks, value):
    masks[1, 2, 3] = value
    with pytest.raises(InputError, match=r"02_RES: frame 1 has the numbers .*masks hold 0 to"):
        write_masks(tmp_path / "02_RES", masks)
    assert not os.listdir(tmp_path)


def test_the_real_table(shared_data):
    folder = shared_data / "PhC-C2DH-U373" / "02_GT" / "TRA"
    tracks = read_tracks(folder / "man_track.txt")
    assert len(tracks) == 12
    assert Track(2, 89, 114, 1) in tracks


def test_tables_from_other_systems(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"1 0 2 0\r\n\r\n 2\t3 4 1 \r\n")
    assert read_tracks(tmp_path / "t.txt") == [Track(1, 0, 2, 0), Track(2, 3, 4, 1)]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf1 0 2 0\r\n2 3 4 1\r\n\r\n\r\n",
        "\ufeff1 0 2 0\n2 3 4 1\n".encode("utf-16-le"),
        "\ufeff1 0 2 0\n2 3 4 1\n".encode("utf-16-be"),
        b"1 0 2 0\r2 3 4 1",
        b"\n1\t0\t2\t0\t\n2  3  4  1 \n \n\x1a",
    ],
)
def test_tables_as_editors_leave_them(tmp_path, data):
    (tmp_path / "t.txt").write_bytes(data)
    assert read_tracks(tmp_path / "t.txt") == [Track(1, 0, 2, 0), Track(2, 3, 4, 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 2\n", r"line 1: '1 0 2' is not four whole numbers"),
        ("\n1 0 x 0\n", r"line 2: .*not four whole"),
        ("1 0 2 0 9\n", r"line 1: .*not four whole"),
        ("0 0 2 0\n", r"line 1: label 0 is not in 1..65535"),
        ("70000 0 2 0\n", r"line 1: label 70000 is not in 1..65535"),
        ("1 0 2 0\n1 3 4 0\n", r"line 2: label 1 is in the table already"),
        ("1 5 2 0\n", r"line 1: track 1 ends in frame 2, before it begins in frame 5"),
        ("1 5 6 7\n", r"line 1: the parent 7 of 1 is no track"),
        ("1 0 6 0\n2 6 7 1\n", r"line 2: track 2 begins in frame 6, but its parent 1 ends only in"),
        ("1 0 6 1\n", r"line 1: track 1 begins in frame 0, but its parent 1"),
    ],
)
def test_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "res_track.txt").write_text(text)
    with pytest.raises(InputError, match=r"res_track\.txt, " + message) as caught:
        read_tracks(tmp_path / "res_track.txt")
    assert "\n" not in str(caught.value)


def test_tables_that_are_none_are_not_written(tmp_path):
    with pytest.raises(InputError, match=r"res_track\.txt, track 2: the parent 9 of 2 is no track"):
        write_tracks(tmp_path / "res_track.txt", [Track(1, 0, 1, 0), Track(2, 0, 1, 9)])
    assert not os.listdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no such table of tracks"):
        read_tracks(tmp_path / "res_track.txt")


def test_numbers_of_three_and_four_digits(tmp_path):
    for name in ("t0010.tif", "t999.tif", "t1000.tif", "mask003.tif", "t1.tif", "t005.txt"):
        write_picture(tmp_path / name, np.zeros((4, 5), np.uint8))
    files = numbered_files(tmp_path, "t")
    assert list(files) == [1, 10, 999, 1000]
    write_picture(tmp_path / "t010.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"t010\.tif: has the same number as t0010\.tif"):
        numbered_files(tmp_path, "t")
    with pytest.raises(InputError, match=r"holds no man_seg000\.tif, man_seg001\.tif"):
        numbered_files(tmp_path, "man_seg")
    with pytest.raises(InputError, match=r"elsewhere: there is no such folder"):
        numbered_files(tmp_path / "elsewhere", "t")


def test_numbers_that_are_not_padded_are_frames_all_the_same(tmp_path):
    for number in range(120):
        write_picture(tmp_path / f"t{number}.tif", np.full((4, 5), number, np.uint8))
    files = numbered_files(tmp_path, "t")
    assert list(files) == list(range(120))
    assert open_frames(files, masks=False)[:][:, 0, 0].tolist() == list(range(120))


def test_names_are_of_one_length_as_the_challenge_wants_them(tmp_path):
    picture = np.zeros((2, 2), np.uint8)
    write_masks(tmp_path / "short", [picture] * 1000)
    write_masks(tmp_path / "long", [picture] * 1001)
    short, long = (sorted(os.listdir(tmp_path / name)) for name in ("short", "long"))
    assert short == [f"mask{t:03d}.tif" for t in range(1000)]
    assert long == [f"mask{t:04d}.tif" for t in range(1001)]
    assert len(open_masks(tmp_path / "long")) == 1001
    write_masks(tmp_path / "few", [picture] * 2, numbers=[7, 1234])
    assert sorted(os.listdir(tmp_path / "few")) == ["mask0007.tif", "mask1234.tif"]


def test_masks_of_8_and_16_bit_are_one_stack(tmp_path):
    write_picture(tmp_path / "mask000.tif", np.full((4, 5), 7, np.uint8))
    write_picture(tmp_path / "mask001.tif", np.full((4, 5), 700, np.uint16))
    assert open_masks(tmp_path)[:][:, 0, 0].tolist() == [7, 700]


@pytest.mark.parametrize("dtype", ["u4", "i4", "i8", "u8", "f4", "f8", "i2", ">u2"])
def test_masks_of_other_types_are_taken_for_what_they_hold(tmp_path, dtype):
    write_picture(tmp_path / "mask000.tif", np.full((4, 5), 7, np.uint8))
    write_picture(tmp_path / "MASK001.TIF", np.full((4, 5), 30_000).astype(dtype))
    masks = open_masks(tmp_path)[:]
    assert masks.dtype == np.uint16
    assert masks[:, 0, 0].tolist() == [7, 30_000]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (70_000, "u4", "has the numbers 0 to 70000, but masks hold 0 to 65535"),
        (-1, "i4", "has the numbers -1 to 0, but"),
        (1.5, "f4", "holds numbers that are not whole"),
    ],
)
def test_masks_of_numbers_that_masks_do_not_hold(tmp_path, value, dtype, message):
    picture = np.zeros((4, 5), dtype)
    picture[2, 2] = value
    write_picture(tmp_path / "mask000.tif", picture)
    with pytest.raises(InputError, match=rf"mask000\.tif: {message}"):
        open_masks(tmp_path)[:]


def test_names_in_capitals_and_digits_that_are_none(tmp_path):
    for name in ("T000.TIF", "t001.Tiff", "t00²3.tif", "t٠٠٣.tif"):
        write_picture(tmp_path / name, np.zeros((4, 5), np.uint8))
    assert list(numbered_files(tmp_path, "t")) == [0, 1]


def test_a_sequence_may_begin_later_than_with_frame_0(tmp_path):
    for number in (5, 6):
        write_picture(tmp_path / f"mask{number:03d}.tif", np.full((4, 5), number, np.uint8))
    assert open_masks(tmp_path)[:][:, 0, 0].tolist() == [5, 6]


def test_frames_that_do_not_fit(tmp_path):
    write_picture(tmp_path / "mask000.tif", np.zeros((4, 5), np.uint8))
    write_picture(tmp_path / "mask002.tif", np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match=r"mask001\.tif is missing"):
        open_masks(tmp_path)[:]
    write_picture(tmp_path / "mask001.tif", np.zeros((4, 5), np.uint16))
    with pytest.raises(InputError, match=r"mask002\.tif: is \(4, 6\).*mask000\.tif is \(4, 5\)"):
        open_masks(tmp_path)[:]
    (tmp_path / "mask002.tif").unlink()
    with pytest.raises(InputError, match=r"mask001\.tif: is uint16, but mask000\.tif is uint8"):
        open_frames(numbered_files(tmp_path, "mask"), masks=False)[:]


def test_what_is_no_mask(tmp_path):
    write_picture(tmp_path / "mask000.tif", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(InputError, match=r"mask000\.tif: holds 3 slices; only flat sequences"):
        open_masks(tmp_path)[:]
    write_picture(tmp_path / "man_seg_000_001.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"man_seg_000_001\.tif: is a slice of a volume"):
        numbered_files(tmp_path, "man_seg")
