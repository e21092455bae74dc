"""Cases of products, convolutions, pooling and normalisation."""

from __future__ import annotations

import numpy as np

from tests.parity.harness import Case
from tests.parity.layer_cases.draw import Draw, case, cases_of, filler


@cases_of("InnerProduct")
def inner_product(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    axis, maps = draw.axis(len(shape)), draw.whole(1, 7)
    options = (
        f"inner_product_param {{ num_output: {maps} axis: {axis} "
        f"transpose: {draw.one('true', 'false')} bias_term: {draw.one('true', 'false')} "
        f"weight_filler {{ {filler(draw)} }} }}"
    )
    return case(draw, [draw.values(shape)], [(*shape[: axis % len(shape)], maps)], options)


@cases_of("Embed")
def embed(draw: Draw) -> Case:
    shape, rows, maps = draw.shape(1, 3), draw.whole(1, 8), draw.whole(1, 6)
    options = (
        f"embed_param {{ input_dim: {rows} num_output: {maps} "
        f"bias_term: {draw.one('true', 'false')} weight_filler {{ {filler(draw)} }} }}"
    )
    return case(draw, [draw.numbers(shape, rows)], [(*shape, maps)], options, learnt=())


def _stretch(draw: Draw, param: str, extra: str) -> Case:
    shape = draw.shape(1, 5)
    axis = draw.whole(0, len(shape) - 1)
    stop = draw.whole(axis, len(shape))
    options = f"axis: {axis - len(shape) if draw.flip(0.3) else axis}"
    inputs = [draw.values(shape)]
    if draw.flip():
        if stop == axis:
            options = "axis: 0"
        inputs.append(draw.values(shape[axis:stop]))
    else:
        options += f" num_axes: {-1 if stop == len(shape) and draw.flip() else stop - axis}"
    options = f"{param} {{ {options} {extra} }}"
    return case(draw, inputs, [shape], options, in_place=draw.flip(0.3))


@cases_of("Scale")
def scale(draw: Draw) -> Case:
    return _stretch(draw, "scale_param", f"bias_term: {draw.one('true', 'false')}")


@cases_of("Bias")
def bias(draw: Draw) -> Case:
    return _stretch(draw, "bias_param", "")


def _windows(draw: Draw, axes: int, stride: bool = True) -> tuple[str, list, list, list, list]:
    kernel = [draw.whole(1, 4) for _ in range(axes)]
    steps = [draw.whole(1, 3) if stride else 1 for _ in range(axes)]
    pad = [draw.whole(0, 2) for _ in range(axes)]
    dilation = [draw.one(1, 1, 1, 2, 3) for _ in range(axes)]
    names = [("kernel_size", kernel), ("stride", steps), ("pad", pad), ("dilation", dilation)]
    text = " ".join(f"{name}: {value}" for name, values in names for value in values)
    if axes == 2 and draw.flip(0.3):
        named = [("kernel", kernel), ("stride", steps), ("pad", pad)]
        text = " ".join(f"{name}_h: {h} {name}_w: {w}" for name, (h, w) in named)
        text += "".join(f" dilation: {value}" for value in dilation)
    return text, kernel, steps, pad, dilation


@cases_of("Convolution")
def convolution(draw: Draw) -> Case:
    axes = draw.one(1, 2, 2, 2, 2, 3)
    text, kernel, steps, pad, dilation = _windows(draw, axes)
    group = draw.one(1, 1, 1, 2, 3)
    channels, maps = group * draw.whole(1, 3), group * draw.whole(1, 3)
    sizes = [
        max(d * (k - 1) + 1 - 2 * p, 1) + draw.whole(0, 5) for k, p, d in zip(kernel, pad, dilation)
    ]
    out = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(sizes, kernel, steps, pad, dilation)
    ]
    count = draw.whole(1, 3)
    options = (
        f"convolution_param {{ num_output: {maps} group: {group} {text} "
        f"bias_term: {draw.one('true', 'true', 'false')} weight_filler {{ {filler(draw)} }} }}"
    )
    return case(draw, [draw.values((count, channels, *sizes))], [(count, maps, *out)], options)


@cases_of("Deconvolution")
def deconvolution(draw: Draw) -> Case:
    axes = draw.one(1, 2, 2, 2, 2, 3)
    text, kernel, steps, pad, dilation = _windows(draw, axes)
    group = draw.one(1, 1, 1, 2, 3)
    channels, maps = group * draw.whole(1, 3), group * draw.whole(1, 3)
    sizes, out = [], []
    for k, s, p, d in zip(kernel, steps, pad, dilation):
        size = draw.whole(1, 5)
        while s * (size - 1) + d * (k - 1) + 1 - 2 * p < 1:
            size += 1
        sizes.append(size)
        out.append(s * (size - 1) + d * (k - 1) + 1 - 2 * p)
    count = draw.whole(1, 3)
    options = (
        f"convolution_param {{ num_output: {maps} group: {group} {text} "
        f"bias_term: {draw.one('true', 'true', 'false')} weight_filler {{ {filler(draw)} }} }}"
    )
    return case(draw, [draw.values((count, channels, *sizes))], [(count, maps, *out)], options)


