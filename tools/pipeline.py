"""Run the programs one after another, from the data to pictures of the result.

Every command is printed as it could be typed. A step whose output is there, made by the same
command from the same inputs, is not run again; a training goes on from its last snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from choices import (
    CPU_NET,
    WEIGHTINGS,
    add_choices,
    check_device,
    choose,
    whole_number,
)
from model_folder import guard_model_folder, make_model_folder
from steps import Pipeline, Step, StepFailed
from time_budget import Plan, measure
from unet.command.options import real, whole
from unet.command.running import run_program
from unet.datasets import isbi2012
from unet.training import snapshots
from unet.training.history import CSV_NAME

REPOSITORY = Path(__file__).resolve().parent.parent
STACKS = Path("data/isbi2012")
# Steps of the demo that are enough, and those below which the result means nothing: V_rand was 0.94
# after 800, 0.81 after 100, 0.43 after 40.
DEMO_ITERATIONS, LEAST_ITERATIONS = 800, 100
DEMO_SECONDS = 300
# A default training that ends within half an hour on two cores.
CPU_ITERATIONS = 5000
WEIGHTING = {"unet": "paper", "unet_slim": "none"}
SCORES = ("rand_error", "pixel_error", "warping_error", "v_rand_thin", "v_info_thin")


def prepare(stacks: Path, output: Path, preview: Path, *options: str) -> Step:
    """Return the step from two stacks to a training set."""
    raw, labels = stacks / "train-volume.tif", stacks / "train-labels.tif"
    return Step(
        "training set: pictures, classes, weight map",
        ["tools/prepare.py", str(raw), str(labels), "-o", str(output)]
        + ["--normalise", "--preview", str(preview), *options],
        [raw, labels],
        [output, preview],
    )


def test_and_show(
    pipeline: Pipeline,
    folder: Path,
    stack: Path,
    labels: Path | None,
    weights: Path,
    deploy: Path,
    slices: str | None,
    average: str,
    device: str,
    warping: bool = True,
) -> None:
    """Segment a stack, draw it, and score it where there are labels."""
    probabilities, overlay, scores = (
        folder / name for name in ("probabilities.tif", "overlay.png", "scores.json")
    )
    chosen = ["--slices", slices] if slices else []
    pipeline.run(
        Step(
            "segment",
            ["tools/segment.py", str(stack), "--weights", str(weights), "--net", str(deploy)]
            + ["-o", str(probabilities), "--overlay", str(overlay), "--average", average]
            + ["--device", device, *chosen],
            [stack, weights, deploy],
            [probabilities, overlay],
        )
    )
    if labels is not None:
        pipeline.run(
            Step(
                "score",
                ["tools/evaluate.py", str(labels), str(probabilities), "--json", str(scores)]
                + chosen
                + ([] if warping else ["--no-warping"]),
                [labels, probabilities],
                [scores],
            )
        )


def demo_stacks() -> tuple[Path, str]:
    """Return the folder of the stacks and what they are: ISBI 2012 where it can be had."""
    if os.environ.get("ISBI_DIR") or (STACKS / "train-volume.tif").exists():
        return STACKS, "the ISBI 2012 stack"
    url = isbi2012.URL
    try:
        # Asked first, and not for long: the download itself is patient.
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Path("data/phantom"), f"a membrane phantom, for {url} cannot be reached ({reason})"
    return STACKS, "the ISBI 2012 stack"


def demo(options: argparse.Namespace) -> None:
    """Go the whole way in a few minutes: as short a training as fits, so a modest result."""
    folder = Path("runs/demo")
    pipeline = Pipeline(folder)
    stacks, what = demo_stacks()
    print(f"The whole way from pictures to scores, on {what}.")
    if stacks == STACKS:
        pipeline.run(Step("data", ["tools/fetch.py", "isbi2012", "-o", str(stacks)]))
    else:
        pipeline.run(
            Step(
                "data",
                ["tools/fetch.py", "phantom", "-o", str(stacks)],
                [Path("python/unet/datasets/phantom.py")],
                [stacks / "train-volume.tif", stacks / "train-labels.tif"],
            )
        )
    data, net = folder / "training-set.h5", folder / "net"
    pipeline.run(
        prepare(stacks, data, folder / "training-set.png", "--balance-slices", options.train)
    )
    solver, deploy = net / "solver.prototxt", net / "deploy.prototxt"
    pipeline.run(
        Step(
            "network and solver as prototxt",
            ["-m", "unet.nets", CPU_NET, "--data", str(data), "--train-slices", options.train]
            + ["--test-slices", options.test, "--tile", str(options.tile)]
            + ["--iterations", str(options.iterations or DEMO_ITERATIONS), "-o", str(net)],
            [data, REPOSITORY / "python/unet/nets.py"],
            [solver, deploy],
        )
    )
    inputs = [solver, net / "train_val.prototxt", data]
    chosen = Plan(options.iterations, None)
    if options.iterations is None:
        chosen = measure(
            pipeline,
            solver,
            inputs,
            folder,
            options.device,
            options.seconds,
            LEAST_ITERATIONS,
            DEMO_ITERATIONS,
        )
    training = folder / "training"
    limit = [] if chosen.seconds is None else ["--seconds", str(chosen.seconds)]
    pipeline.train(
        Step(
            "train",
            ["tools/train.py", str(solver), "--resume", "--device", options.device]
            + ["--iterations", str(chosen.iterations), *limit, "-o", str(training)],
            inputs,
            [training / CSV_NAME],
        ),
        training,
    )
    last = snapshots.find(str(training / CPU_NET))[0]
    if last.iteration < LEAST_ITERATIONS:
        print(f"\nOnly {last.iteration} steps fitted into the time: the result means nothing.")
    test_and_show(
        pipeline,
        folder,
        stacks / "train-volume.tif",
        stacks / "train-labels.tif",
        Path(last.model),
        deploy,
        options.test,
        "mirror",
        options.device,
    )
    print(f"\ndone in {time.monotonic() - pipeline.began:.0f} s. Pictures, all in {folder}:")
    print("  training-set.png     what the network learns from")
    print("  training/curves.png  how it learnt")
    print("  overlay.png          what it makes of slices that it has not seen")


def train_isbi(options: argparse.Namespace) -> None:
    """Train on the ISBI 2012 stack, score what was held out, and make a model folder."""
    choice = choose(options, CPU_ITERATIONS, WEIGHTING, "train-isbi")
    net, device = choice.net, choice.device
    holdout = options.split == "holdout"
    prototxt = Path("prototxt", net)
    split = "holdout" if holdout else "isbi"
    solver = prototxt / f"solver_{split}{'' if choice.method == 'sgd' else '_adam'}.prototxt"
    folder = Path("runs", f"isbi2012_{net}_{options.split}_{choice.method}_{choice.weighting}")
    target = Path("models", folder.name)
    guard_model_folder(target)
    pipeline = Pipeline(folder)
    pipeline.run(Step("data", ["tools/fetch.py", "isbi2012", "-o", str(STACKS)]))
    data = STACKS / "isbi2012.h5"
    pipeline.run(prepare(STACKS, data, folder / "training-set.png", *WEIGHTINGS[choice.weighting]))
    training = folder / "training"
    model = training / f"{net}_iter_{choice.iterations}.caffemodel"
    pipeline.train(
        Step(
            "train",
            ["tools/train.py", str(solver), "--resume", "--device", device]
            + ["--precision", choice.precision, "--iterations", str(choice.iterations)]
            + ["-o", str(training)],
            [solver, prototxt / "train_val.prototxt", data],
            [model],
        ),
        training,
    )
    stack, labels = STACKS / "train-volume.tif", STACKS / "train-labels.tif"
    if not holdout:
        stack, labels = STACKS / "test-volume.tif", STACKS / "test-labels.tif"
        if not stack.exists():
            stack = STACKS / "train-volume.tif"
            print("\nThe test stack is not there: the pictures show slices of the training.")
    deploy = prototxt / "deploy.prototxt"
    scored = labels if labels.exists() and (holdout or stack.name == "test-volume.tif") else None
    test_and_show(
        pipeline,
        folder,
        stack,
        scored,
        model,
        deploy,
        "20:30" if holdout else None,
        "dihedral",
        device,
    )
    command = f"make train-isbi SPLIT={options.split} {choice.variables()}"
    scores = json.loads((folder / "scores.json").read_text()) if scored is not None else {}
    text = card(net, options.split, command, scores)
    make_model_folder(target, folder, model, deploy, text, scored is not None)
    print(f"\ndone in {time.monotonic() - pipeline.began:.0f} s. The model and its card: {target}")
    print(f"Use it: tools/segment.py STACK --weights {target}/weights.caffemodel -o OUT")


def card(net: str, split: str, command: str, scores: dict) -> str:
    """Return the model's card."""
    trained, tested = {
        "holdout": (
            "slices 1 to 20 of the training stack",
            "slices 21 to 30 of the training stack",
        ),
        "all": ("all 30 slices of the stack", "the test stack"),
    }[split]
    lines = [
        f"# {net}, ISBI 2012",
        "",
        "Tells the inside of cells (class 1) from membranes (class 0) in serial-section electron",
        "micrographs of 4 x 4 x 50 nm (fly larva, ventral nerve cord).",
        "",
        f"Trained on {trained}:",
        "",
        f"    {command}",
        "",
    ]
    if scores:
        lines += [
            f"Scores on {tested}, not seen in training, mean of 8 rotations and mirrorings:",
            "",
            "| score | value |",
            "| --- | --- |",
            *(f"| {key} | {scores[key]:.6f} |" for key in SCORES),
            "",
        ]
    lines += [
        "    python tools/segment.py STACK --weights weights.caffemodel -o probabilities.tif",
        "",
        "Data: free for research; Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015,",
        "and Cardona et al., PLoS Biology 8, 2010. The network: Ronneberger et al., MICCAI 2015.",
        "",
    ]
    return "\n".join(lines)


