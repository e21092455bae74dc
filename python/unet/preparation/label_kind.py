"""Of what kind labels are, told by their values and by how these lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from unet.errors import InputError, few
from unet.preparation.labels import listed, whole, without_ignored
from unet.preparation.membranes import NetworkSurvey

# More distinct values than any list of tissue classes, fewer than the cells of a stack.
MOST_CLASSES = 32
# Smoothing, scaling and JPEG touch the rims of cells only, a smaller part of the pixels.
_RIM = 0.5
#: What tools leave of other values at the rims of classes is less than this part of the pixels.
TRACES = 0.005
# Of the pixels of cells, so many at most have not even two neighbours of their own number; where
# numbers were scaled with smoothing, rims hold other cells' numbers: 1 % of the pixels and more.
_LONELY = 0.005
# Beside a mask's two values smoothing leaves some that differ by less than this.
_APART = 16
# Of more classes than these hardly anybody numbers some and leaves numbers out.
_MANY = 8
# Between these lie the values of a mask of 8 bit that was scaled or saved as JPEG.
_OF_MASK = [0, 255]


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
        self._inside = self._lonely = 0
        self.pixels: Counter = Counter()
        self.touching = False

    def add(self, labels: np.ndarray) -> None:
        """Look at a slice, (height, width); raise `InputError` if labels are not whole numbers."""
        labels = whole(labels)
        values, counts = np.unique(labels, return_counts=True)
        self.pixels.update(dict(zip(values.tolist(), counts.tolist())))
        self.pixels.pop(self._ignore, None)
        self._small |= min(labels.shape) < 3
        self._solid.update(solid_values(labels))
        inside = without_ignored(labels, self._ignore) != 0
        self._inside += np.count_nonzero(inside)
        self._lonely += np.count_nonzero(inside & _is_lonely(labels))
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
        """Raise `InputError` if values lie as those of pictures, or of a mask that was spoilt.

        Most of those, or most beside two that nearly all pixels have, fill 3 x 3 pixels hardly
        anywhere; or there are 0, 255, and many values between that fewer pixels have; or cells'
        numbers have others at their rims.
        """
        main, others = self._main_and_others()
        is_mask = main == _OF_MASK and max(self.pixels) == 255 and len(others) > MOST_CLASSES
        if self.lie_as_labels() and not is_mask:
            self._refuse_scaled_numbers()
            return
        self._refuse_traces()
        share = sum(self.pixels[value] for value in others) / sum(self.pixels.values())
        if self._solid.issuperset(main) and share < _RIM:
            raise InputError(
                f"the labels are {main[0]} and {main[1]}, but for {share:.2%} of the pixels with "
                f"{len(others)} other values ({_shown(others)}), as smoothing, scaling or JPEG "
                f"leaves them: say --label-threshold {sum(main) // 2} to take what is above for "
                f"cells, or --label-kind instances if each value is a cell"
            )
        raise InputError(
            f"the labels have {len(self.pixels)} values, most of which nowhere fill 3 x 3 pixels: "
            f"they lie as in a picture or a smoothed mask, not as labels do; is this the label "
            f"stack? Say --label-threshold N if what is above N is cells, or --label-kind "
            f"instances if cells are as small as that"
        )

    def _refuse_traces(self) -> None:
        """Refuse classes beside which there are traces of other values, and say how to name them.

        Values of a smoothed mask are no classes: they lie closer to each other.
        """
        total = sum(self.pixels.values())
        classes = [one for one in self.values if one in self._solid]
        traces = [one for one in self.values if one not in self._solid]
        share = sum(self.pixels[one] for one in traces) / total
        if not 2 < len(classes) <= MOST_CLASSES or share >= TRACES:
            return
        if min(self.pixels[one] for one in classes) < TRACES * total:
            return
        if min(np.diff(classes)) < _APART:
            return
        raise InputError(
            f"the labels are {few(classes)}, but for {share:.3%} of the pixels with "
            f"{len(traces)} other values ({_shown(traces)}): say --classes "
            f"{_background_first(classes)} if these are classes, background first; such traces of "
            f"others count as not annotated"
        )

    def _refuse_scaled_numbers(self) -> None:
        many = len(self.pixels) > MOST_CLASSES and not self._small
        if many and self._lonely > _LONELY * self._inside:
            raise InputError(
                f"the labels have {len(self.pixels)} values, and {self._lonely / self._inside:.1%} "
                f"of the pixels that are not 0 differ from nearly all their neighbours, as where "
                f"cells' numbers were scaled with smoothing: scale them by nearest neighbours, or "
                f"say --label-kind instances if cells are as small as that"
            )

    def refuse_strange_values(self) -> None:
        """Raise `InputError` if a value is below 0, or if there are two and none of them is 0."""
        values = self.values
        if values and values[0] < 0:
            raise InputError(
                f"the label {values[0]} is negative, and there are {_shown(values)}: say "
                f"--ignore-label {values[0]} if it means not annotated, or name the classes, "
                f"background first: --classes={_background_first(values)}"
            )
        if len(values) == 2 and values[0] != 0:
            raise InputError(
                f"the labels are {values[0]} and {values[1]}, and none is 0, which is background: "
                f"name the classes, background first, --classes {values[0]},{values[1]} or "
                f"--classes {values[1]},{values[0]}, or say --label-kind instances if these are "
                f"two cells without background"
            )


def _background_first(values: list) -> str:
    """Write labels as --classes takes them; 0, if it is one, is background."""
    return listed(sorted(values, key=lambda value: (value != 0, value)), MOST_CLASSES)


def _shown(values: list) -> str:
    return ", ".join(map(str, values[:4])) + (" ..." if len(values) > 4 else "")


def solid_values(labels: np.ndarray) -> set:
    """Return the values that fill 3 x 3 pixels somewhere in a slice."""
    return set(np.unique(labels[1:-1, 1:-1][_in_blocks(labels)]).tolist())


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


def _neighbours() -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Yield the two parts of a slice whose pixels are neighbours, for each of four directions."""
    every, ahead, behind = slice(None), slice(1, None), slice(None, -1)
    yield (every, ahead), (every, behind)
    yield (ahead, every), (behind, every)
    yield (ahead, ahead), (behind, behind)
    yield (ahead, behind), (behind, ahead)


