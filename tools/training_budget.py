"""How many training steps fit into a time budget: a few are tried, the plan is made of those."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from steps import Run, Step
from unet.files.atomic import atomic_path
from unet.training.history import CSV_NAME, read_history

# Training steps that are tried, and how many of them only warm up.
TRIED, WARM = 10, 2
# What comes after the training takes up to three times as long as a training's program without its
# steps: it starts, tests, draws. Once more for the training's own.
_REST = 1 + 3
# Of the time for steps, what is planned with; the rest is for a machine that becomes slower.
_PLANNED = 0.9


@dataclass(frozen=True)
class Plan:
    """How long is trained; None seconds: as long as the iterations take."""

    iterations: int
    seconds: float | None = None


def plan(step: float, rest: float, left: float, least: int, most: int) -> Plan:
    """Fit training steps into a time, all in seconds.

    A step takes `step`, the training's program `rest` beside its steps; in the time that is `left`
    all is to be done, the training and what comes after it. Below `least` steps the result means
    nothing; `most` are enough.
    """
    seconds = max(0.0, left - _REST * rest)
    fit = int(_PLANNED * seconds / step)
    if fit < least:
        return Plan(least)
    return Plan(min(fit, most), round(seconds, 1))


def tried_steps(tried: Path, warm: int) -> tuple[float, float]:
    """Return what a step takes in a folder of a training, and all of them: seconds.

    The first `warm` are slower. The folder is removed.
    """
    ends = [row["seconds"] for row in read_history(tried / CSV_NAME) if "loss" in row]
    shutil.rmtree(tried)
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm), ends[-1]


def measure(run: Run, trial: Step, folder: Path, budget: float, least: int, most: int) -> Plan:
    """Try a few training steps, and say how many fit into the time that is left.

    The trial is a training of `TRIED` steps into a folder, which is removed. The `budget`, in
    seconds, is for the whole way since the run began. Asked again for the same trial and budget,
    the same plan is given (plan.json in `folder`), so that nothing is trained anew.
    """
    file, (tried,) = folder / "plan.json", trial.outputs
    trial.outputs = [file]
    if run.is_done(trial, trial.fingerprint()):
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
    run.run(trial)
    took = time.monotonic() - began
    step, trained = tried_steps(tried, WARM)
    rest = took - trained
    left = budget - (time.monotonic() - run.began)
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
