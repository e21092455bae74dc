"""What is wrong with a training, and what to do: each fault is measured, and said with its number.

From the curves: a held-out loss that rises while the training loss falls, one that still falls at
the end. From the held-out slices: labels that lie elsewhere than their picture, classes that are
exchanged, a picture in which there is little to see, a result that says the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize

from unet.errors import counted, few
from unet.report.alignment import align
from unet.report.plots import smoothed
from unet.report.run_files import UNKNOWN, HeldOutSlice, Stage

#: What a check can come to.
FINE, FAULT, HINT = "fine", "fault", "hint"

#: Every fault that is looked for, and what it is if it is not there.
FAULTS = {
    "overfitting": "It does not overfit",
    "ended early": "It was trained to its end",
    "nothing learnt": "It has learnt",
    "classes swapped": "The classes have their names",
    "labels shifted": "The labels lie on the picture",
    "too little contrast": "There is enough to see",
}

# Tests from which on a curve says something.
_FEWEST_TESTS = 5
# So much above its lowest a held-out loss is overfitting, and so many times its own jitter.
_RISE, _RISE_JITTERS = 0.05, 4.0
# Of its whole fall, what a held-out loss may still fall in the last quarter.
_STILL_FALLING = 0.1
# With fewer iterations nothing here was learnt to its end.
_FEW_ITERATIONS = 1000
# Labels that lie so many pixels elsewhere are a fault; people draw a pixel beside.
_SHIFT = 2.0
# So many of its standard deviations the correlation must be above what chance gives, and elsewhere
# above where the labels lie: a frame with a few cells whose annotator was generous wins one.
_ABOVE_CHANCE, _BETTER_ELSEWHERE = 6.0, 1.5
# What labels as they are may have of the correlation that they have turned.
_BETTER_TURNED = 0.6
# Mean share of each class that is found: what exchanging classes must win.
_EXCHANGE_WINS = 0.2
# Membranes are thin: more of a picture than this they are not.
_MOST_MEMBRANE = 0.5
# What chance gives, and so much more: below that nothing was learnt.
_LEARNT = 0.15
# Structure over noise, both after smoothing by this width, below which it is hard to see anything.
_LEAST_CONTRAST, _SEEN_SIGMA, _FLATTENED_SIGMA = 2.0, 2.0, 24.0
_FEWEST_LEVELS = 12
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64)
# Of larger slices the middle tells as much.
_LOOKED_AT = 1024


class Check(NamedTuple):
    """A fault that was looked for.

    Attributes
    ----------
    name : str
        Of the fault, one of `FAULTS`.
    state : {"fine", "fault", "hint"}
    found : str
        What was measured, a sentence with its number.
    remedy : str
        What to do; empty if all is well.
    """

    name: str
    state: str
    found: str
    remedy: str = ""

    @property
    def fine(self) -> str:
        """What to say if the fault is not there."""
        return FAULTS[self.name]


def diagnose_curves(stages: Sequence[Stage]) -> list[Check]:
    """Check the curves of a training, as far as they go.

    Returns
    -------
    list of Check
        On overfitting, of each stage that has enough tests, and on an end that came too early.
    """
    checks = [check for stage in stages for check in _overfitting(stage)]
    if stages:
        checks += _unfinished(stages)
    return checks


def diagnose_slices(kind: str, slices: Sequence[HeldOutSlice]) -> list[Check]:
    """Check pictures, truth and results of held-out slices.

    Parameters
    ----------
    kind : {"membranes", "cells", "classes"}
    slices : sequence of HeldOutSlice

    Returns
    -------
    list of Check
        Where nothing of the slices is annotated, only on contrast.
    """
    slices = [_middle(one) for one in slices]
    known = [one for one in slices if (one.truth != UNKNOWN).any()]
    checks = [*_learnt(kind, known), *_exchanged(kind, known), *_shifted(kind, known)]
    return [*checks, *_contrast(slices)]


def diagnose_labels(kind: str, slices: Sequence[HeldOutSlice]) -> list[Check]:
    """Check how labels lie on their pictures, of which no result is looked at.

    Parameters
    ----------
    kind : {"membranes", "cells", "classes"}
    slices : sequence of HeldOutSlice

    Returns
    -------
    list of Check
        None where nothing can be told.
    """
    known = [_middle(one) for one in slices if (one.truth != UNKNOWN).any()]
    return _shifted(kind, known)


def _middle(one: HeldOutSlice) -> HeldOutSlice:
    height, width = one.truth.shape
    top, left = max(0, height - _LOOKED_AT) // 2, max(0, width - _LOOKED_AT) // 2
    part = (slice(top, top + _LOOKED_AT), slice(left, left + _LOOKED_AT))
    return HeldOutSlice(
        one.place, one.name, one.raw[(slice(None), *part)], one.truth[part], one.result[part]
    )


def _tests(stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and held-out losses of a stage: float64 (n,) each."""
    found = [
        (row["iteration"], row["test_loss"])
        for row in stage.rows
        if math.isfinite(row.get("test_loss", math.nan))
    ]
    iterations, losses = np.array(found, np.float64).reshape(-1, 2).T
    return iterations, losses