def _is_lonely(labels: np.ndarray) -> np.ndarray:
    """Tell which pixels have fewer than two of their 8 neighbours of their own value."""
    alike = np.zeros(labels.shape, np.uint8)
    for a, b in _neighbours():
        same = labels[a] == labels[b]
        alike[a] += same
        alike[b] += same
    return alike < 2


def touch(cells: np.ndarray) -> bool:
    """Tell whether pixels of two numbers other than 0 are neighbours, corners included."""
    for a, b in _neighbours():
        first, second = cells[a], cells[b]
        if ((first != second) & (first != 0) & (second != 0)).any():
            return True
    return False


def detect_kind(slices: Iterable[np.ndarray], ignore: int | None = None) -> str:
    """Tell what kind of labels a stack holds: up to two values are binary, more than 32 instances.

    Binary ones whose white is a thin connected network are "membranes". Slices are read until the
    answer is known; `ignore` is the label that means "not annotated".

    Raises
    ------
    InputError
        If there are 3 to 32 values, which may mean either classes or cells; two of which none is 0;
        one that is negative; or if they lie as those of pictures do.
    """
    survey, white = LabelSurvey(ignore), NetworkSurvey()
    for labels in slices:
        survey.add(labels)
        if len(survey.pixels) <= 2:
            white.add(labels != 0, None if ignore is None else labels != ignore)
        if len(survey.pixels) > MOST_CLASSES:
            break
    survey.refuse_strange_values()
    if len(survey.pixels) <= 2:
        return "membranes" if white.is_network else "binary"
    survey.refuse_pictures()
    if len(survey.pixels) > MOST_CLASSES:
        return "instances"
    values = survey.values
    # Of grey values of a picture none is to be taken for: not annotated, as 255 is among numbers.
    is_numbered = values[0] == 0 and values[-1] < 2 * len(values)
    option = "--label-kind classes" if is_numbered else f"--classes {_background_first(values)}"
    ways = f"{option} or --label-kind instances"
    if len(values) > _MANY and not is_numbered:
        ways = "--label-kind instances, or --classes and all of them, background first"
    raise InputError(
        f"the labels have {len(values)} values ({_shown(values)}), which can be classes as well as "
        f"cells; say {ways}, and --ignore-label N where one of them means not annotated"
    )


def refuse_largest(values: Iterable[int], dtype: np.dtype) -> None:
    """Refuse a largest number of an unsigned type far above all others: -1, written as unsigned.

    Parameters
    ----------
    values : iterable of int
        Of instances, without the one that means: not annotated.
    dtype : dtype
        Of the stack.

    Raises
    ------
    InputError
    """
    values = sorted(values)
    if dtype.kind != "u" or len(values) < 2 or values[-1] != np.iinfo(dtype).max:
        return
    if values[-2] < values[-1] // 2:
        raise InputError(
            f"the label {values[-1]} is the largest that {dtype} holds, the others end with "
            f"{values[-2]}: say --ignore-label {values[-1]} if it means not annotated, or "
            f"--label-kind instances if it is a cell"
        )
