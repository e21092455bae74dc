"""Labels: of what kind they are, and from them classes, instances, borders and class balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.errors import InputError
from unet.volumes.row_strips import count_values, strips, values_of

# How "not annotated" is written in a training set.
IGNORED = 255
KINDS = ("binary", "classes", "instances")
# More distinct values than any list of tissue classes, fewer than the cells of a stack.
MOST_CLASSES = 32
# Smoothing, scaling and JPEG touch the rims of cells only, a smaller part of the pixels.
_RIM = 0.5


class Annotation(NamedTuple):
    """What the labels of one slice mean.

    Attributes
    ----------
    classes : ndarray of uint8, shape (height, width)
        Class of each pixel, 0 is background, `IGNORED` where not annotated.
    instances : ndarray of int32, shape (height, width)
        Cell of each pixel, 0 is none.
    borders : ndarray of bool, shape (height, width)
        Pixels taken from touching cells and made background.
    vanished : int
        Cells so thin that the borders took all of their pixels.
    """

    classes: np.ndarray
    instances: np.ndarray
    borders: np.ndarray
    vanished: int


def annotate(labels: np.ndarray, kind: str, ignore: int | None = None) -> Annotation:
    """Turn the labels of one slice into classes and cells.

    Parameters
    ----------
    labels : ndarray of bool, int or whole-numbered float, shape (height, width)
    kind : {"binary", "classes", "instances"}
        binary: 0 is background, all else inside a cell; cells are the 4-connected components.
        classes: class numbers 0..254; cells are the 4-connected components of each class but 0.
        instances: 0 is background, every other number a cell; thin background borders are put
        between cells that touch.
    ignore : int, optional
        The label that means "not annotated".

    Raises
    ------
    InputError
        If labels are negative, not whole, or beyond the class numbers.
    """
    labels = whole(labels)
    ignored = None if ignore is None else labels == ignore
    labels = without_ignored(labels, ignore)
    if labels.dtype.kind != "b" and labels.min() < 0:
        raise InputError(
            f"the label {labels.min()} is negative; if it means not annotated, say "
            f"--ignore-label {labels.min()}"
        )
    borders = np.zeros(labels.shape, bool)
    vanished = 0
    if kind == "instances":
        dense, count = _renumber(labels)
        instances = separate_touching(dense)
        borders = (dense > 0) & (instances == 0)
        vanished = int(np.count_nonzero(count_values(instances, count + 1)[1:] == 0))
        classes = (instances > 0).astype(np.uint8)
    elif kind == "binary":
        classes = (labels != 0).astype(np.uint8)
        instances = instances_from_binary(classes > 0)
    elif kind == "classes":
        if labels.max() >= IGNORED:
            raise InputError(
                f"the label {labels.max()} is no class number 0..{IGNORED - 1}; if it means not "
                f"annotated, say --ignore-label {labels.max()}"
            )
        classes = labels.astype(np.uint8)
        instances = np.zeros(labels.shape, np.int32)
        present = np.flatnonzero(count_values(classes, IGNORED))
        for value in present[present > 0]:
            parts = instances_from_binary(classes == value)
            np.add(parts, instances.max(), out=instances, where=parts > 0)
    else:
        raise ValueError(f"{kind!r} is no kind of labels, those are {KINDS}")
    if ignored is not None:
        classes[ignored] = IGNORED
    return Annotation(classes, instances, borders, vanished)


def whole(labels: np.ndarray) -> np.ndarray:
    """Return labels as whole numbers, which floats may be, or raise `InputError`."""
    if labels.dtype.kind != "f":
        return labels
    if (labels != np.rint(labels)).any():
        raise InputError("the labels are not whole numbers; is this the label stack?")
    return labels.astype(np.int64)


def without_ignored(labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """Return labels, 0 where they are the one that means: not annotated."""
    return labels if ignore is None else np.where(labels == ignore, labels.dtype.type(0), labels)


def _renumber(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the same cells numbered 1, 2, ..., and how many: large volumes exceed 32 bit."""
    values = values_of(labels)
    values = values[values > 0]
    number = np.empty(labels.shape, np.int32)
    for rows in strips(labels.shape):
        number[rows] = np.searchsorted(values, labels[rows], side="right")
    return number, len(values)


