"""Trackers: greedy against loops, assignment against all there is, and cells that can be seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from unet.errors import InputError
from unet.tracking.detections import detect
from unet.tracking.linking import LONGEST_GAP, STAYS, assign, link_by_assignment, link_greedily


def disk(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def frame(
    *cells: tuple[int, float, float, float], shape: tuple[int, int] = (80, 120)
) -> np.ndarray:
    """Return a frame of disks (label, row, column, radius)."""
    labels = np.zeros(shape, np.uint16)
    for label, *place in cells:
        labels[disk(shape, *place)] = label
    return labels


def random_frames(seed: int, count: int = 6) -> list[np.ndarray]:
    """Return frames of cells that move, come and go, with labels that mean nothing."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(5, 55, (12, 2))
    frames = []
    for _ in range(count):
        places += rng.normal(0, 2.5, places.shape)
        labels = rng.permutation(np.arange(1, 40))[: len(places)]
        there = rng.random(len(places)) > 0.15
        cells = [(n, *p, rng.uniform(3, 7)) for n, p, t in zip(labels, places, there) if t]
        frames.append(frame(*cells, shape=(60, 60)))
    return frames


def naive_greedy(frames: list[np.ndarray]) -> list[dict[int, int]]:
    """Return label -> track of each frame, by loops over pixels and pairs."""
    result: list[dict[int, int]] = []
    count = 0
    for t, now in enumerate(frames):
        labels = sorted(set(now.ravel().tolist()) - {0})
        best_of: dict[int, tuple[float, int]] = {}
        for old in sorted(result[-1]) if t else []:
            for new in labels:
                a, b = frames[t - 1] == old, now == new
                iou = (a & b).sum() / (a | b).sum()
                if iou > best_of.get(old, (0, 0))[0]:
                    best_of[old] = (iou, new)
        tracks: dict[int, int] = {}
        for new in labels:
            claims = [(iou, -old) for old, (iou, chosen) in best_of.items() if chosen == new]
            if claims:
                tracks[new] = result[-1][-max(claims)[1]]
            else:
                count += 1
                tracks[new] = count
        result.append(tracks)
    return result


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_what_loops_give(seed):
    frames = random_frames(seed)
    seen = detect(frames)
    links = link_greedily(seen)
    given = [
        dict(zip(cells.labels.tolist(), tracks.tolist()))
        for cells, tracks in zip(seen.frames, links.tracks)
    ]
    assert given == naive_greedy(frames)
    assert not links.parents
    assert len(set().union(*(one.values() for one in given))) > 12


def test_greedy_may_leave_a_cell_that_lost_its_best():
    # Both old cells like the large new one best; the second best of the loser is not tried.
    before = frame((1, 20, 30, 10), (2, 20, 52, 10))
    after = np.zeros_like(before)
    after[10:31, 20:56] = 7
    after[10:31, 58:62] = 8
    links = link_greedily(detect([before, after]))
    assert links.tracks[1].tolist() == [1, 3]


