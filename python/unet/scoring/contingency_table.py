"""How many pixels regions of two label images share, and the Rand and information scores of that.

References
----------
Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015. Rand, J. Am. Stat. Assoc. 66, 1971.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np


class ContingencyTable(NamedTuple):
    """How many pixels regions of two label images share; pairs that share none are not in it.

    Attributes
    ----------
    first, second : int64 ndarray, shape (pairs,)
        Numbers of the regions, ascending by `first`, then by `second`; 0 is the background.
    pixels : int64 ndarray, shape (pairs,)
        More than 0.
    """

    first: np.ndarray
    second: np.ndarray
    pixels: np.ndarray

    def squares(self) -> tuple[float, float, float]:
        """tp, fp, fn of the foreground-restricted Rand score since 2015; NaN without a true cell.

        The first image is the truth. A pixel of a true cell that the proposal calls membrane is a
        region of its own.
        """
        rows = self.first > 0
        if not rows.any():
            return (np.nan,) * 3
        both, proposal, truth = self._sums(np.square, rows, rows & (self.second > 0))
        singles = float(self.pixels[rows & (self.second == 0)].sum())
        return both + singles, proposal - both, truth - both - singles

    def pairs(self) -> tuple[float, float, float]:
        """tp, fp, fn of the Rand score of 2012-2014: pairs of pixels of true cells, NaN without."""
        rows = self.first > 0
        if not rows.any():
            return (np.nan,) * 3
        both, proposal, truth = self._sums(_pairs, rows, rows & (self.second > 0))
        return both, proposal - both, truth - both

    def pairs_with_background(self) -> tuple[float, float, float]:
        """tp, fp, fn of the standard Rand score: all pairs of pixels, background a region."""
        everything = np.ones(self.first.shape, bool)
        both, proposal, truth = self._sums(_pairs, everything, everything)
        return both, proposal - both, truth - both

    def _sums(
        self, terms: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, cells: np.ndarray
    ) -> tuple[float, float, float]:
        """Sum terms(pixels) over the overlaps `cells`, their proposals, the truths of `rows`."""
        pixels = self.pixels.astype(np.float64)
        both = terms(pixels[cells]).sum()
        proposal = terms(np.bincount(self.second[cells], pixels[cells])).sum()
        truth = terms(np.bincount(self.first[rows], pixels[rows])).sum()
        return both, proposal, truth

    def information(self) -> float:
        """F-score of the mutual information of truth and proposal, on the pixels of true cells.

        0 if either has one region only; NaN without a true cell.
        """
        rows = self.first > 0
        pixels, i, j = self.pixels[rows], self.first[rows], self.second[rows]
        n = pixels.sum()
        if n == 0:
            return float("nan")
        p = pixels / n
        cells = j > 0
        singles = p[~cells].sum() * np.log(n)
        truth = _entropy(np.bincount(i, p))
        proposal = _entropy(np.bincount(j[cells], p[cells])) + singles
        shared = truth + proposal - (_entropy(p[cells]) + singles)
        if truth == 0 or proposal == 0:
            return 0.0
        precision, recall = shared / truth, shared / proposal
        total = precision + recall
        return float(2 * precision * recall / total) if total != 0 else 0.0


def contingency_table(first: np.ndarray, second: np.ndarray) -> ContingencyTable:
    """Count the pixels that each region of a label image shares with each of another.

    Parameters
    ----------
    first, second : ndarray of int, same shape
        Number of the region of each pixel, 0 or more.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> contingency_table(np.array([[1, 1, 0]]), np.array([[5, 0, 0]]))._asdict()
    {'first': array([0, 1, 1]), 'second': array([0, 0, 5]), 'pixels': array([1, 1, 1])}
    """
    if first.shape != second.shape:
        raise ValueError(f"label images of the shapes {first.shape} and {second.shape}")
    rows, columns = (int(labels.max(initial=0)) + 1 for labels in (first, second))
    pair, second = first.ravel().astype(np.int64), second.ravel()
    if rows * columns > np.iinfo(np.int64).max:
        pairs, pixels = np.unique([pair, second.astype(np.int64)], axis=1, return_counts=True)
        return ContingencyTable(*pairs, pixels)
    # In place: another array of this size takes longer to get than to fill.
    pair *= columns
    np.add(pair, second, out=pair, dtype=np.int64, casting="unsafe")
    # A dense table is quicker, and up to this size takes no more room than the image itself.
    if rows * columns <= max(4 * pair.size, 1 << 20):
        table = np.bincount(pair)
        pair = np.flatnonzero(table)
        pixels = table[pair]
    else:
        pair, pixels = np.unique(pair, return_counts=True)
    return ContingencyTable(*np.divmod(pair, columns), pixels)


def f_score(counts: np.ndarray) -> np.ndarray:
    """F-score 2 P R / (P + R) of tp, fp, fn, (..., 3): float64 (...); 0 where P + R is 0.

    P = tp / (tp + fp), or 1 without false positives; R = tp / (tp + fn), or 1 without false
    negatives.
    """
    precision, recall = precision_recall(counts)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total != 0)


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall, float64 (...), of counts (..., 3) as in `f_score`."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    ones = np.ones_like(tp)
    precision = np.divide(tp, tp + fp, out=ones.copy(), where=fp != 0)
    recall = np.divide(tp, tp + fn, out=ones.copy(), where=fn != 0)
    return precision, recall


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    # One after another, not in pairs as `sum` does: where nothing is shared, only the rounding is
    # left, and this is the rounding of the challenge's own code.
    return -float(np.cumsum(p * np.log(p))[-1]) if p.size else 0.0


def _pairs(n: np.ndarray) -> np.ndarray:
    return n * (n - 1) / 2
