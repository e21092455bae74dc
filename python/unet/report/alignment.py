"""Whether labels lie on the picture: shifted or mirrored labels fit better elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.report.run_files import UNKNOWN, HeldOutSlice

# Farther than this, in pixels, labels are not looked for.
_FARTHEST = 24
# Widths at which edges are looked for, in pixels: sharp ones, and those under noise.
_SIGMAS = (1.0, 2.0, 4.0)
#: How the axes can have been exchanged or reversed, for transforms of a picture.
TURNS = {
    "upside down": lambda a: a[::-1],
    "mirrored left to right": lambda a: a[:, ::-1],
    "turned by 180°": lambda a: a[::-1, ::-1],
    "with rows and columns exchanged": lambda a: a.T,
    "turned by 90° to the left": lambda a: np.rot90(a),
    "turned by 90° to the right": lambda a: np.rot90(a, 3),
    "with rows and columns exchanged, upside down": lambda a: a.T[::-1, ::-1],
}


class Alignment(NamedTuple):
    """Where labels fit a picture best.

    Attributes
    ----------
    rows, columns : float
        By which the labels would have to move.
    fit : float
        Correlation, -1 to 1, of edges in the picture and borders in the labels, moved.
    fit_in_place : float
        The same where they lie.
    noise : float
        Standard deviation of the correlation where labels lie anywhere.
    turn : str
        The one of `TURNS` that fits best.
    fit_turned : float
        Its correlation, at the best shift.
    """

    rows: float
    columns: float
    fit: float
    fit_in_place: float
    noise: float
    turn: str
    fit_turned: float


def align(kind: str, slices: Sequence[HeldOutSlice]) -> Alignment | None:
    """Find where the labels of slices fit their pictures best; None: without borders nowhere.

    The edges of the picture, the size of its gradient at some widths, are correlated with the
    borders of the labels at each shift; the mean over the slices tells. Neither knows bright from
    dark, so that it holds for any microscope.

    Parameters
    ----------
    kind : {"membranes", "cells", "classes"}
    slices : sequence of HeldOutSlice
        Of one size.
    """
    sums: dict[str, np.ndarray] = {}
    many = 0
    for one in slices:
        borders = _borders(kind, one.truth)
        if not borders.any() or borders.all():
            continue
        edges = [_edges(one.raw, sigma) for sigma in _SIGMAS]
        for name, turn in {"": lambda a: a, **TURNS}.items():
            turned = turn(borders)
            if turned.shape == borders.shape:
                fits = np.stack([_correlation(edge, turned) for edge in edges])
                sums[name] = sums[name] + fits if name in sums else fits
                many += not name
    if not many:
        return None
    # Of the widths the one at which anything fits best.
    means = {name: one / many for name, one in sums.items()}
    width = int(np.argmax([max(_near(one[k]).max() for one in means.values()) for k in range(3)]))
    plain = means.pop("")[width]
    near = _near(plain)
    row, column = (int(k) for k in np.unravel_index(near.argmax(), near.shape))
    reach = near.shape[0] // 2, near.shape[1] // 2
    turn = max(means, key=lambda name: _near(means[name][width]).max())
    return Alignment(
        row - reach[0],
        column - reach[1],
        float(near.max()),
        float(plain[0, 0]),
        float(plain.std()),
        turn,
        float(_near(means[turn][width]).max()),
    )


def _borders(kind: str, truth: np.ndarray) -> np.ndarray:
    """Where what is told apart meets, as far as somebody annotated it: float64."""
    known = truth != UNKNOWN
    values = np.where(known, truth, 0)
    if kind == "membranes":
        values = (values > 0).astype(np.int32)
    across = np.zeros(truth.shape)
    for axis in (0, 1):
        change = np.diff(values, axis=axis) != 0
        change &= np.minimum(*(np.take(known, k, axis) for k in _halves(truth.shape[axis])))
        for side in ((0, 1), (1, 0)):
            pad = [(0, 0), (0, 0)]
            pad[axis] = side
            across += np.pad(change, pad)
    return (across > 0).astype(np.float64)


def _halves(length: int) -> tuple[range, range]:
    return range(length - 1), range(1, length)


def _edges(raw: np.ndarray, sigma: float) -> np.ndarray:
    """The size of the gradient, its square root, so that single bright specks do not decide."""
    sizes = [
        ndimage.gaussian_gradient_magnitude(channel.astype(np.float64), sigma) for channel in raw
    ]
    return np.sqrt(np.sum(sizes, axis=0))


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of two pictures at each cyclic shift of the second: float64, same shape."""
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first**2).sum() * (second**2).sum())
    if size == 0:
        return np.zeros(first.shape)
    product = np.fft.rfft2(first) * np.fft.rfft2(second).conj()
    return np.fft.irfft2(product, first.shape) / size


def _near(surface: np.ndarray) -> np.ndarray:
    """The part of a correlation whose shifts are small, no shift in its middle."""
    reach = [min(_FARTHEST, length // 4) for length in surface.shape]
    rolled = np.roll(surface, reach, (0, 1))
    return rolled[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
