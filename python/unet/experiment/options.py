"""What a run is asked for: its options, resolved and checked before anything is opened."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from unet.errors import InputError
from unet.files.names import PathLike
from unet.machine.engine import PRECISIONS
from unet.network.geometry import FEWEST_LEVELS, MOST_LEVELS
from unet.preparation.training_set_options import TrainingSetOptions
from unet.training.averaging import check_share

#: Maps after the first convolution that a network may be given; 64 are the paper's.
FEWEST_MAPS, MOST_MAPS = 16, 64
SOLVERS = ("SGD", "Adam")
#: Of each stage there is the network at its end, and the mean of those of its last part.
PLAIN, AVERAGED = "plain", "averaged"
KINDS = ("membranes", "cells", "classes")


@dataclass(frozen=True)
class ExperimentOptions:
    """How a run is made; None: chosen by the slices, the device and the budget.

    Attributes
    ----------
    minutes : float, optional
        For the whole run; by default 20 on CPUs and 60 on GPUs.
    iterations : int, optional
        So many in all, however long they take.
    from_model : path, optional
        A trained network to begin as, as of `unet.load`: it gives levels, maps and padding.
    held_out : sequence of int, optional
        Slices, or frames, to hold out; none of them: the network learns from all.
    kind : {"membranes", "cells", "classes"}, optional
        What is scored; by default what the labels look like.
    levels, maps : int, optional
        Poolings, and maps after the first convolution.
    padded : bool
        Whether convolutions are padded.
    tile : int, optional
        Input size.
    solver : {"SGD", "Adam"}, optional
    rate : float, optional
        At the beginning.
    w0 : float
        Weight of the gaps between cells at the end of the training; 0: they have none.
    sigma : float
        Its reach in pixels.
    average : float
        The part of each stage's iterations, its last, over which parameters are averaged.
    seed : int
    device : str
        "auto", "cpu" or the number of a GPU.
    precision : {"fp32", "tf32", "bf16"}, optional
        By default bf16 where the hardware has it.
    labels : TrainingSetOptions
        How the labels are understood.
    """

    minutes: float | None = None
    iterations: int | None = None
    from_model: PathLike | None = None
    held_out: Sequence[int] | None = None
    kind: str | None = None
    levels: int | None = None
    maps: int | None = None
    padded: bool = False
    tile: int | None = None
    solver: str | None = None
    rate: float | None = None
    w0: float = 10.0
    sigma: float = 5.0
    average: float = 0.25
    seed: int = 1
    device: str = "auto"
    precision: str | None = None
    labels: TrainingSetOptions = field(default_factory=TrainingSetOptions)

    @classmethod
    def of(cls, **given: Any) -> ExperimentOptions:
        """Take options by their names, those of `TrainingSetOptions` among them, and check them.

        Raises
        ------
        InputError
            If one is unknown, or none that can be asked for.
        """
        own = {one.name for one in fields(cls)} - {"labels"}
        of_labels = {one.name for one in fields(TrainingSetOptions)}
        of_labels -= {*own, "balance", "balance_slices", "balance_frames"}
        unknown = sorted(set(given) - own - of_labels)
        if unknown:
            raise InputError(f"there is no option {unknown[0]!r} of a training from a stack")
        # Slices differ in brightness and contrast more often than not.
        labels = {"normalise": True, **{name: given[name] for name in of_labels & set(given)}}
        options = cls(
            **{name: given[name] for name in own & set(given)},
            labels=TrainingSetOptions(**labels),
        )
        options._check()
        return options

    def _check(self) -> None:
        for name, low, high in (
            ("minutes", 0, math.inf),
            ("iterations", 1, 2**31 - 1),
            ("levels", FEWEST_LEVELS, MOST_LEVELS),
            ("maps", FEWEST_MAPS, MOST_MAPS),
            ("tile", 1, 2**15),
            ("rate", 0, math.inf),
            ("w0", 0, math.inf),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                upto = "" if high == math.inf else f" to {high}"
                raise InputError(f"--{name} {value}: give a number from {low}{upto}")
        if self.minutes is not None and self.iterations is not None:
            raise InputError("--minutes and --iterations both say how long: give one of them")
        if self.minutes == 0 or self.minutes == math.inf:
            raise InputError(f"--minutes {self.minutes}: give more than 0, and an end")
        if self.rate == 0:
            raise InputError("--rate 0: nothing is learnt so; give more than 0")
        check_share(self.average)
        if not self.sigma > 0:
            raise InputError(f"--sigma {self.sigma}: give pixels, more than 0")
        for name, value, known in (
            ("solver", self.solver, SOLVERS),
            ("kind", self.kind, KINDS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value is not None and value not in known:
                raise InputError(f"--{name} {value}: give {', '.join(known)}")

    def as_json(self) -> dict[str, Any]:
        """Return all options that are not the usual ones, by which a run is known again."""
        usual = asdict(ExperimentOptions.of())
        return {name: _told(value) for name, value in asdict(self).items() if value != usual[name]}


def flag_of(name: str) -> str:
    """Return an option's flag of the command line.

    >>> flag_of("held_out"), flag_of("from_model")
    ('--held-out', '--from')
    """
    return "--from" if name == "from_model" else f"--{name.replace('_', '-')}"


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _told(one) for name, one in value.items()}
    if isinstance(value, (range, slice)):
        return f"{value.start}:{value.stop}"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, (list, tuple)) else value
