"""A sequence of the cell tracking challenge as a stack and its labels, for training."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet.errors import InputError
from unet.files.names import PathLike
from unet.preparation.partial_annotation import (
    IgnoreRule,
    check_rule,
    largest_reach,
    undrawn_markers,
    unknown_pixels,
)
from unet.tracking.ctc_format import numbered_files, open_frames
from unet.volumes import Volume

ANNOTATIONS = ("gt", "st")
#: The label of pixels that are not annotated; cells are above 0.
UNKNOWN = -1


class SequenceFiles(NamedTuple):
    """The frames, drawn cells and markers of a sequence, by their numbers; without markers none."""

    frames: dict[int, Path]
    cells: dict[int, Path]
    markers: dict[int, Path]


class AnnotatedFrames(NamedTuple):
    """The frames of a sequence in which cells are drawn.

    Attributes
    ----------
    numbers : list of int
        Frame of each slice of the stacks.
    raw : Volume, shape (len(numbers), height, width)
    labels : Volume of int32, shape (len(numbers), height, width)
        0 is background, `UNKNOWN` not annotated, every other number a cell.
    rule : IgnoreRule
        The rule by which pixels are not annotated, its reach filled in.
    undrawn : dict of int to int
        How many markers have no drawn cell, for the frames where there are any.
    """

    numbers: list[int]
    raw: Volume
    labels: Volume
    rule: IgnoreRule
    undrawn: dict[int, int]


def is_sequence(folder: PathLike) -> bool:
    """Tell whether a folder is a sequence: NN beside NN_GT/SEG or NN_ST/SEG."""
    folder = Path(folder)
    return folder.is_dir() and any((_beside(folder, kind) / "SEG").is_dir() for kind in ANNOTATIONS)


def _beside(folder: Path, kind: str) -> Path:
    # Not resolved: 02 may be a link, with its annotations beside the link.
    folder = Path(os.path.abspath(folder))
    return folder.with_name(f"{folder.name}_{kind.upper()}")


def find_sequence(folder: PathLike, annotations: str = "gt") -> SequenceFiles:
    """Find the files of a sequence.

    Parameters
    ----------
    folder : path
        DATASET/NN; its annotations are in the folders NN_GT and NN_ST beside it.
    annotations : {"gt", "st"}
        Whose cells: gold truth, drawn by people, or silver truth, made of the results of several
        methods.

    Raises
    ------
    InputError
        If a folder or all its files are missing, or a frame that is annotated.
    """
    folder = Path(folder)
    frames = numbered_files(folder, "t")
    truth = _beside(folder, annotations) / "SEG"
    if not truth.is_dir():
        others = [k for k in ANNOTATIONS if (_beside(folder, k) / "SEG").is_dir()]
        remedy = f"; there is --annotations {others[0]}" if others else ""
        raise InputError(f"{truth}: there is no such folder of annotations{remedy}")
    cells = numbered_files(truth, "man_seg")
    lost = [number for number in cells if number not in frames]
    if lost:
        raise InputError(
            f"{folder}: has no frame {lost[0]}, which {cells[lost[0]]} annotates: copy "
            f"that frame there, or remove its annotation"
        )
    tracking = _beside(folder, "gt") / "TRA"
    markers = numbered_files(tracking, "man_track") if tracking.is_dir() else {}
    return SequenceFiles(frames, cells, markers)


def open_annotated(
    files: SequenceFiles, rule: IgnoreRule, chosen: range | None = None
) -> AnnotatedFrames:
    """Open the annotated frames of a sequence as a stack and its labels.

    Parameters
    ----------
    files : SequenceFiles
    rule : IgnoreRule
        A reach of 0 with the rule "markers" becomes the largest distance at which a drawn cell of
        these frames has a pixel from its marker.
    chosen : range, optional
        The frames to take, of those annotated; by default all.

    Raises
    ------
    InputError
        If none of the chosen frames is annotated, a file is damaged, or the rule needs markers that
        are not there.
    """
    numbers = [number for number in files.cells if chosen is None or number in chosen]
    folder = next(iter(files.cells.values())).parent
    if not numbers:
        raise InputError(
            f"{folder}: annotates none of the chosen frames, but {listed(list(files.cells))}"
        )
    raw = open_frames({number: files.frames[number] for number in numbers}, masks=False)
    drawn = open_frames({number: files.cells[number] for number in numbers}, masks=True)
    marked = _open_markers(files.markers, numbers, drawn)
    if rule.rule == "markers" and marked is None:
        raise InputError(
            f"{folder}: frames {listed(numbers)} do not all have markers in the ground truth's "
            "TRA/man_trackNNN.tif, by which undrawn cells are found; choose another rule"
        )
    undrawn: dict[int, int] = {}
    farthest = 0.0
    if marked is not None:
        for z, number in enumerate(numbers):
            cells, markers = drawn[z], marked[z]
            if len(undrawn_markers(cells, markers)):
                undrawn[number] = len(undrawn_markers(cells, markers))
            if rule.rule == "markers" and not rule.reach:
                farthest = max(farthest, largest_reach(cells, markers))
    if rule.rule == "markers" and not rule.reach:
        rule = rule._replace(reach=farthest)
    check_rule(rule)

    def read(z: int) -> np.ndarray:
        cells = drawn[z]
        unknown = unknown_pixels(cells, rule, None if marked is None else marked[z])
        return np.where(unknown, UNKNOWN, cells.astype(np.int32))

    labels = Volume(drawn.path, drawn.shape, np.dtype(np.int32), read)
    return AnnotatedFrames(numbers, raw, labels, rule, undrawn)


def _open_markers(files: Mapping[int, Path], numbers: list[int], drawn: Volume) -> Volume | None:
    if not all(number in files for number in numbers):
        return None
    marked = open_frames({number: files[number] for number in numbers}, masks=True)
    if marked.shape != drawn.shape:
        raise InputError(
            f"{marked.path}: markers are {marked.shape[1:]} (height, width), but cells in "
            f"{drawn.path} are {drawn.shape[1:]}"
        )
    return marked


def listed(numbers: list[int]) -> str:
    """Write the numbers of frames, no more than twenty: 010 017 019."""
    shown = " ".join(f"{number:03d}" for number in numbers[:20])
    return shown + (f" ... {numbers[-1]:03d}" if len(numbers) > 20 else "")


def slices_of_frames(annotated: AnnotatedFrames, frames: range, option: str) -> list[int]:
    """Return the slices of the frames that an option names.

    Raises
    ------
    InputError
        If none of them is among those taken.
    """
    slices = [z for z, number in enumerate(annotated.numbers) if number in frames]
    if not slices:
        stop = "" if frames.stop == sys.maxsize else frames.stop
        raise InputError(
            f"{option} {frames.start}:{stop}: none of them is taken, which are "
            f"{listed(annotated.numbers)}"
        )
    return slices


def described(annotated: AnnotatedFrames, balanced: Sequence[int] | None) -> list[str]:
    """Say which frames were taken, and what is not drawn in them; a line each."""
    numbers, rule = annotated.numbers, annotated.rule
    lines = [f"frames       {listed(numbers)}"]
    if balanced is not None:
        lines.append(
            f"balance      slices {balanced[0]}:{balanced[-1] + 1}, frames "
            f"{numbers[balanced[0]]:03d} to {numbers[balanced[-1]]:03d}"
        )
    if annotated.undrawn:
        count = sum(annotated.undrawn.values())
        lines.append(
            f"not drawn    {count} cell{'s have' if count > 1 else ' has'} a marker only, in "
            f"frames {listed(list(annotated.undrawn))}"
        )
    told = {
        "none": "background",
        "surroundings": f"unknown farther than {rule.reach:g} pixels from the cells",
        "markers": f"unknown within {rule.reach:.1f} pixels of markers without a cell",
    }
    edge = rule.field_of_interest
    field = f"; unknown within {edge} pixels of the edge" if edge else ""
    return [*lines, f"unannotated  {told[rule.rule]}{field}"]
