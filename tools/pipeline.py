"""Run the programs one after another, from the data to pictures of the result.

Every command is printed as it could be typed. A step whose output is there, made by the same
command from the same inputs, is not run again; a training goes on from its last snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from steps import Pipeline, Step, StepFailed
from unet.engine import PRECISIONS
from unet.errors import InputError
from unet.grey import INPUT
from unet.program import atomic_path, run_program

REPOSITORY = Path(__file__).resolve().parent.parent
STACKS = Path("data/isbi2012")
PAPER_NET, CPU_NET = "unet", "unet_slim"
# A default training that ends within half an hour on two cores.
CPU_ITERATIONS = 5000
# One iteration with the tiles of prototxt/, on two cores.
CPU_SECONDS = {"unet": 4.2, "unet_slim": 0.28}
# The paper's SGD for the paper's net; Adam gets the slim one further in the steps that a CPU has.
SOLVERS = {"unet": "sgd", "unet_slim": "adam"}
# What the weight map is made of; "none": every pixel counts alike, from which the slim net learns
# more in as many steps.
WEIGHTINGS = {"paper": [], "none": ["--w0", "0", "--no-class-balance"]}
WEIGHTING = {"unet": "paper", "unet_slim": "none"}
SCORES = ("rand_error", "pixel_error", "warping_error", "v_rand_thin", "v_info_thin")


def gpu_works(device: str) -> bool:
    """Ask the engine, in a process of its own, whether it computes on this device."""
    if device == "cpu":
        return False
    number = 0 if device == "auto" else int(device)
    question = f"import caffe; caffe.set_device({number}); caffe.set_mode_gpu()"
    asked = subprocess.run([sys.executable, "-c", question], capture_output=True)
    return asked.returncode == 0


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
    url = runpy.run_path("data/isbi2012.py")["URL"]
    try:
        # Asked first, and not for long: the download itself is patient.
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Path("data/phantom"), f"a membrane phantom, for {url} cannot be reached ({reason})"
    return STACKS, "the ISBI 2012 stack"


def demo(options: argparse.Namespace) -> None:
    """Go the whole way in a few minutes: a short training, so a modest result."""
    folder = Path("runs/demo")
    pipeline = Pipeline(folder)
    stacks, what = demo_stacks()
    print(f"The whole way from pictures to scores, on {what}.")
    if stacks == STACKS:
        pipeline.run(Step("data", ["data/isbi2012.py", "-o", str(stacks)]))
    else:
        pipeline.run(
            Step(
                "data",
                ["data/phantom.py", "-o", str(stacks)],
                [Path("data/phantom.py")],
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
            + ["--iterations", str(options.iterations), "-o", str(net)],
            [data, REPOSITORY / "python/unet/nets.py"],
            [solver, deploy],
        )
    )
    training = folder / "training"
    model = training / f"{CPU_NET}_iter_{options.iterations}.caffemodel"
    pipeline.train(
        Step(
            "train",
            ["tools/train.py", str(solver), "--resume", "--device", options.device]
            + ["-o", str(training)],
            [solver, net / "train.prototxt", data],
            [model],
        ),
        training,
    )
    test_and_show(
        pipeline,
        folder,
        stacks / "train-volume.tif",
        stacks / "train-labels.tif",
        model,
        deploy,
        options.test,
        "mirror",
        options.device,
    )
    print(f"\ndone in {time.monotonic() - pipeline.began:.0f} s. Pictures, all in {folder}:")
    print("  training-set.png     what the network learns from")
    print("  training/curves.png  how it learnt")
    print("  overlay.png          what it makes of slices that it has not seen")


def choose_net(options: argparse.Namespace) -> tuple[str, int | None, str]:
    """Return net, iterations (None: the solver's) and device for what the machine has."""
    on_gpu = gpu_works(options.device)
    net = options.net or (PAPER_NET if on_gpu else CPU_NET)
    iterations = options.iterations
    if on_gpu:
        return net, iterations, options.device
    if options.device.isdigit():
        raise InputError(f"DEVICE={options.device}: there is no such GPU that the engine can use")
    if iterations is None and net == CPU_NET:
        iterations = CPU_ITERATIONS
    if net == CPU_NET:
        paper = solver_value(Path("prototxt", PAPER_NET, "solver_holdout.prototxt"), "max_iter")
        print(
            f"No GPU, so {CPU_NET}: {iterations:,} iterations of about {CPU_SECONDS[net]} s on two "
            f"cores. The paper's net would take {int(paper) * CPU_SECONDS[PAPER_NET] / 3600:.0f} "
            f"hours here ({int(paper):,} iterations of {CPU_SECONDS[PAPER_NET]:.0f} s): "
            "make train-isbi NET=unet"
        )
    return net, iterations, options.device


def solver_value(path: Path, name: str) -> str:
    """Return a field of a solver prototxt."""
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    solver = text_format.Parse(path.read_text(encoding="utf-8"), caffe_pb2.SolverParameter())
    return str(getattr(solver, name))


def train_isbi(options: argparse.Namespace) -> None:
    """Train on the ISBI 2012 stack, score what was held out, and make a model folder."""
    net, iterations, device = choose_net(options)
    holdout = options.split == "holdout"
    prototxt = Path("prototxt", net)
    if net not in SOLVERS:
        raise InputError(f"NET={net}: there is no {prototxt}; make it {' or '.join(SOLVERS)}")
    method = options.solver or SOLVERS[net]
    split = "holdout" if holdout else "isbi"
    solver = prototxt / f"solver_{split}{'' if method == 'sgd' else '_adam'}.prototxt"
    iterations = iterations or int(solver_value(solver, "max_iter"))
    weighting = options.weighting or WEIGHTING[net]
    folder = Path("runs", f"isbi2012_{net}_{options.split}_{method}_{weighting}")
    pipeline = Pipeline(folder)
    pipeline.run(Step("data", ["data/isbi2012.py", "-o", str(STACKS)]))
    data = STACKS / "isbi2012.h5"
    pipeline.run(prepare(STACKS, data, folder / "training-set.png", *WEIGHTINGS[weighting]))
    training = folder / "training"
    model = training / f"{net}_iter_{iterations}.caffemodel"
    pipeline.train(
        Step(
            "train",
            ["tools/train.py", str(solver), "--resume", "--device", device]
            + [
                "--precision",
                options.precision,
                "--iterations",
                str(iterations),
                "-o",
                str(training),
            ],
            [solver, prototxt / "train.prototxt", data],
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
    target = Path("models", folder.name)
    command = (
        f"make train-isbi NET={net} SPLIT={options.split} SOLVER={method} WEIGHTING={weighting} "
        f"ITERATIONS={iterations} PRECISION={options.precision}"
    )
    collect(folder, model, deploy, target, net, options.split, command, scored is not None)
    print(f"\ndone in {time.monotonic() - pipeline.began:.0f} s. The model and its card: {target}")
    print(f"Use it: tools/segment.py STACK --weights {target}/weights.caffemodel -o OUT")


def collect(
    run: Path,
    model: Path,
    deploy: Path,
    target: Path,
    net: str,
    split: str,
    command: str,
    scored: bool,
) -> None:
    """Make the model folder: what a user of the network needs, and what shows how good it is."""
    files = {
        "weights.caffemodel": model,
        "deploy.prototxt": deploy,
        INPUT: deploy.parent / INPUT,
        "curves.png": model.parent / "curves.png",
        "overlay.png": run / "overlay.png",
    }
    if scored:
        files["scores.json"] = run / "scores.json"
    for name, source in files.items():
        with atomic_path(target / name) as path:
            shutil.copyfile(source, path)
    scores = json.loads((target / "scores.json").read_text()) if scored else {}
    with atomic_path(target / "README.md") as path:
        path.write_text(card(net, split, command, scores), encoding="utf-8")


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
    command = ["data/isbi2012.py"] if stacks == STACKS else ["data/phantom.py"]
    pipeline.run(Step("data", [*command, "-o", str(stacks)]))
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


def _whole_number(text: str) -> int | None:
    """Read a variable of make, which is empty where it was not given."""
    if not text:
        return None
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    short = commands.add_parser("demo", help="the whole way in under five minutes")
    short.add_argument("--iterations", type=_whole_number, default=800)
    short.add_argument("--tile", type=int, default=380, help="input size, 16k + 60")
    short.add_argument("--train", default="0:20", metavar="A:B", help="slices to learn from")
    short.set_defaults(run=demo)
    isbi = commands.add_parser("isbi", help="train on the ISBI 2012 stack")
    isbi.add_argument("--net", default="", help="unet or unet_slim; by default what suits here")
    isbi.add_argument("--split", choices=("holdout", "all"), default="holdout")
    isbi.add_argument(
        "--solver", choices=("", "sgd", "adam"), default="", help="by default what suits the net"
    )
    isbi.add_argument(
        "--weighting", choices=("", *WEIGHTINGS), default="", help="by default what suits the net"
    )
    isbi.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of convolutions")
    isbi.add_argument("--iterations", type=_whole_number, help="in place of the default number")
    isbi.set_defaults(run=train_isbi)
    ready = commands.add_parser("segment-demo", help="segment with the model of the project")
    ready.set_defaults(run=segment_demo)
    for command, test in ((short, "27:30"), (ready, "27:30")):
        command.add_argument("--test", default=test, metavar="A:B", help="slices to segment")
    for command in (short, isbi, ready):
        command.add_argument("--device", default="auto", help="auto, cpu or the number of a GPU")
    options = parser.parse_args(argv)
    if options.device not in ("auto", "cpu") and not options.device.isdigit():
        parser.error(f"DEVICE={options.device}: make it auto, cpu or the number of a GPU")
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
