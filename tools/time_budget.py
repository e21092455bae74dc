"""How many training steps fit into the time that a demonstration has, on the machine at hand."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from steps import Pipeline, Step
from unet.files.atomic import atomic_path
from unet.training.history import CSV_NAME, read_history

# Steps that are tried, and how many of them only warm up.
TRIED, WARM = 10, 2
# What comes after the training takes up to three times as long as a training's program without its
# steps: it starts, tests, draws. Once more for the training's own.
_REST = 1 + 3
# Of the time for steps, what is planned with; the rest is for a machine that becomes slower.
_PLANNED = 0.9


@dataclass(frozen=True)
class Plan:
    """How long is trained.

    Attributes
    ----------
    iterations : int
    seconds : float or None
        What they may take; None: as long as they do.
    """

    iterations: int
    seconds: float | None


def plan(step: float, rest: float, left: float, least: int, most: int) -> Plan:
    """Fit steps into a time.

    Parameters
    ----------
    step : float
        Seconds of one.
    rest : float
        Seconds that the training's program takes beside its steps.
    left : float
        Seconds until all is to be done, the training and what comes after it.
    least, most : int
        Steps below which the result means nothing, and that are enough.
    """
    seconds = max(0.0, left - _REST * rest)
    fit = int(_PLANNED * seconds / step)
    if fit < least:
        return Plan(least, None)
    return Plan(min(fit, most), round(seconds, 1))


def measure(
    pipeline: Pipeline,
    solver: Path,
    inputs: Sequence[Path],
    folder: Path,
    device: str,
    budget: float,
    least: int,
    most: int,
) -> Plan:
    """Try a few training steps, and say how many fit into the time that is left.

    Asked again for the same inputs and budget, the same plan is given, so that nothing is trained
    anew.

    Parameters
    ----------
    pipeline : Pipeline
        Since whose beginning the time counts.
    solver : Path
    inputs : sequence of Path
        What the training depends on, the solver among it.
    folder : Path
        Gets plan.json.
    device : str
    budget : float
        Seconds, for the whole way.
    least, most : int
        As for `plan`.
    """
    file, tried = folder / "plan.json", folder / "tried"
    trial = Step(
        f"try {TRIED} steps, to see how long one takes",
        ["tools/train.py", str(solver), "--iterations", str(TRIED), "--device", device]
        + ["-o", str(tried)],
        list(inputs),
        [file],
    )
    if pipeline.is_done(trial, trial.fingerprint()):
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            if known.pop("budget") == budget:
                return Plan(**known)
        except (ValueError, TypeError, KeyError):
            # A damaged file costs a trial.
            pass
    file.unlink(missing_ok=True)
    shutil.rmtree(tried, ignore_errors=True)
    began = time.monotonic()
    pipeline.run(trial)
    took = time.monotonic() - began
    ends = [row["seconds"] for row in read_history(tried / CSV_NAME) if "loss" in row]
    shutil.rmtree(tried)
    step = (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)
    rest = took - ends[-1]
    left = budget - (time.monotonic() - pipeline.began)
    chosen = plan(step, rest, left, least, most)
    needed = budget - left + chosen.iterations * step + _REST * rest
    print(f"A step takes {step:.2f} s here: ", end="")
    if chosen.seconds is None:
        print(
            f"even {least} steps, below which the result means nothing, and what comes with them "
            f"will take about {needed / 60:.0f} minutes in all, not {budget / 60:.3g}."
        )
    elif chosen.iterations < most:
        print(f"{chosen.iterations} steps, of {most}, fit into {budget / 60:.3g} minutes in all.")
    else:
        print(f"all {most} steps fit, about {needed:.0f} s in all.")
    with atomic_path(file) as path:
        path.write_text(json.dumps({**asdict(chosen), "budget": budget}), encoding="utf-8")
    return chosen
