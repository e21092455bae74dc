"""What is held out of the training: slices spread through the stack, or quadrants of a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

import numpy as np

from unet.errors import InputError
from unet.files.names import printable
from unet.volumes import Volume

# Of this share of the slices the scores tell enough; more of them tell little more.
_SHARE = 5
#: Slices that are held out at most.
MOST = 10
# With fewer slices one whole one would be too much to do without.
_LEAST_SLICES = 4
# Of quadrants, in which order they are held out: whether rows, and columns, are the last ones.
_CORNERS = ((1, 1), (0, 0), (0, 1), (1, 0))
# What marks pixels that a copy of a slice keeps for itself.
_NOT_HERE = -1


class Quadrant(NamedTuple):
    """A part of slice `z`: rows and columns, each (first, stop)."""

    z: int
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class Split:
    """Slices to learn from, and slices or quadrants that are held out.

    Slices count from 0 in the pair that is learnt from. Where quadrants are held out, their slices
    are learnt from, too, without them.
    """

    train: tuple[int, ...]
    held_out: tuple[int, ...] = ()
    quadrants: tuple[Quadrant, ...] = ()

    def as_json(
        self, names: Sequence[int], files: Sequence[str] = (), in_time: bool = False
    ) -> dict[str, Any]:
        """Return what choices.json says, with the slices' numbers in the stack.

        Parameters
        ----------
        names : sequence of int
            The number of each slice of the pair.
        files : sequence of str
            The file of each, if they have one.
        in_time : bool
            Whether they are the frames of a sequence, whose own numbers these are.
        """
        held_out: list[Any] = [int(names[z]) for z in self.held_out]
        held_out += [
            {"z": int(names[one.z]), "rows": list(one.rows), "columns": list(one.columns)}
            for one in self.quadrants
        ]
        said = {"train": [int(names[z]) for z in self.train], "held_out": held_out}
        if files:
            said["files"] = {str(int(names[z])): printable(files[z]) for z in sorted(self.order)}
        if in_time:
            said["unit"] = "frame"
        return said

    @classmethod
    def of_json(cls, said: dict[str, Any], names: Sequence[int]) -> Split:
        """Return what `as_json` has written."""
        place = {int(name): z for z, name in enumerate(names)}
        whole = [one for one in said["held_out"] if not isinstance(one, dict)]
        parts = [one for one in said["held_out"] if isinstance(one, dict)]
        return cls(
            tuple(place[z] for z in said["train"]),
            tuple(place[z] for z in whole),
            tuple(
                Quadrant(place[one["z"]], tuple(one["rows"]), tuple(one["columns"]))
                for one in parts
            ),
        )

    @property
    def order(self) -> list[int]:
        """Which slices the training set holds: those learnt from, then those held out."""
        return [*self.train, *self.held_out, *(one.z for one in self.quadrants)]

    @property
    def many(self) -> int:
        """How many slices or quadrants are held out."""
        return len(self.held_out) + len(self.quadrants)

    @property
    def learnt(self) -> range:
        """The slices of the training set that are learnt from; those held out follow."""
        return range(len(self.train))

    @property
    def tested(self) -> range:
        """The slices of the training set that are tested on."""
        return range(len(self.train), len(self.train) + self.many)

    def arranged(
        self, raw: Volume, labels: Volume, ignored: int | None
    ) -> tuple[Volume, Volume, int | None]:
        """Return pictures and labels in the order of the training set, and what marks the unknown.

        A quadrant that is held out is not annotated in the slice that is learnt from, and alone
        annotated in a copy of it.
        """
        order = self.order
        pictures = _reordered(raw, order, raw.__getitem__, raw.dtype)
        if not self.quadrants:
            return pictures, _reordered(labels, order, labels.__getitem__, labels.dtype), ignored
        mark = _NOT_HERE if ignored is None else ignored
        parts = {one.z: (slice(*one.rows), slice(*one.columns)) for one in self.quadrants}

        def read(place: int) -> np.ndarray:
            z = order[place]
            image = labels[z].astype(np.int64)
            if z in parts:
                inside = np.zeros(image.shape, bool)
                inside[parts[z]] = True
                image[inside if place < len(self.train) else ~inside] = mark
            return image

        places = list(range(len(order)))
        return pictures, _reordered(labels, places, read, np.dtype(np.int64)), mark


def _reordered(volume: Volume, order: list[int], read, dtype: np.dtype) -> Volume:
    shape = (len(order), *volume.shape[1:])
    return Volume(volume.path, shape, dtype, lambda place: read(order[place]))


def split(
    slices: Sequence[int],
    size: tuple[int, int],
    *,
    in_time: bool = False,
    most: int = MOST,
    held_out: Sequence[int] | None = None,
    middles: Mapping[int, Sequence[int]] | None = None,
    labelled: Callable[[int], np.ndarray] | None = None,
) -> Split:
    """Choose what is held out.

    Parameters
    ----------
    slices : sequence of int
        Those that are annotated.
    size : tuple of int
        (height, width).
    in_time : bool
        Whether they are frames of a sequence, whose neighbours show the same cells: the last ones
        are held out, else slices spread evenly through the stack.
    most : int
        How many slices are held out at most.
    held_out : sequence of int, optional
        These, and no others; none of them: nothing is held out.
    middles : mapping of int to (row, column), optional
        The middle of what was annotated of a slice, if that is a part of it: quadrants meet there.
    labelled : callable, optional
        Returns of a slice where it has a label, bool (height, width): on slices and quadrants
        without any no network can be judged, so that others are chosen.

    Raises
    ------
    InputError
        If there would be nothing left to learn from, or nothing to judge a network on.

    Examples
    --------
    >>> split(range(10), (64, 64)).held_out
    (2, 7)
    >>> split([4], (64, 70)).quadrants
    (Quadrant(z=4, rows=(32, 64), columns=(35, 70)),)
    """
    slices = list(slices)
    if held_out is not None:
        strange = [z for z in held_out if z not in slices]
        if strange:
            raise InputError(f"--held-out: slice {strange[0]} is not one that is annotated")
        train = [z for z in slices if z not in held_out]
        if not train:
            raise InputError("--held-out names all slices, and none is left to learn from")
        if held_out and labelled is not None and not any(labelled(z).any() for z in held_out):
            raise InputError(
                "--held-out names slices without a single label, on which no network can be judged"
            )
        return Split(tuple(train), tuple(held_out))
    judged = slices
    if labelled is not None:
        judged = [z for z in slices if labelled(z).any()] or slices
    if len(judged) < _LEAST_SLICES:
        middle = [length // 2 for length in size]
        quadrants = [
            _best_quadrant(z, size, corner, (middles or {}).get(z, middle), labelled)
            for z, corner in zip(judged, _CORNERS)
        ]
        return Split(tuple(slices), (), tuple(quadrants))
    many = min(most, max(1, round(len(judged) / _SHARE)))
    if in_time:
        chosen = judged[-many:]
    else:
        chosen = [judged[int((k + 0.5) * len(judged) / many)] for k in range(many)]
    return Split(tuple(z for z in slices if z not in chosen), tuple(chosen))


def middles_of(
    labels: Volume, slices: Sequence[int], ignored: int | None
) -> dict[int, tuple[int, int]]:
    """Return the middle of what was annotated of each slice, where quadrants are held out.

    Labels that are `ignored` were not annotated. With so many slices that whole ones are held out,
    or where all was annotated, none is returned.
    """
    if ignored is None or len(slices) >= _LEAST_SLICES:
        return {}
    middles = {}
    for z in slices:
        known = labels[z] != ignored
        if known.any() and not known.all():
            rows, columns = (np.flatnonzero(known.any(axis=axis)) for axis in (1, 0))
            middles[z] = tuple(int(one[0] + one[-1] + 1) // 2 for one in (rows, columns))
    return middles


def _best_quadrant(
    z: int,
    size: tuple[int, int],
    corner: tuple[int, int],
    middle: Sequence[int],
    labelled: Callable[[int], np.ndarray] | None,
) -> Quadrant:
    """Return the quadrant of a corner, or of another one if in this, or beside it, is no label."""
    first = _quadrant(z, size, corner, middle)
    if labelled is None:
        return first
    drawn = labelled(z)
    for one in (corner, *_CORNERS):
        found = _quadrant(z, size, one, middle)
        inside = np.count_nonzero(drawn[slice(*found.rows), slice(*found.columns)])
        if 0 < inside < np.count_nonzero(drawn):
            return found
    return first


def _quadrant(
    z: int, size: tuple[int, int], corner: tuple[int, int], middle: Sequence[int]
) -> Quadrant:
    """Return a part of a slice that begins or ends in the middle of what was annotated."""
    ends = []
    for length, last, place in zip(size, corner, middle):
        # All of one size, also where a side is odd.
        half = length // 2
        begins = place + length % 2 if last else place - half
        if not 0 <= begins <= length - half:
            begins = place - half if last else place
        ends.append((begins, begins + half))
    return Quadrant(z, *ends)
