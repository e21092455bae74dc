"""From an image to probabilities: passes over its tiles, averaged over test-time orientations.

References
----------
Ronneberger et al. 2015, Sec. 2 (overlap-tile strategy) and Sec. 4 (averaging over versions).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from unet.errors import InputError
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

    @property
    def is_transposed(self) -> bool:
        """Whether height becomes width."""
        return self.turns % 2 == 1


# Test-time augmentation by name. Those of the image's own shape come first: a net changes its shape
# once a slice.
TTA = {
    "none": [Orientation(0, False)],
    "mirror": [Orientation(turns, flip) for turns in (0, 2) for flip in (False, True)],
    "rotate": [Orientation(turns, False) for turns in (0, 2, 1, 3)],
    "dihedral": [Orientation(turns, flip) for turns in (0, 2, 1, 3) for flip in (False, True)],
}


def segment_image(
    net: Any,
    image: np.ndarray,
    tiling: Tiling,
    tta: str = "none",
    *,
    together: int = 1,
    bar: tqdm | None = None,
) -> np.ndarray:
    """Return the probability of each class at each pixel.

    Parameters
    ----------
    net : caffe.Net
        As of `unet.model.open_net.load_net`.
    image : float32 ndarray, shape (channels, height, width)
    tiling : Tiling
        Of images of that height and width.
    tta : {"none", "mirror", "rotate", "dihedral"}
        The orientations, of `TTA`, over which scores are averaged: before the soft-max, as the
        authors' own script did.
    together : int, 1 or more
        Tiles that the net is given at a time. Each is a pass of its own; but a GPU can fetch one
        and give back another while it computes.
    bar : tqdm, optional
        Told of each pass.

    Returns
    -------
    float32 ndarray, shape (classes, height, width)

    Raises
    ------
    InputError
        If the image has other channels than the network.
    FloatingPointError
        If an intensity or a score is NaN or infinite: intensities far beyond those that the network
        learnt from.
    """
    # A ReLU may turn NaN into 0, as that of oneDNN does on some CPUs: scores then look sound.
    if not np.isfinite(image).all():
        raise FloatingPointError("the picture that the network is given is NaN or infinite")
    scores = score_image(net, image, tiling, tta, together=together, bar=bar)
    if not np.isfinite(scores).all():
        raise FloatingPointError("the network's scores are NaN or infinite")
    return softmax(scores)


def score_image(
    net: Any,
    image: np.ndarray,
    tiling: Tiling,
    tta: str = "none",
    *,
    together: int = 1,
    bar: tqdm | None = None,
) -> np.ndarray:
    """Return the scores before the soft-max; parameters and errors as those of `segment_image`.

    In one orientation they are those of one pass over the whole mirrored image.
    """
    channels, wanted = image.shape[0], net.blobs["data"].shape[1]
    if channels != wanted:
        raise InputError(f"the picture has {channels} channels, but the network takes {wanted}")
    total: np.ndarray | None = None
    for is_transposed, group in itertools.groupby(TTA[tta], lambda one: one.is_transposed):
        orientations = list(group)
        shape, laid = image.shape[1:], tiling
        if is_transposed:
            shape, laid = shape[::-1], tiling.transposed()
        oriented = (np.ascontiguousarray(one.apply(image)) for one in orientations)
        inputs = (tile for one in oriented for tile in laid.inputs(one))
        passes = _forward(net, inputs, laid.tile, together, bar)
        for orientation in orientations:
            scores = orientation.undo(laid.joined(passes, shape))
            if total is None:
                total = scores
            else:
                total += scores
    return total / np.float32(len(TTA[tta]))


def _forward(
    net: Any,
    inputs: Iterator[np.ndarray],
    tile: tuple[int, int],
    together: int,
    bar: tqdm | None,
) -> Iterator[np.ndarray]:
    """Yield the scores of each input; overwritten when the next ones are asked for."""
    shape_net(net, tile)
    while group := list(itertools.islice(inputs, together)):
        if len(group) > 1:
            scores = net.forward_all(["score"], data=np.stack(group))["score"]
        else:
            net.blobs["data"].data[0] = group[0]
            net.forward(["score"])
            scores = net.blobs["score"].data[:1]
        for one in scores:
            if bar is not None:
                bar.update()
            yield one


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities, float32, of scores (classes, ...) (Ronneberger et al. 2015, Sec. 3)."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
