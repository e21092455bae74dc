"""Layers that compute each value from the one in its place: activations, arithmetic, scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from unet_export.graph import Graph, Value
from unet_export.layers.table import Given, of_four_axes, writes


@writes("Sigmoid", "TanH", "AbsVal", "BNLL")
def plain(graph: Graph, given: Given) -> Sequence[Value]:
    """Write layers that are one operator without a parameter."""
    kind = {"Sigmoid": "Sigmoid", "TanH": "Tanh", "AbsVal": "Abs", "BNLL": "Softplus"}
    return [graph.node(kind[given.param.type], given.bottoms, given.tops[0])]


@writes("ReLU")
def relu(graph: Graph, given: Given) -> Sequence[Value]:
    """max(x, 0) + negative_slope * min(x, 0)."""
    slope = given.param.relu_param.negative_slope
    if slope:
        return [graph.node("LeakyRelu", given.bottoms, given.tops[0], alpha=slope)]
    return [graph.node("Relu", given.bottoms, given.tops[0])]


@writes("ELU")
def elu(graph: Graph, given: Given) -> Sequence[Value]:
    """X where it is positive, else alpha (e^x - 1)."""
    alpha = given.param.elu_param.alpha
    return [graph.node("Elu", given.bottoms, given.tops[0], alpha=alpha)]


@writes("PReLU")
def prelu(graph: Graph, given: Given) -> Sequence[Value]:
    """max(x, 0) + a min(x, 0), with one a for each channel, or for all."""
    after = (1,) * (len(given.shapes[0]) - 2)
    slopes = graph.constant(given.blobs[0].reshape(-1, *after), "slopes")
    return [graph.node("PRelu", [given.bottoms[0], slopes], given.tops[0])]


@writes("Swish")
def swish(graph: Graph, given: Given) -> Sequence[Value]:
    """X / (1 + e^(-beta x))."""
    (x,) = given.bottoms
    gate = graph.node("Sigmoid", [graph.times(x, given.param.swish_param.beta)])
    return [graph.node("Mul", [x, gate], given.tops[0])]


@writes("Clip")
def clip(graph: Graph, given: Given) -> Sequence[Value]:
    """Values below min become min, above max max."""
    param = given.param.clip_param
    # Not in one: where min is above max, runtimes differ.
    most = graph.node("Min", [given.bottoms[0], graph.constant(np.float32(param.max))])
    return [graph.node("Max", [most, graph.constant(np.float32(param.min))], given.tops[0])]


@writes("Threshold")
def threshold(graph: Graph, given: Given) -> Sequence[Value]:
    """1 above the threshold, else 0."""
    edge = graph.constant(np.float32(given.param.threshold_param.threshold))
    above = graph.node("Greater", [given.bottoms[0], edge])
    return [graph.node("Cast", [above], given.tops[0], to=TensorProto.FLOAT)]


@writes("Power")
def power(graph: Graph, given: Given) -> Sequence[Value]:
    """(shift + scale * x) ^ power."""
    param, (x,), (top,) = given.param.power_param, given.bottoms, given.tops
    if param.scale * param.power == 0:
        # Whatever x is, infinite or not.
        constant = 1.0 if param.power == 0 else param.shift**param.power
        shape, value = graph.sizes(x), graph.constant(np.float32(constant))
        return [graph.node("Expand", [value, shape], top)]
    if param.power == 1:
        return [graph.plus(graph.times(x, param.scale), param.shift, top)]
    inside = graph.plus(graph.times(x, param.scale), param.shift)
    return [graph.node("Pow", [inside, graph.constant(np.float32(param.power))], top)]


@writes("Exp")
def exponential(graph: Graph, given: Given) -> Sequence[Value]:
    """Base ^ (shift + scale * x); base -1 is e."""
    param = given.param.exp_param
    log_base = 1.0 if param.base == -1 else math.log(param.base)
    grown = graph.node("Exp", [graph.times(given.bottoms[0], log_base * param.scale)])
    with np.errstate(over="ignore"):
        outer = float(np.exp(np.float64(param.shift * log_base)))
    return [graph.times(grown, outer, given.tops[0])]


@writes("Log")
def logarithm(graph: Graph, given: Given) -> Sequence[Value]:
    """log_base(shift + scale * x); base -1 is e."""
    param = given.param.log_param
    inside = graph.plus(graph.times(given.bottoms[0], param.scale), param.shift)
    per_log = 1.0 if param.base == -1 else 1 / math.log(param.base)
    return [graph.times(graph.node("Log", [inside]), per_log, given.tops[0])]


@writes("ValueTransformation")
def value_transformation(graph: Graph, given: Given) -> Sequence[Value]:
    """Scale * (x + offset); for all channels, or one of each (caffe_unet)."""
    param, after = given.param.value_transformation_param, len(given.shapes[0]) - 2
    offset, scale = (
        graph.constant(np.array(values, np.float32).reshape(-1, *(1,) * after))
        for values in (list(param.offset.v) or [0.0], list(param.scale.v) or [1.0])
    )
    return [
        graph.node("Mul", [graph.node("Add", [given.bottoms[0], offset]), scale], given.tops[0])
    ]


@writes("Eltwise")
def eltwise(graph: Graph, given: Given) -> Sequence[Value]:
    """Product, weighted sum or maximum."""
    param, (top,) = given.param.eltwise_param, given.tops
    kind = param.EltwiseOp.Name(param.operation)
    if kind == "MAX":
        return [graph.node("Max", given.bottoms, top)]
    terms = given.bottoms
    if kind == "SUM" and param.coeff:
        terms = [graph.times(x, factor) for x, factor in zip(terms, param.coeff)]
    total = terms[0]
    for number, term in enumerate(terms[1:], 2):
        name = top if number == len(terms) else None
        total = graph.node("Mul" if kind == "PROD" else "Add", [total, term], name)
    return [total]


def _laid_along(graph: Graph, given: Given, param: object) -> Value:
    """Return the other factor of Scale and Bias with axes of 1 after its own."""
    shape = given.shapes[0]
    other = given.shapes[1] if len(given.bottoms) > 1 else given.blobs[0].shape
    start = given.axis(param.axis) if other else 0
    after = len(shape) - start - len(other)
    if len(given.bottoms) == 1:
        return graph.constant(given.blobs[0].reshape(*other, *(1,) * after), "factor")
    if not after:
        return given.bottoms[1]
    axes = graph.whole(range(len(other), len(other) + after))
    return graph.node("Unsqueeze", [given.bottoms[1], axes])


@writes("Scale")
def scale(graph: Graph, given: Given) -> Sequence[Value]:
    """X * s, and + b with bias_term; s and b learnt, or s the second bottom."""
    param, (top,) = given.param.scale_param, given.tops
    factor = _laid_along(graph, given, param)
    if not param.bias_term:
        return [graph.node("Mul", [given.bottoms[0], factor], top)]
    scaled = graph.node("Mul", [given.bottoms[0], factor])
    other = given.shapes[1] if len(given.bottoms) > 1 else given.blobs[0].shape
    after = len(given.shapes[0]) - (given.axis(param.axis) if other else 0) - len(other)
    bias = graph.constant(given.blobs[-1].reshape(*other, *(1,) * after), "bias")
    return [graph.node("Add", [scaled, bias], top)]


@writes("Bias")
def bias(graph: Graph, given: Given) -> Sequence[Value]:
    """X + b; b learnt, or the second bottom."""
    other = _laid_along(graph, given, given.param.bias_param)
    return [graph.node("Add", [given.bottoms[0], other], given.tops[0])]


@writes("BatchNorm")
def batch_norm(graph: Graph, given: Given) -> Sequence[Value]:
    """(x - mean) / sqrt(variance + eps) of a channel, as averaged in training or of the batch."""
    param, shape, (x,), (top,) = (
        given.param.batch_norm_param,
        given.shapes[0],
        given.bottoms,
        given.tops,
    )
    apart = (-1, *(1,) * (len(shape) - 2)) if len(shape) > 1 else (-1,)
    if param.use_global_stats or not param.HasField("use_global_stats"):
        mean, variance, factor = (blob.astype(np.float64) for blob in given.blobs)
        factor = 1 / factor.item() if factor.item() else 0.0
        centred = graph.node("Sub", [x, graph.constant((mean * factor).reshape(apart), "mean")])
        deviation = graph.constant(np.sqrt(variance * factor + param.eps).reshape(apart), "std")
        return [graph.node("Div", [centred, deviation], top)]
    axes = [axis for axis in range(len(shape)) if axis != 1 or len(shape) == 1]
    centred = graph.node("Sub", [x, graph.node("ReduceMean", [x], axes=axes)])
    variance = graph.node("ReduceMean", [graph.node("Mul", [centred, centred])], axes=axes)
    deviation = graph.node("Sqrt", [graph.plus(variance, param.eps)])
    return [graph.node("Div", [centred, deviation], top)]


@writes("MVN")
def mvn(graph: Graph, given: Given) -> Sequence[Value]:
    """Each channel, or each item, minus its mean, over its standard deviation + eps."""
    param, (top,) = given.param.mvn_param, given.tops
    x = of_four_axes(graph, given)
    axes = list(range(1 if param.across_channels else 2, max(len(given.shapes[0]), 4)))
    mean = graph.node("ReduceMean", [x], axes=axes)
    if not param.normalize_variance:
        return [graph.node("Sub", [x, mean], top)]
    centred = graph.node("Sub", [x, mean])
    variance = graph.node("ReduceMean", [graph.node("Mul", [centred, centred])], axes=axes)
    deviation = graph.plus(graph.node("Sqrt", [variance]), param.eps)
    return [graph.node("Div", [centred, deviation], top)]


@writes("Softmax")
def softmax(graph: Graph, given: Given) -> Sequence[Value]:
    """exp(x_k) / sum exp(x) along an axis."""
    axis = given.axis(given.param.softmax_param.axis)
    return [graph.node("Softmax", given.bottoms, given.tops[0], axis=axis)]
