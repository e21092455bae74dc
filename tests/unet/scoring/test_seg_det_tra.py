"""The challenge's scores: cases counted by hand, and py-ctcmetrics."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
import tifffile
from ctc_metrics.scripts.evaluate import evaluate_sequence
from skimage.segmentation import expand_labels

from tests.unet.ctc_cases import make_case
from tests.unet.drawn import drawn
from unet.errors import InputError
from unet.scoring.score_sequence import score_seg, score_tracking
from unet.scoring.seg_det_tra import Operations, count_operations, det, match_objects, seg, tra
from unet.tracking.ctc_format import Track, open_masks, read_tracks, write_masks, write_tracks


def operations(truth, true_tracks, result, tracks):
    frames = [match_objects(drawn(a), drawn(b)) for a, b in zip(truth, result)]
    got = count_operations(frames, [Track(*t) for t in true_tracks], [Track(*t) for t in tracks])
    return {key: value for key, value in got._asdict().items() if value}


# --- SEG --------------------------------------------------------------------------------------


def test_jaccard_by_hand():
    got = match_objects(drawn("1111..33.444"), drawn(".777..89..9."))
    assert got.reference.tolist() == [1, 3, 4]
    # 3 of 4; exactly half of 3 is not more than half; 9 has 1 of the 3 pixels of 4.
    assert got.partners.tolist() == [7, 0, 0]
    assert got.jaccard.tolist() == [3 / 4, 0, 0]
    assert got.result.tolist() == [7, 8, 9]
    assert seg([got]) == 1 / 4
    assert seg([got, match_objects(drawn("5"), drawn("1"))]) == (3 / 4 + 1) / 4


def test_seg_of_nothing():
    empty = match_objects(drawn("...."), drawn("11.."))
    assert empty.reference.tolist() == []
    assert match_objects(drawn("11.."), drawn("....")).partners.tolist() == [0]
    with pytest.raises(InputError, match="no object in these frames"):
        seg([empty])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        match_objects(drawn("11"), drawn("111"))


def test_objects_with_numbers_of_16_bit():
    truth = np.array([[65535, 65535, 0, 300]], np.uint16)
    got = match_objects(truth, truth[:, ::-1])
    assert got.reference.tolist() == [300, 65535]
    assert got.partners.tolist() == [65535, 0]


# --- the graph --------------------------------------------------------------------------------


def test_nothing_to_mend():
    truth, table = ["11.", "11.", "2.3", "2.3"], [(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)]
    assert operations(truth, table, truth, table) == {"objects": 6, "links": 5}


def test_objects_to_add_and_to_remove():
    got = operations(["1.2"], [(1, 0, 0, 0), (2, 0, 0, 0)], ["33."], [(3, 0, 0, 0)])
    assert got == {"FN": 1, "objects": 2}
    got = operations(["1.."], [(1, 0, 0, 0)], ["333"], [(3, 0, 0, 0)])
    assert got == {"objects": 1}
    got = operations(["1.."], [(1, 0, 0, 0)], ["345"], [(k, 0, 0, 0) for k in (3, 4, 5)])
    assert got == {"FP": 2, "objects": 1}


def test_three_objects_in_one():
    tracks = [(1, 0, 1, 0), (2, 0, 1, 0), (3, 0, 1, 0)]
    got = operations(["1.2.3"] * 2, tracks, ["55555"] * 2, [(5, 0, 1, 0)])
    # Two splits in each frame; after them all three links are missing, and none is wrong.
    assert got == {"NS": 4, "EA": 3, "objects": 6, "links": 3}


def test_a_track_that_breaks():
    true = [(1, 0, 3, 0)]
    got = operations(["1"] * 4, true, ["5", "5", "6", "6"], [(5, 0, 1, 0), (6, 2, 3, 0)])
    assert got == {"EA": 1, "objects": 4, "links": 3}
    # Linked as parent and child: there, with the other meaning.
    got = operations(["1"] * 4, true, ["5", "5", "6", "6"], [(5, 0, 1, 0), (6, 2, 3, 5)])
    assert got == {"EC": 1, "objects": 4, "links": 3}


def test_a_link_over_a_gap():
    true, truth = [(1, 0, 0, 0), (2, 2, 2, 1)], ["1", ".", "2"]
    assert operations(truth, true, truth, true) == {"objects": 2, "links": 1}
    missing = [(1, 0, 0, 0), (2, 2, 2, 0)]
    assert operations(truth, true, truth, missing) == {"EA": 1, "objects": 2, "links": 1}
    assert operations(truth, missing, truth, true) == {"ED": 1, "objects": 2}


def test_two_tracks_exchanged():
    true = [(1, 0, 1, 0), (2, 0, 1, 0)]
    got = operations(["1.2", "1.2"], true, ["1.2", "2.1"], true)
    assert got == {"ED": 2, "EA": 2, "objects": 4, "links": 2}


def test_links_of_false_objects_cost_nothing_of_their_own():
    got = operations(["1.."] * 3, [(1, 0, 2, 0)], ["1.4"] * 3, [(1, 0, 2, 0), (4, 0, 2, 0)])
    assert got == {"FP": 3, "objects": 3, "links": 2}


def test_what_mending_costs():
    counts = Operations(NS=1, FN=2, FP=3, ED=4, EA=5, EC=6, objects=20, links=16)
    assert det(counts) == pytest.approx(1 - (5 + 20 + 3) / 200)
    assert tra(counts) == pytest.approx(1 - (5 + 20 + 3 + 4 + 7.5 + 6) / 224)
    hopeless = counts._replace(FP=10_000)
    assert (det(hopeless), tra(hopeless)) == (0, 0)
    assert tra(counts._replace(objects=1, links=0)) == 0
    with pytest.raises(InputError, match="neither DET nor TRA"):
        det(counts._replace(objects=0))


def test_parents_that_are_not_there():
    frames = [match_objects(drawn("1"), drawn("1")), match_objects(drawn("2"), drawn("2"))]
    good = [Track(1, 0, 0, 0), Track(2, 1, 1, 1)]
    with pytest.raises(InputError, match="the result links 1 to its child 2, but has no 1 in fr"):
        count_operations(frames, good, [Track(1, 0, 1, 0), Track(2, 1, 1, 1)])
    with pytest.raises(InputError, match="the reference links 1 to its child 9, but has no 9"):
        count_operations(frames, [Track(1, 0, 0, 0), Track(9, 1, 1, 1)], good)


# --- py-ctcmetrics ----------------------------------------------------------------------------


def assert_as_judged(truth, result):
    """Hold scores and counts against py-ctcmetrics; return ours."""
    with warnings.catch_warnings():
        # It warns of frames without a cell, which are nothing wrong.
        warnings.simplefilter("ignore")
        judged = evaluate_sequence(str(result), str(truth), ["SEG", "DET", "TRA"], threads=1)
    got = {**score_seg(truth, result), **score_tracking(truth, result)}
    for key in ("SEG", "DET", "TRA"):
        assert got[key] == pytest.approx(judged[key], abs=1e-6)
    for key in ("NS", "FN", "FP", "ED", "EA", "EC"):
        assert got["operations"][key] == judged[f"AOGM_{key}"]
    return got


@pytest.mark.parametrize("errors", [0, 0.02, 0.1, 0.3, 0.7])
def test_made_cases(tmp_path, errors):
    total = dict.fromkeys(("NS", "FN", "FP", "ED", "EA", "EC"), 0)
    for seed in range(4):
        got = assert_as_judged(*make_case(tmp_path / str(seed), seed, errors))
        for key in total:
            total[key] += got["operations"][key]
    # A case that lacks a kind of error could not tell whether it is counted.
    if errors >= 0.1:
        assert min(total.values()) > 0


def test_real_markers_grown_and_disturbed(tmp_path, shared_data):
    # Frames 18 to 32: cells come and go, one is linked over a gap, four frames are annotated.
    real, truth = shared_data / "PhC-C2DH-U373" / "02_GT", tmp_path / "02_GT"
    chosen = range(18, 33)
    for kind in ("TRA/man_track", "SEG/man_seg"):
        (truth / kind).parent.mkdir(parents=True)
        for t, number in enumerate(chosen):
            if (real / f"{kind}{number:03d}.tif").exists():
                shutil.copyfile(real / f"{kind}{number:03d}.tif", truth / f"{kind}{t:03d}.tif")
    tracks = [
        Track(k.label, max(0, k.begin - 18), min(14, k.end - 18), k.parent)
        for k in read_tracks(real / "TRA" / "man_track.txt")
        if k.begin in chosen or k.end in chosen or k.begin < 18 < k.end
    ]
    labels = {track.label for track in tracks}
    tracks = [k if k.parent in labels else k._replace(parent=0) for k in tracks]
    assert any(track.parent for track in tracks)
    write_tracks(truth / "TRA" / "man_track.txt", tracks)
    markers = open_masks(truth / "TRA", "man_track")[:]
    masks = [
        np.roll(expand_labels(frame, 28), 40 * (t % 5 == 4), 1) for t, frame in enumerate(markers)
    ]
    write_masks(tmp_path / "02_RES", masks, tracks)
    got = assert_as_judged(truth, tmp_path / "02_RES")
    assert 0.1 < got["SEG"] < 0.8
    assert 0.5 < got["DET"] < 1
    assert 0.5 < got["TRA"] < 1


def test_the_truth_itself_scores_1(tmp_path, shared_data):
    truth = shared_data / "PhC-C2DH-U373" / "02_GT"
    for path in (truth / "TRA").iterdir():
        name = path.name.replace("man_track.txt", "res_track.txt").replace("man_track", "mask")
        shutil.copyfile(path, tmp_path / name)
    got = score_tracking(truth, tmp_path)
    assert (got["DET"], got["TRA"]) == (1, 1)
    tracks = read_tracks(truth / "TRA" / "man_track.txt")
    assert got["operations"]["objects"] == sum(k.end - k.begin + 1 for k in tracks)
    for path in (truth / "SEG").iterdir():
        shutil.copyfile(path, tmp_path / path.name.replace("man_seg", "mask"))
    assert score_seg(truth, tmp_path)["SEG"] == 1


# --- folders that do not fit ------------------------------------------------------------------


@pytest.fixture
def case(tmp_path):
    return make_case(tmp_path, 1, 0.02)


def test_seg_of_some_frames(case):
    truth, result = case
    whole = score_seg(truth, result)
    numbers = [frame["frame"] for frame in whole["per_frame"]]
    part = score_seg(truth, result, range(numbers[1], numbers[2] + 1))
    assert part["per_frame"] == whole["per_frame"][1:3]
    weights = [frame["objects"] for frame in part["per_frame"]]
    means = [frame["SEG"] for frame in part["per_frame"]]
    assert part["SEG"] == pytest.approx(np.average(means, weights=weights))
    with pytest.raises(InputError, match=r"SEG: annotates none of the chosen frames, but \["):
        score_seg(truth, result, range(50, 60))


def test_missing_masks(case):
    truth, result = case
    (result / "mask007.tif").unlink()
    with pytest.raises(InputError, match=r"01_RES: has no mask007\.tif, as .*man_track007\.tif"):
        score_tracking(truth, result)
    (truth / "TRA" / "man_track007.tif").unlink()
    with pytest.raises(InputError, match=r"01_GT: TRA/man_track007\.tif is missing"):
        score_tracking(truth, result)


def test_masks_of_another_sequence(case):
    truth, result = case
    (truth / "TRA" / "man_track011.tif").unlink()
    with pytest.raises(InputError, match=r"man_track011\.tif is missing; man_track\.txt names it"):
        score_tracking(truth, result)
    for path in result.glob("*.tif"):
        tifffile.imwrite(path, np.zeros((9, 8), np.uint16))
    with pytest.raises(InputError, match=r"masks are \(9, 8\) .*SEG is \(96, 112\)"):
        score_seg(truth, result)


def test_a_result_longer_than_the_truth_is_scored_up_to_its_end(case):
    truth, result = case
    wanted = score_tracking(truth, result)
    assert wanted["surplus_frames"] == 0
    tracks = read_tracks(result / "res_track.txt")
    goes_on = next(track for track in tracks if track.end == 11)
    for number in (12, 13):
        frame = np.zeros((96, 112), np.uint16)
        frame[4:8, 4:8], frame[20:25, 20:25] = goes_on.label, 40_000
        tifffile.imwrite(result / f"mask{number:03d}.tif", frame)
    others = [track for track in tracks if track != goes_on]
    table = [*others, goes_on._replace(end=13), Track(40_000, 12, 13, 0)]
    write_tracks(result / "res_track.txt", table)
    assert score_tracking(truth, result) == {**wanted, "surplus_frames": 2}


def test_tables_that_do_not_say_what_masks_hold(case):
    truth, result = case
    table = result / "res_track.txt"
    tracks = read_tracks(table)
    parents = {track.parent for track in tracks}
    # One that can be left out.
    one = next(track for track in tracks if track.label not in parents)
    others = [track for track in tracks if track != one]
    label, begin = one.label, one.begin
    for given, message in (
        ([], rf"does not list label {label} in frame {begin}, but mask{begin:03d}\.tif holds"),
        ([one._replace(end=12)], rf"track {label} ends in frame 12, but the last frame is 11"),
        ([one, Track(30_001, 2, 3, 0)], r"lists label 30001 in frame 2, but mask002\.tif does not"),
    ):
        write_tracks(table, others + given)
        with pytest.raises(InputError, match=rf"res_track\.txt: {message}"):
            score_tracking(truth, result)
    table.unlink()
    with pytest.raises(InputError, match=r"res_track\.txt: there is no such table of tracks"):
        score_tracking(truth, result)
