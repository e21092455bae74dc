"""Train on ISBI 2012 for as long as a budget allows: `tools/gpu_check.py train`.

What comes before and after the training is tried first, all at once, and its time kept back. While
the training goes on, its curve and the weights of its newest snapshot are in the output folder.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from child_programs import Program, ending
from findings import Findings
from half_precision_weights import find_parts, write_half, write_parts
from recipes import RECIPES
from training_choice import WEIGHTING, WEIGHTINGS
from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.names import path_in_prototxt
from unet.machine.engine import open_engine
from unet.model.open_net import find_weights
from unet.report.plots import draw_curves
from unet.scoring.score_tables import StackScores
from unet.training import snapshots
from unet.training.history import CSV_NAME, PNG_NAME, read_history, write_history
from unet.volumes import read_volume, write_volume

RECIPE = RECIPES["isbi2012"]
SPLIT = RECIPE.splits["holdout"]
# Seconds between two snapshots, two tests, two looks at the training.
SNAPSHOT_SECONDS, LOOK_SECONDS = 60.0, 5.0
# Steps that are tried, and how many of them only warm up: on a GPU until all is recorded as graphs,
# and tiles that were cut during the first are used up.
TRIED, WARM = {True: 80, False: 10}, {True: 50, False: 2}
# The time kept back is what was measured, and a part of it more.
RESERVE = 1.25
LEAST_SECONDS = 5.0
# In which a training ends with --refine, and at which part of the rate it goes on.
REFINED, REFINED_RATE = "gaps", 0.3
# Pixels by which true labels are blurred to stand in for a network's probabilities.
_BLUR = 1.5


class Failed(Exception):
    """A program has failed; what it said is in the findings."""


def train(findings: Findings, options: argparse.Namespace) -> None:
    """Train, score and store: what is found goes into the findings.

    They say how much time is left.

    Raises `InputError` if there is no such GPU, no such file of weights or no data.
    """
    if options.weights is not None:
        find_weights(options.weights)
    shutil.rmtree(options.work, ignore_errors=True)
    if options.device != "cpu":
        question = f"from unet.machine.engine import open_engine; open_engine({options.device!r})"
        asked = Program(["-c", question], options.work / "device.log")
        with ending({"device": asked}):
            if asked.wait(findings.left):
                raise InputError(
                    f"--device {options.device}: the engine finds no such GPU here; name cpu"
                )
    check = _Check(findings, options)
    try:
        check.prepare()
        check.try_everything()
        check.train()
        check.score()
    except Failed:
        return


class _Check:
    def __init__(self, findings: Findings, options: argparse.Namespace) -> None:
        self.findings, self.options = findings, options
        self.work: Path = options.work
        self.net_folder, self.training = self.work / "net", self.work / "training"
        # Of the refinement.
        self.refined_net, self.refined = self.work / "refined-net", self.work / "refined"
        self.weighting = options.weighting or WEIGHTING[options.net]
        self.deploy = self.net_folder / "deploy.prototxt"
        self.half = self.work / f"{options.net}.h5"
        # Seconds that the training's program takes beside its steps, and that come after it.
        self.rest = self.after = 0.0
        # The curve of a training that is over, and the iteration of the weights brought out.
        self.earlier: list[dict[str, float]] = []
        self.iteration: int | None = None

    def start(self, title: str, *command: str) -> Program:
        return Program(command, self.work / f"{title}.log")

    def run(self, title: str, *command: str) -> float:
        """Run a program to its end; return its seconds."""
        program = self.start(title, *command)
        with ending({title: program}):
            self.demand(title, program)
        return program.seconds

    def demand(self, title: str, program: Program) -> None:
        """Wait for a program's end, and see that all went well."""
        error = program.wait(self.findings.left)
        if error:
            self.findings.fail(title, error)
            raise Failed

    def prepare(self) -> None:
        """Make the training set, the network's files, and a network in which to read weights."""
        options = self.options
        self.stacks = options.data
        if self.stacks is None:
            self.stacks = self.work / "phantom"
            self.run("phantom", "tools/fetch.py", "phantom", "-o", str(self.stacks))
        elif not (self.stacks / "train-volume.tif").is_file():
            raise InputError(f"{self.stacks}: holds no train-volume.tif; name another with --data")
        volume, labels = (self.stacks / f"train-{name}.tif" for name in ("volume", "labels"))
        self.volume, self.labels = str(volume.resolve()), str(labels.resolve())
        folders = {self.net_folder: self.weighting}
        if options.refine:
            folders[self.refined_net] = REFINED
        programs = {
            folder: self.start(
                f"prepare-{folder.name}",
                *("tools/prepare.py", self.volume, self.labels, "-o", f"{folder}.h5"),
                *(*RECIPE.prepare.split(), *WEIGHTINGS[weighting].split()),
            )
            for folder, weighting in folders.items()
        }
        with ending(programs):
            # Importing it takes as long.
            self.caffe = open_engine("cpu")
            for folder, program in programs.items():
                self.demand("prepare", program)
                self.write_net(folder)
        what = "a phantom" if options.data is None else "the stack"
        self.findings.note(
            "training set",
            f"{options.net} by {self.solver.lower()}, weights {self.weighting}, "
            f"{options.precision}, on slices 1 to 20 of {what}, "
            f"from {options.weights or 'fillers'}\n"
            f"made in {self.findings.passed:.1f} s",
            data=str(self.volume),
            seconds=round(self.findings.passed, 1),
        )

    def write_net(self, folder: Path) -> None:
        """Write the network and the solver for the training set FOLDER.h5 into a folder."""
        from unet.network import nets

        options = self.options
        train, test = (range(*map(int, s.split(":"))) for s in (SPLIT.train, SPLIT.test))
        files = nets.own_files(
            options.net,
            f"{folder}.h5",
            path_in_prototxt(folder),
            tile=options.tile or nets.TRAIN_TILES[options.net],
            iterations=options.iterations,
            train=train,
            test=test,
            method=self.solver,
        )
        nets.write_files(files, folder)

    def try_everything(self) -> None:
        """Try a few steps, segmenting with random weights, and scoring labels that are blurred."""
        seconds = {}
        tried = self.work / "tried"
        on_gpu = self.options.device != "cpu"
        programs = {
            "try training": self.start(
                "try-training",
                *self.train_command(self.net_folder, tried),
                "--iterations",
                str(TRIED[on_gpu]),
            )
        }
        with ending(programs):
            self.net = self.caffe.Net(str(self.deploy), self.caffe.TEST)
            began = time.monotonic()
            write_half(self.net, self.half)
            write_parts(self.half, self.work)
            for part in find_parts(self.work):
                part.unlink()
            seconds["store"] = time.monotonic() - began
            programs["try segmenting"] = self.start("try-segmenting", *self.segment_command())
            blurred = self.work / "blurred.tif"
            write_volume(blurred, self.blurred_labels())
            programs["try scoring"] = self.start("try-scoring", *self.score_command(blurred))
            while len(seconds) < 1 + len(programs) and self.findings.left > 0:
                for title, program in programs.items():
                    if title not in seconds and program.process.poll() is not None:
                        seconds[title] = program.seconds
                time.sleep(0.05)
            # Without scores the weights are worth something, too.
            for title, program in programs.items():
                error = program.wait(self.findings.left)
                if error:
                    self.findings.fail(title, error)
                    if title == "try training":
                        raise Failed
                    # It has not shown how long it takes: as long as the rest, say.
                    seconds[title] = max(seconds.values())
        for path in (self.work / "probabilities.tif", self.work / "scores.json"):
            path.unlink(missing_ok=True)
        step, trained = tried_steps(tried, WARM[on_gpu])
        self.rest = seconds["try training"] - trained
        self.after = sum(seconds.values()) - seconds["try training"]
        self.set_intervals(step)
        lines = ["tried, with the seconds that each took:"]
        lines += [f"  {title:20s}{took:7.1f}" for title, took in seconds.items()]
        lines.append(f"  a step takes {1000 * step:.1f} ms")
        rounded = {title: round(took, 2) for title, took in seconds.items()}
        self.findings.note(
            "tried", "\n".join(lines), seconds=rounded, step_ms=round(1000 * step, 2)
        )

    def set_intervals(self, step: float) -> None:
        """Let the trainings test and write snapshots at distances of seconds."""
        interval = max(1, round(SNAPSHOT_SECONDS / step))
        for folder in (self.net_folder, self.refined_net):
            solver = folder / "solver.prototxt"
            if solver.exists():
                text = solver.read_text(encoding="utf-8")
                text = re.sub(r"(?m)^(snapshot|test_interval): \d+$", rf"\1: {interval}", text)
                solver.write_text(text, encoding="utf-8")

    def blurred_labels(self) -> np.ndarray:
        """Return the held-out labels as a network would give them, in [0, 1]."""
        from scipy import ndimage

        cells = read_volume(self.labels)[slice(*map(int, SPLIT.test.split(":")))] > 0
        return ndimage.gaussian_filter(cells.astype(np.float32), (0, _BLUR, _BLUR))

    def train_command(self, net: Path, folder: Path, *more: str) -> list[str]:
        """Return the training of the solver in a folder, into another."""
        given = {"--rate": self.options.rate, "--weights": self.options.weights}
        start = [text for name, value in given.items() if value for text in (name, str(value))]
        return [
            *("tools/train.py", str(net / "solver.prototxt"), "-o", str(folder)),
            *("--device", self.options.device, "--precision", self.options.precision),
            # Of an option that is given twice the second counts.
            *(*start, *more),
        ]

    def segment_command(self) -> list[str]:
        return [
            *("tools/segment.py", self.volume, "--slices", SPLIT.test),
            *("--weights", str(self.half), "--net", str(self.deploy)),
            *RECIPE.segment.split(),
            *("--device", self.options.device, "--precision", self.options.precision),
            *("-o", str(self.work / "probabilities.tif"), "--overwrite"),
        ]

    def score_command(self, prediction: Path) -> list[str]:
        return [
            *("tools/evaluate.py", self.labels, str(prediction), "--slices", SPLIT.test),
            *("--json", str(self.work / "scores.json")),
        ]

    def train(self) -> None:
        """Train for the time that is left, in the end with the weights of gaps alone."""
        from unet.network import nets

        options = self.options
        reserve = RESERVE * (self.rest + self.after)
        if options.refine:
            reserve += self.rest
        seconds = max(LEAST_SECONDS, self.findings.left - reserve)
        refine = min(options.refine, seconds / 2)
        began = self.findings.passed
        self.findings.note(
            "plan",
            f"{seconds:.0f} s for training"
            + (f", the last {refine:.0f} with weights {REFINED}" if refine else "")
            + f"; {reserve:.0f} s are kept back for what comes after",
            seconds=round(seconds, 1),
            refine=round(refine, 1),
            kept_back=round(reserve, 1),
        )
        self.train_for(seconds - refine, "train", self.net_folder)
        if options.refine:
            self.earlier, self.training = self.curve(), self.refined
            rate = REFINED_RATE * (options.rate or nets.RATES[self.solver][options.net])
            weights = ("--weights", str(self.half), "--rate", str(rate))
            # Many steps take longer to be written down and drawn than the few that were tried.
            self.rest = max(self.rest, self.findings.passed - began - (seconds - refine))
            left = self.findings.left - RESERVE * (self.rest + self.after)
            refine = max(min(LEAST_SECONDS, refine), min(refine, left))
            self.train_for(refine, "refine", self.refined_net, *weights)

    def train_for(self, seconds: float, title: str, net: Path, *more: str) -> None:
        """Train, and bring out what there is of it again and again."""
        limit = ("--seconds", f"{seconds:.1f}")
        program = self.start(title, *self.train_command(net, self.training, *more, *limit))
        with ending({title: program}):
            try:
                while program.process.poll() is None and self.findings.left > self.after:
                    time.sleep(min(LOOK_SECONDS, 0.1 * seconds))
                    self.bring_out()
            except KeyboardInterrupt:
                program.process.terminate()
                program.wait(2 * self.rest)
                self.bring_out()
                raise
            if program.process.poll() is None:
                # With a snapshot of what it has learnt.
                program.process.terminate()
            error = program.wait(max(self.rest, self.findings.left))
            self.bring_out()
            if error:
                self.findings.fail(title, error)
            if self.iteration is None:
                raise Failed

    def bring_out(self) -> None:
        """Put the curve and the newest weights into the output folder."""
        rows = self.curve()
        if self.earlier:
            if rows[len(self.earlier) :]:
                self.write_curve(rows)
        else:
            for name in (CSV_NAME, PNG_NAME):
                if (self.training / name).is_file():
                    with atomic_path(self.options.output / name) as path:
                        shutil.copyfile(self.training / name, path)
        found = snapshots.find(str(self.training / self.options.net))
        if found and self.steps_before + found[0].iteration != self.iteration:
            self.store(found[0])
        rows = [row for row in rows if "loss" in row]
        if rows:
            last = rows[-100:]
            loss = float(np.mean([row["loss"] for row in last]))
            pace = 1000 * (last[-1]["seconds"] - last[0]["seconds"]) / max(1, len(last) - 1)
            self.findings.note(
                "training",
                f"{len(rows)} steps in {last[-1]['seconds']:.0f} s, {pace:.1f} ms a step at last, "
                f"loss {loss:.4f}",
                steps=len(rows),
                seconds=last[-1]["seconds"],
                loss=loss,
                step_ms=round(pace, 2),
            )

    @property
    def solver(self) -> str:
        """The name of the solver: SGD or Adam."""
        # Imports the engine, once it is wanted.
        from unet.network import nets

        return self.options.solver or nets.METHODS[self.options.net]

    @property
    def steps_before(self) -> int:
        """The number of steps of the training that is over."""
        return sum("loss" in row for row in self.earlier)

    def curve(self) -> list[dict[str, float]]:
        """Return the rows of the curve so far, those of a refinement after the others."""
        path = self.training / CSV_NAME
        rows = read_history(path) if path.is_file() else []
        seconds = self.earlier[-1]["seconds"] if self.earlier else 0.0
        for row in rows:
            row["iteration"] += self.steps_before
            row["seconds"] += seconds
        return self.earlier + rows

    def write_curve(self, rows: list[dict[str, float]]) -> None:
        """Put a curve and its picture into the output folder."""
        write_history(self.options.output / CSV_NAME, rows)
        with atomic_path(self.options.output / PNG_NAME) as path:
            draw_curves(rows, path)

    def store(self, snapshot: Any) -> None:
        """Put a snapshot's weights into the output folder, in float16 and in parts."""
        try:
            self.net.copy_from(snapshot.model)
        except self.caffe.CaffeError:
            # A newer one may have taken its place meanwhile.
            if Path(snapshot.model).exists():
                raise
            return
        write_half(self.net, self.half)
        self.iteration = self.steps_before + snapshot.iteration
        named = self.work / f"{self.options.net}_iter_{self.iteration}.h5"
        shutil.copyfile(self.half, named)
        parts = write_parts(named, self.options.output)
        named.unlink()
        self.findings.note(
            "weights",
            f"weights after {self.iteration} steps, float16: {len(parts)} parts, "
            f"{self.half.stat().st_size:,} bytes\n"
            f"  cat {named.name}.part*of{len(parts)} > {named.name}\n"
            f"  tools/segment.py STACK --weights {named.name} "
            f"--net prototxt/{self.options.net}/deploy.prototxt -o OUT",
            iteration=self.iteration,
            parts=[part.name for part in parts],
        )

    def score(self) -> None:
        """Score the stored weights on the slices that were held out."""
        took = self.run("segment", *self.segment_command())
        took += self.run("score", *self.score_command(self.work / "probabilities.tif"))
        scores = json.loads((self.work / "scores.json").read_text(encoding="utf-8"))
        self.findings.note(
            "scores",
            "slices 21 to 30, mean of 8 rotations and mirrorings, weights in float16:\n"
            + str(StackScores(scores)),
            seconds=round(took, 1),
            scores=scores,
        )


def tried_steps(tried: Path, warm: int) -> tuple[float, float]:
    """Return what a step takes in a folder of a training, and all of them: seconds.

    The first `warm` are slower. The folder is removed.
    """
    ends = [row["seconds"] for row in read_history(tried / CSV_NAME) if "loss" in row]
    shutil.rmtree(tried)
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm), ends[-1]
