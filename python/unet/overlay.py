"""A picture with the outlines of what was segmented, and of the truth where it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from unet.files.provenance import PICTURE, save_marked_png

# Orange and sky blue of Okabe and Ito: told apart with any colour vision, and on grey.
PREDICTED = (230, 159, 0)
TRUE = (86, 180, 233)
_OPACITY = 0.85
# Pictures are enlarged to about this side, so that outlines are finer than what they go around.
_SIDE = 1200
_GAP = 8


def draw_overlay(
    picture: np.ndarray, probabilities: np.ndarray, truth: np.ndarray | None = None
) -> np.ndarray:
    """Draw a picture, and beside it outlines of its regions: orange, over the true ones in blue.

    Parameters
    ----------
    picture : float ndarray, shape (channels, height, width)
        0 is black and 1 is white; three channels are red, green and blue, others are averaged.
    probabilities : float ndarray, shape (classes, height, width)
        The region of a class is where it is the likeliest.
    truth : int or bool ndarray, shape (height, width), optional
        Classes or numbers of cells.

    Returns
    -------
    uint8 ndarray, shape (n height, 2 n width + 8, 3)
        Enlarged n times if the picture is small.
    """
    height, width = picture.shape[1:]
    scale = max(1, round(_SIDE / max(height, width, _SIDE // 16)))
    channels = picture if len(picture) == 3 else np.repeat(picture.mean(0, keepdims=True), 3, 0)
    plain = np.stack([_enlarged(channel, scale) for channel in channels], axis=-1)
    plain = np.clip(plain, 0, 1) * 255
    drawn = plain.copy()
    if truth is not None:
        whole_pixels = truth.repeat(scale, axis=0).repeat(scale, axis=1)
        _draw(drawn, outlines(whole_pixels), TRUE)
    classes = np.argmax([_enlarged(channel, scale) for channel in probabilities], axis=0)
    _draw(drawn, outlines(classes), PREDICTED)
    gap = np.full((len(plain), _GAP, 3), 255.0)
    return np.rint(np.concatenate([plain, gap, drawn], axis=1)).astype(np.uint8)


def save_overlay(
    path: Path, picture: np.ndarray, probabilities: np.ndarray, truth: np.ndarray | None = None
) -> None:
    """Write the picture of `draw_overlay`, whose other parameters these are, as PNG."""
    from PIL import Image

    save_marked_png(path, Image.fromarray(draw_overlay(picture, probabilities, truth)), PICTURE)


def outlines(regions: np.ndarray) -> np.ndarray:
    """Mark the pixels on both sides of every place where neighbours differ.

    Parameters
    ----------
    regions : ndarray, shape (height, width)

    Returns
    -------
    bool ndarray, shape (height, width)

    Examples
    --------
    >>> outlines(np.array([[0, 0, 0, 1, 1]])).astype(int)
    array([[0, 0, 1, 1, 0]])
    """
    marked = np.zeros(regions.shape, bool)
    for axis in (0, 1):
        # Views: what is marked in them is marked in `marked`.
        pixels, lines = np.moveaxis(regions, axis, 0), np.moveaxis(marked, axis, 0)
        differ = pixels[1:] != pixels[:-1]
        lines[1:] |= differ
        lines[:-1] |= differ
    return marked


def _enlarged(channel: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge (height, width) by linear interpolation between pixel centres."""
    if scale == 1:
        return channel
    return ndimage.zoom(channel, scale, order=1, mode="nearest", grid_mode=True)


def _draw(drawn: np.ndarray, lines: np.ndarray, colour: tuple[int, int, int]) -> None:
    drawn[lines] += _OPACITY * (np.array(colour, drawn.dtype) - drawn[lines])
