"""Maps of foreground or classes in the place of cells' numbers, and cells made of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from unet.errors import InputError
from unet.preparation.label_kind import MOST_CLASSES, LabelSurvey
from unet.preparation.labels import instances_from_binary
from unet.volumes import Volume
from unet.volumes.row_strips import values_of

LABEL_KINDS = ("auto", "binary", "instances")
# A cell may lie in two pieces, but not most of them in more.
_MOST_PIECES = 2


def components(frames: Volume, threshold: float | None = None) -> Volume:
    """Return frames whose cells are the 4-connected components of foreground, int32.

    Foreground is what is above the threshold, or what is not 0 where there is none.
    """

    def read(t: int) -> np.ndarray:
        frame = frames[t].reshape(frames.shape[-2:])
        return instances_from_binary(frame != 0 if threshold is None else frame > threshold)

    shape = frames.shape[:1] + frames.shape[-2:]
    return Volume(frames.path, shape, np.dtype(np.int32), read, frames.close)


def refuse_maps(frames: Iterable[np.ndarray]) -> None:
    """Refuse frames of one number, or a few, each of which has many separate regions.

    Parameters
    ----------
    frames : iterable of ndarray of int, shape (height, width)
        Read until more numbers are known than there are classes.

    Raises
    ------
    InputError
        If there is one number, and it is 255 or has several regions in a frame; if
        there are up to 32, which have more than two regions each in the mean; or if numbers lie as
        those of pictures, or of masks that were scaled.
    """
    values: set = set()
    cells = regions = 0
    several: int | None = None
    for t, frame in enumerate(frames):
        frame = frame.reshape(frame.shape[-2:])
        here = [value for value in values_of(frame).tolist() if value != 0]
        values.update(here)
        if len(values) > MOST_CLASSES:
            if len(here) > MOST_CLASSES and frame.dtype.kind != "f":
                survey = LabelSurvey()
                survey.add(frame)
                survey.refuse_pictures()
            return
        pieces = sum(ndimage.label(frame == value, np.ones((3, 3)))[1] for value in here)
        cells, regions = cells + len(here), regions + pieces
        if several is None and pieces > len(here):
            several = t
    if values == {255} or (len(values) == 1 and several is not None):
        place = "" if several is None else f" (several regions in frame {several})"
        raise InputError(
            f"holds a map of foreground, 0 and {values.pop():g}{place}, instead of a number for "
            f"each cell: say --label-kind binary to follow its connected regions, or --label-kind "
            f"instances if it is one cell"
        )
    if regions > _MOST_PIECES * cells:
        raise InputError(
            f"holds a map of classes instead of a number for each cell: its {len(values)} numbers "
            f"have {regions / cells:.1f} separate regions a frame in the mean; give what "
            f"tools/segment.py --instances writes, or say --label-kind instances if these are cells"
        )
