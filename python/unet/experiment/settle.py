"""What a run is, settled before it trains: training set, network, iterations; and told in words."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import numpy as np

from unet.errors import InputError, counted, few
from unet.experiment import choice
from unet.experiment.budget import LEAST_ITERATIONS, most_held_out
from unet.experiment.card import paragraph
from unet.experiment.choice import Chosen
from unet.experiment.fit import Fitting
from unet.experiment.folder import LABELS_PICTURE, NET, START, TRAINING_SET, RunFolder
from unet.experiment.network_files import Shape
from unet.experiment.options import PLAIN, ExperimentOptions, flag_of
from unet.experiment.split import MOST, middles_of, split
from unet.experiment.truth import kind_of, likely_kind
from unet.model.adapt import Pretrained, write_adapted
from unet.model.open_net import DEPLOY
from unet.network.nets import AUGMENTATION
from unet.preparation.prepare import Pair, make_training_set, with_preview
from unet.preparation.summary import Summary
from unet.report.run_files import SHORT, name_of_slice
from unet.volumes import Volume


class Settling:
    """How a run is settled; `began` is when it began, by `time.monotonic`, `say` tells a person."""

    def __init__(
        self,
        caffe: ModuleType,
        folder: RunFolder,
        pair: Pair,
        options: ExperimentOptions,
        pretrained: Pretrained | None,
        in_time: bool,
        began: float,
        say: Callable[[str], None],
    ) -> None:
        self._caffe, self._folder, self._pair, self._options = caffe, folder, pair, options
        self._pretrained = pretrained
        self._began, self._say, self._in_time = began, say, in_time
        self._size = pair.raw.shape[-2:]
        asked = options.held_out
        if asked is not None:
            place = {int(name): z for z, name in enumerate(pair.names)}
            strange = [name for name in asked if place.get(name) not in pair.slices]
            if strange:
                unit = "frame" if in_time else "slice"
                raise InputError(
                    f"--held-out: {unit} {strange[0]} is not one that is annotated: those are "
                    f"{few([int(pair.names[z]) for z in pair.slices])}"
                )
            asked = [place[name] for name in asked]
        self._on_gpu = getattr(caffe, "get_mode", lambda: "cpu")() == "gpu"
        self._minutes = None
        if options.iterations is None:
            usual = choice.MINUTES_GPU if self._on_gpu else choice.MINUTES_CPU
            self._minutes = options.minutes or usual
        most = MOST
        if self._minutes is not None:
            kind = options.kind or ("cells" if in_time else likely_kind(pair))
            most = min(MOST, most_held_out(self._minutes, math.prod(self._size), kind))
        middles = middles_of(pair.labels, pair.slices, pair.options.ignore_label)
        self._parts = split(
            *(pair.slices, self._size),
            **dict(in_time=in_time, most=most, held_out=asked, middles=middles),
            labelled=None if in_time else self._labelled,
        )

    def _labelled(self, z: int) -> np.ndarray:
        """Return where a slice has a label, that 0 is not, nor what means: not annotated."""
        image = self._pair.labels[z]
        return (image != 0) & (image != self._pair.options.ignore_label)

    def choices(self) -> dict[str, Any]:
        """Make the training set, choose, write the network, and return what was chosen."""
        options, parts = self._options, self._parts
        summary = self._prepare()
        kind = options.kind or kind_of(summary)
        understood = f"{summary.kind}, {summary.understood}"
        self._say(f"pictures: {_described(self._pair.raw, self._in_time)}")
        self._say(f"labels: {understood}; scored as {kind}")
        for remark in summary.remarks:
            self._say(f"note: {remark}")
        minutes = self._minutes
        asked = "asked for"
        if self._pretrained is not None:
            asked = f"as in {Path(self._pretrained.name).name}"
        levels = Chosen(options.levels, asked)
        if options.levels is None:
            levels = choice.choose_levels(self._size, _diameter(summary, kind))
        # A last layer that begins anew tells nothing before it learns.
        is_judged = (
            self._pretrained is not None
            and self._pretrained.classes == len(summary.counts)
            and parts.many > 0
        )
        fitting = Fitting(
            *(self._caffe, self._folder, parts, self._size, options, kind, levels.value),
            *(self._pretrained, is_judged, minutes, self._began, self._say),
        )
        fit = fitting.fit()
        method, maps = fit.schedule.method, fit.maps
        shape = Shape(levels.value, maps.value, options.padded, fit.tile.value, self._pretrained)
        rate = options.rate or choice.rate_of(
            *(method, shape.maps), is_pretrained=self._pretrained is not None
        )
        stages = choice.stages(fit.iterations.value, rate, options.w0)
        average, judged = options.average, choice.judged(len(stages), fit.judgements)
        has_statistics = self._pretrained is not None and any(
            layer.type == "BatchNorm" for layer in self._pretrained.layers
        )
        if has_statistics:
            self._say("nothing is averaged: statistics of layers of type BatchNorm would not fit")
            average, judged = None, [[PLAIN]] * len(stages)
        parameters = fitting.write(shape, stages, fit.schedule)
        begins = None
        if self._pretrained is not None:
            begins = {**self._begin(self._pretrained), "judged": is_judged}
        chosen = {
            "kind": kind,
            "label_kind": summary.kind,
            "classes": len(summary.counts),
            "understood": understood,
            "notes": list(summary.remarks),
            "normalise": options.labels.normalise,
            "split": parts.as_json(self._pair.names, self._pair.raw.names, self._in_time),
            "from": begins,
            "device": "gpu" if self._on_gpu else "cpu",
            "precision": getattr(self._caffe, "get_precision", lambda: "fp32")(),
            "net": {
                "levels": shape.levels,
                "maps": shape.maps,
                "padded": shape.padded,
                "parameters": parameters,
            },
            "tile": shape.tile,
            "solver": {
                "type": method,
                "stages": [
                    {
                        "iterations": one.iterations,
                        "base_lr": one.base_lr,
                        "weighting": f"w0 {options.w0:g}, sigma {options.sigma:g}"
                        if one.weighted
                        else "none",
                        "judged": networks,
                    }
                    for one, networks in zip(stages, judged)
                ],
            },
            "average": average,
            "augmentation": AUGMENTATION,
            "seed": options.seed,
            "minutes": minutes,
            "seconds_a_step": None if fit.pace is None else round(fit.pace.iteration, 4),
            "seconds_to_judge": round(fit.judging, 1),
            "reasons": {
                "held out": "too few slices to do without a whole one"
                if parts.quadrants
                else "asked for"
                if options.held_out is not None
                else "the last ones, whose cells are the least like those learnt from"
                if self._in_time
                else "spread through the stack",
                "levels": levels.reason,
                "maps": maps.reason if self._pretrained is None else asked,
                "tile": fit.tile.reason,
                "solver": "asked for" if options.solver else "it gets further in as many steps",
                "iterations": fit.iterations.reason,
                "stages": "without weights a network learns faster; at the end the weight of the "
                "gaps closes those that are left",
            },
        }
        self._say(paragraph(chosen))
        is_short = minutes is not None and fit.iterations.value < LEAST_ITERATIONS
        # Few steps from a trained network mean something.
        if is_short and self._pretrained is None:
            self._say(
                f"for only {counted(fit.iterations.value, 'iteration')} is there time in "
                f"{minutes:g} minutes here, and below {LEAST_ITERATIONS} the result means "
                f"nothing: give more with --minutes"
            )
        return chosen

    def _begin(self, pretrained: Pretrained) -> dict[str, Any]:
        """Write the weights to begin with; return where they come from, and what was adapted."""
        folder = self._folder
        adapted = write_adapted(
            *(self._caffe, pretrained, folder / DEPLOY, folder / NET / START),
            self._options.seed,
        )
        name = pretrained.name
        source = os.path.abspath(name) if os.path.exists(name) else name
        return {"model": source, "first": adapted.first, "last": adapted.last}

    def _prepare(self) -> Summary:
        """Make the training set: first the slices that are learnt from, then those held out."""
        pair, parts, options = self._pair, self._parts, self._options
        raw, labels, ignored = parts.arranged(pair.raw, pair.labels, pair.options.ignore_label)
        understood = replace(
            pair.options,
            ignore_label=ignored,
            w0=options.w0,
            sigma=options.sigma,
            balance=False,
        )
        notes = {name: value for name, value in pair.notes.items() if name != "balance_slices"}
        notes["slices"] = [int(pair.names[z]) for z in parts.order]
        if "frames" in notes:
            notes["frames"] = notes["slices"]
        path = self._folder / TRAINING_SET
        summary = make_training_set(path, raw, labels, understood, notes=notes, progress=True)
        summary = pair.remark(summary)
        said = parts.as_json(pair.names, pair.raw.names, self._in_time)
        # One that is learnt from: of copies for quadrants that are held out little is annotated.
        return with_preview(
            *(summary, labels, parts.learnt, self._folder / LABELS_PICTURE),
            [name_of_slice(number, said, SHORT) for number in notes["slices"]],
        )


def as_pretrained(options: ExperimentOptions, pretrained: Pretrained) -> ExperimentOptions:
    """Return options as a trained network wants them; refuse those that it contradicts."""
    there = {
        "levels": pretrained.geometry.levels,
        "maps": pretrained.maps,
        "padded": pretrained.padded,
    }
    for name, value in there.items():
        asked = getattr(options, name)
        if asked not in (None, False, value):
            has = "pads no convolution" if name == "padded" else f"has {value} {name}"
            raise InputError(
                f"{flag_of(name)}{'' if asked is True else f' {asked}'}: {pretrained.name} {has}, "
                f"and a network that begins as it has its shape; leave one of them out"
            )
    labels = options.labels
    if pretrained.normalised and not labels.normalise:
        raise InputError(
            f"--no-normalise: {pretrained.name} has learnt from normalised slices; leave it out"
        )
    if pretrained.normalised is not None:
        labels = replace(labels, normalise=pretrained.normalised)
    return replace(options, labels=labels, **there)


def _described(raw: Volume, in_time: bool) -> str:
    """Say what pictures were understood as."""
    many, (height, width) = counted(len(raw), "frame" if in_time else "slice"), raw.shape[-2:]
    channels = ""
    if raw.channels is not None and raw.channels > 1:
        channels = f", {raw.channels} channels, which are all learnt from (--channel takes one)"
    return f"{many} of {height} x {width}, {raw.dtype}{channels}"


def _diameter(summary: Summary, kind: str) -> float | None:
    """Return the mean diameter of the cells, in pixels."""
    if kind != "cells" or not summary.cells:
        return None
    return 2 * math.sqrt(summary.counts[1:].sum() / summary.cells / math.pi)


def source_of(stack: object) -> str | None:
    """Return where a stack lies, for the record; of an array that it is one."""
    if stack is None:
        return None
    return os.path.abspath(stack) if isinstance(stack, (str, os.PathLike)) else "array"
