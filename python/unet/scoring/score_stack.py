"""The scores of the ISBI 2012 EM segmentation challenge, as the challenge computed them.

Ground truth comes first, the proposal second: 1 = inside a cell, 0 = membrane. The proposal is used
as it is given, as float32 and unscaled; its cells are where it is *above* a threshold, and one
threshold holds for the whole stack. Slices are pictures of their own, cells are 4-connected.

References
----------
Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for
connectomics, Frontiers in Neuroanatomy 9, 2015.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from tqdm import tqdm

from unet.errors import InputError
from unet.machine.cores import run_tasks
from unet.preparation.labels import instances_from_binary
from unet.scoring.contingency_table import contingency_table, f_score, precision_recall
from unet.scoring.thinning import thin_membranes
from unet.scoring.warping import MISMATCH_TYPES, count_mismatches

# Repeated addition is part of the definition: the last is 0.9999999999999999, and 1 is above it.
THRESHOLDS = tuple(itertools.accumulate([0.0] + [0.1] * 10))
WARPING_THRESHOLDS = THRESHOLDS[:10]
# What `_measure_regions` counts of true cells alone: NaN in a slice without one.
_REGION_COUNTS = ("rand", "rand_pairs", "rand_thin", "info", "info_thin")


def _check(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as stacks (Z, Y, X), bool and float32, or say what is wrong with them."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.shape != probabilities.shape:
        raise InputError(
            f"labels of shape {labels.shape} cannot score a prediction of shape"
            f" {probabilities.shape}: give both the same slices, height and width"
        )
    if labels.ndim not in (2, 3) or labels.size == 0:
        raise InputError(
            f"a slice (height, width) or a stack (slices, height, width) is scored, not an array of"
            f" shape {labels.shape}"
        )
    probabilities = probabilities.astype(np.float32)
    stack = (-1,) + labels.shape[-2:]
    for name, array in (("labels", labels), ("prediction", probabilities)):
        if array.dtype.kind == "f" and np.isnan(array).any():
            place = tuple(int(i) for i in np.argwhere(np.isnan(array.reshape(stack)))[0])
            raise InputError(
                f"the {name} is NaN at (slice, row, column) {place}: mend or mask it first"
            )
    return labels.reshape(stack) > 0, probabilities.reshape(stack)


def _above(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Compare float32 with a double threshold exactly: by the greatest float32 not above it."""
    single = np.float32(threshold)
    if float(single) > threshold:
        single = np.nextafter(single, np.float32(-1))
    return probabilities > single


def pixel_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the pixels right and wrong at every threshold; counts of parts of a stack may be added.

    Parameters
    ----------
    labels : ndarray, shape (Y, X) or (Z, Y, X)
        Ground truth, above 0 inside a cell.
    probabilities : ndarray, same shape
        Proposal, 1 = inside a cell.

    Returns
    -------
    int64 ndarray, shape (11, 3)
        tp, fp, fn at each of `THRESHOLDS`.

    Raises
    ------
    InputError
        If the shapes differ or a value is NaN.
    """
    return _pixel_counts(*_check(labels, probabilities))


def _pixel_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    positive = np.count_nonzero(labels)
    counts = []
    for threshold in THRESHOLDS:
        proposal = _above(probabilities, threshold)
        tp = np.count_nonzero(proposal & labels)
        counts.append((tp, np.count_nonzero(proposal) - tp, positive - tp))
    return np.array(counts, np.int64)


def pixel_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Pixel error of the 2012 challenge: 1 - the best F-score of the pixels over `THRESHOLDS`.

    Parameters and errors are those of `pixel_counts`; the counts are summed over the whole stack.

    Examples
    --------
    >>> pixel_error(np.array([[1, 1, 0]]), np.array([[0.9, 0.4, 0.1]]))
    0.0
    """
    return float(1 - f_score(pixel_counts(labels, probabilities)).max())


