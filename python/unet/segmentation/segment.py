"""From an image to probabilities: passes over its tiles, averaged over test-time orientations.

References
----------
Ronneberger et al. 2015, Sec. 2 (overlap-tile strategy) and Sec. 4 (averaging over versions).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from unet.errors import InputError
from unet.segmentation.beside_passes import ahead, following
from unet.segmentation.tile_size import shape_net
from unet.segmentation.tiles import Tiling


class Orientation(NamedTuple):
    """One of the eight ways to lay an image: quarter turns, after a flip of its columns."""

    turns: int
    flip: bool

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Lay an image (..., height, width) this way."""
        return np.rot90(image[..., ::-1] if self.flip else image, self.turns, axes=(-2, -1))

    def undo(self, image: np.ndarray) -> np.ndarray:
        """Lay it as it was."""
        turned = np.rot90(image, -self.turns, axes=(-2, -1))
        return turned[..., ::-1] if self.flip else turned

    def place(
        self, rows: slice, columns: slice, size: tuple[int, int]
    ) -> tuple[slice, slice, tuple[int, int]]:
        """Return where a part of an image of `size` comes to lie, and the size of that."""
        height, width = size
        if self.flip:
            columns = _from_the_end(columns, width)
        for _ in range(self.turns % 4):
            rows, columns = _from_the_end(columns, width), rows
            height, width = width, height
        return rows, columns, (height, width)

    def origin(
        self, rows: slice, columns: slice, size: tuple[int, int]
    ) -> tuple[slice, slice, tuple[int, int]]:
        """Return where a part of an image of `size` laid this way comes from: undo `place`."""
        rows, columns, size = Orientation(-self.turns % 4, False).place(rows, columns, size)
        return rows, _from_the_end(columns, size[1]) if self.flip else columns, size

    @property
    def is_transposed(self) -> bool:
        """Whether height becomes width."""
        return self.turns % 2 == 1


def _from_the_end(part: slice, length: int) -> slice:
    return slice(length - part.stop, length - part.start)


# Test-time augmentation by name. Those of the image's own shape come first: a net changes its shape
# once a slice.
TTA = {
    "none": [Orientation(0, False)],
    "mirror": [Orientation(turns, flip) for turns in (0, 2) for flip in (False, True)],
    "rotate": [Orientation(turns, False) for turns in (0, 2, 1, 3)],
    "dihedral": [Orientation(turns, flip) for turns in (0, 2, 1, 3) for flip in (False, True)],
}


def tiling_of(
    orientation: Orientation,
    tiling: Tiling,
    rows: slice,
    columns: slice,
    size: tuple[int, int],
) -> tuple[Tiling, slice, slice, tuple[int, int]]:
    """Return the tiles of a part of an image of `size` laid that way, and what `place` does."""
    rows, columns, size = orientation.place(rows, columns, size)
    laid = tiling.transposed() if orientation.is_transposed else tiling
    return laid.covering(rows, columns), rows, columns, size


class Part(NamedTuple):
    """A part of an image, and how much of the image is shown for its sake.

    Attributes
    ----------
    rows, columns : slice
        That are wanted.
    seen : tuple of slice
        Rows and columns that `part_of` an image has to show.
    size : tuple of int
        (height, width) of the image.
    """

    rows: slice
    columns: slice
    seen: tuple[slice, slice]
    size: tuple[int, int]

    @classmethod
    def of(
        cls, rows: slice, columns: slice, size: tuple[int, int], tiling: Tiling, tta: str
    ) -> Part:
        """Find what the tiles of a part show in all orientations of `TTA`."""
        seen = []
        for one in TTA[tta]:
            laid, _, _, turned = tiling_of(one, tiling, rows, columns, size)
            seen.append(one.origin(*laid.seen(turned), turned)[:2])
        union = (
            slice(min(one[axis].start for one in seen), max(one[axis].stop for one in seen))
            for axis in (0, 1)
        )
        return cls(rows, columns, tuple(union), size)


class Picture(NamedTuple):
    """An image that goes through a network, and how.

    Attributes
    ----------
    image : float32 ndarray, shape (channels, height, width)
    tiling : Tiling
        Of images of that height and width.
    tta : {"none", "mirror", "rotate", "dihedral"}
        The orientations, of `TTA`, over which scores are averaged: before the soft-max, as the
        authors' own script did.
    part : Part, optional
        Which part of the image is wanted, and `image` shows; by default all of it.
    """

    image: np.ndarray
    tiling: Tiling
    tta: str = "none"
    part: Part | None = None


def segment_image(
    net: Any,
    image: np.ndarray,
    tiling: Tiling,
    tta: str = "none",
    *,
    together: int = 1,
    bar: tqdm | None = None,
) -> np.ndarray:
    """Return the probability of each class at each pixel of an image.

    Parameters and errors are those of `segment_pictures`.

    Returns
    -------
    float32 ndarray, shape (classes, height, width)
    """
    picture = Picture(image, tiling, tta)
    (probabilities,) = segment_pictures(net, [picture], together=together, bar=bar)
    return probabilities


