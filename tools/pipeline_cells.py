"""Train on a data set of the cell tracking challenge; segment and track a sequence; score it.

Every command is printed as it could be typed. A step whose output is there, made by the same
command from the same inputs, is not run again; a training goes on from its last snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from choices import WEIGHTINGS, Choice, add_choices, check_device, choose
from model_folder import guard_model_folder, make_model_folder
from steps import Pipeline, Step, StepFailed
from unet.command.running import run_program
from unet.preparation.ctc_sequence import find_sequence

REPOSITORY = Path(__file__).resolve().parent.parent
# A training that ends within an hour on two cores.
CPU_ITERATIONS = 6000
WEIGHTING = {"unet": "paper", "unet_slim": "none"}


class CellData(NamedTuple):
    """How a data set is used.

    Attributes
    ----------
    folder : Path
        Where it is put.
    what : str
        What its pictures show.
    train, test : str
        The sequence that is trained on, and the other one.
    until : int
        SPLIT=holdout trains on the frames below this one and scores the others.
    prepare, cells, track : list of str
        Options of tools/prepare.py, tools/segment.py and tools/track.py.
    """

    folder: Path
    what: str
    train: str
    test: str
    until: int
    prepare: list[str]
    cells: list[str]
    track: list[str]


DATA = {
    "phc-u373": CellData(
        Path("data/PhC-C2DH-U373"),
        "glioblastoma-astrocytoma cells (U373) in phase contrast, 0.65 um a pixel",
        "02",
        "01",
        61,
        ["--field-of-interest", "50", "--unannotated", "markers"],
        ["--minimum-area", "500", "--fill-holes"],
        ["--field-of-interest", "50"],
    ),
    "dic-hela": CellData(
        Path("data/DIC-C2DH-HeLa"),
        "HeLa cells in differential interference contrast, 0.19 um a pixel",
        "02",
        "01",
        42,
        ["--unannotated", "markers"],
        ["--minimum-area", "500", "--fill-holes"],
        [],
    ),
}
SCORES = ("SEG", "DET", "TRA")


def train(options: argparse.Namespace) -> None:
    """Go the whole way, and make a model folder."""
    about = DATA[options.data]
    make = f"train-{options.data.split('-')[0]}"
    choice = choose(options, CPU_ITERATIONS, WEIGHTING, make)
    name = f"{options.data}_{choice.net}_{options.split}_{choice.method}_{choice.weighting}"
    folder = Path("runs", name)
    target = Path("models", name)
    guard_model_folder(target)
    pipeline = Pipeline(folder)
    pipeline.run(Step("data", ["tools/fetch.py", options.data, "-o", str(about.folder)]))
    model, deploy = _train(pipeline, folder, about, choice, options.split)
    holdout = options.split == "holdout"
    sequence = about.folder / (about.train if holdout else about.test)
    scored = sequence.is_dir()
    if not scored:
        print(f"\n{sequence} is not there: the pictures show frames of the training.")
        sequence = about.folder / about.train
    result = _segment_and_track(pipeline, folder, about, sequence, model, deploy, choice.device)
    _draw(pipeline, folder, about, sequence, model, deploy, choice.device)
    scores = folder / "scores.json"
    if scored:
        truth = sequence.with_name(f"{sequence.name}_GT")
        pipeline.run(
            Step(
                "score",
                ["tools/evaluate.py", str(truth), str(result), "--json", str(scores)]
                + (["--frames", f"{about.until}:"] if holdout else []),
                [result / "res_track.txt", *sorted(result.glob("mask*.tif"))],
                [scores],
            )
        )
    command = f"make {make} SPLIT={options.split} {choice.variables()}"
    found = json.loads(scores.read_text()) if scored else {}
    text = card(about, choice.net, options.split, command, found)
    make_model_folder(target, folder, model, deploy, text, scored)
    print(f"\ndone in {time.monotonic() - pipeline.began:.0f} s. The model and its card: {target}")


def _train(
    pipeline: Pipeline, folder: Path, about: CellData, choice: Choice, split: str
) -> tuple[Path, Path]:
    """Prepare, write the network, train; return weights and network."""
    sequence = about.folder / about.train
    files = find_sequence(sequence)
    chosen = [frame for frame in sorted(files.cells) if split == "all" or frame < about.until]
    data, net, preview = folder / "training-set.h5", folder / "net", folder / "training-set.png"
    balance = [] if split == "all" else ["--balance-frames", f"0:{about.until}"]
    pipeline.run(
        Step(
            "training set: frames, cells, weight map",
            ["tools/prepare.py", str(sequence), "-o", str(data), "--preview", str(preview)]
            + ["--normalise", *about.prepare, *balance, *WEIGHTINGS[choice.weighting]],
            [*files.cells.values(), *(files.frames[frame] for frame in files.cells)],
            [data, preview],
        )
    )
    solver, deploy = net / "solver.prototxt", net / "deploy.prototxt"
    slices = ["--train-slices", f"0:{len(chosen)}"]
    if len(chosen) < len(files.cells):
        slices += ["--test-slices", f"{len(chosen)}:{len(files.cells)}"]
    pipeline.run(
        Step(
            "network and solver as prototxt",
            ["-m", "unet.nets", choice.net, "--data", str(data), *slices]
            + ["--iterations", str(choice.iterations), "-o", str(net)]
            + ["--method", {"sgd": "SGD", "adam": "Adam"}[choice.method]],
            [data, REPOSITORY / "python/unet/nets.py"],
            [solver, deploy],
        )
    )
    training = folder / "training"
    model = training / f"{choice.net}_iter_{choice.iterations}.caffemodel"
    pipeline.train(
        Step(
            "train",
            ["tools/train.py", str(solver), "--resume", "--device", choice.device]
            + ["--precision", choice.precision, "-o", str(training)],
            [solver, net / "train_val.prototxt", data],
            [model],
        ),
        training,
    )
    return model, deploy


def _segment_and_track(
    pipeline: Pipeline,
    folder: Path,
    about: CellData,
    sequence: Path,
    model: Path,
    deploy: Path,
    device: str,
) -> Path:
    """Segment all frames of a sequence and link the cells; return the folder of the result."""
    cells, result = folder / f"{sequence.name}_cells.tif", folder / f"{sequence.name}_RES"
    pipeline.run(
        Step(
            "segment",
            ["tools/segment.py", str(sequence), "--weights", str(model), "--net", str(deploy)]
            + ["--labels", str(cells), "--average", "mirror", *about.cells, "--device", device],
            [*sorted(sequence.glob("t*.tif")), model, deploy],
            [cells],
        )
    )
    pipeline.run(
        Step(
            "track",
            ["tools/track.py", str(cells), "-o", str(result), *about.track],
            [cells],
            [result / "res_track.txt"],
        )
    )
    return result


def _draw(
    pipeline: Pipeline,
    folder: Path,
    about: CellData,
    sequence: Path,
    model: Path,
    deploy: Path,
    device: str,
) -> None:
    """Draw what the network makes of the annotated frame in the middle of those it has not seen."""
    files = find_sequence(sequence)
    unseen = [frame for frame in sorted(files.cells) if frame >= about.until]
    shown = unseen[len(unseen) // 2] if unseen else max(files.cells)
    frame, truth = files.frames[shown], files.cells[shown]
    overlay = folder / "overlay.png"
    pipeline.run(
        Step(
            "picture",
            ["tools/segment.py", str(frame), "--weights", str(model), "--net", str(deploy)]
            + ["-o", str(folder / "shown.tif"), "--overlay", str(overlay), "--truth", str(truth)]
            + ["--average", "mirror", "--device", device],
            [frame, truth, model, deploy],
            [overlay],
        )
    )


def card(about: CellData, net: str, split: str, command: str, scores: dict) -> str:
    """Return the model's card."""
    trained, tested = {
        "holdout": (
            f"the annotated frames before {about.until:03d} of sequence {about.train}",
            f"the annotated frames from {about.until:03d} on (SEG) and all of sequence "
            f"{about.train} (DET, TRA)",
        ),
        "all": (
            f"all annotated frames of sequence {about.train}",
            f"sequence {about.test}",
        ),
    }[split]
    lines = [
        f"# {net}, {about.folder.name}",
        "",
        f"Finds {about.what}.",
        "",
        f"Trained on {trained}:",
        "",
        f"    {command}",
        "",
    ]
    if scores:
        lines += [
            f"Scores on {tested}:",
            "",
            "| score | value |",
            "| --- | --- |",
            *(f"| {key} | {scores[key]:.4f} |" for key in SCORES),
            "",
        ]
    options = " ".join(about.cells)
    lines += [
        "    python tools/segment.py FRAMES --weights weights.caffemodel --labels cells.tif \\",
        f"        --average mirror {options}",
        "    python tools/track.py cells.tif -o RES",
        "",
        "Data: Cell Tracking Challenge, whose terms apply; Maska et al., Bioinformatics 30 (2014),",
        "Ulman et al., Nature Methods 14 (2017). The network: Ronneberger et al., MICCAI 2015.",
        "",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the pipeline in the folder of the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=sorted(DATA))
    parser.add_argument("--split", choices=("holdout", "all"), default="holdout")
    add_choices(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu or the number of a GPU")
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    os.chdir(REPOSITORY)
    if os.environ.get("CTC_DIR"):
        os.environ["CTC_DIR"] = os.path.abspath(os.environ["CTC_DIR"])
    try:
        train(options)
    except StepFailed as failed:
        # The program has said what is wrong.
        return failed.status
    return None


if __name__ == "__main__":
    run_program(main)
