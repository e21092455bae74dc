"""Nets that give an answer for every pixel."""

from __future__ import annotations

import numpy as np

import caffe
from caffe import layers as L
from caffe import params as P
from tests.parity.whole_nets.wholenet import WholeNet, inputs, numbers, pictures


def fcn() -> WholeNet:
    """FCN (Long et al. 2015): scores fused by Crop, bilinear Deconvolution, labels to ignore.

    Padded by 2 instead of 100: where only padding is seen the values of a window are equal but for
    rounding, and which of them a pooling takes then differs between runs of genuine Caffe's BLAS.
    """
    batches = {"data": pictures(11, 1, 3, 40, 36), "label": numbers(12, 5, 1, 1, 40, 36)}
    random = np.random.default_rng(13)
    batches["label"][random.random(batches["label"].shape) < 0.2] = 255
    n = caffe.NetSpec()
    inputs(n, batches)

    def conv(name: str, bottom, maps: int, size: int = 3, pad: int = 1):
        n[f"conv{name}"] = L.Convolution(bottom, num_output=maps, kernel_size=size, pad=pad)
        n[f"relu{name}"] = L.ReLU(n[f"conv{name}"], in_place=True)
        return n[f"relu{name}"]

    def pool(name: str, bottom):
        n[f"pool{name}"] = L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=2, stride=2)
        return n[f"pool{name}"]

    def score(name: str, bottom):
        n[f"score_{name}"] = L.Convolution(
            bottom,
            num_output=5,
            kernel_size=1,
            param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)],
        )
        return n[f"score_{name}"]

    def upscore(name: str, bottom, size: int, stride: int):
        # One map each: the bilinear filler fills every pair of maps.
        n[name] = L.Deconvolution(
            bottom,
            convolution_param=dict(
                num_output=5,
                group=5,
                kernel_size=size,
                stride=stride,
                bias_term=False,
                weight_filler=dict(type="bilinear"),
            ),
            param=[dict(lr_mult=0)],
        )
        return n[name]

    def crop(name: str, bottom, like, offset: list[int]):
        n[name] = L.Crop(bottom, like, crop_param=dict(axis=2, offset=offset))
        return n[name]

    pool1 = pool("1", conv("1_2", conv("1_1", n.data, 8, pad=2), 8))
    pool2 = pool("2", conv("2_1", pool1, 12))
    pool3 = pool("3", conv("3_1", pool2, 16))
    fc = conv("fc7", conv("fc6", pool3, 24, 3, 0), 24, 1, 0)
    n.drop7 = L.Dropout(fc, dropout_ratio=0, in_place=True)
    up2 = upscore("upscore2", score("fr", n.drop7), 4, 2)
    n.fuse_pool2 = L.Eltwise(up2, crop("score_pool2c", score("pool2", pool2), up2, [1]))
    up4 = upscore("upscore4", n.fuse_pool2, 8, 4)
    crop("score", up4, n.data, [2, 0])
    n.loss = L.SoftmaxWithLoss(
        n.score, n.label, loss_param=dict(ignore_label=255, normalization=P.Loss.FULL)
    )
    n.accuracy = L.Accuracy(
        n.score, n.label, accuracy_param=dict(ignore_label=255), include=dict(phase=caffe.TEST)
    )
    return WholeNet(
        n,
        batches,
        dict(base_lr=1e-3, momentum=0.99, weight_decay=5e-4, iter_size=2),
        keeps_fillers=("upscore2", "upscore4"),
    )


def autoencoder() -> WholeNet:
    """Hinton and Salakhutdinov's autoencoder: Sigmoid, two losses, sparse Gaussian weights."""
    random = np.random.default_rng(14)
    data = pictures(15, 8, 1, 14, 14)
    batches = {"data": 1 / (1 + np.exp(-2 * data + random.normal(0, 0.1, data.shape)))}
    batches["data"] = batches["data"].astype(np.float32)
    n = caffe.NetSpec()
    inputs(n, batches)
    n.flatdata = L.Flatten(n.data)
    top = n.data
    for kind, widths in (("encode", (64, 32, 12)), ("decode", (32, 64, 196))):
        for number, width in enumerate(widths, 1):
            name = f"{kind}{number}"
            n[name] = L.InnerProduct(
                top,
                num_output=width,
                param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=1, decay_mult=0)],
                weight_filler=dict(type="gaussian", std=1, sparse=8),
                bias_filler=dict(type="constant", value=0),
            )
            top = n[name]
            if name != "encode3" and name != "decode3":
                n[f"{name}neuron"] = L.Sigmoid(top)
                top = n[f"{name}neuron"]
    n.loss = L.SigmoidCrossEntropyLoss(n.decode3, n.flatdata, loss_weight=1)
    n.decode3neuron = L.Sigmoid(n.decode3)
    n.euclidean = L.EuclideanLoss(n.decode3neuron, n.flatdata, loss_weight=0)
    return WholeNet(n, batches, dict(type="AdaGrad", weight_decay=5e-4, snapshot_format=0))
