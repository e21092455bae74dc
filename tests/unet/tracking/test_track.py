"""From links to the result format: fields of interest, gaps drawn in, parents, and real cells."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from unet.errors import InputError
from unet.scoring.seg_det_tra import count_operations, det, match_objects, tra
from unet.tracking.ctc_format import Track, open_masks, read_tracks, write_masks
from unet.tracking.linking import TRACKERS, Gap, Links
from unet.tracking.track import track_cells

SHAPE = (60, 90)


def square(*cells: tuple[int, int, int]) -> np.ndarray:
    """Return a frame of cells of 10 x 10: (label, first row, first column)."""
    labels = np.zeros(SHAPE, np.uint16)
    for label, y, x in cells:
        labels[max(0, y) : y + 10, max(0, x) : x + 10] = label
    return labels


def tracked(frames, *arguments) -> tuple[list[Track], np.ndarray]:
    result = track_cells(frames, *arguments)
    masks = np.stack(list(result.masks))
    assert masks.dtype == np.uint16
    # The table says what is in the masks, and nothing else.
    there = {(t, n) for t, mask in enumerate(masks) for n in set(mask.ravel().tolist()) - {0}}
    said = {(t, k.label) for k in result.tracks for t in range(k.begin, k.end + 1)}
    assert there == said
    return result.tracks, masks


@pytest.mark.parametrize("tracker", ["greedy", "assignment"])
def test_labels_of_frames_become_tracks(tracker):
    frames = [square((7, 20, 20 + t), (300 + t, 40, 60)) for t in range(4)]
    tracks, masks = tracked(frames, tracker)
    assert tracks == [Track(1, 0, 3, 0), Track(2, 0, 3, 0)]
    for frame, mask in zip(frames, masks):
        np.testing.assert_array_equal(mask, np.where(frame == 7, 1, np.where(frame > 0, 2, 0)))


@pytest.mark.parametrize("tracker", ["greedy", "assignment"])
def test_a_cell_that_leaves_the_field_and_returns_is_its_own_child(tracker):
    # Columns below 12 are outside; at 1 and 2 no pixel of the cell is inside.
    places = [8, 4, 3, 2, 1, 1, 2, 3, 6, 2, 4]
    frames = [square((1, 20, x), (2, 30, 50)) for x in places]
    tracks, masks = tracked(frames, tracker, 12)
    assert sorted(tracks) == [
        Track(1, 0, 2, 0),
        Track(2, 0, 10, 0),
        Track(3, 7, 8, 1),
        Track(4, 10, 10, 3),
    ]
    # What is seen of it inside is written whole.
    assert (masks[1] == 1).sum() == 100
    tracks, _ = tracked(frames, tracker)
    assert tracks == [Track(1, 0, 10, 0), Track(2, 0, 10, 0)]


def test_a_lost_cell_is_a_new_one_to_the_greedy_tracker():
    frames = [square((1, 20, 20)), square(), square((1, 20, 20))]
    tracks, masks = tracked(frames, "greedy")
    assert tracks == [Track(1, 0, 0, 0), Track(2, 2, 2, 0)]
    assert not masks[1].any()


def test_a_lost_cell_is_drawn_where_it_must_have_been():
    frames = [square((1, 20, 20)), square(), square(), square((9, 23, 17))]
    tracks, masks = tracked(frames, "assignment")
    assert tracks == [Track(1, 0, 3, 0)]
    np.testing.assert_array_equal(masks[1], square((1, 21, 19)))
    np.testing.assert_array_equal(masks[2], square((1, 22, 18)))


def test_a_lost_cell_is_cut_out_of_the_one_it_merged_with():
    apart = square((1, 20, 20), (2, 20, 31))
    merged = np.where(apart > 0, 5, 0)
    merged[20:30, 30] = 5
    tracks, masks = tracked([apart, merged, apart], "assignment")
    assert tracks == [Track(1, 0, 2, 0), Track(2, 0, 2, 0)]
    assert (masks[1][merged > 0] > 0).all()
    assert (masks[1] == 1)[20:30, 20:30].all()
    assert (masks[1] == 2)[20:30, 31:41].all()


def test_a_lost_cell_never_covers_most_of_another(monkeypatch):
    # A small cell within the place of the lost one, and a large one that it touches.
    frames = [square((1, 20, 20)), square((4, 24, 28))]
    frames[1][21:24, 21:24] = 3
    links = Links([np.array([1]), np.array([2, 3])], {}, [Gap(1, 1, 0, 1, (0, 0))])
    monkeypatch.setitem(TRACKERS, "by hand", lambda seen: links)
    tracks, masks = tracked(frames, "by hand")
    assert len(tracks) == 3
    wanted = np.where(frames[1] == 4, 3, 0)
    wanted[20:30, 20:30] = 1
    wanted[21:24, 21:24] = 2
    np.testing.assert_array_equal(masks[1], wanted)


def test_a_lost_cell_may_be_drawn_partly_or_wholly_outside(monkeypatch):
    frames = [square((1, 20, 20)), square(), square()]
    gaps = [Gap(1, 1, 0, 1, (-25, 0)), Gap(1, 2, 0, 1, (0, -40))]
    links = Links([np.array([1]), np.zeros(0, int), np.zeros(0, int)], {}, gaps)
    monkeypatch.setitem(TRACKERS, "by hand", lambda seen: links)
    tracks, masks = tracked(frames, "by hand")
    assert tracks == [Track(1, 0, 1, 0)]
    np.testing.assert_array_equal(masks[1], square((1, -5, 20)))


def test_daughters_have_a_mother_if_she_was_in_the_field():
    before, after = [square((1, 20, 20))] * 2, np.zeros(SHAPE, np.uint16)
    after[20:24, 20:30], after[26:30, 20:30] = 1, 2
    frames = before + [after] * 5
    tracks, _ = tracked(frames, "assignment")
    assert tracks == [Track(1, 0, 1, 0), Track(2, 2, 6, 1), Track(3, 2, 6, 1)]
    tracks, _ = tracked(frames, "greedy")
    assert tracks == [Track(1, 0, 6, 0), Track(2, 2, 6, 0)]
    # She moved into the field when she divided, so only the daughters were ever in it.
    early = [np.roll(frame, -9, axis=1) for frame in before]
    later = [np.roll(frame, -7, axis=1) for frame in [after] * 5]
    tracks, _ = tracked(early + later, "assignment", 21)
    assert tracks == [Track(1, 2, 6, 0), Track(2, 2, 6, 0)]


@pytest.mark.parametrize("tracker", ["greedy", "assignment"])
def test_no_cells_at_all_and_one_frame(tracker, tmp_path):
    for frames in ([square()], [square()] * 3):
        tracks, masks = tracked(frames, tracker, 5)
        assert tracks == []
        assert not masks.any()
        write_masks(tmp_path / "out", masks, tracks)
        assert read_tracks(tmp_path / "out" / "res_track.txt") == []
        assert len(open_masks(tmp_path / "out")) == len(frames)
    tracks, _ = tracked([square((500, 9, 9))], tracker)
    assert tracks == [Track(1, 0, 0, 0)]


@pytest.mark.parametrize("border", [30, 45, -1])
def test_a_field_of_interest_without_pixels_is_refused(border):
    with pytest.raises(InputError, match=f"field of interest {border}: leaves nothing of .* 60x90"):
        track_cells([square()], "greedy", border)


def test_more_tracks_than_16_bit_can_number():
    dots = np.zeros((520, 520), np.int64)
    dots[::2, ::2] = np.arange(1, 1 + 260**2).reshape(260, 260)
    with pytest.raises(InputError, match="67600 tracks are more than the 65535"):
        track_cells([dots], "greedy")


@pytest.fixture(scope="module")
def markers(shared_data):
    """Return frames 20 to 49 of the real markers, as large as cells, and the truth of these."""
    folder = shared_data / "PhC-C2DH-U373" / "02_GT" / "TRA"
    frames = [tifffile.imread(folder / f"man_track{t:03d}.tif") for t in range(20, 50)]
    table = [
        Track(k.label, max(k.begin, 20) - 20, min(k.end, 49) - 20, 0)
        for k in read_tracks(folder / "man_track.txt")
        if k.begin < 50 and k.end >= 20
    ]
    grown = []
    for frame in frames:
        distance, (rows, columns) = ndimage.distance_transform_edt(frame == 0, return_indices=True)
        grown.append(np.where(distance <= 18, frame[rows, columns], 0))
    return frames, table, grown


def scores(markers, labels, tracker: str) -> tuple[float, float]:
    frames, table, _ = markers
    result = track_cells(labels, tracker)
    matches = [match_objects(frame, mask) for frame, mask in zip(frames, result.masks)]
    operations = count_operations(matches, table, result.tracks)
    return det(operations), tra(operations)


@pytest.mark.parametrize("tracker", ["greedy", "assignment"])
def test_real_cells_are_followed(markers, tracker):
    found, followed = scores(markers, markers[2], tracker)
    assert found > 0.99
    assert followed > 0.99


def test_assignment_follows_real_cells_better_where_some_are_lost(markers):
    rng = np.random.default_rng(0)
    lossy = []
    for frame in markers[2]:
        lost = [n for n in np.unique(frame)[1:] if rng.random() < 0.06]
        lossy.append(np.where(np.isin(frame, lost), 0, frame))
    greedy, assignment = (scores(markers, lossy, one) for one in ("greedy", "assignment"))
    assert greedy[1] < 0.95
    assert assignment[0] > 0.98
    assert assignment[1] > 0.98


def test_a_picture_is_not_taken_for_cells():
    picture = np.random.default_rng(0).integers(1, 256, (1, 30, 30))
    with pytest.raises(InputError, match="frame 0 holds other numbers from pixel to pixel"):
        track_cells(picture, "assignment")


def test_cells_of_two_by_two_pixels_side_by_side_are_cells():
    rows, columns = np.mgrid[:20, :20]
    result = track_cells((1 + 10 * (rows // 2) + columns // 2)[None], "assignment")
    assert len(result.tracks) == 100
