"""The challenge's layout is found, and its annotated frames become a stack with labels."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from tests.unet.ctc_cases import write_picture
from unet.errors import InputError
from unet.preparation.ctc_sequence import (
    UNKNOWN,
    find_sequence,
    is_sequence,
    listed,
    open_annotated,
)
from unet.preparation.partial_annotation import IgnoreRule

SIZE = (24, 30)


@pytest.fixture
def sequence(tmp_path):
    """Five frames; two cells drawn in frames 1 and 4; three marked, the third at (20, 25)."""
    rng = np.random.default_rng(0)
    for number in range(5):
        write_picture(
            tmp_path / "02" / f"t{number:03d}.tif", rng.integers(0, 99, SIZE).astype(np.uint8)
        )
        cells = np.zeros(SIZE, np.uint16)
        cells[3:8, 4:9], cells[3:8, 9:14] = 300, 7
        markers = np.zeros(SIZE, np.uint16)
        markers[5, 6], markers[5, 11], markers[20, 25] = 1, 2, 3
        write_picture(tmp_path / "02_GT" / "TRA" / f"man_track{number:03d}.tif", markers)
        write_picture(tmp_path / "02_ST" / "SEG" / f"man_seg{number:03d}.tif", cells)
        if number in (1, 4):
            write_picture(tmp_path / "02_GT" / "SEG" / f"man_seg{number:03d}.tif", cells)
    return tmp_path / "02"


def test_gold_and_silver_truth(sequence):
    assert is_sequence(sequence)
    assert not is_sequence(sequence.parent / "02_GT")
    files = find_sequence(sequence)
    assert list(files.frames) == list(files.markers) == [0, 1, 2, 3, 4]
    assert list(files.cells) == [1, 4]
    assert list(find_sequence(sequence, "st").cells) == [0, 1, 2, 3, 4]


def test_a_sequence_named_from_within(sequence, monkeypatch):
    monkeypatch.chdir(sequence)
    assert is_sequence(".")
    assert list(find_sequence(".").cells) == [1, 4]


def test_only_annotated_frames_are_taken(sequence):
    got = open_annotated(find_sequence(sequence), IgnoreRule())
    assert got.numbers == [1, 4]
    assert np.array_equal(got.raw[1], tifffile.imread(sequence / "t004.tif"))
    assert got.labels.dtype == np.int32
    assert np.unique(got.labels[0]).tolist() == [0, 7, 300]
    assert got.undrawn == {1: 1, 4: 1}
    assert open_annotated(find_sequence(sequence), IgnoreRule(), range(2, 9)).numbers == [4]


def test_pixels_are_unknown_by_the_rule(sequence):
    got = open_annotated(find_sequence(sequence), IgnoreRule("markers", field_of_interest=2))
    # From the marker (5, 6) to the corner (3, 8), or (7, 4) and so on.
    assert got.rule.reach == pytest.approx(np.sqrt(8))
    labels = got.labels[1]
    assert labels[20, 25] == labels[18, 23] == UNKNOWN
    assert labels[17, 25] == 0
    assert (labels[:2] == UNKNOWN).all()
    assert (labels[:, -2:] == UNKNOWN).all()
    assert np.isin(labels[2:16, 2:22], (0, 7, 300)).all()
    wide = open_annotated(find_sequence(sequence), IgnoreRule("markers", 6)).labels[1]
    assert wide[14, 25] == UNKNOWN


def test_the_real_sequence(shared_data):
    got = open_annotated(find_sequence(shared_data / "PhC-C2DH-U373" / "02"), IgnoreRule())
    assert len(got.numbers) == 19
    assert [number for number in got.numbers if number <= 60] == got.numbers[:13]
    # Looked up by eye: of these the pictures show five cells that are marked and not drawn.
    assert got.undrawn == {26: 1, 51: 1, 85: 1, 106: 2}


def test_annotations_that_are_not_there(sequence):
    files = find_sequence(sequence)
    with pytest.raises(InputError, match=r"SEG: annotates none of the chosen frames, but 001 004"):
        open_annotated(files, IgnoreRule(), range(2, 4))
    (sequence / "t004.tif").unlink()
    with pytest.raises(InputError, match=r"02: has no frame 4, which .*man_seg004\.tif annotates"):
        find_sequence(sequence)


def test_no_gold_truth(sequence):
    (sequence.parent / "02_GT" / "SEG").rename(sequence.parent / "elsewhere")
    with pytest.raises(
        InputError, match=r"02_GT/SEG: there is no such .*; there is --annotat.* st"
    ):
        find_sequence(sequence)


def test_no_markers(sequence):
    (sequence.parent / "02_GT" / "TRA" / "man_track004.tif").unlink()
    files = find_sequence(sequence)
    assert open_annotated(files, IgnoreRule("surroundings", 3)).undrawn == {}
    with pytest.raises(InputError, match=r"SEG: frames 001 004 do not all have markers"):
        open_annotated(files, IgnoreRule("markers"))


def test_markers_of_another_size(sequence):
    for number in (1, 4):
        path = sequence.parent / "02_GT" / "TRA" / f"man_track{number:03d}.tif"
        write_picture(path, np.zeros((5, 5), np.uint16))
    with pytest.raises(InputError, match=r"TRA: markers are \(5, 5\).*SEG are \(24, 30\)"):
        open_annotated(find_sequence(sequence), IgnoreRule())


def test_long_lists_of_frames_are_shortened():
    assert listed([1, 22]) == "001 022"
    assert listed(list(range(1500))).endswith(" 018 019 ... 1499")
