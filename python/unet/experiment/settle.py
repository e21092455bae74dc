"""What a run is, settled before it trains: training set, network, iterations; and told in words."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from types import ModuleType
from typing import Any, Callable, NamedTuple

from unet.experiment import choice
from unet.experiment.budget import LEAST_ITERATIONS, Pace, fitting, measure
from unet.experiment.choice import Chosen
from unet.experiment.folder import LABELS_PICTURE, NET, TRAINING_SET, RunFolder
from unet.experiment.network_files import TESTS, Shape, solver_name, write_network
from unet.experiment.options import ExperimentOptions
from unet.experiment.split import split
from unet.experiment.truth import kind_of
from unet.network.nets import AUGMENTATION
from unet.preparation.prepare import Pair, make_training_set, with_preview
from unet.preparation.summary import Summary

# What a held-out slice costs beside its passes: scores, in seconds for a million pixels.
_SCORING = 20.0
# Passes for each tile that is judged: four orientations.
_ORIENTATIONS = 4


class _Fit(NamedTuple):
    """A network with what fits into the budget; without a pace where iterations are given."""

    maps: Chosen
    tile: Chosen
    iterations: Chosen
    pace: Pace | None


class Settling:
    """How a run is settled; `began` is when it began, by `time.monotonic`, `say` tells a person."""

    def __init__(
        self,
        caffe: ModuleType,
        folder: RunFolder,
        pair: Pair,
        options: ExperimentOptions,
        in_time: bool,
        began: float,
        say: Callable[[str], None],
    ) -> None:
        self._caffe, self._folder, self._pair, self._options = caffe, folder, pair, options
        self._began, self._say = began, say
        self._size = pair.raw.shape[-2:]
        asked = options.held_out
        if asked is not None:
            place = {int(name): z for z, name in enumerate(pair.names)}
            asked = [place.get(name, -1) for name in asked]
        self._parts = split(pair.slices, self._size, in_time=in_time, held_out=asked)
        self._on_gpu = getattr(caffe, "get_mode", lambda: "cpu")() == "gpu"
        self._method = options.solver or "Adam"

    def choices(self) -> dict[str, Any]:
        """Make the training set, choose, write the network, and return what was chosen."""
        options, parts = self._options, self._parts
        summary = self._prepare()
        kind = options.kind or kind_of(summary)
        understood = f"{summary.kind}, {summary.understood}"
        self._say(f"labels: {understood}; scored as {kind}")
        for remark in summary.remarks:
            self._say(f"note: {remark}")
        w0 = self._w0(kind)
        minutes = None
        if options.iterations is None:
            usual = choice.MINUTES_GPU if self._on_gpu else choice.MINUTES_CPU
            minutes = options.minutes or usual
        levels = Chosen(options.levels, "asked for")
        if options.levels is None:
            levels = choice.choose_levels(self._size, _diameter(summary, kind))
        fit = self._fit(levels.value, minutes)
        shape = Shape(levels.value, fit.maps.value, options.padded, fit.tile.value)
        rate = options.rate or choice.rate_of(self._method, shape.maps)
        stages = choice.stages(fit.iterations.value, rate, w0)
        parameters = self._write(shape, stages)
        chosen = {
            "kind": kind,
            "label_kind": summary.kind,
            "classes": len(summary.counts),
            "understood": understood,
            "normalise": options.labels.normalise,
            "split": parts.as_json(self._pair.names),
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
                "type": self._method,
                "stages": [
                    {
                        "iterations": one.iterations,
                        "base_lr": one.base_lr,
                        "weighting": f"w0 {w0:g}, sigma {options.sigma:g}"
                        if one.weighted
                        else "none",
                    }
                    for one in stages
                ],
            },
            "augmentation": AUGMENTATION,
            "seed": options.seed,
            "minutes": minutes,
            "seconds_a_step": None if fit.pace is None else round(fit.pace.iteration, 4),
            "reasons": {
                "held out": "too few slices to do without a whole one"
                if parts.quadrants
                else "asked for"
                if options.held_out is not None
                else "spread through the stack",
                "levels": levels.reason,
                "maps": fit.maps.reason,
                "tile": fit.tile.reason,
                "solver": "asked for" if options.solver else "it gets further in as many steps",
                "iterations": fit.iterations.reason,
                "stages": "without weights a network learns faster; at the end the weight of the "
                "gaps closes those that are left",
            },
        }
        self._say(paragraph(chosen))
        if minutes is not None and fit.iterations.value < LEAST_ITERATIONS:
            self._say(
                f"only {fit.iterations.value} iterations fit into {minutes:g} minutes here, and "
                f"below {LEAST_ITERATIONS} the result means nothing: give more with --minutes"
            )
        return chosen

    def _w0(self, kind: str) -> float:
        return choice.usual_w0(kind) if self._options.w0 is None else self._options.w0

    def _prepare(self) -> Summary:
        """Make the training set: first the slices that are learnt from, then those held out."""
        pair, parts, options = self._pair, self._parts, self._options
        raw, labels, ignored = parts.arranged(pair.raw, pair.labels, pair.options.ignore_label)
        understood = replace(
            pair.options,
            ignore_label=ignored,
            w0=self._w0(options.kind or "membranes"),
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
        return with_preview(summary, labels, range(len(parts.order)), self._folder / LABELS_PICTURE)

    def _fit(self, levels: int, minutes: float | None) -> _Fit:
        """Choose maps, tile and iterations; where the budget is a time, by measured steps."""
        options = self._options
        if minutes is None:
            maps = choice.widths(options.maps)[0]
            reason = "asked for" if options.maps else "the fewest, as time is not said"
            tile, _ = self._measured(levels, maps, is_timed=False)
            return _Fit(Chosen(maps, reason), tile, Chosen(options.iterations, "asked for"), None)
        best: _Fit | None = None
        for maps in choice.widths(options.maps):
            if best is not None:
                # More maps take longer at least by as much.
                slower = best.pace.iteration * maps / best.maps.value
                shape = Shape(levels, maps, options.padded, best.tile.value)
                fit = self._fitting(Pace(slower, best.pace.test_pass), shape, minutes)
                if fit < choice.ENOUGH_FOR_WIDER:
                    break
            tile, pace = self._measured(levels, maps, is_timed=True)
            many = self._fitting(pace, Shape(levels, maps, options.padded, tile.value), minutes)
            if best is not None and many < choice.ENOUGH_FOR_WIDER:
                break
            reason = f"of more fewer than {choice.ENOUGH_FOR_WIDER} steps would fit"
            if maps == choice.MOST_MAPS:
                reason = "the paper's"
            best = _Fit(
                Chosen(maps, "asked for" if options.maps else reason),
                tile,
                Chosen(
                    many, f"a step takes {pace.iteration:.2g} s, for {minutes:g} minutes in all"
                ),
                pace,
            )
        return best

    def _measured(self, levels: int, maps: int, is_timed: bool) -> tuple[Chosen, Pace | None]:
        """Return the tile that fits into memory, and the pace with it."""
        padded, asked = self._options.padded, self._options.tile
        tile = choice.choose_tile(levels, maps, padded, self._size)
        if asked is not None:
            tile = Chosen(asked, "asked for")
        while True:
            rate = choice.rate_of(self._method, maps)
            self._write(Shape(levels, maps, padded, tile.value), choice.stages(1000, rate, w0=1.0))
            if not is_timed:
                return tile, None
            try:
                solver = self._folder / NET / solver_name(1)
                return tile, measure(self._caffe, solver, self._folder.path)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "memory" not in str(error):
                    raise
                smaller = choice.smaller_tile(levels, padded, tile.value)
                if smaller is None or asked is not None:
                    raise
            why = f"tiles of {tile.value} do not fit into memory"
            self._say(f"{why}; going on with {smaller}")
            tile = Chosen(smaller, why)

    def _fitting(self, pace: Pace, shape: Shape, minutes: float) -> int:
        """Return how many iterations fit into what is left of the time."""
        left = 60 * minutes - (time.monotonic() - self._began)
        passes = shape.passes(self._parts, self._size) * pace.test_pass
        pixels = self._parts.many * math.prod(self._size)
        judged = _ORIENTATIONS * passes + _SCORING * pixels / 1e6
        return fitting(pace, left, TESTS * passes + 2 * judged)

    def _write(self, shape: Shape, stages: list) -> int:
        given = (self._parts, shape, stages, self._method, self._options.seed)
        return write_network(self._caffe, self._folder, *given)


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


def paragraph(chosen: dict[str, Any]) -> str:
    """Tell what was chosen, and why, in a paragraph."""
    parts, net, solver, why = (chosen[key] for key in ("split", "net", "solver", "reasons"))
    numbers = [one["z"] if isinstance(one, dict) else one for one in parts["held_out"]]
    are_parts = any(isinstance(one, dict) for one in parts["held_out"])
    held = "Nothing is held out"
    if numbers:
        what = "A quadrant each of slices" if are_parts else "Held out: slices"
        held = f"{what} {', '.join(map(str, numbers))} ({why['held out']})"
    stages = solver["stages"]
    last = ""
    if len(stages) > 1:
        last = (
            f", the last {stages[1]['iterations']:,} of them with the weight of the gaps, "
            f"{stages[1]['weighting']}, at a rate of {stages[1]['base_lr']:g} ({why['stages']})"
        )
    return (
        f"Learns from {len(parts['train'])} slices. {held}. A U-Net of {net['levels']} levels "
        f"({why['levels']}) and {net['maps']} maps ({why['maps']}): {net['parameters']:,} "
        f"parameters. Tiles of {chosen['tile']} ({why['tile']}). {solver['type']} "
        f"({why['solver']}), rate {stages[0]['base_lr']:g}, "
        f"{sum(one['iterations'] for one in stages):,} iterations ({why['iterations']}){last}. "
        f"Seed {chosen['seed']}, {chosen['precision']} on the {chosen['device']}."
    )