def instances_from_binary(foreground: np.ndarray) -> np.ndarray:
    """Number the cells of a slice: the 4-connected components of the foreground.

    The foreground is bool, (height, width); cells are int32 and count from 1, 0 is background.
    """
    labelled, _ = ndimage.label(foreground)
    return labelled.astype(np.int32, copy=False)


def separate_touching(instances: np.ndarray) -> np.ndarray:
    """Put a thin background border between touching cells, int32 (height, width), 0 is background.

    Pixels of a cell that have a pixel of another cell among their 8 neighbours become background:
    the border is where the largest and the smallest cell number under a 3 x 3 window differ
    (dilation against erosion), so it takes one pixel from each of the two cells.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3: "The separation border is computed using morphological
    operations."
    """
    # The filters compute in double precision, which holds 32 bit but not 64.
    instances = instances.astype(np.int32, copy=False)
    none = np.iinfo(np.int32).max
    separated = instances.copy()
    for rows in strips(instances.shape):
        # The neighbours beyond the strip count, those beyond the slice do not.
        begin = max(0, rows.start - 1)
        part = instances[begin : rows.stop + 1]
        largest = ndimage.grey_dilation(part, (3, 3))
        smallest = ndimage.grey_erosion(np.where(part > 0, part, none), (3, 3))
        own = slice(rows.start - begin, rows.stop - begin)
        separated[rows][((part > 0) & (largest != smallest))[own]] = 0
    return separated


def class_counts(classes: np.ndarray) -> np.ndarray:
    """Count the annotated pixels of each class, int64 (255,), in classes of uint8."""
    return count_values(np.atleast_2d(classes), IGNORED + 1)[:IGNORED]


def class_weights(counts: Sequence[int], balance: bool = True) -> np.ndarray:
    """Return wc, the weight of each class that balances the class frequencies: float64 (K,).

    Parameters
    ----------
    counts : sequence of int, length K
        Annotated pixels of each class in the training set.
    balance : bool
        False: all classes weigh 1.

    Notes
    -----
    wc = N / (K n_c), with N annotated pixels, n_c of them of class c, and K classes that occur:
    every class weighs the same in sum, and a pixel 1 on average. A class that is absent weighs 1.
    Sec. 3, Eq. 2 of the paper demands the balance but prints no formula for it.
    """
    counts = np.asarray(counts, np.float64)
    weights = np.ones(len(counts))
    present = counts > 0
    if balance and present.any():
        weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def bounding_boxes(instances: np.ndarray) -> list[tuple[int, slice, slice]]:
    """Return (cell number, rows, columns) of every cell of a slice, (height, width), by number.

    0 is background; numbers may be large and with gaps.
    """
    dense, count = _renumber(instances)
    values = values_of(instances)
    found = ndimage.find_objects(dense, count)
    return [(int(value), box[0], box[1]) for value, box in zip(values[values > 0], found)]


