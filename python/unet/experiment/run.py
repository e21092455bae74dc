"""A run: from a stack and its labels to a model folder, step by step; what is done stays done."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from unet.errors import InputError, counted
from unet.experiment import choice
from unet.experiment.budget import for_training
from unet.experiment.card import card, written
from unet.experiment.folder import (
    CHOICES,
    NET,
    SCORES,
    START,
    START_JUDGED,
    TRAINING_SET,
    RunFolder,
    fingerprint,
)
from unet.experiment.judge import judge
from unet.experiment.network_files import NAME, solver_name
from unet.experiment.options import AVERAGED, PLAIN, ExperimentOptions, flag_of
from unet.experiment.settle import Settling, as_pretrained, source_of
from unet.experiment.split import Split
from unet.experiment.truth import held_out
from unet.files.version import VERSION
from unet.machine.cores import available_cores
from unet.model.adapt import open_pretrained
from unet.model.model import load
from unet.model.open_net import DEPLOY
from unet.preparation.prepare import Pair, files_of, opened
from unet.preparation.training_set import TrainingSet
from unet.report.diagnosis import FAULT, diagnose_labels
from unet.report.run_files import HeldOutSlice
from unet.report.write import write_report
from unet.training import snapshots
from unet.training.snapshots import averaged_model_of
from unet.training.train import Training, lock_folder
from unet.volumes import Stack

# Which score tells the better of two networks, and whether it is the higher one.
_MAIN_SCORE = {
    "membranes": ("rand_error", False),
    "cells": ("SEG", True),
    "classes": ("iou_mean", True),
}
# On so many slices it is looked whether labels lie on their pictures: each takes a second or two.
_LOOKED_AT = 2


class Trained(NamedTuple):
    """What a run has left; as text, what the program prints at the end.

    Attributes
    ----------
    folder : str
        The model folder, for `unet.load`.
    scores : dict
        On what was held out: name -> value, None of one that is not defined, as the precision where
        no cell was found; empty where nothing was held out.
    choices : dict
        What choices.json holds.
    """

    folder: str
    scores: dict[str, float | None]
    choices: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"{name:<14} {written(value, 6)}" for name, value in self.scores.items()]
        model = shlex.quote(self.folder)
        return "\n".join([*lines, f"use it: unet segment STACK --model {model} -o OUT"])


def train_from_stack(
    caffe: ModuleType,
    stack: Stack,
    labels: Stack | None,
    output: str | os.PathLike[str],
    options: ExperimentOptions,
    *,
    overwrite: bool = False,
    command: str = "",
) -> Trained:
    """Train a network on a stack and its labels, and leave a model folder.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it, its device and precision chosen.
    stack, labels : array or path
        As `unet.preparation.prepare.prepare` takes them.
    output : path
        The folder. A run of the same options in it is gone on with.
    options : ExperimentOptions
    overwrite : bool
        Begin anew, also where another run, or files of these names, are.
    command : str
        What was typed, to be written down.

    Raises
    ------
    InputError
        If stack and labels cannot be learnt from, or the folder holds another run, or foreign
        files.
    """
    began = time.monotonic()
    folder, inputs = RunFolder(output), files_of(stack, labels)
    asked, pretrained = options, None
    if options.from_model is not None and (overwrite or not folder.is_settled):
        pretrained = open_pretrained(caffe, options.from_model)
        options = as_pretrained(options, pretrained)
    made = folder.make([*inputs, *(pretrained.files if pretrained else ())])
    lock = None
    try:
        # Before anything in it is touched: another training may be at work there.
        lock = lock_folder(folder.path)
        folder.begin(overwrite)
        choices = folder.choices
        if choices is not None:
            _demand_same(folder, choices, asked, inputs)
        folder.begin_log()
        with opened(stack, labels, options.labels) as pair:
            if choices is None:
                settling = Settling(
                    *(caffe, folder, pair, options, pretrained, labels is None),
                    *(began, folder.say),
                )
                choices = {
                    "stack": source_of(stack),
                    "labels": source_of(labels),
                    "command": command,
                    "version": VERSION,
                    "options": _plain(asked),
                    "inputs": fingerprint(inputs),
                    **settling.choices(),
                }
                folder.write_choices(choices)
                _say_if_shifted(folder, pair, choices)
            else:
                folder.say(f"{folder.path}: goes on with what {CHOICES} says")
                # What fits into what is left of the time is not known any more.
                began = None
            way = _Way(caffe, folder, pair, choices, options.device, began)
            # What the labels were understood as can be looked at before much time is spent on them.
            way.report()
            way.judge_start()
            for number in range(1, len(choices["solver"]["stages"]) + 1):
                if way.has_time(number):
                    way.go(number)
            way.tell_if_worse()
        scores = _scores(folder / SCORES) if way.parts.many else {}
        folder.write_card(card(folder.path.resolve().name, choices, scores))
        way.report()
    finally:
        # Where nothing was begun, nothing is left; a folder that holds something stays.
        if lock is not None:
            folder.drop_empty_log()
            os.close(lock)
        with contextlib.suppress(OSError):
            for place in reversed(made):
                place.rmdir()
    return Trained(os.fspath(folder.path), scores, choices)


def _say_if_shifted(folder: RunFolder, pair: Pair, choices: dict[str, Any]) -> None:
    """Say so before much time is spent where labels do not lie on their pictures."""
    parts = Split.of_json(choices["split"], pair.names)
    if not parts.many:
        return
    raw, truth, _ = held_out(pair, parts, choices["kind"], choices["label_kind"])
    shown = [
        HeldOutSlice(k, "", np.atleast_3d(one.T).T, true, true)
        for k, (one, true) in enumerate(zip(raw[:_LOOKED_AT], truth))
    ]
    for check in diagnose_labels(choices["kind"], shown):
        if check.state == FAULT:
            folder.say(f"note: {check.found} {check.remedy}")


def _demand_same(
    folder: RunFolder, choices: dict[str, Any], options: ExperimentOptions, inputs: list[str]
) -> None:
    """Refuse to go on with other options, or other data, than a run was begun with."""
    before, now = choices["options"], _plain(options)
    if before != now:
        name = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))[0]
        raise InputError(
            f"{folder.path}: was begun with {_flag(name, before)}, and is now asked for with "
            f"{_flag(name, now)}: give the same options to go on, name another folder, or begin "
            f"anew with --overwrite"
        )
    if choices["inputs"] != fingerprint(inputs):
        raise InputError(
            f"{folder.path}: the stack or its labels have changed since this was begun: name "
            f"another folder, or begin anew with --overwrite"
        )


def _plain(options: ExperimentOptions) -> dict[str, Any]:
    return json.loads(json.dumps(options.as_json()))


def _flag(name: str, options: dict[str, Any]) -> str:
    flag = flag_of(name)
    return f"{flag} {options[name]}" if name in options else f"no {flag}"


def _scores(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8"))["scores"]


class _Way:
    """The stages of a run, each trained and judged unless that is done."""

    def __init__(
        self,
        caffe: ModuleType,
        folder: RunFolder,
        pair: Pair,
        choices: dict[str, Any],
        device: str,
        began: float | None,
    ) -> None:
        self._caffe, self._folder, self._pair, self._choices = caffe, folder, pair, choices
        self._device, self._began = device, began
        self.parts = Split.of_json(choices["split"], pair.names)

    def has_time(self, number: int) -> bool:
        """Tell whether a stage is worth its while; a later one that is not is left out."""
        seconds = self._seconds(number)
        pace = self._choices["seconds_a_step"]
        begun = self._newest(number) is not None
        if number == 1 or begun or seconds is None or seconds >= choice.LEAST_REFINED * (pace or 0):
            return True
        self._folder.say(
            f"stage {number} is left out, for too little of the time is left: the machine became "
            f"slower than when it was measured"
        )
        self._choices["solver"]["stages"] = self._choices["solver"]["stages"][: number - 1]
        self._folder.write_choices(self._choices)
        return False

    @property
    def _start(self) -> str | None:
        """The name of the network that the run begins as, if that is judged with the others."""
        begins = self._choices.get("from") or {}
        return f"{Path(begins['model']).name} as it is" if begins.get("judged") else None

    def judge_start(self) -> None:
        """Judge the network that the run begins as before it learns, and keep it for the time."""
        if self._start is not None and "kept" not in self._choices:
            net = self._folder / NET
            self._look_at(str(net / START), self._start, net / START_JUDGED)
            self.report()

    def tell_if_worse(self) -> None:
        """Say so where no training has made the network better that the run begins as."""
        if self._start is None or self._choices["kept"] != self._start:
            return
        networks = self._choices["networks"]
        name, is_higher = _MAIN_SCORE[self._choices["kind"]]
        learnt = [networks[one] for one in networks if one not in ("score", self._start)]
        learnt = [one for one in learnt if one is not None]
        if not learnt:
            return
        best = max(learnt) if is_higher else min(learnt)
        self._folder.say(
            f"note: {self._start} was better on what was held out ({name} "
            f"{networks[self._start]:.4f}) than after the training ({best:.4f} at best), and is "
            f"kept: give more --minutes, more labels, or a lower --rate"
        )

    def go(self, number: int) -> None:
        """Train a stage to its end, judge what has come of it, and keep what is better."""
        stage = self._choices["solver"]["stages"][number - 1]
        # A run that an earlier version began averages nothing.
        networks = stage.get("judged", [PLAIN])
        if not self.parts.many:
            networks = [PLAIN]
        done = self._newest(number)
        if (
            done is None
            or done.iteration < stage["iterations"]
            or (AVERAGED in networks and not os.path.exists(averaged_model_of(done.model)))
        ):
            self._train(number, stage)
        for network in networks:
            weights = self._newest(number).model
            if network == AVERAGED:
                weights = averaged_model_of(weights)
            self._look_at(
                weights, f"stage {number}, {network}", self._folder.judged(number, network)
            )
            self.report()

    def _look_at(self, weights: str, name: str, judged: Path) -> None:
        """Judge a network unless that is done, and keep it if it is better."""
        if self.parts.many and not (judged / SCORES).exists():
            self._judge(judged, weights, name)
        if self._is_better(judged):
            self._folder.adopt(judged, weights)
            self._choices["kept"] = name
        if self.parts.many:
            score = _MAIN_SCORE[self._choices["kind"]][0]
            networks = self._choices.setdefault("networks", {"score": score})
            networks[name] = _scores(judged / SCORES)[score]
        self._folder.write_choices(self._choices)

    def report(self) -> None:
        """Write the report of what is there; a training does not end for the want of one."""
        try:
            write_report(self._folder.path)
        except InputError as error:
            self._folder.say(f"no report: {error}")

    def _newest(self, number: int) -> snapshots.Snapshot | None:
        found = snapshots.find(str(self._folder.stage(number) / NAME))
        return found[0] if found else None

    def _train(self, number: int, stage: dict[str, Any]) -> None:
        root = self._folder.path
        if number > 1:
            weights = self._newest(number - 1).model
        else:
            weights = str(root / NET / START) if self._choices.get("from") else None
        self._folder.say(
            f"stage {number}: {counted(stage['iterations'], 'iteration')}, weights: "
            f"{stage['weighting']}"
        )
        solver, output = root / NET / solver_name(number), self._folder.stage(number)
        seconds = self._seconds(number)
        with Training(
            self._caffe,
            str(solver),
            str(output),
            seconds=seconds,
            average=self._choices.get("average"),
            root=root,
            shown=self.report,
        ) as training:
            if training.resume() is None:
                training.begin(weights)
            training.run()
            done = training.solver.iter
        if done < stage["iterations"]:
            self._folder.say(
                f"ended at iteration {done:,}: the machine became slower than when it was measured"
            )
            stage.update(planned=stage["iterations"], iterations=done)
            self._folder.write_choices(self._choices)

    def _seconds(self, number: int) -> float | None:
        """Return for how long a stage may be trained; None: for as long as it takes."""
        minutes = self._choices["minutes"]
        if minutes is None or self._began is None:
            return None
        stages = self._choices["solver"]["stages"][number - 1 :]
        many = sum(len(one.get("judged", [PLAIN])) for one in stages)
        judging = self._choices["seconds_to_judge"] * many
        left = for_training(self._began + 60 * minutes - time.monotonic(), judging)
        share = stages[0]["iterations"] / sum(one["iterations"] for one in stages)
        # Measured too late, it is trained for a moment all the same.
        return max(1.0, left * share)

    def _judge(self, folder: Path, weights: str, network: str) -> None:
        """Segment and score what is held out, into a folder."""
        choices, intensity = self._choices, None
        if not choices["normalise"]:
            with TrainingSet(self._folder / TRAINING_SET) as training_set:
                intensity = training_set.intensity_range
        deploy = self._folder / DEPLOY
        model = load(weights, deploy, device=self._device, precision=choices["precision"])
        raw, truth, slices = held_out(
            self._pair, self.parts, choices["kind"], choices["label_kind"]
        )
        found = judge(
            *(model, raw, truth, folder),
            **dict(kind=choices["kind"], slices=slices, intensity=intensity),
            workers=available_cores(),
        )
        name = _MAIN_SCORE[choices["kind"]][0]
        self._folder.say(f"{network}, held out: {name} {written(found['scores'][name])}")

    def _is_better(self, folder: Path) -> bool:
        """Tell whether the network that was judged in a folder is to be the run's."""
        if not self.parts.many or not (self._folder / SCORES).exists():
            return True
        name, is_higher = _MAIN_SCORE[self._choices["kind"]]
        here, best = (_scores(one / SCORES)[name] for one in (folder, self._folder))
        if here is None or best is None:
            return best is None
        return here >= best if is_higher else here <= best