@cases_of("Im2col")
def im2col(draw: Draw) -> Case:
    axes = draw.one(1, 2, 2, 3)
    text, kernel, steps, pad, dilation = _windows(draw, axes)
    sizes = [
        max(d * (k - 1) + 1 - 2 * p, 1) + draw.whole(0, 4) for k, p, d in zip(kernel, pad, dilation)
    ]
    out = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(sizes, kernel, steps, pad, dilation)
    ]
    count, channels = draw.whole(1, 3), draw.whole(1, 3)
    top = (count, channels * int(np.prod(kernel)), *out)
    options = f"convolution_param {{ {text} }}"
    return case(draw, [draw.values((count, channels, *sizes))], [top], options)


def _pooled(size: int, kernel: int, stride: int, pad: int, padded: bool, rounding: str) -> int:
    room = size + 2 * pad - kernel
    count = (room // stride if rounding == "FLOOR" else -(-room // stride)) + 1
    return count - 1 if padded and (count - 1) * stride >= size + pad else count


@cases_of("Pooling")
def pooling(draw: Draw) -> Case:
    shape = draw.planes(4, 12)
    method = draw.one("MAX", "MAX", "AVE")
    if draw.flip(0.15):
        options = f"pooling_param {{ pool: {method} global_pooling: true }}"
        return case(draw, [draw.values(shape)], [(*shape[:2], 1, 1)], options)
    kernel = [draw.whole(1, 4), draw.whole(1, 4)]
    # Where a last window would lie outside altogether genuine Caffe writes where it must not.
    stride = [
        draw.whole(1, k + 1 if (size - k) % (k + 1) == 0 else k)
        for k, size in zip(kernel, shape[2:])
    ]
    pad = [draw.whole(0, min(2, k - 1)) if s <= k else 0 for k, s in zip(kernel, stride)]
    rounding = draw.one("CEIL", "CEIL", "FLOOR")
    out = [
        _pooled(size, k, s, p, any(pad), rounding)
        for size, k, s, p in zip(shape[2:], kernel, stride, pad)
    ]
    names = zip(("kernel", "stride", "pad"), (kernel, stride, pad))
    text = " ".join(f"{name}_h: {h} {name}_w: {w}" for name, (h, w) in names)
    tops = [(*shape[:2], *out)] * (2 if method == "MAX" and draw.flip(0.3) else 1)
    options = f"pooling_param {{ pool: {method} {text} round_mode: {rounding} }}"
    return case(draw, [draw.values(shape)], tops, options)


@cases_of("SPP")
def spp(draw: Draw) -> Case:
    shape = draw.planes(4, 12)
    height = draw.whole(1, 3)
    channels = shape[1]
    top = (shape[0], channels, 1, 1)
    if height > 1:
        top = (shape[0], channels * sum(4**level for level in range(height)))
    options = f"spp_param {{ pyramid_height: {height} pool: {draw.one('MAX', 'AVE')} }}"
    return case(draw, [draw.values(shape)], [top], options)


@cases_of("LRN")
def lrn(draw: Draw) -> Case:
    shape = draw.planes(3, 7)
    region = draw.one("ACROSS_CHANNELS", "ACROSS_CHANNELS", "WITHIN_CHANNEL")
    options = (
        f"lrn_param {{ local_size: {draw.one(1, 3, 5)} alpha: {draw.number_text(0.25, 2)} "
        f"beta: {draw.number_text(0.25, 1)} norm_region: {region} "
    )
    options += f"k: {draw.number_text(1, 2)} }}" if draw.flip() else "}"
    return case(draw, [draw.values(shape)], [shape], options)


@cases_of("BatchNorm")
def batch_norm(draw: Draw) -> Case:
    shape = draw.shape(2, 5)
    phase = draw.whole(0, 1)
    text = f"eps: {draw.one('1e-5', '1e-3', '0.125')}"
    if draw.flip():
        text += f" use_global_stats: {draw.one('true', 'false')}"
    if draw.flip():
        text += f" moving_average_fraction: {draw.number_text(0.25, 0.95)}"
    # The kept variance is a positive parameter: the harness draws it so for this type.
    if int(np.prod(shape)) // shape[1] < 3:
        shape = (draw.whole(3, 5), *shape[1:])
    options = f"batch_norm_param {{ {text} }}"
    return case(draw, [draw.values(shape)], [shape], options, phase=phase, in_place=draw.flip(0.3))


@cases_of("MVN")
def mvn(draw: Draw) -> Case:
    shape = (draw.whole(1, 3), draw.whole(1, 4), draw.whole(2, 5), draw.whole(2, 5))
    if draw.flip(0.3):
        # Of three axes; of few values the gradient is a difference of large numbers, and of an odd
        # number the middle one is the mean, at the kink of what follows.
        shape = (*shape[:2], 2 * draw.whole(3, 6))
    options = (
        f"mvn_param {{ normalize_variance: {draw.one('true', 'false')} "
        f"across_channels: {draw.one('true', 'false')} eps: {draw.one('1e-9', '0.125')} }}"
    )
    return case(draw, [draw.values(shape)], [(*shape, 1)[:4]], options)
