"""The networks that the authors released in 2015 beside ours, on the frames of their release."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from recipes import RECIPES, Recipe
from steps import Step, timed
from unet.datasets import release2015
from unet.errors import InputError
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import RESULT, SCORE_FILE, STACK
from unet.files.score_file import write_scores
from unet.scoring.comparison import agreement, find_truth, known_scores, table


def compare_published(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Segment and track the frames of the authors' release of 2015, by their network and by ours.

    Theirs by their own procedure, ours with the options of its training. One table: scores where
    there is ground truth, time and main memory of the programs, and how far the two agree. Ground
    truth is that beside the frames, or that of the challenge's data for the same frames.
    """
    release = release2015.fetch(options.data, options.release or None, overwrite=options.overwrite)
    print("\n".join(release2015.describe(release)), flush=True)
    if not release.sequences:
        raise InputError(f"{options.data}: the release holds no frames of {release2015.FRAMES}")
    ours, output = RECIPES["phc-u373"], Path(options.output)
    networks = {"authors": ("the authors', 2015", release.weights, recipe)}
    if Path(options.model).is_dir():
        networks["ours"] = ("ours", Path(options.model), ours)
    else:
        print(f"{options.model}: there is no such model folder, so nothing to compare with")
    folders = [
        output / f"{sequence.name}_{whose}" for sequence in release.sequences for whose in networks
    ]
    outputs = [Output(output / "scores.json", SCORE_FILE)]
    for folder in folders:
        outputs += [Output(folder / "cells.tif", STACK), Output(folder / "result", RESULT)]
    inputs = [release.net, release.weights, *release.sequences, options.model, options.truth]
    inputs += [sequence.with_name(f"{sequence.name}_GT") for sequence in release.sequences]
    guard_outputs(outputs, inputs, options.overwrite)
    rows, overwrite = [], ["--overwrite"] * options.overwrite
    for sequence, count in release.sequences.items():
        truth, results = find_truth(sequence, Path(options.truth)), []
        for whose, (label, weights, how) in networks.items():
            folder = output / f"{sequence.name}_{whose}"
            folder.mkdir(parents=True, exist_ok=True)
            cells, result = folder / "cells.tif", folder / "result"
            words = ("segment", sequence, "--weights", weights, "--device", options.device)
            words += ("--instances", cells, *shlex.split(how.segment), *overwrite)
            spent = [timed(Step.unet("segment", *words))]
            words = ("track", cells, "-o", result, *shlex.split(how.track), *overwrite)
            spent.append(timed(Step.unet("track", *words)))
            seconds, peaks = zip(*spent)
            row = {"sequence": sequence.name, "network": label, "seconds": sum(seconds) / count}
            rows.append({**row, "peak_gib": max(peaks), **known_scores(truth, result)})
            results.append(result)
        if len(results) == 2:
            rows[-1]["agreement"] = agreement(*results)
    print(f"\n{table(rows)}")
    write_scores(output / "scores.json", {"rows": rows})
    print(f"written: {output / 'scores.json'}")
