"""Which slices of a label stack, and which parts of them, anybody annotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.errors import InputError, few
from unet.preparation.labels import IGNORED
from unet.preparation.partial_annotation import IgnoreRule, unknown_pixels
from unet.preparation.training_set_options import TrainingSetOptions
from unet.volumes import Volume
from unet.volumes.row_strips import values_of

# Labels of one box lie no farther apart, those of two do.
_APART = 16
# So many cells reach to each edge of a box that was cut out of tissue. Of cells on background one
# or two reach as far as any other.
_CELLS_AT_EDGE = 3
# Marks pixels that nobody annotated, in labels that have no value for it.
_NOT_HERE = -1

Box = tuple[slice, slice]


class AnnotatedPart(NamedTuple):
    """What of a label stack was annotated.

    Attributes
    ----------
    labels : Volume, shape (slices, height, width)
    slices : list of int
        Of those asked for, those that were annotated.
    ignore : int, optional
        The label that means "not annotated".
    remarks : tuple of str
        What was found, a sentence each, with the flag that says otherwise.
    """

    labels: Volume
    slices: list[int]
    ignore: int | None
    remarks: tuple[str, ...] = ()


@dataclass
class _Seen:
    """What slices of a label stack hold: values, which have a label, boxes that labels fill."""

    values: set = field(default_factory=set)
    labelled: list[int] = field(default_factory=list)
    boxes: dict[int, list[Box]] = field(default_factory=dict)


def annotated_part(
    labels: Volume, options: TrainingSetOptions, slices: Sequence[int]
) -> AnnotatedPart:
    """Find out what of a label stack was annotated.

    Parameters
    ----------
    labels : Volume, shape (slices, height, width)
        0 is no label.
    options : TrainingSetOptions
        Of which these count: ignore_label, label_kind, unannotated, reach.
    slices : sequence of int
        Those that are asked for.

    Returns
    -------
    AnnotatedPart

    Raises
    ------
    InputError
        If no slice has a label, or one cannot be read.

    Notes
    -----
    By default (unannotated: auto) label 255 beside 0 and 1, or among numbers of classes, means "not
    annotated"; slices without any label were not annotated if they are more than half; and labels
    of tissue that fill boxes tell nothing of what is beyond these. "boxes" takes the bounding box
    of any labels in a slice for all that was annotated there; "surroundings" `reach` pixels around
    each cell; "slices" each slice with a label as a whole; "none" all slices.
    """
    rule, ignore = options.unannotated, options.ignore_label
    seen = _look(labels, slices, ignore, rule)
    remarks: list[str] = []
    if ignore is None and _is_mark(seen.values, options):
        ignore = IGNORED
        remarks.append(
            f"the label {IGNORED} of {labels.path} is taken for: not annotated"
            if options.classes is None
            else f"a few pixels of {labels.path} have labels that --classes does not name, and "
            f"are taken for: not annotated"
        )
        # What it marks is no label.
        seen = _look(labels, slices, ignore, rule)
    bare = len(slices) - len(seen.labelled)
    if rule == "none" or (rule == "auto" and not (seen.labelled and 2 * bare > len(slices))):
        kept = list(slices)
    else:
        kept = seen.labelled
        if not kept:
            raise InputError(f"{labels.path}: no slice of those taken has a label other than 0")
        if bare:
            remarks.append(
                f"only {len(kept)} of {len(slices)} slices of {labels.path} have a label "
                f"({few(kept)}), and these alone are learnt from (--unannotated none if the others "
                f"have nothing but background)"
            )
    if rule == "surroundings":
        around = IgnoreRule("surroundings", options.reach or 0.0)
        return _marked(labels, kept, ignore, remarks, around)
    boxes = {z: found for z, found in seen.boxes.items() if z in kept}
    if not boxes:
        return AnnotatedPart(labels, kept, ignore, tuple(remarks))
    if rule == "auto":
        remarks.append(
            f"labels fill boxes in slices {few(sorted(boxes))} of {labels.path}: what is beyond "
            f"these is taken for: not annotated (--unannotated slices if it is background)"
        )
    return _marked(labels, kept, ignore, remarks, boxes)


def _look(labels: Volume, slices: Sequence[int], ignore: int | None, rule: str) -> _Seen:
    seen = _Seen()
    labels.demand(slices)
    for z in slices:
        image = labels[z]
        seen.values.update(values_of(image).tolist()[:IGNORED])
        drawn = image != 0 if ignore is None else (image != 0) & (image != ignore)
        if not drawn.any():
            # All 0 where it was annotated: of a slice that has marks somebody took care.
            if ignore is not None and (image == ignore).any() and (image != ignore).any():
                seen.labelled.append(z)
            continue
        seen.labelled.append(z)
        if rule == "boxes":
            found = [ndimage.find_objects(drawn.astype(np.uint8))[0]]
        elif rule == "auto" and ignore is None:
            found = _boxes(image, drawn)
        else:
            continue
        if found and found != [_whole(image)]:
            seen.boxes[z] = found
    return seen


def _whole(image: np.ndarray) -> Box:
    return slice(0, image.shape[0]), slice(0, image.shape[1])


def _is_mark(values: set, options: TrainingSetOptions) -> bool:
    """Tell whether 255 means "not annotated": beside 0 and 1, or where labels are classes."""
    by_number = options.unannotated != "none" or options.classes is not None
    if not by_number or IGNORED not in values:
        return False
    others = values - {IGNORED}
    if options.label_kind == "classes":
        # Numbers without large gaps; of 0, 128 and 255 all are classes.
        return bool(others) and max(others) < 2 * len(others)
    return options.label_kind in ("auto", "binary", "membranes") and others == {0, 1}


def _boxes(image: np.ndarray, drawn: np.ndarray) -> list[Box]:
    """Return the boxes that labels of tissue fill in a slice; none if one is no such box."""
    near = ndimage.maximum_filter1d(ndimage.maximum_filter1d(drawn, _APART, 0), _APART, 1)
    parts = ndimage.label(near)[0]
    found = ndimage.find_objects(np.where(drawn, parts, 0))
    boxes = [box for box in found if box is not None]
    if not all(_is_cut_out(image, drawn, box) for box in boxes):
        return []
    return [tuple(map(_to_the_edge, box, image.shape)) for box in boxes]


def _to_the_edge(side: slice, length: int) -> slice:
    """Return a side of a box, up to the slice's edge where it ends near that."""
    start = 0 if side.start < _APART else side.start
    return slice(start, length if side.stop > length - _APART else side.stop)


