"""Nets that give one answer a picture."""

from __future__ import annotations

import caffe
from caffe import layers as L
from caffe import params as P
from tests.parity.whole_nets.wholenet import WholeNet, inputs, numbers, pictures

RATES = [dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)]


def _conv(bottom, maps: int, size: int, **options):
    conv = L.Convolution(
        bottom,
        num_output=maps,
        kernel_size=size,
        param=RATES,
        weight_filler=dict(type="xavier"),
        **options,
    )
    return conv, L.ReLU(conv, in_place=True)


def alexnet() -> WholeNet:
    """AlexNet (Krizhevsky et al. 2012): LRN, overlapping pooling, groups, InnerProduct."""
    batches = {"data": pictures(1, 4, 3, 67, 67), "label": numbers(2, 10, 4)}
    n = caffe.NetSpec()
    inputs(n, batches)
    n.conv1, n.relu1 = _conv(n.data, 24, 11, stride=4)
    n.norm1 = L.LRN(n.relu1, local_size=5, alpha=1e-1, beta=0.75)
    n.pool1 = L.Pooling(n.norm1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.conv2, n.relu2 = _conv(n.pool1, 32, 5, pad=2, group=2)
    n.norm2 = L.LRN(n.relu2, local_size=5, alpha=1e-1, beta=0.75)
    n.pool2 = L.Pooling(n.norm2, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.conv3, n.relu3 = _conv(n.pool2, 48, 3, pad=1)
    n.conv4, n.relu4 = _conv(n.relu3, 48, 3, pad=1, group=2)
    n.conv5, n.relu5 = _conv(n.relu4, 32, 3, pad=1, group=2)
    n.pool5 = L.Pooling(n.relu5, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.fc6 = L.InnerProduct(n.pool5, num_output=64, param=RATES)
    n.relu6 = L.ReLU(n.fc6, in_place=True)
    n.drop6 = L.Dropout(n.relu6, in_place=True, dropout_ratio=0)
    n.fc7 = L.InnerProduct(n.drop6, num_output=64, param=RATES)
    n.relu7 = L.ReLU(n.fc7, in_place=True)
    n.drop7 = L.Dropout(n.relu7, in_place=True, dropout_ratio=0)
    n.fc8 = L.InnerProduct(n.drop7, num_output=10, param=RATES)
    n.loss = L.SoftmaxWithLoss(n.fc8, n.label)
    n.accuracy = L.Accuracy(n.fc8, n.label, top_k=3, include=dict(phase=caffe.TEST))
    n.prob = L.Softmax(n.fc8)
    return WholeNet(
        n,
        batches,
        dict(
            base_lr=0.001, momentum=0.9, weight_decay=5e-4, lr_policy="step", gamma=0.1, stepsize=2
        ),
    )


def _inception(n: caffe.NetSpec, name: str, bottom, maps: tuple[int, ...]):
    one, reduce3, three, reduce5, five, project = maps
    parts = {
        "1x1": (bottom, one, 1, {}),
        "3x3_reduce": (bottom, reduce3, 1, {}),
        "3x3": ("3x3_reduce", three, 3, dict(pad=1)),
        "5x5_reduce": (bottom, reduce5, 1, {}),
        "5x5": ("5x5_reduce", five, 5, dict(pad=2)),
    }
    n[f"{name}/pool"] = L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, stride=1, pad=1)
    parts["pool_proj"] = ("pool", project, 1, {})
    for part, (source, count, size, options) in parts.items():
        if isinstance(source, str):
            source = n[f"{name}/{'relu_' if source != 'pool' else ''}{source}"]
        n[f"{name}/{part}"], n[f"{name}/relu_{part}"] = _conv(source, count, size, **options)
    ends = [n[f"{name}/relu_{part}"] for part in ("1x1", "3x3", "5x5", "pool_proj")]
    n[f"{name}/output"] = L.Concat(*ends)
    return n[f"{name}/output"]


def _auxiliary(n: caffe.NetSpec, name: str, bottom) -> None:
    n[f"{name}/ave_pool"] = L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=5, stride=3)
    n[f"{name}/conv"], n[f"{name}/relu_conv"] = _conv(n[f"{name}/ave_pool"], 8, 1)
    n[f"{name}/fc"] = L.InnerProduct(n[f"{name}/relu_conv"], num_output=16, param=RATES)
    n[f"{name}/relu_fc"] = L.ReLU(n[f"{name}/fc"], in_place=True)
    n[f"{name}/classifier"] = L.InnerProduct(n[f"{name}/relu_fc"], num_output=10, param=RATES)
    n[f"{name}/loss"] = L.SoftmaxWithLoss(n[f"{name}/classifier"], n.label, loss_weight=0.3)


def inception() -> WholeNet:
    """GoogLeNet (Szegedy et al. 2014): Concat, average pooling, auxiliary losses, slashed names."""
    batches = {"data": pictures(3, 2, 3, 48, 48), "label": numbers(4, 10, 2)}
    n = caffe.NetSpec()
    inputs(n, batches)
    n["conv1/7x7_s2"], n["conv1/relu_7x7"] = _conv(n.data, 16, 7, stride=2, pad=3)
    n["pool1/3x3_s2"] = L.Pooling(n["conv1/relu_7x7"], pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n["pool1/norm1"] = L.LRN(n["pool1/3x3_s2"], local_size=5, alpha=1e-1, beta=0.75)
    first = _inception(n, "inception_3a", n["pool1/norm1"], (8, 8, 12, 4, 6, 6))
    _auxiliary(n, "loss1", first)
    second = _inception(n, "inception_3b", first, (12, 8, 16, 4, 8, 6))
    n["pool3/3x3_s2"] = L.Pooling(second, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    third = _inception(n, "inception_4a", n["pool3/3x3_s2"], (10, 8, 12, 4, 8, 8))
    n["pool5"] = L.Pooling(third, pool=P.Pooling.AVE, global_pooling=True)
    n["loss3/classifier"] = L.InnerProduct(n.pool5, num_output=10, param=RATES)
    n["loss3/loss3"] = L.SoftmaxWithLoss(n["loss3/classifier"], n.label, loss_weight=1)
    n["loss3/top-1"] = L.Accuracy(n["loss3/classifier"], n.label, include=dict(phase=caffe.TEST))
    return WholeNet(
        n,
        batches,
        dict(momentum=0.9, weight_decay=2e-4, lr_policy="poly", power=0.5),
        hdf5=False,
    )


def _batch_norm(n: caffe.NetSpec, name: str, bottom, **options):
    n[f"bn{name}"] = L.BatchNorm(bottom, **options)
    n[f"scale{name}"] = L.Scale(n[f"bn{name}"], bias_term=True, in_place=True)
    return n[f"scale{name}"]


def _branch(n: caffe.NetSpec, name: str, bottom, maps: int, size: int, stride: int = 1):
    n[f"res{name}"] = L.Convolution(
        bottom, num_output=maps, kernel_size=size, pad=size // 2, stride=stride, bias_term=False
    )
    return _batch_norm(n, name, n[f"res{name}"])


def _residual_block(n: caffe.NetSpec, name: str, bottom, maps: int, stride: int):
    shortcut = bottom
    if stride > 1:
        shortcut = _branch(n, f"{name}_branch1", bottom, maps, 1, stride)
    n[f"res{name}_2a_relu"] = L.ReLU(
        _branch(n, f"{name}_branch2a", bottom, maps, 3, stride), in_place=True
    )
    last = _branch(n, f"{name}_branch2b", n[f"res{name}_2a_relu"], maps, 3)
    n[f"res{name}"] = L.Eltwise(shortcut, last)
    n[f"res{name}_relu"] = L.ReLU(n[f"res{name}"], in_place=True)
    return n[f"res{name}_relu"]


def residual() -> WholeNet:
    """ResNet (He et al. 2015): BatchNorm with Scale in place, Eltwise; strided shortcuts."""
    batches = {"data": pictures(5, 6, 3, 24, 24), "label": numbers(6, 10, 6)}
    n = caffe.NetSpec()
    inputs(n, batches)
    n.conv1 = L.Convolution(n.data, num_output=8, kernel_size=3, pad=1, bias_term=False)
    n.conv1_relu = L.ReLU(
        _batch_norm(n, "_conv1", n.conv1, moving_average_fraction=0.9, eps=1e-4), in_place=True
    )
    top = _residual_block(n, "2a", n.conv1_relu, 8, 1)
    top = _residual_block(n, "3a", top, 12, 2)
    top = _residual_block(n, "4a", top, 16, 2)
    n.pool5 = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    n.fc = L.InnerProduct(n.pool5, num_output=10, weight_filler=dict(type="msra"))
    n.loss = L.SoftmaxWithLoss(n.fc, n.label)
    return WholeNet(
        n, batches, dict(type="Nesterov", momentum=0.9, weight_decay=1e-3, snapshot_format=0)
    )


def siamese() -> WholeNet:
    """Two branches that share all parameters by name (Hadsell et al. 2006), fed by a Slice."""
    batches = {"pair_data": pictures(7, 6, 2, 28, 28), "sim": numbers(8, 2, 6)}
    n = caffe.NetSpec()
    inputs(n, batches)
    n.data, n.data_p = L.Slice(n.pair_data, slice_point=1, ntop=2)
    for end in ("", "_p"):

        def shared(name: str) -> list[dict]:
            return [
                dict(name=f"{name}_w", lr_mult=1),
                dict(name=f"{name}_b", lr_mult=2),
            ]

        n[f"conv1{end}"] = L.Convolution(
            n[f"data{end}"], num_output=6, kernel_size=5, param=shared("conv1")
        )
        n[f"pool1{end}"] = L.Pooling(n[f"conv1{end}"], pool=P.Pooling.MAX, kernel_size=2, stride=2)
        n[f"conv2{end}"] = L.Convolution(
            n[f"pool1{end}"], num_output=10, kernel_size=5, param=shared("conv2")
        )
        n[f"pool2{end}"] = L.Pooling(n[f"conv2{end}"], pool=P.Pooling.MAX, kernel_size=2, stride=2)
        n[f"ip1{end}"] = L.InnerProduct(n[f"pool2{end}"], num_output=32, param=shared("ip1"))
        n[f"relu1{end}"] = L.ReLU(n[f"ip1{end}"], in_place=True)
        n[f"feat{end}"] = L.InnerProduct(n[f"relu1{end}"], num_output=2, param=shared("feat"))
    n.loss = L.ContrastiveLoss(n.feat, n.feat_p, n.sim, contrastive_loss_param=dict(margin=4))
    return WholeNet(
        n, batches, dict(base_lr=1e-4, momentum=0.9, lr_policy="inv", gamma=0.1, power=0.75)
    )
