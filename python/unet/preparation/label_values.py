"""Which values of a label stack are cells or classes, where that is said: thresholds and lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unet.errors import InputError, few
from unet.preparation.label_kind import TRACES, solid_values
from unet.preparation.labels import IGNORED
from unet.volumes import Volume
from unet.volumes.row_strips import values_of


def above(labels: Volume, threshold: float, ignore: int | None = None) -> Volume:
    """Return binary labels: 1 where labels are above a threshold, `IGNORED` where not annotated.

    Parameters
    ----------
    labels : Volume of any real numbers, shape (slices, height, width)
    threshold : float
    ignore : int, optional
        The label that means "not annotated".
    """

    def classes(image: np.ndarray) -> np.ndarray:
        found = (image > threshold).astype(np.uint8)
        if ignore is not None:
            found[image == ignore] = IGNORED
        return found

    return _mapped(labels, classes)


def numbered(labels: Volume, classes: Sequence[int], ignore: int | None = None) -> Volume:
    """Return class numbers in place of labels: the place of each label in a list.

    Parameters
    ----------
    labels : Volume, shape (slices, height, width)
    classes : sequence of int
        The label of class 0, background, of class 1, and so on.
    ignore : int, optional
        The label that means "not annotated", which becomes `IGNORED`.

    Returns
    -------
    Volume of uint8
        Reading a slice raises `InputError` if it holds other labels, unless these are traces that
        a tool has left at rims: few pixels, which nowhere fill 3 x 3. Those become `IGNORED`.
    """
    known = [*classes, *([] if ignore is None else [ignore])]
    numbers = [*range(len(classes)), *([] if ignore is None else [IGNORED])]
    order = np.argsort(known)
    values, table = np.asarray(known)[order], np.asarray(numbers, np.uint8)[order]

    def of_slice(image: np.ndarray) -> np.ndarray:
        strange = [value for value in values_of(image).tolist() if value not in known]
        if not strange:
            return table[np.searchsorted(values, image)]
        unnamed = np.isin(image, strange)
        if not _are_traces(image, unnamed, strange):
            raise InputError(
                f"holds the labels {few(strange)}, which --classes "
                f"{','.join(map(str, classes))} does not name: name them as well, or say "
                f"--ignore-label N of one that means not annotated"
            )
        found = table[np.searchsorted(values, np.where(unnamed, values[0], image))]
        found[unnamed] = IGNORED
        return found

    return _mapped(labels, of_slice)


def _are_traces(image: np.ndarray, unnamed: np.ndarray, strange: list[int]) -> bool:
    """Tell whether pixels of strange labels are few, and fill 3 x 3 of one label nowhere."""
    is_few = np.count_nonzero(unnamed) <= TRACES * image.size
    return is_few and min(image.shape) >= 3 and not solid_values(image).intersection(strange)


def _mapped(labels: Volume, change: Callable[[np.ndarray], np.ndarray]) -> Volume:
    def read(z: int) -> np.ndarray:
        image = labels[z]
        try:
            return change(image)
        except InputError as error:
            raise InputError(f"{labels.path}: slice {z} {error}") from None

    return Volume(
        labels.path,
        labels.shape,
        np.dtype(np.uint8),
        read,
        labels.close,
        labels.missing,
        labels.calibration,
    )