def score_stack(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    warping: bool = True,
    legacy: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Compute every score of a stack, overall, per threshold and per slice.

    Parameters
    ----------
    labels : ndarray, shape (Y, X) or (Z, Y, X)
        Ground truth, above 0 inside a cell.
    probabilities : ndarray, same shape
        Proposal, 1 = inside a cell; used as float32 and unscaled (the challenge took 8-bit
        proposals as 0 .. 255, so that every threshold meant "above 0").
    warping : bool
        Compute the warping error too, much the longest part.
    legacy : bool
        Compute `v2012`'s warping error too, which warps all over again in a coarser order.
    workers : int
        Processes.
    progress : bool
        Show a bar on standard error if it is a terminal.

    Returns
    -------
    dict
        Numbers and lists of numbers. The challenge's scores: `pixel_error`, `rand_error`,
        `warping_error` (2012), `v_rand_thin`, `v_info_thin` (since 2016), each with
        `..._threshold`, the lowest threshold at which it is reached. `v2012` and `v2014` hold the
        values of those years' code (pairs in the Rand error; the warping error with `legacy`
        alone). Keys in
        `..._by_threshold` go with `thresholds` or, for warping, its first ten. `slices` is their
        number, `cells` that of the true cells; `per_slice` holds a dict with the same keys for
        each, as if it were the stack. A slice without a true cell has no Rand and no information
        score: they are NaN for it alone, and those of the stack are those of its other slices.
        (The challenge's code makes them NaN for the whole stack, and had no such slice.) A slice
        that is one true cell shares no information: its part of `v_info_thin` is 0.

    Raises
    ------
    InputError
        If the shapes differ or a value is NaN.
    """
    labels, probabilities = _check(labels, probabilities)
    # Below this, starting the processes takes longer than the work.
    if labels.size < 1 << 18:
        workers = 1
    slices = range(len(labels))
    tasks = [(_measure_regions, (labels[z], probabilities[z])) for z in slices]
    if warping:
        tasks += [
            (count_mismatches, (labels[z], probabilities[z], threshold, order))
            for order in (False, True)[: 1 + legacy]
            for z in slices
            for threshold in WARPING_THRESHOLDS
        ]
    bar = tqdm(
        run_tasks(tasks, workers),
        total=len(tasks),
        desc="scoring",
        disable=None if progress else True,
        leave=False,
    )
    results = list(bar)
    regions, warps = results[: len(slices)], results[len(slices) :]
    counts = {name: np.array([region[name] for region in regions]) for name in regions[0]}
    if warping:
        passes = np.array(warps).reshape(-1, len(slices), len(WARPING_THRESHOLDS), warps[0].size)
        counts.update(zip(("warping", "warping_legacy"), passes))
    scores = _combine(counts, labels[0].shape)
    scores["per_slice"] = [
        _combine({name: count[z : z + 1] for name, count in counts.items()}, labels[0].shape)
        for z in slices
    ]
    return scores


def _measure_regions(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Count what all scores but the warping error need in one slice; a row per threshold."""
    truth = instances_from_binary(labels)
    rows: list[dict[str, Any]] = []
    last = -1
    for threshold in THRESHOLDS:
        cells = _above(probabilities, threshold)
        # Cells only shrink from threshold to threshold: as many pixels are the same picture.
        if np.count_nonzero(cells) != last:
            last = np.count_nonzero(cells)
            plain = contingency_table(truth, instances_from_binary(cells))
            thin = contingency_table(truth, thin_membranes(cells))
            row = {
                "rand": plain.squares(),
                "rand_pairs": plain.pairs(),
                "rand_standard": plain.pairs_with_background(),
                "rand_thin": thin.squares(),
                "info": plain.information(),
                "info_thin": thin.information(),
            }
        rows.append(row)
    measured = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    measured["pixel"] = _pixel_counts(labels, probabilities)
    measured["cells"] = np.array(truth.max())
    return measured


def _combine(counts: dict[str, np.ndarray], shape: tuple[int, int]) -> dict[str, Any]:
    """Turn the counts of slices, shape (Z, thresholds, ...), into the scores of their stack."""
    height, width = shape
    slices = len(counts["pixel"])
    pixel = counts["pixel"].sum(axis=0)
    hamming = pixel[:, 1:].sum(axis=1) / (height * width * slices)
    with_cells = counts["cells"] > 0
    # Slices without a true cell have no score of regions: they are left out, unless all are.
    scored = with_cells if with_cells.any() else slice(None)
    regions = {name: counts[name][scored] for name in _REGION_COUNTS}
    rand = regions["rand"].sum(axis=0)
    precision, recall = precision_recall(rand)
    thin = f_score(regions["rand_thin"]).mean(axis=0)
    info_thin = regions["info_thin"].mean(axis=0)
    series = {
        "pixel_fscore": f_score(pixel),
        "pixel_hamming": hamming,
        "rand_fscore": f_score(rand),
        "rand_precision": precision,
        "rand_recall": recall,
        "v_rand_thin": thin,
        "v_info_thin": info_thin,
    }
    pixel_error = 1 - series["pixel_fscore"].max()
    pairs_error = 1 - f_score(regions["rand_pairs"].sum(axis=0)).max()
    standard_error = 1 - f_score(counts["rand_standard"].sum(axis=0)).max()
    scores: dict[str, Any] = {
        "width": width,
        "height": height,
        "slices": slices,
        "cells": counts["cells"].sum(),
        "thresholds": THRESHOLDS,
        "pixel_error": pixel_error,
        "pixel_error_threshold": _best_threshold(series["pixel_fscore"]),
        "pixel_error_min_hamming": hamming.min(),
        "rand_error": 1 - series["rand_fscore"].max(),
        "rand_error_threshold": _best_threshold(series["rand_fscore"]),
        "rand_error_standard_with_background": standard_error,
        "v_rand_thin": thin.max(),
        "v_rand_thin_threshold": _best_threshold(thin),
        "v_rand_thin_micro": f_score(regions["rand_thin"].sum(axis=0)).max(),
        "v_rand_thin_binary": thin[0],
        "v_info_thin": _highest(info_thin),
        "v_info_thin_threshold": _best_threshold(info_thin),
        "v_info_thin_binary": _highest(info_thin[:1]),
        "v_info_unthinned": _highest(regions["info"].mean(axis=0)),
        **{f"{name}_by_threshold": values for name, values in series.items()},
    }
    older = {"pixel_error": pixel_error, "rand_error": pairs_error}
    if "warping" in counts:
        today = counts["warping"].sum(axis=0)
        area = height * width * slices
        types = today[:, : len(MISMATCH_TYPES)]
        torn = types[:, :2].sum(axis=1)
        scores.update(
            warping_error=torn.min() / area,
            warping_error_threshold=_best_threshold(-torn),
            warping_error_pixels=torn.min(),
            warping_error_classic=types.sum(axis=1).min() / area,
            warping_error_clustered=today[:, len(MISMATCH_TYPES) :].sum(axis=1).min() / area,
            warping_classic_by_threshold=types.sum(axis=1) / area,
            warping_splits_mergers_pixels_by_threshold=types[:, :2],
            warping_types_by_threshold=types,
            warping_types_order=f"[{', '.join(MISMATCH_TYPES)}] pixels",
        )
    if "warping_legacy" in counts:
        torn = counts["warping_legacy"].sum(axis=0)[:, :2].sum(axis=1)
        older["warping_error"] = torn.min() / (height * width * slices)
    scores.update(v2012=older, v2014=dict(older))
    return _plain(scores)


def _highest(values: np.ndarray) -> float:
    """The greatest value, at least 0; NaN where there is none."""
    return np.maximum(values.max(), 0.0)


def _best_threshold(values: np.ndarray) -> float:
    """The lowest threshold with the greatest value; NaN if none has a value."""
    if np.isnan(values).all():
        return float("nan")
    return THRESHOLDS[int(np.nanargmax(values))]


def _plain(value: Any) -> Any:
    """Turn numpy's numbers and arrays into Python's, so that they can be written as JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
