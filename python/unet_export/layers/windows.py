"""Layers that move a window over pixels: Convolution, Deconvolution, Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_export.graph import Graph, Value
from unet_export.layers.table import Given, writes

_LOWEST = float(np.finfo(np.float32).min)


def _by_axis(given: Given, param: Any, name: str, default: int) -> list[int]:
    return sizes_by_axis(param, name, default, len(given.shapes[0]) - 2)


def sizes_by_axis(param: Any, name: str, default: int, axes: int) -> list[int]:
    """Return what is given once a spatial axis, as NAME, NAMEs, or NAME_h and NAME_w.

    Parameters
    ----------
    param : caffe_pb2.ConvolutionParameter or caffe_pb2.PoolingParameter
    name : {"kernel_size", "stride", "pad", "dilation"}
    default : int
        Where none is given.
    axes : int
    """
    short = name.replace("_size", "")
    found: dict[str, list[int]] = {}
    names = (name, f"{name}s", f"{short}_h", f"{short}_w")
    for field, value in param.ListFields():
        if field.name in names:
            found[field.name] = [value] if isinstance(value, int) else list(value)
    if f"{short}_h" in found or f"{short}_w" in found:
        return found.get(f"{short}_h", [default]) + found.get(f"{short}_w", [default])
    values = found.get(f"{name}s") or found.get(name) or [default]
    return values * axes if len(values) == 1 else values


@writes("Convolution", "Deconvolution")
def convolution(graph: Graph, given: Given) -> Sequence[Value]:
    """Cross-correlation, as Caffe's convolution is one, too; or its transpose."""
    param = given.param.convolution_param
    if given.axis(param.axis) != 1:
        raise given.fail(f"its channels lie on axis {param.axis}")
    kernel = _by_axis(given, param, "kernel_size", 1)
    pads = _by_axis(given, param, "pad", 0)
    weights = [graph.constant(given.blobs[0], "weights")]
    if param.bias_term:
        weights.append(graph.constant(given.blobs[1].reshape(-1), "bias"))
    return [
        graph.node(
            "Conv" if given.param.type == "Convolution" else "ConvTranspose",
            [bottom, *weights],
            top,
            kernel_shape=kernel,
            strides=_by_axis(given, param, "stride", 1),
            pads=pads + pads,
            dilations=_by_axis(given, param, "dilation", 1),
            group=param.group,
        )
        for bottom, top in zip(given.bottoms, given.tops)
    ]


@writes("Pooling")
def pooling(graph: Graph, given: Given) -> Sequence[Value]:
    """Pool with sizes that round up, as Caffe's do, whatever a runtime makes of ceil_mode.

    Notes
    -----
    A kernel k, stride s and padding p give ceil((n + 2p - k) / s) + 1 values: as many as floor does
    of s - 1 more pixels at the end. A last window that would begin in the padding is left out, so
    that with padding there are at most ceil((n + p) / s). AVE divides by the window clipped to the
    padded image: its padding counts, those s - 1 pixels do not.
    """
    param = given.param.pooling_param
    kind = param.PoolMethod.Name(param.pool)
    (x,), (top, *more) = given.bottoms, given.tops
    if more:
        raise given.fail("its second top tells where the maxima lie")
    if param.global_pooling:
        if kind == "STOCHASTIC":
            mean, squares = (graph.node("GlobalAveragePool", [v]) for v in _squared(graph, x))
            return [_weighted(graph, mean, squares, top)]
        return [graph.node("GlobalMaxPool" if kind == "MAX" else "GlobalAveragePool", [x], top)]
    kernel = _by_axis(given, param, "kernel_size", 1)
    stride, pad = _by_axis(given, param, "stride", 1), _by_axis(given, param, "pad", 0)
    more = [0 if rounds_down(param) else s - 1 for s in stride]
    if kind != "MAX" and any(s > k for s, k in zip(stride, kernel)):
        raise given.fail("its stride is larger than its kernel, so that windows may be empty")
    # Only then may a last window begin in the padding.
    clipped = any(pad) and any(s + p > k for s, p, k in zip(stride, pad, kernel))
    name = None if clipped else top
    if kind == "STOCHASTIC":
        mean, squares = (_mean(graph, v, kernel, stride, pad, more) for v in _squared(graph, x))
        y = _weighted(graph, mean, squares, name)
    elif kind == "AVE":
        y = _mean(graph, x, kernel, stride, pad, more, name)
    else:
        y = _maximum(graph, x, kernel, stride, pad, more, name)
    if not clipped:
        return [y]
    # Whole numbers divide down.
    ahead = graph.whole([p + s - 1 for p, s in zip(pad, stride)])
    most = graph.node("Add", [graph.sizes(x, 2), ahead])
    most = graph.node("Div", [most, graph.whole(stride)])
    return [graph.slice(y, [0] * len(pad), most, range(2, 2 + len(pad)), top)]


