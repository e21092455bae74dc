"""Segment pictures of any size: passes over mirrored tiles, averaged over mirrored versions.

References
----------
Ronneberger et al. 2015, Sec. 2 (overlap-tile strategy) and Sec. 4 (averaging over versions).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple

import numpy as np

from unet.errors import InputError
from unet.model import shape_net
from unet.segmentation.tiles import BORDER, tile_places
from unet.volumes.intensity import scale_grey
from unet.volumes.mirror import mirrored


class Version(NamedTuple):
    """One of the eight ways to lay a picture: quarter turns, after a flip of its columns."""

    turns: int
    flip: bool

    def of(self, picture: np.ndarray) -> np.ndarray:
        """Lay a picture (..., height, width) this way."""
        return np.rot90(picture[..., ::-1] if self.flip else picture, self.turns, axes=(-2, -1))

    def undo(self, picture: np.ndarray) -> np.ndarray:
        """Lay it as it was."""
        turned = np.rot90(picture, -self.turns, axes=(-2, -1))
        return turned[..., ::-1] if self.flip else turned

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of a picture of `shape` laid this way."""
        return shape[::-1] if self.turns % 2 else shape


# Lying versions first, standing ones last: a net changes its shape once.
VERSIONS = {
    "none": [Version(0, False)],
    "mirror": [Version(0, False), Version(0, True), Version(2, False), Version(2, True)],
    "rotate": [Version(0, False), Version(2, False), Version(1, False), Version(3, False)],
    "dihedral": [Version(turns, flip) for turns in (0, 2, 1, 3) for flip in (False, True)],
}


def _no_report() -> None:
    pass


def score_pictures(
    net: Any,
    pictures: Iterable[np.ndarray],
    tile: tuple[int, int],
    *,
    together: int = 1,
    after_pass: Callable[[], None] = _no_report,
) -> Iterator[np.ndarray]:
    """Yield the scores before the soft-max: those of one pass over each whole mirrored picture.

    Parameters
    ----------
    net : caffe.Net
        As of `unet.model.load_net`.
    pictures : iterable of float32 ndarray, shape (channels, height, width)
        Of one shape; taken as their turn comes, at most `together` ahead.
    tile : tuple of int
        (height, width) of the net's input: 16k + 60 each.
    together : int, 1 or more
        Tiles that the net is given at a time. Each is a pass of its own; but a GPU can fetch one
        and give back another while it computes.
    after_pass : callable, optional
        Called after each pass.

    Yields
    ------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    InputError
        If the tile size is invalid, or a picture has other channels than the network.

    References
    ----------
    Ronneberger et al. 2015, Fig. 2.
    """
    return score_tiles(
        net, pictures, tile, tile_places, mirrored, together=together, after_pass=after_pass
    )


def score_tiles(
    net: Any,
    pictures: Iterable[np.ndarray],
    tile: tuple[int, int],
    cover: Callable[[tuple[int, int], tuple[int, int]], Iterable[tuple[int, int]]],
    cut: Callable[[np.ndarray, int, int, tuple[int, int]], np.ndarray],
    *,
    together: int,
    after_pass: Callable[[], None],
) -> Iterator[np.ndarray]:
    """Yield the scores before the soft-max, put together of tiles; where these overlap, the last.

    Parameters
    ----------
    net, pictures, tile, together, after_pass
        As for `score_pictures`.
    cover : callable
        Gives the (row, column) of the first output pixel of every tile: takes what
        `unet.segmentation.tiles.tile_places` takes.
    cut : callable
        Cuts a tile's input from the picture: takes what `unet.volumes.mirror.mirrored` takes.

    Yields
    ------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    InputError
        If a picture has other channels than the network.
    """
    wanted = net.blobs["data"].shape[1]
    # Where the tiles lie whose scores are still to come: place, and the size of their picture.
    laid: deque[tuple[int, int, tuple[int, int], bool]] = deque()

    def inputs() -> Iterator[np.ndarray]:
        for picture in pictures:
            channels, *size = picture.shape
            if channels != wanted:
                raise InputError(
                    f"the picture has {channels} channels, but the network takes {wanted}"
                )
            places = list(cover(tuple(size), tile))
            for number, (y, x) in enumerate(places, 1):
                laid.append((y, x, tuple(size), number == len(places)))
                yield cut(picture, y - BORDER, x - BORDER, tile)

    scores: np.ndarray | None = None
    for given in _passes(net, inputs(), tile, together):
        y, x, size, last = laid.popleft()
        if scores is None:
            scores = np.empty(given.shape[:1] + size, np.float32)
        part = scores[:, y : y + given.shape[1], x : x + given.shape[2]]
        part[...] = given[:, : part.shape[1], : part.shape[2]]
        after_pass()
        if last:
            yield scores
            scores = None