def test_observation_against_numpy():
    first, second = random_frames(9, 2)
    seen = detect([first, second])
    for picture, cells in zip((first, second), seen.frames):
        assert cells.labels.tolist() == sorted(set(picture.ravel().tolist()) - {0})
        for label, area, centre in zip(*cells):
            assert area == (picture == label).sum()
            np.testing.assert_allclose(centre, np.argwhere(picture == label).mean(axis=0))
    iou = seen.iou(1)
    for i, a in enumerate(seen.frames[0].labels):
        for j, b in enumerate(seen.frames[1].labels):
            one, other = first == a, second == b
            assert iou[i, j] == (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("seed", range(20))
def test_assignment_has_the_largest_gain_of_all(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, 5, 2)
    gain = rng.uniform(-1, 1, (rows, columns))
    best = 0.0
    # Each row takes a column or none.
    for choice in itertools.product(range(-1, columns), repeat=rows):
        taken = [j for j in choice if j >= 0]
        if len(set(taken)) == len(taken):
            best = max(best, sum(gain[i, j] for i, j in enumerate(choice) if j >= 0))
    pairs = assign(gain)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert sum(gain[pair] for pair in pairs) == pytest.approx(best)
    assert all(gain[pair] > 0 for pair in pairs)


def tracks_of(frames: list[np.ndarray]) -> tuple[list[dict[int, int]], object]:
    """Return label -> track of each frame by assignment, and the links."""
    seen = detect(frames)
    links = link_by_assignment(seen)
    return [
        dict(zip(cells.labels.tolist(), tracks.tolist()))
        for cells, tracks in zip(seen.frames, links.tracks)
    ], links


def test_assignment_tells_cells_apart_that_the_greedy_one_confuses():
    before = frame((1, 20, 30, 10), (2, 20, 52, 10))
    after = frame((7, 20, 41, 10), (8, 20, 63, 10))
    (first, second), links = tracks_of([before, after])
    assert second == {7: first[1], 8: first[2]}
    assert not links.parents


def test_a_gap_is_closed_and_the_cell_drawn_between():
    for missed in range(1, LONGEST_GAP + 2):
        seen = [
            frame((5, 40, 30, 10), (1, 40, 90, 8)),
            frame((2, 40, 30 + missed, 10), (1, 40, 90, 8)),
        ]
        frames = [seen[0]] + [frame((9, 40, 90, 8))] * missed + [seen[1]]
        tracks, links = tracks_of(frames)
        if missed > LONGEST_GAP:
            assert tracks[-1][2] != tracks[0][5]
            assert not links.gaps
            continue
        assert tracks[-1][2] == tracks[0][5]
        assert [gap.frame for gap in links.gaps] == list(range(1, missed + 1))
        for gap in links.gaps:
            assert gap.track == tracks[0][5]
            assert (gap.nearest, gap.label) in ((0, 5), (missed + 1, 2))


def test_a_cell_divides():
    mother = [frame((1, 40, 40, 12))] * 3
    daughters = [frame((1, 40, 31, 8), (2, 40, 49, 8))] * (STAYS + 1)
    tracks, links = tracks_of(mother + daughters)
    one, two = tracks[3][1], tracks[3][2]
    assert links.parents == {one: tracks[0][1], two: tracks[0][1]}
    assert len({one, two, tracks[0][1]}) == 3
    assert tracks[-1] == tracks[3]


def test_both_daughters_divide_again():
    frames = [frame((1, 40, 60, 20))] * 2
    frames += [frame((1, 40, 45, 13), (2, 40, 75, 13))] * (STAYS + 1)
    four = ((1, 40, 37, 6.5), (2, 40, 53, 6.5), (3, 40, 67, 6.5), (4, 40, 83, 6.5))
    frames += [frame(*four)] * (STAYS + 1)
    tracks, links = tracks_of(frames)
    last = tracks[-1]
    left, right = tracks[2][1], tracks[2][2]
    wanted = {left: tracks[0][1], right: tracks[0][1]}
    wanted.update({last[1]: left, last[2]: left, last[3]: right, last[4]: right})
    assert links.parents == wanted
    assert len(set(wanted) | {tracks[0][1]}) == 7


def test_a_part_cut_off_for_a_moment_stays_part():
    whole, cut = frame((1, 40, 40, 12)), frame((1, 40, 40, 12))
    cut[:, 40] = 0
    cut[:, 41:][cut[:, 41:] > 0] = 2
    tracks, links = tracks_of([whole, cut, whole, whole])
    assert tracks[1] == {1: tracks[0][1], 2: tracks[0][1]}
    assert tracks[2] == tracks[0]
    assert not links.parents


def test_a_small_cell_beside_a_large_one_is_no_daughter():
    before = [frame((1, 40, 40, 12))] * 2
    after = [frame((1, 40, 40, 12), (2, 40, 50, 3))] * 6
    tracks, links = tracks_of(before + after)
    assert not links.parents
    assert tracks[-1][1] == tracks[0][1] != tracks[-1][2]


@pytest.mark.parametrize("tracker", [link_greedily, link_by_assignment])
def test_frames_without_cells(tracker):
    empty, one = frame(), frame((300, 20, 20, 6))
    for frames in ([empty], [empty] * 4, [one], [empty, one, empty], [one, empty, empty, one]):
        links = tracker(detect(frames))
        for picture, tracks in zip(frames, links.tracks):
            assert len(tracks) == (picture.max() > 0)
            assert (tracks > 0).all()


def test_what_is_no_frame_of_cells_is_refused():
    with pytest.raises(InputError, match=r"frame 1 is \(3, 5\), but the one before is \(3, 4\)"):
        detect([np.zeros((3, 4), int), np.zeros((3, 5), int)])
    with pytest.raises(InputError, match="frame 0 holds numbers that are not whole"):
        detect([np.full((3, 4), 0.5)])
    with pytest.raises(InputError, match="frame 1 holds the negative number -2"):
        detect([np.zeros((3, 4), int), np.full((3, 4), -2)])


def test_numbers_beyond_any_table():
    big = frame((1, 20, 20, 6)).astype(np.int64) * 2**40
    big[50:60, 50:60] = 2**40 + 1
    seen = detect([big, big])
    assert seen.frames[0].labels.tolist() == [2**40, 2**40 + 1]
    assert link_greedily(seen).tracks[1].tolist() == [1, 2]
