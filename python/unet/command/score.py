"""Score a segmentation against its ground truth as its challenge did.

A stack of membranes as the ISBI 2012 challenge: the 2012 challenge's warping error, Rand error and
pixel error, and V_rand and V_info after thinning as the later one, each at the threshold that suits
it best. Read the warping error together with the others: at a threshold where hardly a cell is left
it is low for free.

Cells and tracks, evaluate.py DATASET/NN_GT DATASET/NN_RES, as the cell tracking challenge: SEG, the
mean Jaccard index of the cells drawn; DET and TRA, what finding and tracking them by hand would
cost in comparison. The result holds maskNNN.tif of every frame and res_track.txt.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet.command.options import add_overwrite, parse_slices, whole
from unet.command.terminal import is_the_output
from unet.errors import InputError, few
from unet.files.atomic import atomic_path
from unet.files.json_text import json_text
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import KEY, SCORE_FILE, mark
from unet.machine.cores import available_cores
from unet.preparation.ctc_sequence import is_sequence
from unet.preparation.label_kinds import MOST_CLASSES, LabelSurvey
from unet.preparation.labels import annotate
from unet.scoring.ctc import is_ground_truth, score_seg, score_tracking
from unet.scoring.isbi import score_stack
from unet.volumes import Volume, open_volume

#: Key and title of the scores in the table, in its order.
SCORES = (
    ("rand_error", "Rand error"),
    ("pixel_error", "pixel error"),
    ("warping_error", "warping error"),
    ("v_rand_thin", "V_rand (thin)"),
    ("v_info_thin", "V_info (thin)"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Score a prediction, print the table and write the JSON."""
    arguments = parse(argv)
    if is_sequence(arguments.labels):
        truth = f"{arguments.labels}_GT"
        raise InputError(f"{arguments.labels}: holds the frames; name the ground truth, {truth}")
    challenge = is_ground_truth(arguments.labels)
    refuse_options(arguments, challenge)
    if arguments.json:
        read = [arguments.labels, arguments.prediction]
        guard_outputs([Output(arguments.json, SCORE_FILE)], read, arguments.overwrite)
    else:
        is_the_output()
    scores = score_result(arguments) if challenge else score_membranes(arguments)
    print(table_of_result(scores) if challenge else table(scores))
    if arguments.json:
        with atomic_path(arguments.json) as path:
            text = json_text({KEY: mark(SCORE_FILE), **scores})
            path.write_text(text + "\n", encoding="utf-8")
        print(f"\nwritten: {arguments.json}")


def refuse_options(arguments: argparse.Namespace, challenge: bool) -> None:
    """Refuse options that the other challenge has."""
    of_membranes = {
        "--slices": arguments.slices is not None,
        "--every-third": arguments.every_third,
        "--unscaled": arguments.unscaled,
        "--label-kind": arguments.label_kind != "auto",
        "--no-warping": not arguments.warping,
    }
    of_cells = {"--frames": arguments.frames is not None, "--no-tracking": not arguments.tracking}
    for name, given in (of_membranes if challenge else of_cells).items():
        if given:
            kind = "stacks of membranes" if challenge else "the cell tracking challenge's folders"
            raise InputError(f"{name} is for {kind}")


