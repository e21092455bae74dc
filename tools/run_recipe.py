"""Runs the recipes: from the data to a trained network, its pictures and its scores.

    tools/run_recipe.py demo|isbi2012|phc-u373|dic-hela|separation|compare|published|segment-demo

One way leads through all of them: get the data, prepare a training set, write the network, train,
segment, track where there are cells to follow, score, write a card.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable

import numpy as np

import unet
from compare_published import compare_published
from compare_windows import draw, numbers, settled, table, told
from model_folder import card, guard_model_folder, make_model_folder
from recipes import (
    COMPARE_MINUTES,
    DEMO_SECONDS,
    FETCH_SECONDS,
    RECIPES,
    REPOSITORY,
    SEPARATION_W0,
    SHOWN_SLICE,
    WINDOWS,
    Recipe,
    Split,
)
from steps import Run, Step, StepFailed
from training_choice import (
    CPU_NET,
    WEIGHTINGS,
    check_device,
    choose,
    computed_in,
    number,
    solver_type,
)
from unet.command.options import add_device, add_overwrite, parse_slices, real
from unet.command.running import run_program
from unet.datasets import isbi2012
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import PICTURE, SCORE_FILE
from unet.files.score_file import read_json, write_scores
from unet.network.nets import WINDOW
from unet.preparation.ctc_sequence import find_sequence
from unet.report.plots import save_undersegmented
from unet.scoring.undersegmented import undersegmented
from unet.training import snapshots
from unet.training.history import CSV_NAME
from unet.volumes import read_volume

SLIDING = Path(__file__).with_name("sliding_window.py")


class Way:
    """The way through a recipe, step by step, in a folder.

    Where there are several ways they share a `run`, and titles of steps have a `prefix`.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, device: str, run: Run | None = None, prefix: str = ""
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        self.run, self.prefix = run or Run(folder), prefix
        self.data = Path(recipe.folder)
        self.training_set = Path(recipe.training_set or folder / "training-set.h5")
        self.deploy = folder / "net" / "deploy.prototxt"

    def step(self, title: str, *words: object, needs: Sequence[Path] = ()) -> None:
        """Run a program, unless that is done."""
        self.run.run(Step.unet(self.prefix + title, *words, needs=needs))

    def program(self, title: str, path: Path, *words: object) -> None:
        """Run a program in Python that is no command of `unet`, unless that is done."""
        self.run.run(Step.program(self.prefix + title, path, *words))

    def labels(self, pictures: str) -> Path:
        """Return the labels of a stack, or the ground truth of a sequence, of the data."""
        path = self.data / pictures
        if path.suffix:
            return path.with_name(path.name.replace("volume", "labels"))
        return path.with_name(f"{path.name}_GT")

    def fetch(self) -> None:
        """Get the data, or check those that are there; a phantom that was made once stays."""
        step = Step.unet("data", "fetch", self.recipe.data, "-o", self.data)
        made = "phantom" in self.recipe.data
        step.outputs = [self.data / self.recipe.learn, self.labels(self.recipe.learn)] * made
        self.run.run(step)

    def prepare(self, *options: object) -> None:
        """Make the training set."""
        pictures, labels = self.data / self.recipe.learn, self.labels(self.recipe.learn)
        self.step(
            "training set: pictures, classes, weight map",
            "prepare",
            *([pictures, labels] if pictures.suffix else [pictures]),
            *("-o", self.training_set, "--preview", self.folder / "training-set.png"),
            *shlex.split(self.recipe.prepare),
            *options,
            needs=[labels],
        )

    def write_net(self, net: str, *options: object) -> Path:
        """Write the network and its solver; return the solver."""
        self.step(
            "network and solver as prototxt",
            *("nets", net, "--data", self.training_set, *shlex.split(self.recipe.nets)),
            *(*options, "-o", self.deploy.parent),
            needs=[Path(unet.__file__).with_name("network") / "nets.py"],
        )
        return self.deploy.parent / "solver.prototxt"

    def training(self, title: str, solver: Path, folder: Path, *options: object) -> Step:
        """Return the step that trains in a folder."""
        words = ("train", solver, "--device", self.device, *options, "-o", folder)
        needs = [solver.with_name("train_val.prototxt"), self.training_set]
        return Step.unet(self.prefix + title, *words, needs=needs)

    def train(self, solver: Path, net: str, *options: object) -> snapshots.Snapshot:
        """Train; return the last snapshot."""
        folder = self.folder / "training"
        step = self.training("train", solver, folder, "--resume", *options)
        step.outputs = [folder / CSV_NAME]
        self.run.train(step, folder)
        self.deploy = solver.parent / "deploy.prototxt"
        return snapshots.find(str(folder / net))[0]

    def segment(self, pictures: Path, weights: Path, *options: object, title: str = "segment"):
        """Segment a stack, a sequence or a frame."""
        self.step(
            title,
            *("segment", pictures, "--weights", weights, "--net", self.deploy),
            *(*options, "--device", self.device),
        )

    def judge(self, split: Split, weights: Path) -> bool:
        """Segment, draw, track and score what judges a network; tell whether there are scores."""
        pictures, truth = self.data / split.judged, self.labels(split.judged)
        if not pictures.exists():
            print(f"\n{pictures} is not there: the pictures show what was trained on.")
            pictures, truth = self.data / self.recipe.learn, Path("none")
        judge = self._judge_stack if pictures.suffix else self._judge_sequence
        result, chosen = judge(pictures, split, weights)
        if truth.exists():
            scores = ["--json", self.folder / "scores.json", *shlex.split(self.recipe.score)]
            self.step("score", "score", truth, result, *scores, *chosen)
        return truth.exists()

    def _judge_stack(self, stack: Path, split: Split, weights: Path) -> tuple[Path, list[str]]:
        result, options = self.folder / "probabilities.tif", shlex.split(self.recipe.segment)
        chosen = ["--slices", split.test] if split.test else []
        drawn = ["-o", result, "--overlay", self.folder / "overlay.png"]
        self.segment(stack, weights, *drawn, *options, *chosen)
        return result, chosen

    def _judge_sequence(self, frames: Path, split: Split, weights: Path) -> tuple[Path, list[str]]:
        cells, result = (self.folder / f"{frames.name}_{what}" for what in ("cells.tif", "RES"))
        options = shlex.split(self.recipe.segment)
        self.segment(frames, weights, "--instances", cells, *options)
        self.step("track", "track", cells, "-o", result, *shlex.split(self.recipe.track))
        # The annotated frame in the middle of those that it has not seen.
        files, judging = find_sequence(frames), parse_slices(split.test or ":")
        unseen = [number for number in sorted(files.cells) if number in judging]
        shown = unseen[len(unseen) // 2] if unseen else max(files.cells)
        drawn = ["-o", self.folder / "shown.tif", "--overlay", self.folder / "overlay.png"]
        drawn += ["--truth", files.cells[shown], *options[:2]]
        self.segment(files.frames[shown], weights, *drawn, title="picture")
        return result, ["--frames", split.test] if split.test else []

    @property
    def took(self) -> str:
        """How long it has been under way."""
        return f"{time.monotonic() - self.run.began:.0f} s"


def train(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Train on a data set, score what was held out, and make a model folder."""
    choice, split = choose(options, recipe), recipe.splits[options.split]
    solver_name = choice.solver.lower()
    run = f"{name}_{choice.net}_{options.split}_{solver_name}_{choice.weighting}"
    folder, target = Path("runs", run), Path("models", run)
    guard_model_folder(target)
    way = Way(recipe, folder, options.device)
    way.fetch()
    weights = shlex.split(WEIGHTINGS[choice.weighting])
    steps = ("--iterations", choice.iterations)
    if split.solver:
        way.prepare(*weights)
        suffix = "" if choice.solver == "SGD" else f"_{solver_name}"
        solver = Path("prototxt", choice.net, f"solver_{split.solver}{suffix}.prototxt")
    else:
        way.prepare(*(["--balance-frames", split.train] if split.train else []), *weights)
        frames = sorted(find_sequence(way.data / recipe.learn).cells)
        learnt = sum(frame in parse_slices(split.train or ":") for frame in frames)
        slices = ["--train-slices", f"0:{learnt}"]
        if learnt < len(frames):
            slices += ["--test-slices", f"{learnt}:{len(frames)}"]
        solver = way.write_net(choice.net, *slices, *steps, "--solver", choice.solver)
    last = way.train(solver, choice.net, "--precision", choice.precision, *steps)
    scored = way.judge(split, Path(last.model))
    scores = json.loads((folder / "scores.json").read_text()) if scored else {}
    text = card(recipe, options.split, choice, scores)
    made_of = (folder, Path(last.model), way.deploy, text, scored)
    make_model_folder(target, *made_of, recipe.segment)
    print(f"\ndone in {way.took}. The model and its card: {target}")
    print(f"Use it: tools/segment.py STACK --weights {target}/weights.caffemodel -o OUT")


def at_hand(recipe: Recipe) -> tuple[Recipe, str]:
    """Return the recipe of ISBI 2012 where its stack can be had, else of a phantom; and a word."""
    what = "the ISBI 2012 stack"
    if os.environ.get("ISBI_DIR") or Path(recipe.folder, recipe.learn).exists():
        return recipe, what
    try:
        # Asked first, and not for long: the download itself is patient.
        asked = urllib.request.Request(isbi2012.URL, method="HEAD")
        urllib.request.urlopen(asked, timeout=5).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        what = f"a membrane phantom, for {isbi2012.URL} cannot be reached ({reason})"
        return replace(recipe, data="phantom", folder="data/phantom"), what
    return recipe, what


def demo(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Go the whole way in a few minutes: as short a training as fits, so a modest result."""
    recipe, what = at_hand(recipe)
    print(f"The whole way from pictures to scores, on {what}.")
    way = Way(recipe, Path("runs", name), options.device)
    way.fetch()
    # So that the same is asked for when it is run again, whatever getting the data took.
    budget = ("--minutes", max(1, options.seconds - FETCH_SECONDS) / 60)
    if options.iterations:
        budget = ("--iterations", options.iterations)
    pictures, folder = way.data / recipe.learn, way.folder / "model"
    words = ("train", pictures, way.labels(recipe.learn), "-o", folder, *budget)
    step = Step.unet("train, and score what was held out", *words, "--device", options.device)
    way.run.train(step, folder)
    print(f"\ndone in {way.took}. All in {folder}:")
    print("  labels.png             what the network learns from")
    print("  training-1/curves.png  how it learnt")
    print("  overlay.png            what it makes of slices that it has not seen")
    print("  report.html            the same, to look at in a browser")


def segment_demo(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Segment with the model that comes with the project."""
    recipe, what = at_hand(recipe)
    print(f"{recipe.weights} on {what}")
    way = Way(recipe, Path("runs", name), options.device)
    way.deploy = Path(recipe.weights, "deploy.prototxt")
    way.fetch()
    way.judge(recipe.splits["holdout"], Path(recipe.weights, "weights.caffemodel"))
    print(f"\nthe picture: {way.folder / 'overlay.png'}")


def separate(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Train with the weight of the gaps and without, count the cells that run together, draw."""
    options.precision = computed_in(options.device, options.precision)
    folder, split = Path("runs", name), recipe.splits["holdout"]
    scores, picture = folder / f"{name}.json", folder / f"{name}.png"
    guard_outputs([Output(scores, SCORE_FILE), Output(picture, PICTURE)], [], options.overwrite)
    both = Way(recipe, folder, options.device)
    both.fetch()
    stack, chosen = both.data / recipe.learn, parse_slices(split.test)
    images, truth = (
        read_volume(path)[chosen.start : chosen.stop] for path in (stack, both.labels(recipe.learn))
    )
    found = {}
    for w0 in SEPARATION_W0:
        label = f"w0 = {w0}"
        way = Way(recipe, folder / f"w0_{w0}", options.device, both.run, f"{label}: ")
        way.prepare("--w0", w0)
        slices = ("--train-slices", split.train)
        solver = way.write_net(CPU_NET, *slices, "--iterations", options.iterations)
        precision = ("--precision", options.precision)
        last = way.train(solver, CPU_NET, *precision)
        cells = way.folder / "cells.tif"
        words = ("--instances", cells, "--slices", split.test, *shlex.split(recipe.segment))
        way.segment(stack, Path(last.model), *words, *precision)
        found[label] = read_volume(cells)
    total = sum(len(np.unique(slice_[slice_ > 0])) for slice_ in truth)
    result = {
        "iterations": options.iterations,
        "precision": options.precision,
        "cells": total,
        "merged": {
            label: sum(len(undersegmented(*pair)) for pair in zip(truth, cells))
            for label, cells in found.items()
        },
        "found": {
            label: int(sum(slice_.max() for slice_ in cells)) for label, cells in found.items()
        },
    }
    write_scores(scores, result)
    first = {label: cells[0] for label, cells in found.items()}
    save_undersegmented(picture, images[0] / 255, truth[0], first)
    print(f"\n{total} cells in slices {split.test}, {options.iterations} iterations each:")
    for label, count in result["merged"].items():
        print(f"  {label:>7}: {count:4d} cells merged, {result['found'][label]:4d} found")
    print(f"the picture: {picture}")


def compare(name: str, recipe: Recipe, options: argparse.Namespace) -> None:
    """Train sliding windows and a U-Net; score and time them; draw.

    The U-Net has as long as the largest window, the others learn from as many windows as that.
    """
    folder, split = Path("runs", name), recipe.splits["holdout"]
    written, picture = folder / f"{name}.json", folder / f"{name}.png"
    guard_outputs([Output(written, SCORE_FILE), Output(picture, PICTURE)], [], options.overwrite)
    both = Way(recipe, folder, options.device)
    both.fetch()
    both.prepare()
    stack, truth = both.data / recipe.learn, both.labels(recipe.learn)
    ours, on = Path(recipe.weights), ("--device", options.device)
    learnt, judged = (parse_slices(part) for part in (split.train, split.test))
    inside = read_volume(truth) > 0
    share = round(float(inside[learnt.start : learnt.stop].mean()), 4)
    inside = inside[judged.start : judged.stop]
    windows = {f"window {size}": size for size in sorted(WINDOWS, reverse=True)}
    ways: dict[str, Way] = {}
    for label in [*windows, CPU_NET, ours.name]:
        at = folder / label.replace(" ", "_")
        way = ways[label] = Way(recipe, at, options.device, both.run, f"{label}: ")
        way.training_set = both.training_set
        weights, result = ours / "weights.caffemodel", at / "probabilities.tif"
        chosen = ("--slices", split.test, "-o", result)
        if label == ours.name:
            way.deploy = ours / "deploy.prototxt"
        else:
            net = (WINDOW, "--tile", windows[label]) if label in windows else (CPU_NET,)
            solver = way.write_net(*net, "--train-slices", split.train)
            if label in (max(windows, key=windows.get), CPU_NET):
                file = at / "iterations.json"
                steps = options.iterations or settled(file, solver, options.minutes, on[1])
            # Where the machine becomes slower it ends in time nevertheless.
            until = ("--iterations", steps, "--seconds", 60 * options.minutes)
            last = way.train(solver, at.name, *until)
            weights, steps = Path(last.model), last.iteration
        if label in windows:
            words = (stack, "--net", way.deploy.parent, "--weights", weights, *on)
            way.program("segment", SLIDING, "segment", *words, *chosen, "--frequency", share)
        else:
            way.segment(stack, weights, *chosen, *shlex.split(recipe.segment))
        if label == max(windows, key=windows.get):
            timing = folder / "timing.json"
            words = (*words, "--beside", ours, "--slice", SHOWN_SLICE, "--json", timing)
            way.program("time a slice", SLIDING, "time", *words)
        scored = (truth, result, "--json", at / "scores.json", *chosen[:2])
        way.step("score", "score", *scored, *shlex.split(recipe.score))
    found = {label: numbers(way.folder, inside) for label, way in ways.items()}
    shown = {label: read_volume(way.folder / "probabilities.tif") for label, way in ways.items()}
    place = SHOWN_SLICE - judged.start
    panels = {"slice": read_volume(stack)[SHOWN_SLICE] / 255, "truth": inside[place]}
    draw(picture, {**panels, **{label: stack_[place] for label, stack_ in shown.items()}}, found)
    cost = read_json(timing)
    write_scores(written, {"slices": split.test, "networks": found, "a_slice": cost})
    print(f"\n{table(found)}\n\n{told(cost)}\n\ndone in {both.took}: {picture}, {written}")


# Who runs a recipe; the others are trainings.
RUNNERS: dict[str, Callable[[str, Recipe, argparse.Namespace], None]] = {
    "demo": demo,
    "segment-demo": segment_demo,
    "separation": separate,
    "compare": compare,
    "published": compare_published,
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. Of a variable of make that was not given, "" means the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True)
    no_precision = ("demo", "segment-demo", "published", "compare")
    for name, recipe in RECIPES.items():
        command = commands.add_parser(name)
        add = command.add_argument
        add_device(command, precision=name not in no_precision)
        if recipe.iterations or name in ("demo", "compare"):
            add("--iterations", type=number, help="in place of the default number")
        if name not in RUNNERS:
            add("--split", choices=tuple(recipe.splits), default="holdout")
            add("--net", default="", help="unet or unet_slim; by default what suits here")
            add("--solver", type=solver_type, help="SGD or Adam; by default the net's")
            add("--weighting", choices=("", *WEIGHTINGS), default="", help="by default the net's")
        if name == "demo":
            seconds = dict(type=real(1, 1e9), default=DEMO_SECONDS)
            add("--seconds", **seconds, help="for the whole way (%(default)s)")
        if name == "separation":
            command.set_defaults(iterations=recipe.iterations)
        if name == "published":
            add("--from", dest="release", metavar="FOLDER_OR_ARCHIVE", help="the authors' release")
            add("--data", default=recipe.folder, help="folder for it (%(default)s)")
            truth = REPOSITORY / RECIPES["phc-u373"].folder
            add("--truth", default=truth, help="folder of the data set with ground truth")
            model = REPOSITORY / recipe.weights
            add("--model", default=model, help="our model folder; passed over where there is none")
            add("-o", "--output", default="runs/published", help="of the results (%(default)s)")
        if name == "compare":
            minutes = dict(type=real(0.1, 1e6), default=COMPARE_MINUTES)
            add("--minutes", **minutes, help="of each of the two long trainings (%(default)s)")
        if name in ("separation", "published", "compare"):
            add_overwrite(command)
    options = parser.parse_args(argv)
    check_device(parser, options.device)
    return options


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run a recipe in the folder of the repository."""
    options = parse(argv)
    if options.name != "published":
        # Where the user's own data lie, counts from where the user is.
        for name in {"ISBI_DIR", "CTC_DIR"} & {key for key, path in os.environ.items() if path}:
            os.environ[name] = os.path.abspath(os.environ[name])
        os.chdir(REPOSITORY)
    try:
        RUNNERS.get(options.name, train)(options.name, RECIPES[options.name], options)
    except StepFailed as failed:
        # The program has said what is wrong.
        return failed.status
    return None


if __name__ == "__main__":
    run_program(main)
