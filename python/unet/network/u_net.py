"""The network: the U of Fig. 1, from blob `data` to blob `score`, and its loss (Sec. 3, Eq. 1)."""

from __future__ import annotations

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from unet.network.geometry import LEVELS

# Weights are drawn from N(0, 2/n), n incoming nodes, learn at the solver's rate and decay; biases
# begin at 0, learn twice as fast and do not decay.
FILLERS = dict(weight_filler=dict(type="msra"), bias_filler=dict(type="constant", value=0))
LEARN = [dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)]


def conv_relu(n: NetSpec, bottom: str, top: str, maps: int, padded: bool) -> None:
    """3x3 convolution, then ReLU in place."""
    n[top] = L.Convolution(
        n[bottom],
        name=f"conv_{bottom if bottom != 'data' else 'd0a'}-{top[-1]}",
        num_output=maps,
        kernel_size=3,
        **(dict(pad=1) if padded else {}),
        **FILLERS,
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


def up_crop_concat(
    n: NetSpec, bottom: str, level: int, maps: int, crop: int | None, up_relu: bool
) -> None:
    """2x2 up-convolution to `maps` maps, joined with the skip map of the same level, cropped."""
    up, skip = f"u{level}a", f"d{level}c"
    n[up] = L.Deconvolution(
        n[bottom],
        name=f"upconv_{bottom}_{up}",
        convolution_param=dict(num_output=maps, kernel_size=[2], stride=[2], **FILLERS),
        param=LEARN,
    )
    if up_relu:
        n[f"relu_{up}"] = L.ReLU(n[up], in_place=True)
    if crop is not None:
        cropped = f"d{level}cc"
        n[cropped] = L.Crop(n[skip], n[up], name=f"crop_{skip}-{cropped}", axis=2, offset=crop)
        skip = cropped
    n[f"u{level}b"] = L.Concat(n[up], n[skip], name=f"concat_{skip}_{up}-b", axis=1)


def u_net(
    n: NetSpec,
    width: int,
    classes: int,
    *,
    levels: int = LEVELS,
    padded: bool = False,
    as_published: bool = False,
) -> None:
    """Add the convolutional layers from blob `data` to blob `score`: 23 with four levels.

    Parameters
    ----------
    n : caffe.NetSpec
        A net that has the blob `data`.
    width : int
        Maps of the first level; 64 is the paper's.
    classes : int
        Channels of `score`.
    levels : int
        Poolings.
    padded : bool
        Pad the 3x3 convolutions by zeros, so that `score` is as large as `data`.
    as_published : bool
        As in the network that the authors published: a ReLU after every up-convolution, and twice
        the maps out of the last.

    References
    ----------
    Ronneberger et al. 2015, Fig. 1. Layers and blobs are called as in the authors' published
    networks.
    """
    for level in range(levels + 1):
        first = "data" if level == 0 else f"d{level}a"
        maps = width * 2**level
        conv_relu(n, first, f"d{level}b", maps, padded)
        conv_relu(n, f"d{level}b", f"d{level}c", maps, padded)
        if level >= levels - 1:
            dropout(n, f"d{level}c")
        if level < levels:
            pool(n, f"d{level}c", f"d{level + 1}a")
    below = f"d{levels}c"
    for level in reversed(range(levels)):
        maps = width * 2**level
        up_maps = 2 * maps if as_published and level == 0 else maps
        # What the unpadded convolutions below lose on each side: 4, 16, 40, 88 pixels (Fig. 1).
        crop = None if padded else 6 * 2 ** (levels - level) - 8
        up_crop_concat(n, below, level, up_maps, crop, as_published)
        conv_relu(n, f"u{level}b", f"u{level}c", maps, padded)
        conv_relu(n, f"u{level}c", f"u{level}d", maps, padded)
        below = f"u{level}d"
    n["score"] = L.Convolution(
        n[below],
        name=f"conv_{below}-score",
        num_output=classes,
        kernel_size=1,
        **FILLERS,
        param=LEARN,
    )


def weighted_softmax_loss(n: NetSpec, score: str, weight: str, classes: int) -> None:
    """Add E = 1/N sum over x of w(x) * -log p_l(x)(x) to a net, as blob `loss`.

    Parameters
    ----------
    n : caffe.NetSpec
        The net under construction.
    score, weight : str
        Its blobs: scores a_k(x) (1, K, h, w), and w(x) in the channel of the true class l(x), 0 in
        the others.
    classes : int
        K, at least 2.

    Notes
    -----
    With m(x) = max_k a_k(x) and z_k = a_k - m, -log p_k = log(sum_j exp z_j) - z_k. The sum is at
    least 1, so nothing overflows and no gradient is lost however far the scores lie apart; Log of
    Softmax loses it beyond a gap of 87, where p is 0 in float32. No gradient flows through m: the
    loss does not depend on it.

    N is the number of all pixels h * w, annotated or not, so that a learning rate does not depend
    on the tile size. A pixel that is not annotated has w = 0 in all channels.

    References
    ----------
    Ronneberger et al. 2015, Sec. 3, Eq. 1 (printed there without the minus).
    """
    if classes < 2:
        raise ValueError("a soft-max needs at least two classes")
    scores = L.Slice(n[score], ntop=classes, axis=1)
    n["score_max"] = L.Eltwise(*scores, operation=P.Eltwise.MAX)
    exponentials = []
    for k, score_k in enumerate(scores):
        n[f"score_{k}"] = score_k
        n[f"z_{k}"] = L.Eltwise(
            score_k,
            n["score_max"],
            operation=P.Eltwise.SUM,
            coeff=[1, -1],
            propagate_down=[True, False],
        )
        n[f"exp_{k}"] = L.Exp(n[f"z_{k}"])
        exponentials.append(n[f"exp_{k}"])
    n["exp_sum"] = L.Eltwise(*exponentials, operation=P.Eltwise.SUM)
    n["log_sum"] = L.Log(n["exp_sum"])
    for k in range(classes):
        n[f"nll_{k}"] = L.Eltwise(n["log_sum"], n[f"z_{k}"], operation=P.Eltwise.SUM, coeff=[1, -1])
    n["nll"] = L.Concat(*(n[f"nll_{k}"] for k in range(classes)), axis=1)
    n["weighted_nll"] = L.Eltwise(
        n["nll"], n[weight], operation=P.Eltwise.PROD, propagate_down=[True, False]
    )
    # The mean runs over K * N numbers, of which N are not 0 by construction.
    n["loss"] = L.Reduction(
        n["weighted_nll"], operation=P.Reduction.MEAN, coeff=classes, loss_weight=1
    )