def _is_cut_out(image: np.ndarray, drawn: np.ndarray, box: Box) -> bool:
    """Tell whether labels reach to each edge of a box, as far as that is not the slice's.

    At least 3 of them do, and there is background in the box.
    """
    inside, cells = drawn[box], image[box]
    if inside.all():
        return False
    rows, columns = map(_to_the_edge, box, image.shape)
    edges = (
        (cells[0], rows.start == 0),
        (cells[-1], rows.stop == image.shape[0]),
        (cells[:, 0], columns.start == 0),
        (cells[:, -1], columns.stop == image.shape[1]),
    )
    return all(is_slices or _runs(edge) >= _CELLS_AT_EDGE for edge, is_slices in edges)


def _runs(edge: np.ndarray) -> int:
    """Count the runs of one label other than 0 along an edge."""
    begins = np.diff(edge.astype(np.int64), prepend=0) != 0
    return int(np.count_nonzero(begins & (edge != 0)))


def _marked(
    labels: Volume,
    slices: list[int],
    ignore: int | None,
    remarks: list[str],
    known: dict[int, list[Box]] | IgnoreRule,
) -> AnnotatedPart:
    """Return labels in which what was not annotated is marked."""
    mark = _NOT_HERE if ignore is None else ignore

    def read(z: int) -> np.ndarray:
        image = labels[z].astype(np.int64)
        if isinstance(known, IgnoreRule):
            drawn = (image != 0) & (image != mark)
            image[unknown_pixels(drawn.astype(np.uint8), known)] = mark
        elif z in known:
            unknown = np.ones(image.shape, bool)
            for box in known[z]:
                unknown[box] = False
            image[unknown] = mark
        return image

    marked = Volume(
        labels.path,
        labels.shape,
        np.dtype(np.int64),
        read,
        labels.close,
        labels.missing,
        labels.calibration,
    )
    return AnnotatedPart(marked, slices, mark, tuple(remarks))