def score_membranes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Score a stack of membranes."""
    labels, prediction, numbers = read_chosen(arguments)
    cells, kind = true_cells(labels, arguments.label_kind, arguments.labels)
    if are_cell_numbers(prediction):
        found, how = true_cells(prediction, arguments.label_kind, arguments.prediction)
        probabilities = found.astype(np.float32)
        scaling = f"{prediction.dtype}, cell numbers taken as {how}"
    else:
        probabilities, scaling = rescale(prediction, arguments.unscaled)

    scores = score_stack(
        cells,
        probabilities,
        warping=arguments.warping,
        workers=arguments.workers,
        progress=True,
    )
    scores["doubts"] = doubts(cells, probabilities)
    for number, of_slice in zip(numbers, scores["per_slice"]):
        of_slice["slice"] = number
    scores.update(
        labels=str(arguments.labels),
        prediction=str(arguments.prediction),
        slices_without_cells=[one["slice"] for one in scores["per_slice"] if not one["cells"]],
        label_kind=kind,
        label_bitdepth=labels.dtype.itemsize * 8,
        proposal_bitdepth=prediction.dtype.itemsize * 8,
        prediction_scaling=scaling,
    )
    return scores


def score_result(arguments: argparse.Namespace) -> dict[str, Any]:
    """Score a result of the cell tracking challenge by what its ground truth holds."""
    truth, result = arguments.labels, arguments.prediction
    scores: dict[str, Any] = {"truth": str(truth), "result": str(result)}
    if (truth / "SEG").is_dir():
        frames = None if arguments.frames is None else parse_slices(arguments.frames, "--frames")
        scores.update(score_seg(truth, result, frames))
    elif arguments.frames is not None:
        raise InputError(f"{truth}: has no SEG, for which --frames chooses")
    if (truth / "TRA").is_dir() and arguments.tracking:
        scores.update(score_tracking(truth, result))
    if not {"SEG", "TRA"} & set(scores):
        raise InputError(f"{truth}: has no SEG, so --no-tracking leaves nothing to score")
    return scores


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "labels", type=Path, help="ground truth: above 0 inside a cell, 0 = membrane; or NN_GT"
    )
    parser.add_argument(
        "prediction",
        type=Path,
        help="probability of being inside a cell: float in [0, 1], uint8 (/255) or uint16 "
        "(/65535); or NN_RES",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write every score: overall, per threshold, per slice (null where there is no value)",
    )
    parser.add_argument(
        "--label-kind",
        choices=("auto", "binary", "instances"),
        default="auto",
        help="binary: cells are what is connected and above 0; instances: numbers of cells, which "
        "get thin borders where they touch, as in tools/prepare.py, also in a prediction of such "
        "numbers (auto: by how they lie)",
    )
    parser.add_argument(
        "--no-warping",
        dest="warping",
        action="store_false",
        help="leave out the warping error, the longest part",
    )
    parser.add_argument(
        "--slices",
        metavar="A:B",
        help="score slices A to B - 1 of the labels, from 0; the prediction holds these or all",
    )
    parser.add_argument(
        "--frames",
        metavar="A:B",
        help="NN_GT: SEG of frames A to B - 1 alone, such as held-out ones; DET and TRA are always "
        "of the whole sequence",
    )
    parser.add_argument(
        "--no-tracking",
        dest="tracking",
        action="store_false",
        help="NN_GT: leave out DET and TRA, for which every frame and res_track.txt are needed",
    )
    parser.add_argument(
        "--every-third",
        action="store_true",
        help="score slices 2, 5, 8, ... alone, counted from 1, as the challenge does since 2016",
    )
    parser.add_argument(
        "--unscaled",
        action="store_true",
        help="take integers as they are, as the challenge did: every threshold means above 0",
    )
    parser.add_argument(
        "--workers",
        type=whole(1, 4096),
        default=available_cores(),
        metavar="N",
        help="processes (all cores: %(default)s)",
    )
    add_overwrite(parser)
    return parser.parse_args(argv)


def read_chosen(
    arguments: argparse.Namespace,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Read the slices to be scored of both stacks, (slices, height, width), and number them.

    The numbers are those in the labels, from 1.
    """
    with (
        open_volume(arguments.labels, channels=1) as labels,
        open_volume(arguments.prediction, channels=1) as prediction,
    ):
        of_labels, of_prediction = choose_slices(
            labels, prediction, arguments.slices, arguments.every_third
        )
        labels.demand(of_labels)
        prediction.demand(of_prediction)
        numbers = [z + 1 for z in of_labels]
        return read_slices(labels, of_labels), read_slices(prediction, of_prediction), numbers


def read_slices(volume: Volume, chosen: range) -> np.ndarray:
    """Read slices of a grey stack, shape (slices, height, width)."""
    pixels = volume[chosen.start : chosen.stop : chosen.step]
    return pixels.reshape((len(pixels),) + volume.shape[-2:])


def choose_slices(
    labels: Volume, prediction: Volume, chosen: str | None, every_third: bool
) -> tuple[range, range]:
    """Return the slices to be scored: their places in the labels and in the prediction."""
    of_labels, of_prediction = range(len(labels)), range(len(prediction))
    if chosen is not None:
        of_labels = parse_slices(chosen, count=len(labels))
        if len(prediction) == len(labels):
            of_prediction = of_labels
    given, found = describe(labels, len(of_labels)), describe(prediction, len(of_prediction))
    if given != found:
        remedy = "" if chosen else ", or say with --slices A:B which of the labels it holds"
        raise InputError(
            f"the labels are {given} and the prediction is {found}: they must be the same{remedy}"
        )
    if every_third:
        of_labels, of_prediction = of_labels[1::3], of_prediction[1::3]
        if not of_labels:
            raise InputError(
                "--every-third starts with slice 2, and there is only one: leave it out"
            )
    return of_labels, of_prediction