def rounds_down(param: Any) -> bool:
    """Tell whether sizes of a PoolingParameter round down."""
    if param.HasField("ceil_mode"):
        return not param.ceil_mode
    return param.RoundMode.Name(param.round_mode) == "FLOOR"


def _padded(graph: Graph, x: Value, first: list[int], last: list[int], value: float) -> Value:
    if not any(first) and not any(last):
        return x
    sides = graph.whole([0, 0, *first, 0, 0, *last])
    return graph.node("Pad", [x, sides, graph.constant(np.float32(value))], mode="constant")


def _maximum(
    graph: Graph,
    x: Value,
    kernel: list[int],
    stride: list[int],
    pad: list[int],
    more: list[int],
    top: str | None,
) -> Value:
    last = [p + m for p, m in zip(pad, more)]
    if any(side >= k for side, k in zip(last, kernel)):
        # Runtimes take no padding as large as the kernel.
        x = _padded(graph, x, pad, last, _LOWEST)
        pad, last = [0] * len(pad), [0] * len(pad)
    return graph.node("MaxPool", [x], top, kernel_shape=kernel, strides=stride, pads=[*pad, *last])


def _mean(
    graph: Graph,
    x: Value,
    kernel: list[int],
    stride: list[int],
    pad: list[int],
    more: list[int],
    top: str | None = None,
) -> Value:
    return graph.node(
        "AveragePool",
        [_padded(graph, x, pad, pad, 0.0)],
        top,
        kernel_shape=kernel,
        strides=stride,
        pads=[*([0] * len(pad)), *more],
        count_include_pad=0,
    )


def _squared(graph: Graph, x: Value) -> tuple[Value, Value]:
    return x, graph.node("Mul", [x, x])


def _weighted(graph: Graph, mean: Value, squares: Value, top: str | None) -> Value:
    """Return the mean of values weighted by themselves; 0 where they sum up to nothing."""
    zero = graph.constant(np.float32(0))
    ratio = graph.node("Div", [squares, mean])
    return graph.node("Where", [graph.node("Greater", [mean, zero]), ratio, zero], top)


@writes("LRN")
def local_response(graph: Graph, given: Given) -> Sequence[Value]:
    """Divide by the squares nearby; alpha is divided by their number in Caffe and in ONNX."""
    param = given.param.lrn_param
    (x,), (top,) = given.bottoms, given.tops
    size, half = param.local_size, param.local_size // 2
    if param.NormRegion.Name(param.norm_region) == "ACROSS_CHANNELS":
        return [
            graph.node("LRN", [x], top, size=size, alpha=param.alpha, beta=param.beta, bias=param.k)
        ]
    squares = graph.node(
        "AveragePool",
        [graph.node("Mul", [x, x])],
        kernel_shape=[size, size],
        pads=[half] * 4,
        count_include_pad=1,
    )
    # Within a channel genuine Caffe knows no k.
    base = graph.plus(graph.times(squares, param.alpha), 1.0)
    power = graph.node("Pow", [base, graph.constant(np.float32(-param.beta))])
    return [graph.node("Mul", [power, x], top)]
