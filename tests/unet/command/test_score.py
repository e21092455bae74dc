"""The program that scores: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.unet.ctc_cases import make_case
from unet.command import score as evaluate
from unet.errors import InputError
from unet.preparation.labels import separate_touching
from unet.scoring.score import rescale, score
from unet.scoring.score_sequence import score_seg, score_tracking
from unet.scoring.score_stack import score_stack
from unet.volumes import open_volume, write_volume

SCORES = ("rand_error", "pixel_error", "warping_error", "v_rand_thin", "v_info_thin")


@pytest.fixture
def labels() -> np.ndarray:
    """Six slices of four cells, with membranes that wander from slice to slice."""
    stack = np.full((6, 24, 30), 255, np.uint8)
    for z in range(6):
        stack[z, 8 + z : 10 + z] = 0
        stack[z, :, 12 + z : 14 + z] = 0
    return stack


@pytest.fixture
def probabilities(labels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).random(labels.shape)
    return (0.6 * (labels > 0) + 0.4 * noise).astype(np.float32)


@pytest.fixture
def save(tmp_path: Path):
    def write(name: str, stack: np.ndarray) -> str:
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack")
        return str(tmp_path / name)

    return write


def run(*arguments: object) -> dict:
    """Run the program in this process and return what it wrote as JSON."""
    path = Path(arguments[0]).parent / "scores.json"
    evaluate.main([str(argument) for argument in arguments] + ["--json", str(path)])
    return json.loads(path.read_text())


def test_prints_and_writes_every_score(labels, probabilities, save, capsys):
    written = run(save("labels.tif", labels), save("prediction.tif", probabilities))
    expected = score_stack(labels, probabilities)
    printed = capsys.readouterr().out
    for key in SCORES:
        assert written[key] == expected[key]
        assert f"{expected[key]:.6f}  {expected[key + '_threshold']:.1f}\n" in printed
    assert written["warping_types_by_threshold"] == expected["warping_types_by_threshold"]
    assert written["v2012"] == expected["v2012"]
    assert (written["label_bitdepth"], written["proposal_bitdepth"]) == (8, 32)
    for number, (one, alone) in enumerate(zip(written["per_slice"], expected["per_slice"]), 1):
        assert one == {**alone, "slice": number}
        assert f"\n{number:5d}" in printed


def test_labels_and_result_the_other_way_round_are_doubted(labels, probabilities, save, capsys):
    truth = save("labels.tif", labels)
    result = str(Path(truth).with_name("result.tif"))
    write_volume(result, probabilities)
    run(truth, result, "--no-warping")
    assert "note:" not in capsys.readouterr().err
    run(result, truth, "--no-warping", "--label-threshold", "0.5")
    said = f"{result} is an output of this project and is taken for the ground truth, which comes"
    assert f"note: {said} first: is it not {truth}?" in capsys.readouterr().err


def test_from_python_arrays_and_open_volumes_score_as_their_files(labels, probabilities, save):
    paths = save("l.tif", labels), save("p.tif", probabilities)
    expected = score(*paths)
    given = score(labels, probabilities)
    with open_volume(paths[1]) as volume:
        assert score(labels, volume)["rand_error"] == expected["rand_error"]
        # Whoever opened it closes it.
        assert volume[0].shape == labels.shape[1:]
    assert {**given, "labels": paths[0], "prediction": paths[1]} == expected
    with pytest.raises(
        InputError, match="label kind 'cells': give auto, binary, membranes, instances"
    ):
        score(labels, probabilities, label_kind="cells")


def test_an_empty_slice_leaves_the_scores_to_the_others(labels, probabilities, save, capsys):
    labels[1] = 0
    probabilities[1] *= 0.1
    paths = save("l.tif", labels), save("p.tif", probabilities)
    written = run(*paths)
    expected = score_stack(labels[[0, 2, 3, 4, 5]], probabilities[[0, 2, 3, 4, 5]])
    for key in ("rand_error", "v_rand_thin", "v_info_thin"):
        assert written[key] == expected[key]
        assert written["per_slice"][1][key] is None
        assert written["per_slice"][1][f"{key}_threshold"] is None
    assert written["slices_without_cells"] == [2]
    said = capsys.readouterr().out
    assert "slice 2 holds no true cell: Rand error, V_rand and V_info are those of the other 5" in (
        said
    )
    assert "nan" not in said
    row = next(line.split() for line in said.splitlines() if line.startswith("    2"))
    assert row[:2] == ["2", "-"] and row[-2:] == ["-", "-"]


def test_labels_without_a_cell_cannot_score(labels, probabilities, save):
    with pytest.raises(InputError, match=r"l\.tif: no pixel .* is above 0"):
        run(save("l.tif", labels * 0), save("p.tif", probabilities))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: 1 - p, r"lower inside the true cells \(0\.\d+ in the mean\).*is it inverted"),
        (lambda p: (p * 4000).astype(np.uint16), r"nowhere exceeds 0\.06\d+: are these prob"),
        (lambda p: np.full_like(p, 0.25), r"is 0\.25 everywhere"),
    ],
)
def test_a_prediction_that_is_hardly_meant_is_doubted(
    spoil, told, labels, probabilities, save, capsys
):
    written = run(save("l.tif", labels), save("p.tif", spoil(probabilities)), "--no-warping")
    assert re.search(told, capsys.readouterr().out)
    assert len(written["doubts"]) == 1
    assert run(save("l.tif", labels), save("p.tif", probabilities))["doubts"] == []


def test_it_is_said_where_a_slice_of_one_cell_makes_v_info_0(labels, save, capsys):
    labels[4], labels[5] = 0, 0
    labels[4, 3:9, 3:9] = 255
    labels[5, 3:9, 3:9] = 255
    run(save("l.tif", labels), save("p.tif", labels))
    assert "slices 5, 6 hold one true cell only: V_info of such a slice is 0" in (
        capsys.readouterr().out
    )


# --- numbers of cells that touch ----------------------------------------------------------------


@pytest.fixture
def touching() -> np.ndarray:
    """Two slices of 3 x 8 cells of 8 x 8 pixels, all touching, each with a number of its own."""
    rows, columns = np.mgrid[:24, :64]
    cells = 1 + 8 * (rows // 8) + columns // 8
    return np.stack([cells, cells + 24]).astype(np.uint16)


def test_cells_that_touch_are_told_apart_as_in_training(touching, save, capsys):
    truth = save("l.tif", touching)
    bordered = np.stack([separate_touching(slice_) for slice_ in touching]) > 0
    written = run(truth, save("p.tif", bordered.astype(np.float32)))
    assert written["rand_error"] == written["pixel_error"] == written["warping_error"] == 0
    assert written["v_rand_thin"] == pytest.approx(1) == written["v_info_thin"]
    assert (written["cells"], written["label_kind"]) == (48, "instances")
    assert "(2 x 24 x 64, instances with borders between them)" in capsys.readouterr().out
    # All of it as one cell is another matter.
    everything = run(truth, save("q.tif", np.ones(touching.shape, np.float32)))
    assert everything["rand_error"] > 0.9


def test_two_cells_that_touch_by_hand(save):
    truth = save("l.tif", np.array([[1, 1, 1, 2, 2, 2]] * 3, np.uint8))
    merged = save("p.tif", np.array([[1] * 6] * 3, np.uint8))
    # The borders leave 6 pixels of each: tp = 2 * 6^2, tp + fp = 12^2, tp + fn = tp: F = 2/3.
    instances = run(truth, merged, "--label-kind", "instances")
    assert instances["rand_error"] == pytest.approx(1 / 3)
    assert run(truth, merged, "--label-kind", "binary")["rand_error"] == 0
    with pytest.raises(InputError, match=r"l\.tif: the values are 1, 2, and no pixel is 0"):
        run(truth, merged)


def test_few_values_that_touch_have_to_be_named(save):
    labels = np.zeros((12, 20), np.uint8)
    labels[2:10, 2:9], labels[2:10, 9:16] = 1, 2
    truth, prediction = save("l.tif", labels), save("p.tif", (labels > 0).astype(np.float32))
    with pytest.raises(InputError, match=r"l\.tif: labels of 3 values .*--label-kind instances"):
        run(truth, prediction)
    assert run(truth, prediction, "--label-kind", "binary")["rand_error"] == 0
    assert run(truth, prediction, "--label-kind", "instances")["rand_error"] > 0.3


def test_numbers_of_cells_that_do_not_touch_are_as_good_as_binary(labels, probabilities, save):
    numbers = ndimage.label(labels > 0)[0].astype(np.uint8)
    assert len(np.unique(numbers)) > 3
    written = run(save("l.tif", numbers), save("p.tif", probabilities))
    binary = run(save("m.tif", labels), save("p.tif", probabilities))
    assert {key: written[key] for key in SCORES} == {key: binary[key] for key in SCORES}
    assert written["label_kind"] == "binary"


def test_a_prediction_of_cell_numbers(touching, save, capsys):
    truth = save("l.tif", touching)
    renumbered = np.where(touching > 24, touching - 24, touching + 24)
    written = run(truth, save("p.tif", renumbered))
    assert written["rand_error"] == written["pixel_error"] == 0
    assert "uint16, cell numbers taken as instances" in capsys.readouterr().out


def test_a_smoothed_truth_is_refused(labels, probabilities, save):
    smooth = ndimage.gaussian_filter(labels, (0, 0.7, 0.7))
    with pytest.raises(InputError, match=r"l\.tif: the labels have .* smoothed mask"):
        run(save("l.tif", smooth), save("p.tif", probabilities))


def test_without_warping(labels, probabilities, save, capsys):
    written = run(save("l.tif", labels), save("p.tif", probabilities), "--no-warping")
    assert "warping_error" not in written
    assert "warping error" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dtype", "top", "words"), [(np.uint8, 255, "1/255"), (np.uint16, 65535, "1/65535")]
)
def test_integers_are_rescaled_and_that_is_said(
    dtype, top, words, labels, probabilities, save, capsys
):
    integers = np.round(probabilities * top).astype(dtype)
    written = run(save("l.tif", labels), save("p.tif", integers))
    assert words in capsys.readouterr().out
    assert words in written["prediction_scaling"]
    expected = score_stack(labels, integers / np.float32(top))
    assert {key: written[key] for key in SCORES} == {key: expected[key] for key in SCORES}
    assert written["pixel_error"] == pytest.approx(
        score_stack(labels, probabilities)["pixel_error"], abs=0.01
    )


@pytest.mark.parametrize("k", [51, 102, 153, 204])
def test_rescaled_bytes_lie_as_single_precision_tenths_do(k):
    scaled, _ = rescale(np.full((1, 1, 1), k, np.uint8) + np.uint8([[[0, 255 - k]]]), False)
    assert scaled[0, 0, 0] == np.float32(k / 255)
    assert float(scaled[0, 0, 1]) == 1.0


def test_unscaled_integers_mean_cells_wherever_they_are_above_zero(labels, probabilities, save):
    integers = np.round(probabilities * 255).astype(np.uint8)
    written = run(save("l.tif", labels), save("p.tif", integers), "--unscaled")
    assert written["pixel_error"] == score_stack(labels, integers)["pixel_error"]
    assert written["warping_error"] == score_stack(labels, integers)["warping_error"]


def test_integers_of_0_and_1_are_taken_as_they_are(labels, save, capsys):
    written = run(save("l.tif", labels), save("p.tif", (labels > 0).astype(np.uint8)))
    assert written["pixel_error"] == written["rand_error"] == 0
    assert len(set(written["pixel_fscore_by_threshold"])) == 1
    assert "taken as it is" in capsys.readouterr().out


def test_slices_of_the_labels_against_a_prediction_of_these_or_of_all(labels, probabilities, save):
    truth, whole = save("l.tif", labels), save("p.tif", probabilities)
    part = save("q.tif", probabilities[2:4])
    of_all, of_part = run(truth, whole, "--slices", "2:4"), run(truth, part, "--slices", "2:4")
    assert of_all["rand_error"] == of_part["rand_error"]
    assert of_all["rand_error"] == score_stack(labels[2:4], probabilities[2:4])["rand_error"]
    assert [one["slice"] for one in of_part["per_slice"]] == [3, 4]


def test_of_a_stopped_acquisition_the_slices_that_are_there_are_scored(
    labels, probabilities, save, tmp_path
):
    truth, path = save("l.tif", labels), tmp_path / "p.tif"
    with tifffile.TiffWriter(path) as tiff:
        for z, picture in enumerate(probabilities[:4]):
            text = "ImageJ=1.54f\nimages=6\nslices=6\n" if z == 0 else None
            tiff.write(picture, contiguous=False, metadata=None, description=text)
    with pytest.raises(InputError, match=r"slice 4 is not there: .* --slices 0:4"):
        evaluate.main([truth, str(path)])
    whole = run(truth, save("q.tif", probabilities), "--slices", "0:4")
    assert run(truth, path, "--slices", "0:4")["rand_error"] == whole["rand_error"]


def test_stacks_of_one_channel_are_grey(labels, probabilities, save, tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["v"] = probabilities[:, None]
    whole = run(save("l.tif", labels), save("p.tif", probabilities))
    assert run(tmp_path / "l.tif", tmp_path / "p.h5")["rand_error"] == whole["rand_error"]


def test_every_third_slice_starts_with_the_second(labels, probabilities, save):
    written = run(save("l.tif", labels), save("p.tif", probabilities), "--every-third")
    assert [one["slice"] for one in written["per_slice"]] == [2, 5]
    expected = score_stack(labels[[1, 4]], probabilities[[1, 4]])
    assert written["v_rand_thin"] == expected["v_rand_thin"]


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda p: np.where(p > 0.99, np.nan, p), [], "NaN"),
        (lambda p: p * 2, [], "0, 1"),
        (lambda p: p - 1, [], "0, 1"),
        (lambda p: np.where(p > 0.9, np.float32(1.000002), p), [], r"to 1\.000002: give"),
        (lambda p: p[:, 1:], [], "24x30.*23x30"),
        (lambda p: p[:2], [], "--slices"),
        (lambda p: (p * 9).astype(np.int32), [], "int32"),
        (lambda p: p, ["--slices", "4:9"], "B <= 6"),
        (lambda p: p[:2], ["--slices", "0:3"], "3 slices.*2 slices"),
        (lambda p: p[:1], ["--slices", "0:1", "--every-third"], "slice 2"),
    ],
)
def test_what_cannot_be_scored_is_told(spoil, options, message, labels, probabilities, save):
    arguments = [save("l.tif", labels), save("p.tif", spoil(probabilities))]
    with pytest.raises(InputError, match=message):
        evaluate.main(arguments + options)


# --- labels that are not what they seem, and files by their names -----------------------------


def test_signed_and_scaled_labels_are_asked_for(labels, probabilities, save, capsys):
    prediction = save("p.tif", probabilities)
    binary = run(save("l.tif", labels), prediction)
    signed = save("s.tif", np.where(labels > 0, 1, -1).astype(np.int8))
    with pytest.raises(InputError, match=r"s\.tif: the label -1 is negative.*--label-threshold 0"):
        run(signed, prediction)
    from_1 = save("t.tif", np.where(labels > 0, 2, 1).astype(np.uint8))
    with pytest.raises(InputError, match=r"t\.tif: the values are 1, 2, .*--label-threshold N"):
        run(from_1, prediction)
    with pytest.raises(InputError, match="labels are binary, not instances"):
        run(signed, prediction, "--label-threshold", "0", "--label-kind", "instances")
    rims = np.where(labels > 0, 250, 3) + np.random.default_rng(0).integers(0, 4, labels.shape)
    for given, threshold in ((signed, 0), (from_1, 1), (save("r.tif", rims.astype("u1")), 127)):
        written = run(given, prediction, "--label-threshold", threshold)
        assert {key: written[key] for key in SCORES} == {key: binary[key] for key in SCORES}
        assert written["label_threshold"] == threshold
        assert f"(6 x 24 x 30, above {threshold} inside cells)" in capsys.readouterr().out


def save_folder(folder: Path, prefix: str, slices: dict) -> Path:
    folder.mkdir()
    for number, image in slices.items():
        tifffile.imwrite(folder / f"{prefix}{number:02d}.tif", image)
    return folder


def test_folders_are_paired_by_the_numbers_in_their_names(labels, probabilities, tmp_path, capsys):
    truth = save_folder(tmp_path / "t", "label", {z: labels[z] for z in (1, 2, 4)})
    made = save_folder(tmp_path / "p", "x_", dict(enumerate(probabilities)))
    written = run(truth, made)
    expected = score_stack(labels[[1, 2, 4]], probabilities[[1, 2, 4]])
    assert written["rand_error"] == expected["rand_error"]
    assert "3 of the 6 predictions have no labels of their number" in capsys.readouterr().out
    part = run(truth, made, "--slices", "1:3")
    assert part["rand_error"] == score_stack(labels[[2, 4]], probabilities[[2, 4]])["rand_error"]
    fewer = save_folder(tmp_path / "q", "x_", {z: probabilities[z] for z in (1, 2, 3)})
    with pytest.raises(
        InputError, match=r"t: label04\.tif has no prediction of that number in .*q"
    ):
        run(truth, fewer)
    assert run(truth, fewer, "--slices", "0:2")["slices"] == 2
    mixed = score_stack(labels[[1, 2, 4]], probabilities[[1, 2, 3]])["rand_error"]
    assert run(truth, fewer, "--by-order")["rand_error"] == mixed


def test_what_segment_wrote_is_paired_by_place(labels, tmp_path):
    truth = save_folder(tmp_path / "t", "label", dict(enumerate(labels, 1)))
    write_volume(tmp_path / "segmented", labels)
    assert run(truth, tmp_path / "segmented")["rand_error"] == 0


def test_scores_of_files_whose_names_are_not_utf_8(labels, probabilities, tmp_path):
    truth = save_folder(tmp_path / "\udce4", "\udcb5_", dict(enumerate(labels)))
    made = save_folder(tmp_path / "\udcfc", "\udcb6_", dict(enumerate(probabilities)))
    written = run(truth, made)
    assert written["labels"].endswith("\\xe4")
    json.dumps(written, ensure_ascii=False).encode()


# --- results of the cell tracking challenge ---------------------------------------------------


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    return make_case(tmp_path, 3, 0.1)


def test_a_result_of_the_cell_tracking_challenge(case, capsys):
    written = run(*case)
    cells, tracks = score_seg(*case), score_tracking(*case)
    assert re.fullmatch(r"unet-in-caffe \S+, file of scores", written.pop("software"))
    assert written == {"truth": str(case[0]), "result": str(case[1]), **cells, **tracks}
    said = capsys.readouterr().out.splitlines()
    assert f"SEG   {cells['SEG']:.6f}  4 frames" in "\n".join(said)
    assert any(line.startswith(f"DET   {tracks['DET']:.6f}  of ") for line in said)
    assert any(line.startswith(f"TRA   {tracks['TRA']:.6f}  of ") for line in said)
    one = cells["per_frame"][2]
    assert f"{one['frame']:5d}{one['SEG']:11.6f}  {one['matched']} of {one['objects']}" in said


def test_a_frame_without_a_cell_has_no_seg(case, capsys):
    first = sorted((case[0] / "SEG").glob("*.tif"))[0]
    tifffile.imwrite(first, np.zeros_like(tifffile.imread(first)))
    written = run(*case)
    assert written["per_frame"][0]["SEG"] is None
    said = capsys.readouterr().out
    assert "nan" not in said and "          -  0 of 0" in said


def test_held_out_frames_concern_seg_alone(case):
    last = score_seg(*case)["per_frame"][-1]
    written = run(*case, "--frames", f"{last['frame']}:")
    assert written["per_frame"] == [last]
    assert written["TRA"] == score_tracking(*case)["TRA"]
    assert "TRA" not in run(*case, "--no-tracking")


def test_ground_truths_with_a_part_only(case):
    (case[0] / "SEG").rename(case[0] / "other")
    assert "SEG" not in run(*case)
    for options in (["--frames", "0:3"], ["--no-tracking"]):
        with pytest.raises(InputError, match="01_GT: has no SEG"):
            run(*case, *options)
    (case[0] / "other").rename(case[0] / "SEG")
    (case[0] / "TRA").rename(case[0] / "other")
    (case[1] / "res_track.txt").unlink()
    assert {"SEG", "TRA"} & set(run(*case)) == {"SEG"}


def test_the_frames_in_place_of_the_truth(case):
    (case[0].parent / "01").mkdir()
    with pytest.raises(InputError, match=r"01: holds the frames; name the ground truth, .*01_GT"):
        run(case[0].parent / "01", case[1])


def test_options_of_the_other_challenge(case, labels, save):
    for options in (["--slices", "0:2"], ["--every-third"], ["--unscaled"], ["--no-warping"]):
        with pytest.raises(InputError, match=f"{options[0]} is for stacks of membranes"):
            run(*case, *options)
    stack = save("labels.tif", labels)
    for options in (["--frames", "0:2"], ["--no-tracking"]):
        with pytest.raises(InputError, match=f"{options[0]} is for the cell tracking challenge"):
            run(stack, stack, *options)
