"""The network before the U-Net: a window around each pixel tells the class of its centre.

Ciresan et al. (2012) won the ISBI challenge by it, and the paper names its two drawbacks (Sec. 1):
it is slow, because windows of neighbours share most of what is computed, and its poolings trade
context for where things are. `window` is the network as it was. `dense` computes the same scores of
all windows of a picture at once: each pooling is done from all four positions that it can begin at,
by stock layers (max-pooling fragments).

References
----------
D. Ciresan, A. Giusti, L. Gambardella, J. Schmidhuber: Deep neural networks segment neuronal
membranes in electron microscopy images. NIPS 2012 (network N4).
A. Giusti et al.: Fast image scanning with deep max-pooling convolutional neural networks. ICIP
2013.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2
from unet.errors import InputError
from unet.network.u_net import FILLERS, LEARN

MAPS, UNITS = 48, 200
# Of the convolutions of N4, each of which is followed by a 2 x 2 max pooling.
KERNELS = (4, 5, 4, 4)
# Side of the last maps, which the units see whole.
_LAST = 3


def window_size(stages: int) -> int:
    """Return the window of a network with the first convolutions and poolings of N4.

    >>> [window_size(stages) for stages in (2, 3, 4)]
    [23, 47, 95]
    """
    size = _LAST
    for kernel in reversed(KERNELS[:stages]):
        size = 2 * size + kernel - 1
    return size


#: Windows that there are networks for: of so many convolutions and poolings.
STAGES = {window_size(stages): stages for stages in range(1, len(KERNELS) + 1)}


def stages_of(window: int) -> int:
    """Return how many convolutions and poolings the network of a window has.

    Raises
    ------
    InputError
        If there is none of this window.
    """
    if window not in STAGES:
        raise InputError(
            f"a window of {window} does not come out at one pixel: with the first convolutions and "
            f"poolings of Ciresan's network those of {', '.join(map(str, STAGES))} do"
        )
    return STAGES[window]


def window_body(window: int, *, classes: int = 2) -> list[caffe_pb2.LayerParameter]:
    """Return the layers from `data`, windows, to `score`, (N, classes, 1, 1).

    First grey values of mean 1/2 and standard deviation 1/6, those of normalised slices, get 0 and
    1. Then convolutions of 48 maps with ReLU, each followed by 2 x 2 max pooling, 200 units,
    scores. The fully connected layers are convolutions over all of their maps, which is the same.
    """
    return _body(window, classes, poolings=((0, 0),))


def dense_net(
    window: int, side: int, *, channels: int = 1, classes: int = 2
) -> caffe_pb2.NetParameter:
    """Return the net that scores all windows of a picture, with the parameters of `window_body`.

    `side` is of the picture, one of `dense_side`. A pooling with and without a padding of one pixel
    begins at odd and at even pixels; the four results follow each other in the batch. Of those of
    the last layer, `score`, `join_fragments` makes one picture.
    """
    if side != dense_side(window, side - window + 1):
        raise InputError(
            f"a picture of {side} is not one that all windows of {window} are scored in at once; "
            f"the next that is has {dense_side(window, side - window + 1)}"
        )
    n = NetSpec()
    n["data"] = L.Input(shape=dict(dim=[1, channels, side, side]))
    first = n.to_proto().layer
    body = _body(window, classes, poolings=((0, 0), (0, 1), (1, 0), (1, 1)))
    return caffe_pb2.NetParameter(name=f"window_{window}_dense", layer=[*first, *body])


def _body(
    window: int, classes: int, poolings: Sequence[tuple[int, int]]
) -> list[caffe_pb2.LayerParameter]:
    n = NetSpec()
    n["data"] = L.Input()
    # Without it the first hundreds of steps teach nothing.
    n["centred"] = L.Power(n["data"], scale=6, shift=-3)
    below = "centred"
    layers = [(f"conv{number}", MAPS, kernel) for number, kernel in enumerate(KERNELS, 1)]
    for name, maps, kernel in [*layers[: stages_of(window)], ("units", UNITS, _LAST)]:
        n[name] = _convolution(n[below], maps, kernel)
        n[f"relu_{name}"] = L.ReLU(n[name], in_place=True)
        below = name
        if name == "units":
            continue
        below = name.replace("conv", "pool")
        pooled = [
            L.Pooling(n[name], pool=P.Pooling.MAX, kernel_size=2, stride=2, **_padding(*pads))
            for pads in poolings
        ]
        if len(pooled) > 1:
            for pads, one in zip(poolings, pooled):
                n["{}_{}{}".format(below, *pads)] = one
            n[below] = L.Concat(*pooled, axis=0)
        else:
            n[below] = pooled[0]
    n["score"] = _convolution(n[below], classes, 1)
    return list(n.to_proto().layer)[1:]


def _convolution(bottom: object, maps: int, kernel: int) -> object:
    return L.Convolution(bottom, num_output=maps, kernel_size=kernel, param=LEARN, **FILLERS)


def _padding(rows: int, columns: int) -> dict[str, int]:
    return dict(pad_h=rows, pad_w=columns) if rows or columns else {}


def dense_side(window: int, output: int) -> int:
    """Return the side of the smallest picture, mirrored edges and all, with so many windows.

    A picture has to have an odd number of pixels before each pooling.

    >>> dense_side(95, 512)
    608
    """
    stages = stages_of(window)
    lowest = _LAST
    while _side_above(lowest, stages) < output + window - 1:
        lowest += 1
    return _side_above(lowest, stages)


def _side_above(lowest: int, stages: int) -> int:
    """Return the side of the input whose last maps have this side."""
    side = lowest
    for kernel in reversed(KERNELS[:stages]):
        side = 2 * side - 1 + kernel - 1
    return side


def join_fragments(scores: np.ndarray, window: int, side: int) -> np.ndarray:
    """Put the scores of a dense net together.

    Parameters
    ----------
    scores : float32 ndarray, shape (4**stages, K, h, w)
        Of `dense_net`: of each pooling four parts, which begin at pixel 0 or -1, the last pooling's
        outermost.
    window, side : int
        As of the net.

    Returns
    -------
    float32 ndarray, shape (K, side - window + 1, side - window + 1)
        The scores of the windows that lie wholly in the picture, by their first pixel.
    """
    stages = stages_of(window)
    classes, height, width = scores.shape[1:]
    parts = scores.reshape((2, 2) * stages + (classes, height, width))
    # Index 1 of a part begins a pixel earlier.
    parts = np.flip(parts, tuple(range(2 * stages)))
    rows, columns = range(0, 2 * stages, 2), range(1, 2 * stages, 2)
    parts = parts.transpose(2 * stages, 2 * stages + 1, *rows, 2 * stages + 2, *columns)
    step = 2**stages
    whole = parts.reshape(classes, step * height, step * width)
    count = side - window + 1
    return whole[:, step - 1 : step - 1 + count, step - 1 : step - 1 + count]


def multiply_adds(net: caffe.Net) -> int:
    """Return the multiply-adds of the convolutions of one forward pass, as a net is shaped."""
    total = 0
    for name, blobs in net.params.items():
        weights = blobs[0].data
        out = net.blobs[name].data
        total += out.size * (weights.size // weights.shape[0])
    return int(total)
