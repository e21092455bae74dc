"""What kind of truth labels are, and the pictures and truth of what is held out."""

from __future__ import annotations

import numpy as np

from unet.experiment.split import Split
from unet.preparation.census import annotated_slice
from unet.preparation.labels import IGNORED
from unet.preparation.prepare import Pair
from unet.preparation.summary import Summary
from unet.volumes.row_strips import values_of

# As in held-out.h5.
_UNKNOWN = np.int32(-1)


def kind_of(summary: Summary) -> str:
    """Return what labels are scored as: membranes, cells or classes.

    Cells that somebody numbered are cells, also where they fill the picture; others are scored by
    the membranes between them there.
    """
    if summary.kind in ("classes", "membranes"):
        return summary.kind
    return "membranes" if summary.kind == "binary" and summary.is_tissue else "cells"


def likely_kind(pair: Pair) -> str:
    """Return what labels are likely to be scored as, by their middle slice: the costlier in doubt.

    Two values can be membranes as well as cells.
    """
    if pair.options.label_kind == "classes":
        return "classes"
    values = set(values_of(pair.labels[pair.slices[len(pair.slices) // 2]]).tolist())
    return "membranes" if len(values - {pair.options.ignore_label}) <= 2 else "cells"


def held_out(
    pair: Pair, parts: Split, kind: str, label_kind: str
) -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """Return what is held out, as `unet.experiment.judge.judge` takes it.

    Parameters
    ----------
    pair : Pair
    parts : Split
    kind : {"membranes", "cells", "classes"}
    label_kind : {"binary", "membranes", "classes", "instances"}
        Of which the labels are.

    Returns
    -------
    raw : list of ndarray, each ([channels,] height, width)
    truth : ndarray of int32, shape (n, height, width)
    slices : list of int
        Their numbers in the stack.
    """
    everything = (slice(None), slice(None))
    places = [(z, everything) for z in parts.held_out]
    places += [(one.z, (slice(*one.rows), slice(*one.columns))) for one in parts.quadrants]
    raw = [pair.raw[z][(..., *part)] for z, part in places]
    truth = [truth_of(pair, z, kind, label_kind)[part] for z, part in places]
    return raw, np.stack(truth), [int(pair.names[z]) for z, _ in places]


def truth_of(pair: Pair, z: int, kind: str, label_kind: str) -> np.ndarray:
    """Return what is true of a slice: int32 (height, width), -1 where nobody annotated."""
    annotation = annotated_slice(pair.labels, z, label_kind, pair.options.ignore_label)
    unknown = annotation.classes == IGNORED
    if kind != "cells":
        truth = annotation.classes.astype(np.int32)
    elif label_kind == "instances":
        # As they were drawn, without the borders that a network learns between them.
        labels = np.where(unknown, 0, pair.labels[z])
        values = np.unique(labels[labels > 0])
        truth = np.searchsorted(values, labels, side="right").astype(np.int32)
    else:
        truth = annotation.instances.copy()
    truth[unknown] = _UNKNOWN
    return truth