class LabelSurvey:
    """The values of a label stack, and how they lie.

    Parameters
    ----------
    ignore : int, optional
        The label that means "not annotated"; it is not counted.

    Attributes
    ----------
    pixels : Counter
        Pixels of each value.
    touching : bool
        Whether pixels of two values other than 0 are neighbours, corners included.
    """

    def __init__(self, ignore: int | None = None) -> None:
        self._ignore = ignore
        self._solid: set = set()
        self._small = False
        self.pixels: Counter = Counter()
        self.touching = False

    def add(self, labels: np.ndarray) -> None:
        """Look at a slice, (height, width); raise `InputError` if labels are not whole numbers."""
        labels = whole(labels)
        values, counts = np.unique(labels, return_counts=True)
        self.pixels.update(dict(zip(values.tolist(), counts.tolist())))
        self.pixels.pop(self._ignore, None)
        self._small |= min(labels.shape) < 3
        self._solid.update(np.unique(labels[1:-1, 1:-1][_in_blocks(labels)]).tolist())
        if not self.touching:
            self.touching = touch(without_ignored(labels, self._ignore))

    @property
    def values(self) -> list:
        """The values that there are, sorted."""
        return sorted(self.pixels)

    def _main_and_others(self) -> tuple[list, list]:
        """Return the two values that most pixels have, and the others; sorted."""
        main = sorted(value for value, _ in self.pixels.most_common(2))
        return main, [value for value in self.values if value not in main]

    def lie_as_labels(self) -> bool:
        """Tell whether values fill 3 x 3 pixels somewhere, as those of labels do."""
        loose = [value for value in self.pixels if value not in self._solid]
        others = self._main_and_others()[1]
        return self._small or not others or 2 * len(loose) <= len(others)

    def refuse_pictures(self) -> None:
        """Raise `InputError` if values fill 3 x 3 pixels hardly anywhere, as those of pictures.

        These are most values, or most beside two that nearly all pixels have.
        """
        if self.lie_as_labels():
            return
        main, others = self._main_and_others()
        share = sum(self.pixels[value] for value in others) / sum(self.pixels.values())
        if self._solid.issuperset(main) and share < _RIM:
            raise InputError(
                f"the labels are {main[0]} and {main[1]}, but for {share:.2%} of the pixels with "
                f"{len(others)} other values ({_shown(others)}), as smoothing, scaling or JPEG "
                f"leaves them: threshold the labels first, or say --label-kind binary to take all "
                f"above 0 for cells, or --ignore-label N where one of them means not annotated"
            )
        raise InputError(
            f"the labels have {len(self.pixels)} values, most of which nowhere fill 3 x 3 pixels: "
            f"they lie as in a picture or a smoothed mask, not as labels do; is this the label "
            f"stack? If cells are as small as that, say --label-kind instances"
        )


def _shown(values: list) -> str:
    return ", ".join(map(str, values[:4])) + (" ..." if len(values) > 4 else "")


def _in_blocks(labels: np.ndarray) -> np.ndarray:
    """Tell which inner pixels are of the value of all their 8 neighbours: (height - 2, width - 2).

    A slice of less than 3 rows or columns has none.
    """
    if min(labels.shape) < 3:
        return np.zeros(labels[1:-1, 1:-1].shape, bool)
    across = labels[:, 1:] == labels[:, :-1]
    rows = across[:, 1:] & across[:, :-1]
    down = labels[1:, 1:-1] == labels[:-1, 1:-1]
    return rows[:-2] & rows[1:-1] & rows[2:] & down[1:] & down[:-1]


def touch(cells: np.ndarray) -> bool:
    """Tell whether pixels of two numbers other than 0 are neighbours, corners included."""
    whole = slice(None)
    ahead, behind = slice(1, None), slice(None, -1)
    for a, b in (
        ((whole, ahead), (whole, behind)),
        ((ahead, whole), (behind, whole)),
        ((ahead, ahead), (behind, behind)),
        ((ahead, behind), (behind, ahead)),
    ):
        first, second = cells[a], cells[b]
        if ((first != second) & (first != 0) & (second != 0)).any():
            return True
    return False


def detect_kind(slices: Iterable[np.ndarray], ignore: int | None = None) -> str:
    """Tell what kind of labels a stack holds: up to two values are binary, more than 32 instances.

    Slices are read until the answer is known; `ignore` is the label that means "not annotated".

    Raises
    ------
    InputError
        If there are 3 to 32 values, which may mean either classes or cells; or if they lie as those
        of pictures do.
    """
    survey = LabelSurvey(ignore)
    for labels in slices:
        survey.add(labels)
        if len(survey.pixels) > MOST_CLASSES:
            survey.refuse_pictures()
            return "instances"
    if len(survey.pixels) <= 2:
        return "binary"
    survey.refuse_pictures()
    raise InputError(
        f"the labels have {len(survey.pixels)} values ({_shown(survey.values)}), which can be "
        f"classes as well as cells; say --label-kind classes or --label-kind instances, and "
        f"--ignore-label N where one of them means not annotated"
    )
