"""Scores on held-out tiles while a network is trained."""

from __future__ import annotations

import sys
from typing import Any, Callable

import numpy as np
from tqdm import tqdm

from unet.scoring.score_stack import THRESHOLDS, pixel_counts


def cell_counts(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count annotated pixels as `score_stack.pixel_counts`, of float32 scores (2, ...).

    Labels (...) are 1 cell, 0 membrane, anything else: not annotated.
    """
    known = (labels == 0) | (labels == 1)
    if not known.any():
        return np.zeros((len(THRESHOLDS), 3), np.int64)
    with np.errstate(over="ignore"):
        probability = (1 / (1 + np.exp(scores[0] - scores[1]))).astype(np.float32)
    # NaN is for the loss to tell.
    return pixel_counts(labels[known][None] == 1, np.nan_to_num(probability[known])[None])


def pixel_error(counts: np.ndarray) -> float:
    """Return 1 - the best F-score of the cells over the thresholds, from `cell_counts`.

    This is the ISBI 2012 challenge's pixel error, not the share of wrong pixels. Without any cell,
    true or found, it is 1.
    """
    hits, false, missed = counts.T
    return float(1 - np.max(2 * hits / np.maximum(2 * hits + false + missed, 1)))


class Validation:
    """The test net of a solver, its parameters shared with the trained one, run over all its tiles.

    Their number is the solver's test_iter; a data layer with `tiles_per_epoch` knows better. An
    Accuracy layer tells which blobs are scores and labels. From them come `misclassified`, the
    share of annotated pixels whose highest score is not the true class's, and for two classes
    `pixel_error`. Every other output is averaged over the passes, as Caffe does.
    """

    def __init__(self, net: Any, passes: int) -> None:
        self._net = net
        self._feeds = [layer for layer in net.layers if hasattr(layer, "seek")]
        self._passes = passes
        for layer in self._feeds:
            self._passes = getattr(layer, "tiles_per_epoch", self._passes)
        self._doubted = False
        self._pair: tuple[str, str] | None = None
        self._skipped = set()
        for name, layer in zip(net._layer_names, net.layers):
            if layer.type == "Accuracy":
                self._pair = tuple(net.bottom_names[name][:2])
                self._skipped.update(net.top_names[name])

    def __call__(self, is_to_stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Return the scores of the parameters as they are now: name -> value.

        `is_to_stop` is asked before each pass; True ends the test, and None is returned.
        """
        for layer in self._feeds:
            layer.seek(0)
        sums: dict[str, float] = {}
        right = annotated = 0
        counts = np.zeros((len(THRESHOLDS), 3), np.int64)
        for _ in range(self._passes):
            if is_to_stop():
                return None
            for name, values in self._net.forward().items():
                if name not in self._skipped:
                    sums[name] = sums.get(name, 0.0) + float(np.mean(values))
            if self._pair is not None:
                scores, labels = (self._net.blobs[name].data for name in self._pair)
                scores = np.moveaxis(scores, 1, 0)
                labels = labels.reshape(scores.shape[1:])
                known = (labels >= 0) & (labels < len(scores))
                annotated += int(known.sum())
                right += int((scores.argmax(0) == labels)[known].sum())
                if len(scores) == 2:
                    counts += cell_counts(scores, labels)
        means = {name: total / self._passes for name, total in sums.items()}
        if self._pair is not None and not annotated and not self._doubted:
            self._doubted = True
            tqdm.write(
                "no pixel of the held-out tiles is annotated, so their loss says nothing, and "
                "there is no error to show",
                file=sys.stderr,
            )
        if annotated:
            means["misclassified"] = 1 - right / annotated
            if len(scores) == 2:
                means["pixel_error"] = pixel_error(counts)
        return means
