"""Show what the weight of the gaps is for: one training with it and one without, on touching cells.

Makes a phantom of touching cells, trains the same network twice, and counts the cells of slices it
has not seen that run into each other. The pictures and numbers go to runs/separation.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from choices import CPU_NET, check_device, computed_in, whole_number
from steps import Pipeline, Step, StepFailed
from unet.command.options import add_overwrite
from unet.command.running import run_program
from unet.files.atomic import atomic_path
from unet.files.json_text import json_text
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import KEY, PICTURE, SCORE_FILE, mark
from unet.machine.engine import PRECISIONS
from unet.plots import save_undersegmented
from unet.scoring.undersegmented import undersegmented
from unet.volumes import read_volume

REPOSITORY = Path(__file__).resolve().parent.parent
TRAIN, TEST = "0:20", "20:30"
# w0 of the two trainings: the paper's, and none.
WEIGHTS = (10, 0)


def train_and_segment(
    pipeline: Pipeline, folder: Path, stacks: Path, w0: int, options: argparse.Namespace
) -> Path:
    """Train with one weight of the gaps; return the cells found."""
    here, name = folder / f"w0_{w0}", f"w0 = {w0}"
    raw, labels = stacks / "train-volume.tif", stacks / "train-labels.tif"
    data, net, training = here / "training-set.h5", here / "net", here / "training"
    pipeline.run(
        Step(
            f"{name}: training set",
            ["tools/prepare.py", str(raw), str(labels), "--label-kind", "instances"]
            + ["--w0", str(w0), "--balance-slices", TRAIN, "-o", str(data)]
            + ["--preview", str(here / "training-set.png")],
            [raw, labels],
            [data],
        )
    )
    solver, deploy = net / "solver.prototxt", net / "deploy.prototxt"
    pipeline.run(
        Step(
            f"{name}: network and solver",
            ["-m", "unet.nets", CPU_NET, "--data", str(data), "--train-slices", TRAIN]
            + ["--tile", "316", "--iterations", str(options.iterations), "-o", str(net)],
            [data, REPOSITORY / "python/unet/nets.py"],
            [solver, deploy],
        )
    )
    model = training / f"{CPU_NET}_iter_{options.iterations}.caffemodel"
    pipeline.train(
        Step(
            f"{name}: train",
            ["tools/train.py", str(solver), "--resume", "--device", options.device]
            + ["--precision", options.precision, "-o", str(training)],
            [solver, net / "train_val.prototxt", data],
            [model],
        ),
        training,
    )
    cells = here / "cells.tif"
    pipeline.run(
        Step(
            f"{name}: segment",
            ["tools/segment.py", str(raw), "--weights", str(model), "--net", str(deploy)]
            + ["--labels", str(cells), "--slices", TEST, "--average", "mirror"]
            + ["--device", options.device, "--precision", options.precision],
            [raw, model, deploy],
            [cells],
        )
    )
    return cells


def compare(options: argparse.Namespace) -> None:
    """Train twice, count, draw."""
    options.precision = computed_in(options.device, options.precision)
    folder, stacks = Path("runs/separation"), Path("data/phantom-cells")
    scores, picture = folder / "separation.json", folder / "separation.png"
    guard_outputs([Output(scores, SCORE_FILE), Output(picture, PICTURE)], [], options.overwrite)
    pipeline = Pipeline(folder)
    pipeline.run(
        Step(
            "data",
            ["tools/fetch.py", "phantom-cells", "-o", str(stacks)],
            [Path("python/unet/datasets/phantom.py")],
            [stacks / "train-volume.tif", stacks / "train-labels.tif"],
        )
    )
    found = {
        w0: read_volume(train_and_segment(pipeline, folder, stacks, w0, options)) for w0 in WEIGHTS
    }
    first, stop = (int(part) for part in TEST.split(":"))
    pictures = read_volume(stacks / "train-volume.tif")[first:stop] / 255
    truth = read_volume(stacks / "train-labels.tif")[first:stop]
    merged = {
        w0: [len(undersegmented(*pair)) for pair in zip(truth, cells)]
        for w0, cells in found.items()
    }
    total = sum(len(np.unique(slice_[slice_ > 0])) for slice_ in truth)
    result = {
        KEY: mark(SCORE_FILE),
        "iterations": options.iterations,
        "precision": options.precision,
        "cells": total,
        "merged": {f"w0 = {w0}": sum(counts) for w0, counts in merged.items()},
        "found": {
            f"w0 = {w0}": int(sum(slice_.max() for slice_ in cells)) for w0, cells in found.items()
        },
    }
    with atomic_path(scores) as path:
        path.write_text(json_text(result), encoding="utf-8")
    save_undersegmented(
        picture,
        pictures[0],
        truth[0],
        {f"w0 = {w0}": cells[0] for w0, cells in found.items()},
    )
    print(f"\n{total} cells in slices {TEST}, {options.iterations} iterations each:")
    for name, count in result["merged"].items():
        print(f"  {name:>7}: {count:4d} cells merged, {result['found'][name]:4d} found")
    print(f"the picture: {picture}")


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the comparison in the folder of the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=whole_number, default=2200, help="of each training")
    parser.add_argument("--device", default="auto", help="auto, cpu or the number of a GPU")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of convolutions")
    add_overwrite(parser)
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    os.chdir(REPOSITORY)
    try:
        compare(options)
    except StepFailed as failed:
        # The program has said what is wrong.
        return failed.status
    return None


if __name__ == "__main__":
    run_program(main)
