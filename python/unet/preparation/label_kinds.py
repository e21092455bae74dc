"""What kind of labels a stack holds: binary, classes or instances; or pictures, by mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from unet.errors import InputError
from unet.preparation.labels import whole

# More distinct values than any list of tissue classes, fewer than the cells of a stack.
MOST_CLASSES = 32
# Smoothing, scaling and JPEG touch the rims of cells only, a smaller part of the pixels.
_RIM = 0.5


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
        """Look at a slice, (height, width).

        Raises
        ------
        InputError
            If labels are not whole numbers.
        """
        labels = whole(labels)
        values, counts = np.unique(labels, return_counts=True)
        self.pixels.update(dict(zip(values.tolist(), counts.tolist())))
        self.pixels.pop(self._ignore, None)
        self._small |= min(labels.shape) < 3
        self._solid.update(np.unique(labels[1:-1, 1:-1][_in_blocks(labels)]).tolist())
        if not self.touching:
            cells = labels if self._ignore is None else np.where(labels == self._ignore, 0, labels)
            self.touching = touch(cells)

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
        """Refuse values that lie as those of pictures do, and of labels do not.

        Labels fill 3 x 3 pixels somewhere, grey values hardly anywhere.

        Raises
        ------
        InputError
            If most values, or most beside two that nearly all pixels have, lie in smaller bits.
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
    """Tell whether pixels of two numbers other than 0 are neighbours, corners included.

    Parameters
    ----------
    cells : ndarray of int, shape (height, width)
    """
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
    """Tell what kind of labels a stack holds.

    Parameters
    ----------
    slices : iterable of ndarray, shape (height, width)
        Read until the answer is known.
    ignore : int, optional
        The label that means "not annotated".

    Returns
    -------
    {"binary", "instances"}
        Up to two values are binary, more than 32 are instances.

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
