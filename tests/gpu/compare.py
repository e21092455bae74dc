"""What a device computes held against the CPU's float32: how far apart, and how far may be.

Differences are relative to the largest value of each array, and are held to TOLERANCE. Some arrays
cannot be held to it, whatever computes: sums that cancel, and gradients past a ReLU or a maximum
that the last digit switches. Which these are the CPU decides: where values that are changed by as
much as the precision rounds (NUDGE) move its own result further, the device may be off by
SENSITIVITY times as much, at its worst value or in the root of the mean square: which ReLU is
switched is chance. Counts of right answers change by whole items: they are held in float32 alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from tests.gpu.engine import Here
from tests.parity.harness import Arrays

Results = dict[str, Arrays]

TOLERANCE = {"fp32": 1e-4, "tf32": 2e-3, "bf16": 2e-2}
# A few units in the last place: what rounding adds up to over some layers.
NUDGE = {"fp32": 1e-6, "tf32": 2.0**-10, "bf16": 2.0**-8}
NUDGES = 6
SENSITIVITY = 4
# Below the first, and gradients below this part of a net's largest, are what rounding left.
LEAST = 1e-3
NOISE = 1e-6

_COUNTS = re.compile(r"accuracy|top-1")


@dataclass
class Row:
    """How a device compares in some cases.

    Attributes
    ----------
    suite, part, mode : str
    cases, arrays : int
        How many were compared.
    sensitive : int
        Arrays that are further off than the tolerance, as the CPU's own are.
    worst : float
        The largest difference of all others.
    where : str
        The case and array of it.
    mistakes : list of str
        Arrays that are too far off, the worst first.
    """

    suite: str
    part: str
    mode: str
    cases: int
    arrays: int
    sensitive: int
    worst: float
    where: str
    mistakes: list[str]


def compare(
    run: Callable[[Here], Results],
    device: str,
    mode: str,
    suite: str = "",
    part: str = "",
    truth: Results | None = None,
    held: str | None = None,
) -> Row:
    """Run cases on a device and in a mode, and compare with the CPU's float32.

    Parameters
    ----------
    run : callable
        Runs the cases on an engine.
    device : {"cpu", "gpu"}
    mode : {"fp32", "tf32", "bf16", "fp32 graphs"}
    suite, part : str
        What the row is called.
    truth : dict of case to arrays, optional
        What `run` gives on the CPU in float32, if it is known already.
    held : str, optional
        The precision whose tolerance they are held to, that of the mode by default.
    """
    truth = run(Here.on("cpu")) if truth is None else truth
    precision = held or mode.split()[0]
    got = run(Here.on(device, mode))
    row = Row(suite, part, mode, len(truth), 0, 0, 0.0, "", [])
    far: dict[tuple[str, str], float] = {}
    for case, wanted in truth.items():
        names = got.get(case, {}).keys() ^ wanted.keys()
        if names:
            row.mistakes.append(f"{case}: only one of both has {sorted(names)}")
            continue
        for name, value in wanted.items():
            if precision != "fp32" and _COUNTS.search(name):
                continue
            row.arrays += 1
            off = difference(got[case][name], value, _least(name, wanted))
            if off > TOLERANCE[precision]:
                far[case, name] = off
            elif off > row.worst:
                row.worst, row.where = off, f"{case} {name}"
    wrong = _beyond_sensitivity(run, truth, got, far, precision) if far else {}
    row.sensitive = len(far) - len(wrong)
    row.mistakes += [
        f"{' '.join(key)}: off by {off:.1e}, the CPU's own moves by {wrong[key]:.1e}"
        for key, off in sorted(far.items(), key=lambda pair: -pair[1])
        if key in wrong
    ]
    return row


def _beyond_sensitivity(
    run: Callable[[Here], Results],
    truth: Results,
    got: Results,
    far: dict[tuple[str, str], float],
    precision: str,
) -> dict[tuple[str, str], float]:
    """Return those that are further off than rounding moves them, and by how much it does."""
    moved = dict.fromkeys(far, (0.0, 0.0))
    for number in range(NUDGES):
        nudged = Here.on("cpu").nudged(NUDGE[precision], number)
        found = run(replace(nudged, only=frozenset(case for case, _ in moved)))
        for (case, name), before in list(moved.items()):
            wanted = truth[case][name]
            least = _least(name, truth[case])
            worst = max(before[0], difference(found[case][name], wanted, least))
            mean = max(before[1], mean_difference(found[case][name], wanted))
            moved[case, name] = worst, mean
            if far[case, name] <= SENSITIVITY * worst or (
                mean_difference(got[case][name], wanted) <= SENSITIVITY * mean
            ):
                del moved[case, name]
        if not moved:
            break
    return {key: worst for key, (worst, _) in moved.items()}


def _least(name: str, wanted: Arrays) -> float:
    """Return the value below which an array holds nothing but rounding.

    So are gradients that should be zero, as a bias's before a BatchNorm.
    """
    pass_, gradient, _ = name.rpartition("gradient ")
    if not gradient:
        return LEAST
    beginning = pass_ + gradient
    gradients = [values for key, values in wanted.items() if key.startswith(beginning)]
    largest = max(np.abs(values).max(initial=0.0) for values in gradients)
    noise = np.abs(wanted[name]).max(initial=0.0) < NOISE * largest
    return max(LEAST, float(largest)) if noise else LEAST


def difference(got: np.ndarray, wanted: np.ndarray, least: float = LEAST) -> float:
    """Return how far the worst value is off, as a fraction of the largest, or of `least`.

    It is inf for other shapes. What is no number has to be the same, and lie at the same places.
    """
    if got.shape != wanted.shape or got.dtype.kind != wanted.dtype.kind:
        return np.inf
    if wanted.dtype.kind not in "fiu":
        return 0.0 if np.array_equal(got, wanted) else np.inf
    finite = np.isfinite(wanted)
    if not finite.all():
        if not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
            return np.inf
        got, wanted = got[finite], wanted[finite]
    if not wanted.size:
        return 0.0
    off = float(np.abs(got - wanted).max())
    return off / max(float(np.abs(wanted).max()), least) if np.isfinite(off) else np.inf


def mean_difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """Return the root of the mean square of what values are off, as a fraction of theirs."""
    if got.shape != wanted.shape or not wanted.size or wanted.dtype.kind not in "fiu":
        return np.inf
    off = float(np.linalg.norm((got - wanted).ravel()))
    scale = max(float(np.linalg.norm(wanted.ravel())), LEAST)
    return off / scale if np.isfinite(off) else np.inf


def table(rows: Iterable[Row]) -> list[str]:
    """Return lines that show rows, those of one suite and mode together."""
    lines = [
        f"{'cases of':26s}{'in':>12s}{'cases':>7s}{'arrays':>8s}{'sensitive':>11s}{'worst':>9s}"
    ]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.suite, row.mode), []).append(row)
    for (suite, mode), group in sorted(groups.items()):
        worst = max(group, key=lambda row: row.worst)
        cases, arrays, sensitive, wrong = (
            sum(counts)
            for counts in zip(*((r.cases, r.arrays, r.sensitive, len(r.mistakes)) for r in group))
        )
        lines.append(
            f"{suite:26s}{mode:>12s}{cases:7d}{arrays:8d}{sensitive:11d}{worst.worst:9.1e}  "
            f"{f'{wrong} TOO FAR OFF' if wrong else worst.where}"
        )
    return lines