def describe(volume: Volume, slices: int) -> str:
    """Say how many slices of which size."""
    height, width = volume.shape[-2:]
    return f"{slices} slice{'s' if slices > 1 else ''} of {height}x{width}"


def true_cells(stack: np.ndarray, kind: str, path: Path) -> tuple[np.ndarray, str]:
    """Return which pixels are inside a cell, and what kind of labels said so: binary or instances.

    The challenge's scores are of the 4-connected components of a picture of cells and membrane.
    Numbers of cells that touch become one as a network learns it: thin borders are put between.
    """
    survey, asked = LabelSurvey(), kind
    try:
        for picture in stack:
            survey.add(picture)
        if kind == "auto":
            kind = kind_of(survey)
        if kind == "instances":
            cells = np.stack([annotate(picture, "instances").classes > 0 for picture in stack])
        else:
            cells = stack > 0
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not cells.any():
        raise InputError(
            f"{path}: no pixel of the slices scored is above 0, so there is no cell to score; is "
            f"this the right stack?"
        )
    if asked == "auto" and cells.all() and len(survey.values) > 1:
        raise InputError(
            f"{path}: the values are {few(survey.values)}, and no pixel is 0, which is membrane: "
            f"give membrane the value 0"
        )
    return cells, kind


def kind_of(survey: LabelSurvey) -> str:
    """Tell whether labels number cells that touch."""
    if len(survey.values) <= 2 or not survey.touching:
        return "binary"
    survey.refuse_pictures()
    if len(survey.values) > MOST_CLASSES:
        return "instances"
    raise InputError(
        f"labels of {len(survey.values)} values ({few(survey.values, 4)}) touch, which can be "
        f"cells as well as classes; say --label-kind instances to put borders between them, or "
        f"--label-kind binary to take all above 0 for the inside of cells"
    )


def are_cell_numbers(prediction: np.ndarray) -> bool:
    """Tell whether a prediction numbers its cells, as tools/segment.py --labels does."""
    if prediction.dtype.kind not in "iu" or prediction.max() == np.iinfo(prediction.dtype).max:
        return False
    survey = LabelSurvey()
    for picture in prediction:
        survey.add(picture)
    return len(survey.values) > 2 and survey.lie_as_labels()


def rescale(prediction: np.ndarray, unscaled: bool) -> tuple[np.ndarray, str]:
    """Return the prediction as float32 in [0, 1], and in words what was done to it."""
    dtype = prediction.dtype
    if dtype.kind == "f":
        low, high = prediction.min(), prediction.max()
        if np.isnan(low):
            raise InputError("the prediction holds NaN: mend or mask it before it is scored")
        # Sums of probabilities in single precision may pass 1 by their rounding.
        if low < -1e-6 or high > 1 + 1e-6:
            raise InputError(
                f"the prediction reaches from {low!s} to {high!s}: give probabilities in [0, 1]"
            )
        return prediction.astype(np.float32), f"{dtype}, taken as it is"
    if unscaled:
        return prediction.astype(np.float32), f"{dtype}, taken as it is, unscaled"
    if prediction.min() >= 0 and prediction.max() <= 1:
        return prediction.astype(np.float32), f"{dtype} of 0 and 1, taken as it is"
    if dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"a prediction of type {dtype} has no known range: save it as float, uint8 or uint16"
        )
    top = np.iinfo(dtype).max
    return prediction.astype(np.float32) / np.float32(
        top
    ), f"{dtype}, rescaled to [0, 1] by 1/{top}"