def segment_demo(options: argparse.Namespace) -> None:
    """Segment with the model that comes with the project."""
    model = Path("models/isbi2012_slim")
    folder = Path("runs/segment-demo")
    pipeline = Pipeline(folder)
    stacks, what = demo_stacks()
    print(f"{model} on {what}")
    module = "isbi2012" if stacks == STACKS else "phantom"
    pipeline.run(Step("data", ["tools/fetch.py", module, "-o", str(stacks)]))
    test_and_show(
        pipeline,
        folder,
        stacks / "train-volume.tif",
        stacks / "train-labels.tif",
        model / "weights.caffemodel",
        model / "deploy.prototxt",
        options.test,
        "dihedral",
        options.device,
        warping=False,
    )
    print(f"\nthe picture: {folder / 'overlay.png'}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    short = commands.add_parser("demo", help="the whole way in five minutes")
    short.add_argument(
        "--iterations", type=whole_number, help="in place of as many as fit into the time"
    )
    short.add_argument(
        "--seconds", type=real(1, 1e9), default=DEMO_SECONDS, help="for the whole way (%(default)s)"
    )
    short.add_argument("--tile", type=whole(1), default=380, help="input size, 16k + 60")
    short.add_argument("--train", default="0:20", metavar="A:B", help="slices to learn from")
    short.set_defaults(run=demo)
    isbi = commands.add_parser("isbi", help="train on the ISBI 2012 stack")
    isbi.add_argument("--split", choices=("holdout", "all"), default="holdout")
    add_choices(isbi)
    isbi.set_defaults(run=train_isbi)
    ready = commands.add_parser("segment-demo", help="segment with the model of the project")
    ready.set_defaults(run=segment_demo)
    for command, test in ((short, "27:30"), (ready, "27:30")):
        command.add_argument("--test", default=test, metavar="A:B", help="slices to segment")
    for command in (short, isbi, ready):
        command.add_argument("--device", default="auto", help="auto, cpu or the number of a GPU")
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    return options


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run a pipeline in the folder of the repository."""
    options = parse(argv)
    os.chdir(REPOSITORY)
    if os.environ.get("ISBI_DIR"):
        os.environ["ISBI_DIR"] = os.path.abspath(os.environ["ISBI_DIR"])
    try:
        options.run(options)
    except StepFailed as failed:
        # The program has said what is wrong.
        return failed.status
    return None


if __name__ == "__main__":
    run_program(main)
