"""Which maps and tile, and how many iterations, fit into memory and time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Callable, NamedTuple

from unet.experiment import choice
from unet.experiment.budget import SCORING, Pace, fitting, for_training, measure
from unet.experiment.choice import Chosen
from unet.experiment.folder import NET, RunFolder
from unet.experiment.network_files import (
    Schedule,
    Shape,
    Stage,
    geometry_of,
    solver_name,
    write_network,
)
from unet.experiment.options import ExperimentOptions
from unet.experiment.split import Split
from unet.machine.memory import is_short_of_memory, pass_memory
from unet.model.adapt import Pretrained
from unet.network.geometry import Geometry

# Passes for each tile that is judged: four orientations.
_ORIENTATIONS = 4
# Of the time, what tests in all may take, and how many there are at most in a stage.
_TESTING, _TESTS = 0.05, 8
# Seconds, about, between snapshots: what a kill may cost. By iterations where no time is known.
_SNAPSHOT_SECONDS, _SNAPSHOT_ITERATIONS = 60.0, 500
_GB = 2.0**30


class Fit(NamedTuple):
    """A network with what fits into the budget.

    Attributes
    ----------
    maps, tile, iterations : Chosen
    pace : Pace, optional
        None where iterations are given, and nothing was measured.
    judging : float
        Seconds that one judgement of what is held out takes, about.
    judgements : int
        How many networks are judged, where there are two stages.
    schedule : Schedule
    """

    maps: Chosen
    tile: Chosen
    iterations: Chosen
    pace: Pace | None
    judging: float
    judgements: int
    schedule: Schedule


class Fitting:
    """Fit a network into memory and time.

    Parameters
    ----------
    caffe : module
    folder : RunFolder
        With the training set.
    parts : Split
    size : tuple of int
        (height, width) of the slices.
    options : ExperimentOptions
    kind : {"membranes", "cells", "classes"}
        What is scored.
    levels : int
    pretrained : Pretrained, optional
        What it begins as, of the levels and maps that are asked for.
    is_judged : bool
        Whether that is judged before it learns.
    minutes : float, optional
        For the run in all, since `began`; None: as long as it takes.
    began : float
        By `time.monotonic`.
    say : callable
        Tells a person.
    """

    def __init__(
        self,
        caffe: ModuleType,
        folder: RunFolder,
        parts: Split,
        size: tuple[int, int],
        options: ExperimentOptions,
        kind: str,
        levels: int,
        pretrained: Pretrained | None,
        is_judged: bool,
        minutes: float | None,
        began: float,
        say: Callable[[str], None],
    ) -> None:
        self._caffe, self._folder, self._parts, self._size = caffe, folder, parts, size
        self._options, self._kind, self._levels, self._minutes = options, kind, levels, minutes
        self._pretrained, self._is_judged = pretrained, is_judged
        self._began, self._say = began, say
        self._schedule = Schedule(options.solver or "Adam", options.seed)

    def fit(self) -> Fit:
        """Choose maps, tile and iterations; where the budget is a time, by measured steps."""
        asked = self._options.maps
        widths = choice.widths(asked)
        if self._minutes is None:
            tile = self._in_memory(widths[0])
            reason = "asked for" if asked else "the fewest, for no time is said"
            iterations = Chosen(self._options.iterations, "asked for")
            every = min(_SNAPSHOT_ITERATIONS, max(1, iterations.value // 4))
            schedule = replace(self._schedule, snapshot_every=every)
            many = choice.judgements(None, 0.0)
            return Fit(Chosen(widths[0], reason), tile, iterations, None, 0.0, many, schedule)
        best: Fit | None = None
        for maps in widths:
            if best is not None and not self._may_be_wider(best, maps):
                break
            fit = self._measured(maps)
            if best is not None and fit.iterations.value < choice.ENOUGH_FOR_WIDER:
                break
            best = fit
        reason = f"of more there were no {choice.ENOUGH_FOR_WIDER:,} steps in this time"
        if best.maps.value == widths[-1]:
            reason = "the paper's"
        return best._replace(maps=Chosen(best.maps.value, "asked for" if asked else reason))

    def write(self, shape: Shape, stages: Sequence[Stage], schedule: Schedule) -> int:
        """Write the network; return how many parameters it has."""
        given = (self._folder, self._parts, shape, stages, schedule)
        return write_network(self._caffe, *given).parameters

    def _may_be_wider(self, narrow: Fit, maps: int) -> bool:
        """Tell whether it is worth measuring a network of more maps: it is slower, as by maps."""
        slower = narrow.pace.iteration * maps / narrow.maps.value
        pace = Pace(slower, narrow.pace.test_pass)
        return self._iterations(pace, narrow.judging)[0] >= choice.ENOUGH_FOR_WIDER

    def _shape(self, maps: int, tile: int) -> Shape:
        return Shape(self._levels, maps, self._options.padded, tile, self._pretrained)

    @property
    def _geometry(self) -> Geometry:
        return geometry_of(self._levels, self._options.padded, self._pretrained)

    def _in_memory(self, maps: int, most: int | None = None, why: str = "") -> Chosen:
        """Return a tile that fits into memory, at most `most`, with which the network is written.

        Raises
        ------
        MemoryError
            If none does.
        """
        asked = self._options.tile
        tile = choice.choose_tile(self._geometry, maps, self._size)
        if asked is not None:
            tile = Chosen(asked, "asked for")
        if most is not None:
            tile = Chosen(most, why)
        rate = choice.rate_of(self._schedule.method, maps)
        while True:
            given = (self._shape(maps, tile.value), choice.stages(1000, rate, w0=1.0))
            written = write_network(self._caffe, self._folder, self._parts, *given, self._schedule)
            free = pass_memory(self._options.device)
            if written.memory <= free:
                return tile
            why = (
                f"larger ones, from {tile.value} on, do not fit into memory: they take "
                f"{written.memory / _GB:.1f} GB, and {free / _GB:.1f} are free"
            )
            tile = Chosen(self._smaller(tile.value, why), why)

    def _smaller(self, tile: int, why: str) -> int:
        smaller = choice.smaller_tile(self._geometry, tile)
        if smaller is None or self._options.tile is not None:
            raise MemoryError(f"tiles of {tile}: {why}; end other programs, or give fewer --maps")
        self._say(f"tiles of {smaller}: {why}")
        return smaller

    def _measured(self, maps: int) -> Fit:
        """Return what fits of a network of so many maps, by its own steps."""
        tile = self._in_memory(maps)
        while True:
            try:
                solver = self._folder / NET / solver_name(1)
                pace = measure(self._caffe, solver, self._folder.path, self._left / 10)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_short_of_memory(error):
                    raise
            why = f"those of {tile.value} do not fit into memory"
            tile = self._in_memory(maps, self._smaller(tile.value, why), why)
        shape, parts = self._shape(maps, tile.value), self._parts
        # A test goes over whole slices, also where a quadrant of each is held out and judged.
        judged = tuple(length // 2 for length in self._size) if parts.quadrants else self._size
        judging = _ORIENTATIONS * shape.passes(parts, judged) * pace.test_pass
        judging += SCORING[self._kind] * parts.many * math.prod(judged) / 1e6
        test = shape.passes(parts, self._size) * pace.test_pass
        many, tests = self._iterations(pace, judging, test)
        schedule = replace(
            self._schedule,
            tests=tests,
            snapshot_every=max(1, round(_SNAPSHOT_SECONDS / pace.iteration)),
        )
        why = f"{self._minutes:g} minutes in all, {pace.iteration:.2g} s a step"
        judgements = choice.judgements(60 * self._minutes, judging)
        iterations = Chosen(many, why)
        return Fit(Chosen(maps, ""), tile, iterations, pace, judging, judgements, schedule)

    @property
    def _left(self) -> float:
        return 60 * self._minutes - (time.monotonic() - self._began)

    def _iterations(self, pace: Pace, judging: float, test: float = 0.0) -> tuple[int, int]:
        """Return how many iterations fit into what is left of the time, and tests in a stage."""
        judging *= choice.judgements(60 * self._minutes, judging) + self._is_judged
        left = for_training(self._left, judging)
        # One at the end of each stage in any case.
        tests = max(1, min(_TESTS, int(_TESTING * left / test) if test else _TESTS))
        return fitting(pace, self._left, judging + (tests + 2) * test), tests