def table(scores: dict[str, Any]) -> str:
    """Write the scores as text: overall with the best thresholds, then slice by slice."""
    shown = [(key, title) for key, title in SCORES if key in scores]
    size = f"{scores['slices']} x {scores['height']} x {scores['width']}"
    kind = ", instances with borders between them" if scores["label_kind"] == "instances" else ""
    lines = [
        f"labels      {scores['labels']}  ({size}{kind})",
        f"prediction  {scores['prediction']}  ({scores['prediction_scaling']})",
        "",
        f"{'overall':<14}{'value':>11}  best above",
    ]
    lines += [
        f"{title:<14}{number(scores[key], 11)}  {threshold(scores, key)}" for key, title in shown
    ]
    lines += remarks(scores)
    lines += ["", "each slice by itself, with its own best thresholds"]
    lines.append("slice" + "".join(f"{title:>20}" for _, title in shown))
    for one in scores["per_slice"]:
        values = (
            "-" if math.isnan(one[key]) else f"{one[key]:14.6f} > {threshold(one, key)}"
            for key, _ in shown
        )
        lines.append(f"{one['slice']:5d}" + "".join(f"{value:>20}" for value in values))
    return "\n".join(lines)


def number(value: float, width: int) -> str:
    """Write a score; a dash where there is none."""
    return f"{'-':>{width}}" if math.isnan(value) else f"{value:{width}.6f}"


def threshold(scores: dict[str, Any], key: str) -> str:
    """Write the threshold at which a score is best; a dash where there is none."""
    value = scores[f"{key}_threshold"]
    return "-" if math.isnan(value) else f"{value:.1f}"


def doubts(cells: np.ndarray, probabilities: np.ndarray) -> list[str]:
    """Say in sentences why a prediction may not be what is to be scored."""
    told = []
    low, high = probabilities.min(), probabilities.max()
    if low == high:
        return [f"the prediction is {low!s} everywhere"]
    if high < 0.5:
        told.append(f"the prediction nowhere exceeds {high!s}: are these probabilities?")
    inside = float(probabilities[cells].mean(dtype=np.float64))
    if not cells.all():
        outside = float(probabilities[~cells].mean(dtype=np.float64))
        if inside < outside:
            told.append(
                f"the prediction is lower inside the true cells ({inside:.3f} in the mean) than "
                f"outside ({outside:.3f}): is it inverted?"
            )
    return told


def remarks(scores: dict[str, Any]) -> list[str]:
    """Say in sentences which slices the scores of regions are of, and where they mean nothing."""
    told = list(scores["doubts"])
    empty = scores["slices_without_cells"]
    if empty:
        told.append(
            f"{of_slices(empty, 'no true cell')}: Rand error, V_rand and V_info are those of the "
            f"other {scores['slices'] - len(empty)}"
        )
    whole = [one["slice"] for one in scores["per_slice"] if one["cells"] == 1]
    if whole:
        told.append(f"{of_slices(whole, 'one true cell only')}: V_info of such a slice is 0")
    return [""] + told if told else []


def of_slices(numbers: Sequence[int], what: str) -> str:
    """Say that slices hold something."""
    several = len(numbers) > 1
    return f"slice{'s' * several} {few(numbers)} hold{'s' * (not several)} {what}"


def table_of_result(scores: dict[str, Any]) -> str:
    """Write SEG, DET and TRA as text, what DET and TRA are made of, and SEG frame by frame."""
    lines = [f"truth   {scores['truth']}", f"result  {scores['result']}", ""]
    if "SEG" in scores:
        cells = f"{scores['matched']} of {scores['objects']} cells matched"
        lines.append(f"SEG   {scores['SEG']:.6f}  {len(scores['per_frame'])} frames, {cells}")
    if "TRA" in scores:
        counts = scores["operations"]
        lines += [
            f"DET   {scores['DET']:.6f}  of {counts['objects']} objects {counts['FN']} missing, "
            f"{counts['FP']} false, {counts['NS']} to split",
            f"TRA   {scores['TRA']:.6f}  of {counts['links']} links {counts['EA']} missing, "
            f"{counts['ED']} false, {counts['EC']} of the wrong kind",
        ]
        if scores["surplus_frames"]:
            lines.append(
                f"frames of the result after the last one of the truth, which do not count: "
                f"{scores['surplus_frames']}"
            )
    if "SEG" in scores:
        lines += ["", f"frame{'SEG':>11}  matched"]
        lines += [
            f"{one['frame']:5d}{number(one['SEG'], 11)}  {one['matched']} of {one['objects']}"
            for one in scores["per_frame"]
        ]
    return "\n".join(lines)
