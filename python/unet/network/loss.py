"""The weighted soft-max loss, written out of standard layers."""

from __future__ import annotations

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P


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