def _passes(
    net: Any, inputs: Iterator[np.ndarray], tile: tuple[int, int], together: int
) -> Iterator[np.ndarray]:
    """Yield the scores of each input; overwritten when the next ones are asked for."""
    shape_net(net, tile)
    while group := list(itertools.islice(inputs, together)):
        if len(group) > 1:
            yield from net.forward_all(["score"], data=np.stack(group))["score"]
        else:
            net.blobs["data"].data[0] = group[0]
            net.forward(["score"])
            yield net.blobs["score"].data[0]


def segment_picture(
    net: Any,
    picture: np.ndarray,
    tile: tuple[int, int],
    *,
    average: str = "none",
    score: Callable[..., Iterator[np.ndarray]] = score_pictures,
    together: int = 1,
    after_pass: Callable[[], None] = _no_report,
) -> np.ndarray:
    """Return the probability of each class at each pixel.

    Parameters
    ----------
    net, together, after_pass
        As for `score_pictures`.
    picture : float32 ndarray, shape (channels, height, width)
    tile : tuple of int
        (height, width) of the net's input; turned along with the picture.
    average : str
        A key of `VERSIONS`: "none", "mirror" (4 versions), "rotate" (4) or "dihedral" (8). Averaged
        are the scores, before the soft-max, as the authors' own script did.
    score : callable
        `score_pictures`, or what takes the same and tiles in another way.

    Returns
    -------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    FloatingPointError
        If a grey value or a score is NaN or infinite: grey values far beyond those that the network
        learnt from.
    """
    # A ReLU may turn NaN into 0, as that of oneDNN does on some CPUs: scores then look sound.
    if not np.isfinite(picture).all():
        raise FloatingPointError("the picture that the network is given is NaN or infinite")
    total: np.ndarray | None = None
    for size, group in itertools.groupby(VERSIONS[average], lambda version: version.size(tile)):
        versions = list(group)
        laid = (np.ascontiguousarray(version.of(picture)) for version in versions)
        found = score(net, laid, size, together=together, after_pass=after_pass)
        for version, scores in zip(versions, found):
            back = version.undo(scores)
            if total is None:
                total = back
            else:
                total += back
    if not np.isfinite(total).all():
        raise FloatingPointError("the network's scores are NaN or infinite")
    return softmax(total / np.float32(len(VERSIONS[average])))


def segment_volume(
    net: Any,
    pictures: Iterable[np.ndarray],
    grey: tuple[float, float] | None,
    tile: tuple[int, int],
    *,
    average: str = "none",
    score: Callable[..., Iterator[np.ndarray]] = score_pictures,
    together: int = 1,
    after_pass: Callable[[], None] = _no_report,
) -> Iterator[np.ndarray]:
    """Yield slice after slice the probability of each class at each pixel.

    Parameters
    ----------
    net, tile, average, score, together, after_pass
        As for `segment_picture`.
    pictures : iterable of ndarray, shape (height, width) or (channels, height, width)
        Slices, such as a `unet.volumes.Volume`; read one at a time.
    grey : tuple of float, optional
        The grey values that become 0 and 1; `unet.volumes.grey_range` tells them. None: each slice
        is normalised (`unet.volumes.intensity.normalised_range`).

    Yields
    ------
    float32 ndarray, shape (classes, height, width)
    """
    for picture in pictures:
        stacked = picture if picture.ndim == 3 else picture[None]
        scaled = scale_grey(stacked, grey)
        yield segment_picture(
            net,
            scaled,
            tile,
            average=average,
            score=score,
            together=together,
            after_pass=after_pass,
        )


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities, float32, of scores (classes, ...) (Ronneberger et al. 2015, Sec. 3)."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
