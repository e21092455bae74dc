"""The scores of an image as caffe_unet computes them: tile by tile, averaged before the soft-max.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019), and its caffe_unet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from unet.errors import InputError
from unet.segmentation.caffe_unet_tiles import GridTiles, Shape
from unet.segmentation.segment import Orientation
from unet.segmentation.tile_size import shape_net

#: Versions of an image that caffe_unet averages: 4 mirrored ones, or 4 turned by a right angle.
AVERAGES = {
    "none": (Orientation(0, False),),
    "mirror": (
        Orientation(0, False),
        Orientation(0, True),
        Orientation(2, True),
        Orientation(2, False),
    ),
    "rotate": tuple(Orientation(turns, False) for turns in range(4)),
}


def score_averaged(
    net: Any,
    image: np.ndarray,
    cut: Callable[[Shape], GridTiles],
    versions: Sequence[Orientation] = AVERAGES["none"],
    told: Callable[[int, int, int], object] = lambda version, tile, tiles: None,
) -> dict[str, np.ndarray]:
    """Return the scores of an image, of each output of a network.

    Parameters
    ----------
    net : caffe.Net
        In phase TEST; its input takes images of any size.
    image : float32 ndarray, shape (channels, [depth,] height, width)
    cut : callable
        Gives the tiles of an image of a shape; each version of the image is cut anew.
    versions : sequence of Orientation
        In the plane of the last two axes, whose scores are averaged.
    told : callable
        Is told before each pass which version, from 0, and which of how many tiles, from 0.

    Returns
    -------
    dict of float32 ndarray, shape (classes, [depth,] height, width)

    Raises
    ------
    InputError
        If an output is not as large as a tile's scores should be.
    """
    total: dict[str, np.ndarray] = {}
    for number, version in enumerate(versions):
        laid = np.ascontiguousarray(version.apply(image))
        tiles = cut(laid.shape[1:])
        scores = _score(net, laid, tiles, lambda k: told(number, k, tiles.number))  # noqa: B023
        for name, one in scores.items():
            undone = version.undo(one)
            if name in total:
                total[name] += undone
            else:
                total[name] = np.array(undone, np.float32)
    for one in total.values():
        one /= np.float32(len(versions))
    return total


def _score(
    net: Any, image: np.ndarray, tiles: GridTiles, told: Callable[[int], object]
) -> dict[str, np.ndarray]:
    outputs: Sequence[str] = list(net.outputs)
    data = net.blobs[net.inputs[0]]
    shape_net(net, tiles.input)
    whole: dict[str, np.ndarray] = {}
    for number, (origin, tile) in enumerate(zip(tiles.origins, tiles.inputs(image))):
        told(number)
        data.data[...] = tile
        net.forward()
        for name in outputs:
            scores = net.blobs[name].data
            if scores.ndim != 2 + len(tiles.output) or scores.shape[2:] != tiles.output:
                raise InputError(
                    f"the network's output '{name}' is {tuple(scores.shape)} for an input of "
                    f"{tiles.input}, but padInput, padOutput and downsampleFactor of its model "
                    f"definition say {tiles.output}: they belong to another network"
                )
            if name not in whole:
                whole[name] = np.empty((scores.shape[1], *tiles.shape), np.float32)
            tiles.put(whole[name], origin, scores[0])
    return whole
