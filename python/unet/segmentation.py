"""Segment pictures of any size: passes over mirrored tiles, averaged over mirrored versions.

References
----------
Ronneberger et al. 2015, Sec. 2 (overlap-tile strategy) and Sec. 4 (averaging over versions).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple

import numpy as np

from unet.errors import InputError
from unet.grey import scale_grey
from unet.model import shape_net
from unet.tiles import BORDER, mirrored, tile_places


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


def score_picture(
    net: Any,
    picture: np.ndarray,
    tile: tuple[int, int],
    *,
    after_pass: Callable[[], None] = _no_report,
) -> np.ndarray:
    """Return the scores before the soft-max: those of one pass over the whole mirrored picture.

    Parameters
    ----------
    net : caffe.Net
        As of `unet.model.load_net`.
    picture : float32 ndarray, shape (channels, height, width)
    tile : tuple of int
        (height, width) of the net's input: 16k + 60 each.
    after_pass : callable, optional
        Called after each pass.

    Returns
    -------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    InputError
        If the tile size is invalid, or the picture has other channels than the network.

    References
    ----------
    Ronneberger et al. 2015, Fig. 2.
    """
    places = tile_places(picture.shape[1:], tile)
    return score_tiles(net, picture, tile, places, mirrored, after_pass)


def score_tiles(
    net: Any,
    picture: np.ndarray,
    tile: tuple[int, int],
    places: Iterable[tuple[int, int]],
    cut: Callable[[np.ndarray, int, int, tuple[int, int]], np.ndarray],
    after_pass: Callable[[], None],
) -> np.ndarray:
    """Return the scores before the soft-max, put together of tiles; where these overlap, the last.

    Parameters
    ----------
    net, picture, tile, after_pass
        As for `score_picture`.
    places : iterable of (int, int)
        (row, column) of the first output pixel of every tile.
    cut : callable
        Cuts a tile's input from the picture: takes what `unet.tiles.mirrored` takes.

    Returns
    -------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    InputError
        If the picture has other channels than the network.
    """
    channels, height, width = picture.shape
    wanted = net.blobs["data"].shape[1]
    if channels != wanted:
        raise InputError(f"the picture has {channels} channels, but the network takes {wanted}")
    shape_net(net, tile)
    scores = np.empty((net.blobs["score"].shape[1], height, width), np.float32)
    for y, x in places:
        net.blobs["data"].data[0] = cut(picture, y - BORDER, x - BORDER, tile)
        net.forward(["score"])
        part = scores[:, y : y + tile[0] - 2 * BORDER, x : x + tile[1] - 2 * BORDER]
        part[...] = net.blobs["score"].data[0, :, : part.shape[1], : part.shape[2]]
        after_pass()
    return scores


def segment_picture(
    net: Any,
    picture: np.ndarray,
    tile: tuple[int, int],
    *,
    average: str = "none",
    score: Callable[..., np.ndarray] = score_picture,
    after_pass: Callable[[], None] = _no_report,
) -> np.ndarray:
    """Return the probability of each class at each pixel.

    Parameters
    ----------
    net, picture, after_pass
        As for `score_picture`.
    tile : tuple of int
        (height, width) of the net's input; turned along with the picture.
    average : str
        A key of `VERSIONS`: "none", "mirror" (4 versions), "rotate" (4) or "dihedral" (8). Averaged
        are the scores, before the soft-max, as the authors' own script did.
    score : callable
        `score_picture`, or what takes the same and tiles in another way.

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
    for version in VERSIONS[average]:
        laid = np.ascontiguousarray(version.of(picture))
        scores = score(net, laid, version.size(tile), after_pass=after_pass)
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
    score: Callable[..., np.ndarray] = score_picture,
    after_pass: Callable[[], None] = _no_report,
) -> Iterator[np.ndarray]:
    """Yield slice after slice the probability of each class at each pixel.

    Parameters
    ----------
    net, tile, average, score, after_pass
        As for `segment_picture`.
    pictures : iterable of ndarray, shape (height, width) or (channels, height, width)
        Slices, such as a `unet.volumes.Volume`; read one at a time.
    grey : tuple of float, optional
        The grey values that become 0 and 1; `unet.volumes.grey_range` tells them. None: each slice
        is normalised (`unet.grey.normalised_range`).

    Yields
    ------
    float32 ndarray, shape (classes, height, width)
    """
    for picture in pictures:
        stacked = picture if picture.ndim == 3 else picture[None]
        scaled = scale_grey(stacked, grey)
        yield segment_picture(
            net, scaled, tile, average=average, score=score, after_pass=after_pass
        )


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities, float32, of scores (classes, ...) (Ronneberger et al. 2015, Sec. 3)."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