def _overfitting(stage: Stage) -> list[Check]:
    iterations, losses = _tests(stage)
    training = [
        (row["iteration"], row["loss"])
        for row in stage.rows
        if math.isfinite(row.get("loss", math.nan))
    ]
    if len(losses) < _FEWEST_TESTS or not training:
        return []
    at, loss = np.array(training).T
    # Single tests are jittery: three together are one.
    even = np.convolve(losses, np.full(3, 1 / 3), "valid")
    lowest = int(even.argmin())
    best, last = float(even[lowest]), float(even[-1])
    jitter = float(np.median(np.abs(np.diff(losses, 2)))) / 0.6745 / math.sqrt(6)
    mean = smoothed(loss, max(1, len(loss) // 10))
    then = float(mean[np.searchsorted(at, iterations[lowest + 1]).clip(max=len(mean) - 1)])
    now = float(mean[-1])
    rise = last / best - 1 if best > 0 else 0.0
    where = f"stage {stage.number}: "
    measured = (
        f"the held-out loss was lowest, {best:.3g}, at iteration {iterations[lowest + 1]:,.0f} and"
        f" is {last:.3g} now"
    )
    rises = rise > _RISE and last - best > _RISE_JITTERS * jitter / math.sqrt(3)
    if rises and now < then:
        return [
            Check(
                "overfitting",
                FAULT,
                f"{where}{measured}, {rise:.0%} more, while the training loss fell from {then:.3g}"
                f" to {now:.3g}.",
                "The network learns its training slices by heart. Annotate more slices, from other"
                " parts of the stack; or end earlier, with --iterations"
                f" {iterations[lowest + 1]:.0f}; or take a smaller network.",
            )
        ]
    return [Check("overfitting", FINE, f"{where}{measured}.")]


def _unfinished(stages: Sequence[Stage]) -> list[Check]:
    """Whether more time would have helped: of a training that has come to its end."""
    last = stages[-1]
    if not last.done or any(stage.done < stage.iterations for stage in stages):
        return []
    done = sum(stage.done for stage in stages)
    longer = "Train longer: give more --minutes or --iterations."
    if done < _FEW_ITERATIONS:
        found = (
            f"it was trained with {counted(done, 'iteration')}, and errors fall for some thousands."
        )
        return [Check("ended early", HINT, found, longer)]
    losses = _tests(last)[1]
    if len(losses) < 2 * _FEWEST_TESTS:
        return []
    quarter = max(2, len(losses) // 4)
    start = float(np.mean(losses[:2]))
    before = float(np.mean(losses[-2 * quarter : -quarter]))
    end = float(np.mean(losses[-quarter:]))
    share = (before - end) / (start - end) if start > end else 0.0
    measured = (
        f"of all that the held-out loss fell in stage {last.number}, {max(0.0, share):.0%} came"
        " with the last quarter"
    )
    if share > _STILL_FALLING:
        found = f"{measured}: it was still falling at the end."
        return [Check("ended early", HINT, found, longer)]
    return [Check("ended early", FINE, f"{measured}.")]


def _classes(kind: str, one: HeldOutSlice) -> tuple[np.ndarray, np.ndarray]:
    """True classes and those found, of the pixels that are annotated: int (n,) each."""
    known = one.truth != UNKNOWN
    truth, result = one.truth[known], one.result[known]
    if kind == "classes":
        return truth, result
    return (truth > 0).astype(np.int32), (result > 0).astype(np.int32)


def _named(kind: str, number: int) -> str:
    names = {"membranes": ("membrane", "inside of cells"), "cells": ("background", "cells")}
    return names[kind][number] if kind in names else f"class {number}"


def _recalls(kind: str, slices: Sequence[HeldOutSlice], count: int) -> np.ndarray:
    """Share of each true class that was found as each class, in all slices: (classes, classes).

    NaN in the rows of classes that do not occur.
    """
    table = np.zeros((count, count))
    for one in slices:
        truth, result = _classes(kind, one)
        pairs = truth.astype(np.int64) * count + result
        table += np.bincount(pairs, minlength=count**2).reshape(count, count)
    with np.errstate(invalid="ignore"):
        return table / table.sum(axis=1, keepdims=True)


def _count(kind: str, slices: Sequence[HeldOutSlice]) -> int:
    if kind != "classes":
        return 2
    return 1 + max(int(max(one.truth.max(), one.result.max())) for one in slices)


def _learnt(kind: str, slices: Sequence[HeldOutSlice]) -> list[Check]:
    if not slices:
        return []
    recalls = _recalls(kind, slices, _count(kind, slices))
    found = np.diagonal(recalls)
    found = found[~np.isnan(found)]
    if len(found) < 2:
        return []
    mean, chance = float(found.mean()), 1 / len(found)
    measured = (
        f"of each class {mean:.0%} of the pixels were found, on average; who says one class"
        f" everywhere finds {chance:.0%}"
    )
    # Far below chance it knows well, under other names.
    if abs(mean - chance) < _LEARNT * (1 - chance):
        return [
            Check(
                "nothing learnt",
                FAULT,
                f"{measured}.",
                "Look at the labels above: are they what was meant, and on this picture? If they"
                " are, train longer, and with a lower rate if the training loss does not fall.",
            )
        ]
    return [Check("nothing learnt", FINE, f"{measured}.")]


def _exchanged(kind: str, slices: Sequence[HeldOutSlice]) -> list[Check]:
    """Classes under each other's names, in all slices or in some; membranes that are no lines."""
    if not slices:
        return []
    count = _count(kind, slices)
    swapped: dict[tuple[int, ...], list[str]] = {}
    gains = []
    for one in slices:
        recalls = _recalls(kind, [one], count)
        occurs = np.flatnonzero(~np.isnan(recalls[:, 0]))
        if len(occurs) < 2:
            continue
        block = recalls[np.ix_(occurs, occurs)]
        rows, columns = optimize.linear_sum_assignment(-block)
        as_named, exchanged = np.diagonal(block).mean(), block[rows, columns].mean()
        if (rows == columns).all():
            # The names are the best ones: what the next best pair would give.
            right = np.diagonal(block)
            lost = right[:, np.newaxis] + right - block - block.T + 2 * np.eye(len(block))
            exchanged = as_named - lost.min() / len(block)
        gains.append((as_named, exchanged))
        if exchanged - as_named > _EXCHANGE_WINS:
            moved = tuple(int(k) for k in occurs[rows != columns])
            swapped.setdefault(moved, []).append(one.name)
    if not gains:
        return []
    as_named, exchanged = np.mean(gains, axis=0)
    if not swapped:
        if kind == "membranes":
            share = float(np.mean(np.concatenate([_classes(kind, one)[0] == 0 for one in slices])))
            if share > _MOST_MEMBRANE:
                return [
                    Check(
                        "classes swapped",
                        FAULT,
                        f"what the labels call membrane covers {share:.0%} of the held-out slices.",
                        "Membranes are thin lines: cells and membranes are exchanged in the labels."
                        " Invert them, and train again.",
                    )
                ]
        return [
            Check(
                "classes swapped",
                FINE,
                f"of each class {as_named:.0%} of the pixels were found under its own name;"
                f" exchanging names would give {exchanged:.0%}.",
            )
        ]
    moved, names = max(swapped.items(), key=lambda item: len(item[1]))
    which = " and ".join(_named(kind, k) for k in moved)
    where = "all held-out slices" if len(names) == len(slices) else few(names)
    return [
        Check(
            "classes swapped",
            FAULT,
            f"in {where}, {which} are found under each other's names: of each class"
            f" {as_named:.0%} of the pixels are right, and {exchanged:.0%} would be with the names"
            " exchanged.",
            "The labels of these slices say something else than those of the others: exchange the"
            " classes there, and train again.",
        )
    ]


def _shifted(kind: str, slices: Sequence[HeldOutSlice]) -> list[Check]:
    shapes = [one.truth.shape for one in slices]
    # Four slices tell; of one size, which those of a stack are.
    slices = [one for one in slices if one.truth.shape == shapes[0]][:4]
    found = align(kind, slices) if slices else None
    if found is None:
        return []
    chance = _ABOVE_CHANCE * found.noise
    distance = math.hypot(found.rows, found.columns)
    if found.fit_turned > chance and found.fit < _BETTER_TURNED * found.fit_turned:
        return [
            Check(
                "labels shifted",
                FAULT,
                f"the borders in the labels fit the edges in the picture {found.turn}, with a"
                f" correlation of {found.fit_turned:.2f}; as they lie it is"
                f" {found.fit_in_place:.2f}.",
                "Turn the labels so that they lie on the picture, and train again.",
            )
        ]
    if found.fit <= chance:
        return [
            Check(
                "labels shifted",
                HINT,
                "the borders in the labels fit the edges in the picture nowhere: the best"
                f" correlation is {found.fit:.3f}, and chance gives up to {chance:.3f}.",
                "Compare raw and truth under the slider: labels of other slices, or a picture in"
                " which the borders cannot be seen, look like this.",
            )
        ]
    better = found.fit - found.fit_in_place
    if distance >= _SHIFT and better > _BETTER_ELSEWHERE * found.noise:
        ways = [
            f"{abs(by):.0f} pixels {way[by > 0]}"
            for by, way in ((found.rows, ("up", "down")), (found.columns, ("left", "right")))
            if by
        ]
        return [
            Check(
                "labels shifted",
                FAULT,
                f"the labels fit the picture best {' and '.join(ways)} of where they lie: the"
                f" correlation of their borders with its edges is {found.fit:.2f} there and"
                f" {found.fit_in_place:.2f} here.",
                f"Move the labels {' and '.join(ways)}, and train again.",
            )
        ]
    return [
        Check(
            "labels shifted",
            FINE,
            "the borders in the labels fit the edges in the picture best where they lie, within"
            f" {max(1.0, distance):.0f} pixel{'s' if distance >= 1.5 else ''} (correlation"
            f" {found.fit:.2f}).",
        )
    ]


def contrast(raw: np.ndarray) -> float:
    """Return how much stronger the structure of a picture is than its noise.

    Parameters
    ----------
    raw : ndarray, shape (height, width)

    Returns
    -------
    float
        Standard deviation of the structure over that of the noise, both as they are after smoothing
        by two pixels; brightness that changes slowly is no structure. Infinite without noise.

    References
    ----------
    Immerkær, Fast noise variance estimation, Computer Vision and Image Understanding 64, 1996.
    """
    raw = raw.astype(np.float64)
    noise = math.sqrt(math.pi / 2) / 6 * np.abs(ndimage.convolve(raw, _LAPLACIAN)).mean()
    seen = ndimage.gaussian_filter(raw, _SEEN_SIGMA) - ndimage.gaussian_filter(
        raw, _FLATTENED_SIGMA
    )
    # White noise is left with this variance by a Gaussian.
    left = noise**2 / (4 * math.pi * _SEEN_SIGMA**2)
    structure = max(0.0, float(seen.var()) - left)
    return math.sqrt(structure / left) if left > 0 else (math.inf if structure else 0.0)


def _contrast(slices: Sequence[HeldOutSlice]) -> list[Check]:
    if not slices:
        return []
    # Of several channels the clearest one counts.
    values = [max(contrast(channel) for channel in one.raw) for one in slices]
    ratio = float(np.median(values))
    levels = max(_levels(one.raw) for one in slices)
    measured = (
        f"structures of some pixels are {ratio:.1f} times as strong as the noise"
        if math.isfinite(ratio)
        else "the picture has no noise"
    )
    if ratio < _LEAST_CONTRAST:
        return [
            Check(
                "too little contrast",
                FAULT,
                f"{measured}; below {_LEAST_CONTRAST:.0f} borders drown in it.",
                "Image with longer exposure or more averaging, or take the mean of neighbouring"
                " frames, if what is sought does not move between them.",
            )
        ]
    if levels < _FEWEST_LEVELS:
        return [
            Check(
                "too little contrast",
                FAULT,
                f"98 % of the pixels share {levels} grey values.",
                "The picture was stored too coarsely: export it again from the microscope's own"
                " file, with 16 bits or with its range of intensity stretched over all 256 values.",
            )
        ]
    return [
        Check("too little contrast", FINE, f"{measured}; from {_LEAST_CONTRAST:.0f} on is well.")
    ]


def _levels(raw: np.ndarray) -> int:
    """Count the grey values between the first and the last percentile, of the richest channel."""
    counts = []
    for channel in raw:
        low, high = np.percentile(channel, [1, 99])
        counts.append(len(np.unique(channel[(channel >= low) & (channel <= high)])))
    return max(counts)
