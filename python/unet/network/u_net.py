"""The U of Fig. 1: from blob `data` to blob `score`, through 23 convolutional layers."""

from __future__ import annotations

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P

LEVELS = 4
# Pixels between the edges of a skip map and of its crop, per level (Fig. 1).
CROPS = {3: 4, 2: 16, 1: 40, 0: 88}

# Weights learn at the solver's rate and decay; biases twice as fast and without decay.
LEARN = [dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)]


def conv_relu(n: NetSpec, bottom: str, top: str, maps: int) -> None:
    """3x3 convolution without padding, then ReLU in place."""
    n[top] = L.Convolution(
        n[bottom],
        name=f"conv_{bottom if bottom != 'data' else 'd0a'}-{top[-1]}",
        num_output=maps,
        kernel_size=3,
        weight_filler=dict(type="msra"),
        bias_filler=dict(type="constant", value=0),
        param=LEARN,
    )
    n[f"relu_{top}"] = L.ReLU(n[top], in_place=True)


def dropout(n: NetSpec, blob: str) -> None:
    """Drop-out 0.5, in place."""
    n[f"dropout_{blob}"] = L.Dropout(n[blob], dropout_ratio=0.5, in_place=True)


def pool(n: NetSpec, bottom: str, top: str) -> None:
    """2x2 max pooling, stride 2."""
    n[top] = L.Pooling(
        n[bottom], name=f"pool_{bottom}-{top[1:]}", pool=P.Pooling.MAX, kernel_size=2, stride=2
    )


def up_crop_concat(n: NetSpec, bottom: str, level: int, maps: int, up_relu: bool) -> None:
    """2x2 up-convolution to `maps` maps, joined with the cropped skip map of the same level."""
    up, skip, cropped = f"u{level}a", f"d{level}c", f"d{level}cc"
    n[up] = L.Deconvolution(
        n[bottom],
        name=f"upconv_{bottom}_{up}",
        convolution_param=dict(
            num_output=maps,
            kernel_size=[2],
            stride=[2],
            weight_filler=dict(type="msra"),
            bias_filler=dict(type="constant", value=0),
        ),
        param=LEARN,
    )
    if up_relu:
        n[f"relu_{up}"] = L.ReLU(n[up], in_place=True)
    n[cropped] = L.Crop(n[skip], n[up], name=f"crop_{skip}-{cropped}", axis=2, offset=CROPS[level])
    n[f"u{level}b"] = L.Concat(n[up], n[cropped], name=f"concat_{cropped}_{up}-b", axis=1)


def u_shape(n: NetSpec, width: int, classes: int, *, as_published: bool = False) -> None:
    """Add the 23 convolutional layers from blob `data` to blob `score`.

    Parameters
    ----------
    n : caffe.NetSpec
        A net that has the blob `data`.
    width : int
        Maps of the first level; 64 is the paper's.
    classes : int
        Channels of `score`.
    as_published : bool
        As in the network that the authors published: a ReLU after every up-convolution, and twice
        the maps out of the last.

    References
    ----------
    Ronneberger et al. 2015, Fig. 1. Layers and blobs are called as in the authors' published
    networks.
    """
    for level in range(LEVELS + 1):
        first = "data" if level == 0 else f"d{level}a"
        maps = width * 2**level
        conv_relu(n, first, f"d{level}b", maps)
        conv_relu(n, f"d{level}b", f"d{level}c", maps)
        if level >= LEVELS - 1:
            dropout(n, f"d{level}c")
        if level < LEVELS:
            pool(n, f"d{level}c", f"d{level + 1}a")
    below = f"d{LEVELS}c"
    for level in reversed(range(LEVELS)):
        maps = width * 2**level
        up_maps = 2 * maps if as_published and level == 0 else maps
        up_crop_concat(n, below, level, up_maps, as_published)
        conv_relu(n, f"u{level}b", f"u{level}c", maps)
        conv_relu(n, f"u{level}c", f"u{level}d", maps)
        below = f"u{level}d"
    n["score"] = L.Convolution(
        n[below],
        name=f"conv_{below}-score",
        num_output=classes,
        kernel_size=1,
        weight_filler=dict(type="msra"),
        bias_filler=dict(type="constant", value=0),
        param=LEARN,
    )