def segment_pictures(
    net: Any, pictures: Iterable[Picture], *, together: int = 1, bar: tqdm | None = None
) -> Iterator[np.ndarray]:
    """Yield the probability of each class at each pixel of each picture.

    Pictures are taken, and tiles cut, by a thread that is ahead of the network; the soft-max is
    computed by another behind it. Passes stay in the thread that asks for them: genuine Caffe keeps
    its mode and device for each.

    Parameters
    ----------
    net : caffe.Net
        As of `unet.model.open_net.load_net`.
    pictures : iterable of Picture
        An error of it comes when all that it gave before is done.
    together : int, 1 or more
        Tiles that the net is given at a time. Each is a pass of its own; but a GPU can fetch one
        and give back another while it computes.
    bar : tqdm, optional
        Told of each pass.

    Yields
    ------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    InputError
        If an image has other channels than the network.
    FloatingPointError
        If an intensity or a score is NaN or infinite: intensities far beyond those that the network
        learnt from.
    """

    def checked() -> Iterator[Picture]:
        for picture in pictures:
            # A ReLU may turn NaN into 0, as that of oneDNN does on some CPUs: scores then look
            # sound.
            if not np.isfinite(picture.image).all():
                raise FloatingPointError("the picture that the network is given is NaN or infinite")
            yield picture

    # As many results as pictures whose tiles the net is given at a time.
    yield from following(probabilities_of, score_pictures(net, checked(), together, bar), together)


def probabilities_of(scores: np.ndarray) -> np.ndarray:
    """Return the soft-max of scores; FloatingPointError if they are NaN or infinite."""
    if not np.isfinite(scores).all():
        raise FloatingPointError("the network's scores are NaN or infinite")
    return softmax(scores)


def score_image(
    net: Any, image: np.ndarray, tiling: Tiling, tta: str = "none", *, together: int = 1
) -> np.ndarray:
    """Return an image's scores before the soft-max, (classes, height, width).

    In one orientation they are those of one pass over the whole mirrored image. Parameters are
    those of `segment_pictures`.
    """
    (scores,) = score_pictures(net, [Picture(image, tiling, tta)], together)
    return scores


def score_pictures(
    net: Any, pictures: Iterable[Picture], together: int = 1, bar: tqdm | None = None
) -> Iterator[np.ndarray]:
    """Yield the scores before the soft-max; parameters and errors as of `segment_pictures`."""
    wanted = net.blobs["data"].shape[1]
    # Of each picture whose tiles were cut: its orientations, their tiles, and what is wanted.
    cut: deque[list[tuple[Orientation, Tiling, tuple[slice, slice]]]] = deque()

    def inputs() -> Iterator[np.ndarray]:
        for image, tiling, tta, part in pictures:
            if image.shape[0] != wanted:
                raise InputError(
                    f"the picture has {image.shape[0]} channels, but the network takes {wanted}"
                )
            laid = [(one, *_laid(one, image.shape[1:], tiling, part)) for one in TTA[tta]]
            cut.append([(one, tiles, area) for one, tiles, _, area in laid])
            for one, tiles, part_of, _ in laid:
                yield from tiles.inputs(np.ascontiguousarray(one.apply(image)), part_of)

    with closing(_forward(net, inputs(), together, bar)) as passes:
        for first in passes:
            coming = itertools.chain([first], passes)
            orientations, total = cut.popleft(), None
            for orientation, tiles, area in orientations:
                scores = orientation.undo(tiles.joined(coming, *area))
                if total is None:
                    total = scores
                else:
                    total += scores
            yield total / np.float32(len(orientations))


def _laid(
    orientation: Orientation, shape: tuple[int, int], tiling: Tiling, part: Part | None
) -> tuple[Tiling, tuple[int, int, int, int] | None, tuple[slice, slice]]:
    """Return the tiles of an image, or of the part of one that is wanted, laid an other way.

    Also what `mirrored` calls part_of, and the rows and columns that are wanted.
    """
    if part is None:
        rows, columns, _ = orientation.place(slice(0, shape[0]), slice(0, shape[1]), shape)
        laid = tiling.transposed() if orientation.is_transposed else tiling
        return laid, None, (rows, columns)
    laid, *area, size = tiling_of(orientation, tiling, part.rows, part.columns, part.size)
    top, left, _ = orientation.place(*part.seen, part.size)
    return laid, (*size, top.start, left.start), tuple(area)


def _groups(inputs: Iterable[np.ndarray], together: int) -> Iterator[np.ndarray]:
    """Yield inputs that follow each other and have one shape, as many as are given together."""
    group: list[np.ndarray] = []

    def given() -> Iterator[np.ndarray]:
        if group:
            yield np.stack(group) if len(group) > 1 else group[0][None]
            group.clear()

    try:
        for one in inputs:
            if group and one.shape != group[0].shape:
                yield from given()
            group.append(one)
            if len(group) == together:
                yield from given()
    except Exception:
        # What came before is not lost.
        yield from given()
        raise
    yield from given()


def _forward(
    net: Any, inputs: Iterable[np.ndarray], together: int, bar: tqdm | None
) -> Iterator[np.ndarray]:
    """Yield the scores of each input; overwritten when the next ones are asked for."""
    with closing(ahead(_groups(inputs, together))) as groups:
        for group in groups:
            shape_net(net, group.shape[2:])
            if len(group) > 1:
                scores = net.forward_all(["score"], data=group)["score"]
            else:
                net.blobs["data"].data[...] = group
                net.forward(["score"])
                scores = net.blobs["score"].data
            for one in scores:
                if bar is not None:
                    bar.update()
                yield one


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities, float32, of scores (classes, ...) (Ronneberger et al. 2015, Sec. 3)."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
