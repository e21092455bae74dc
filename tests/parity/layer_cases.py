"""Random cases of every layer type: shapes, parameters, axes, edge sizes, in place, loss weights.

Each function draws one case from a random generator, so that a case is a function of its type and
its number alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from tests.parity.harness import Case

CASES: dict[str, Callable[[Draw], Case]] = {}


class Draw:
    """Draws shapes, values and choices for one case.

    Parameters
    ----------
    kind : str
        The layer type.
    number : int
        Of the case.
    """

    def __init__(self, kind: str, number: int) -> None:
        self.rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
        self.kind, self.number = kind, number

    def whole(self, least: int, most: int) -> int:
        """Draw a whole number, both ends included."""
        return int(self.rng.integers(least, most + 1))

    def flip(self, chance: float = 0.5) -> bool:
        """Draw true or false."""
        return bool(self.rng.random() < chance)

    def one(self, *choices):
        """Draw one of several."""
        return choices[self.whole(0, len(choices) - 1)]

    def number_text(self, least: float, most: float) -> str:
        """Draw a number that a prototxt can hold exactly."""
        return f"{np.round(self.rng.uniform(least, most) * 16) / 16:g}"

    def shape(self, least_axes: int = 1, most_axes: int = 4, most: int = 6) -> tuple[int, ...]:
        """Draw a shape; sizes of 1 come often."""
        axes = self.whole(least_axes, most_axes)
        return tuple(1 if self.flip(0.2) else self.whole(1, most) for _ in range(axes))

    def planes(self, least: int = 1, most: int = 11) -> tuple[int, int, int, int]:
        """Draw the shape of a batch of pictures."""
        return (
            self.whole(1, 3),
            self.whole(1, 5),
            self.whole(least, most),
            self.whole(least, most),
        )

    def values(self, shape: tuple[int, ...], low: float = -1.0, high: float = 1.3) -> np.ndarray:
        """Draw distinct values: no maximum is shared, few lie on a kink, sums are far from 0."""
        count = int(np.prod(shape))
        spread = low + (np.arange(count) + 0.5) / max(count, 1) * (high - low)
        return self.rng.permutation(spread).reshape(shape).astype(np.float32)

    def numbers(self, shape: tuple[int, ...], stop: int) -> np.ndarray:
        """Draw whole numbers below `stop`."""
        return self.rng.integers(0, stop, shape).astype(np.float32)

    def axis(self, axes: int) -> int:
        """Draw an axis, sometimes counted from the end."""
        axis = self.whole(0, axes - 1)
        return axis - axes if self.flip(0.3) else axis


def cases_of(kind: str):
    """Enter a function in the table (a decorator)."""

    def enter(function: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
        CASES[kind] = function
        return function

    return enter


def case(
    draw: Draw,
    inputs: list[np.ndarray],
    tops: list[tuple[int, ...]],
    options: str = "",
    *,
    in_place: bool = False,
    backward: bool = True,
    phase: int = 1,
    loss: bool = False,
    learnt: Sequence[int] | None = None,
) -> Case:
    """Make a net of one layer of the type that is drawn for.

    Parameters
    ----------
    draw : Draw
    inputs : list of array
        Values of the bottoms.
    tops : list of shape
        A top each, whose diff is drawn as well.
    options : str
        What stands in the layer beside its name, type, bottoms and tops.
    in_place : bool
        Whether the top is the bottom: a layer that copies comes first.
    backward : bool
    phase : int
        0: TRAIN, 1: TEST.
    loss : bool
        Whether the first top is a loss, whose diff is its weight.
    learnt : sequence of int, optional
        The bottoms that a gradient may flow to, all by default: these come from a layer that
        learns.
    """
    text = ["force_backward: true"] if learnt is None else []
    for index, array in enumerate(inputs):
        dims = " ".join(f"dim: {size}" for size in array.shape)
        text.append(
            f'layer {{ name: "in{index}" type: "Input" top: "in{index}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    bottoms = [f"in{index}" for index in range(len(inputs))]
    names = [f"out{index}" for index in range(len(tops))]
    if in_place:
        text.append('layer { name: "copy" type: "Power" bottom: "in0" top: "out0" }')
        bottoms[0] = "out0"
    for index in learnt or ():
        text.append(
            f'layer {{ name: "learnt{index}" type: "Bias" bottom: "in{index}" '
            f'top: "learnt{index}" bias_param {{ axis: 0 num_axes: -1 }} }}'
        )
        bottoms[index] = f"learnt{index}"
    wiring = " ".join([f'bottom: "{name}"' for name in bottoms])
    wiring += " " + " ".join([f'top: "{name}"' for name in names])
    if loss and draw.flip(0.4):
        options += f" loss_weight: {draw.number_text(0.25, 3)}"
    if learnt is not None and not loss:
        # Nothing runs backward but under a loss.
        options += " loss_weight: 1" * len(tops)
    text.append(f'layer {{ name: "layer" type: "{draw.kind}" {wiring} {options} }}')
    diffs = {
        name: draw.values(shape)
        for name, shape in zip(names, tops)
        if not (loss and name == "out0")
    }
    return Case(
        "\n".join(text),
        {f"in{index}": array for index, array in enumerate(inputs)},
        diffs,
        phase=phase,
        backward=backward,
    )


def filler(draw: Draw) -> str:
    """Draw a filler; the harness then sets parameters itself."""
    return draw.one('type: "xavier"', 'type: "gaussian" std: 0.1', 'type: "constant" value: 0.5')


# -- element by element ----------------------------------------------------------------------------


def _neuron(kind: str, options: Callable[[Draw], str], low: float, high: float, in_place: bool):
    @cases_of(kind)
    def make(draw: Draw) -> Case:
        shape = draw.shape()
        scale = draw.one(1.0, 1.0, 0.1, 4.0) if low < 0 else 1.0
        inputs = [draw.values(shape, low * scale, high * scale)]
        return case(draw, inputs, [shape], options(draw), in_place=in_place and draw.flip(0.3))


def _relu(draw: Draw) -> str:
    return f"relu_param {{ negative_slope: {draw.number_text(0, 0.5)} }}" if draw.flip() else ""


_neuron("ReLU", _relu, -1, 1, True)
_neuron("Sigmoid", lambda draw: "", -3, 3, True)
_neuron("TanH", lambda draw: "", -3, 3, True)
_neuron("AbsVal", lambda draw: "", -1, 1, False)
_neuron("BNLL", lambda draw: "", -5, 5, False)
_neuron("ELU", lambda draw: f"elu_param {{ alpha: {draw.number_text(0.25, 2)} }}", -3, 3, True)
_neuron("Swish", lambda draw: f"swish_param {{ beta: {draw.number_text(0.25, 2)} }}", -3, 3, False)
_neuron("Exp", lambda draw: _affine(draw, "exp_param", draw.one("-1", "2", "10")), -1, 1, True)
_neuron("Log", lambda draw: _affine(draw, "log_param", draw.one("-1", "2", "10")), 0.2, 3, False)
_neuron(
    "Clip",
    lambda draw: (
        f"clip_param {{ min: {draw.number_text(-0.75, -0.25)} max: {draw.number_text(0, 0.75)} }}"
    ),
    -1,
    1,
    True,
)


def _affine(draw: Draw, name: str, base: str) -> str:
    return (
        f"{name} {{ base: {base} scale: {draw.number_text(0.25, 2)} "
        f"shift: {draw.number_text(0, 2)} }}"
    )


@cases_of("Power")
def power(draw: Draw) -> Case:
    shape = draw.shape()
    exponent = draw.one("0", "1", "2", "3", "0.5", "-1")
    options = (
        f"power_param {{ power: {exponent} scale: {draw.one('1', '0.5', '2', '0')} "
        f"shift: {draw.number_text(0.25, 2)} }}"
    )
    return case(draw, [draw.values(shape, 0.1, 2)], [shape], options)


@cases_of("Threshold")
def threshold(draw: Draw) -> Case:
    shape = draw.shape()
    options = f"threshold_param {{ threshold: {draw.number_text(-0.5, 0.5)} }}"
    return case(draw, [draw.values(shape)], [shape], options, backward=False)


@cases_of("PReLU")
def prelu(draw: Draw) -> Case:
    shape = draw.shape(2, 4)
    options = f"prelu_param {{ channel_shared: {draw.one('true', 'false')} }}"
    return case(draw, [draw.values(shape)], [shape], options, in_place=draw.flip(0.3))


@cases_of("Dropout")
def dropout(draw: Draw) -> Case:
    shape = draw.shape()
    options = f"dropout_param {{ dropout_ratio: {draw.number_text(0.1, 0.9)} }}"
    return case(draw, [draw.values(shape)], [shape], options, in_place=draw.flip(0.3))


@cases_of("Eltwise")
def eltwise(draw: Draw) -> Case:
    shape, count = draw.shape(), draw.whole(2, 4)
    operation = draw.one("PROD", "SUM", "MAX")
    options = f"operation: {operation}"
    if operation == "SUM" and draw.flip():
        options += "".join(f" coeff: {draw.number_text(-2, 2)}" for _ in range(count))
    if operation == "PROD":
        options += f" stable_prod_grad: {draw.one('true', 'false')}"
    inputs = [draw.values(shape, 0.1, 1) * draw.one(1, -1) for _ in range(count)]
    return case(draw, inputs, [shape], f"eltwise_param {{ {options} }}")


# -- products --------------------------------------------------------------------------------------


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


# -- pooling and normalisation ---------------------------------------------------------------------


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


# -- shapes ----------------------------------------------------------------------------------------


@cases_of("Flatten")
def flatten(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    first = draw.whole(0, len(shape) - 1)
    last = draw.whole(first, len(shape) - 1)
    top = (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])
    options = f"flatten_param {{ axis: {first} end_axis: {last - len(shape)} }}"
    return case(draw, [draw.values(shape)], [top], options)


@cases_of("Reshape")
def reshape(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    first = draw.whole(0, len(shape))
    last = draw.whole(first, len(shape))
    middle = list(shape[first:last])
    new: list[int] = []
    for size in middle:
        for part in (2, 3):
            if size % part == 0 and draw.flip():
                new.append(part)
                size //= part
        new.append(size)
    dims = [
        0 if place < len(middle) and middle[place] == size and draw.flip(0.3) else size
        for place, size in enumerate(new)
    ]
    if dims and draw.flip():
        dims[draw.whole(0, len(dims) - 1)] = -1
    text = "".join(f" dim: {size}" for size in dims)
    axis = first - len(shape) - 1 if draw.flip(0.3) else first
    options = f"reshape_param {{ shape {{ {text} }} axis: {axis} num_axes: {last - first} }}"
    return case(draw, [draw.values(shape)], [(*shape[:first], *new, *shape[last:])], options)


@cases_of("Tile")
def tile(draw: Draw) -> Case:
    shape, times = draw.shape(1, 4), draw.whole(1, 4)
    axis = draw.axis(len(shape))
    top = list(shape)
    top[axis] *= times
    options = f"tile_param {{ axis: {axis} tiles: {times} }}"
    return case(draw, [draw.values(shape)], [tuple(top)], options)


def _axis_field(draw: Draw, axis: int, old_name: str) -> str:
    # The old field counts from the front only.
    return f"{old_name if axis >= 0 and draw.flip(0.3) else 'axis'}: {axis}"


@cases_of("Concat")
def concat(draw: Draw) -> Case:
    shape, count = draw.shape(1, 5), draw.whole(1, 4)
    axis = draw.axis(len(shape))
    inputs, total = [], 0
    for _ in range(count):
        part = list(shape)
        part[axis] = draw.whole(1, 4)
        total += part[axis]
        inputs.append(draw.values(tuple(part)))
    top = list(shape)
    top[axis] = total
    options = f"concat_param {{ {_axis_field(draw, axis, 'concat_dim')} }}"
    return case(draw, inputs, [tuple(top)], options)


@cases_of("Slice")
def slice_(draw: Draw) -> Case:
    shape = list(draw.shape(1, 5))
    axis, count = draw.axis(len(shape)), draw.whole(1, 4)
    if draw.flip():
        parts = [draw.whole(1, 3) for _ in range(count)]
        points = "".join(f" slice_point: {point}" for point in np.cumsum(parts)[:-1])
    else:
        parts, points = [draw.whole(1, 3)] * count, ""
    shape[axis] = sum(parts)
    tops = []
    for part in parts:
        top = list(shape)
        top[axis] = part
        tops.append(tuple(top))
    options = f"slice_param {{ {_axis_field(draw, axis, 'slice_dim')} {points} }}"
    return case(draw, [draw.values(tuple(shape))], tops, options)


@cases_of("Crop")
def crop(draw: Draw) -> Case:
    shape = draw.shape(1, 5, 8)
    axis = draw.axis(len(shape))
    first = axis % len(shape)
    wanted = [draw.whole(1, size) for size in shape[first:]]
    if draw.flip():
        offsets = [draw.whole(0, size - part) for size, part in zip(shape[first:], wanted)]
    else:
        least = min(size - part for size, part in zip(shape[first:], wanted))
        offsets = [draw.whole(0, least)] if draw.flip() else []
    text = "".join(f" offset: {offset}" for offset in offsets)
    top = (*shape[:first], *wanted)
    reference = (*(draw.whole(1, 3) for _ in shape[:first]), *wanted)
    inputs = [draw.values(shape), draw.values(reference)]
    return case(draw, inputs, [top], f"crop_param {{ axis: {axis} {text} }}")


@cases_of("ArgMax")
def argmax(draw: Draw) -> Case:
    shape = draw.shape(2, 4)
    with_axis, both = draw.flip(), draw.flip()
    axis = draw.axis(len(shape))
    candidates = shape[axis] if with_axis else int(np.prod(shape[1:]))
    top_k = draw.whole(1, min(candidates, 5))
    if with_axis:
        top = list(shape)
        top[axis] = top_k
    else:
        top = [shape[0], 2 if both else 1, top_k]
    text = f"top_k: {top_k} out_max_val: {str(both).lower()}"
    text += f" axis: {axis}" if with_axis else ""
    data = draw.numbers(shape, 4) if draw.flip(0.3) else draw.values(shape)
    return case(draw, [data], [tuple(top)], f"argmax_param {{ {text} }}", backward=False)


@cases_of("BatchReindex")
def batch_reindex(draw: Draw) -> Case:
    shape, count = draw.shape(1, 4), draw.whole(1, 7)
    inputs = [draw.values(shape), draw.numbers((count,), shape[0])]
    return case(draw, inputs, [(count, *shape[1:])], learnt=[0])


@cases_of("Filter")
def filter_(draw: Draw) -> Case:
    items, count = draw.whole(2, 6), draw.whole(1, 3)
    selector = (draw.rng.random(items) < 0.6).astype(np.float32)
    selector[draw.whole(0, items - 1)] = 1
    inputs = [draw.values((items, *draw.shape(0, 3))) for _ in range(count)]
    tops = [(int(selector.sum()), *array.shape[1:]) for array in inputs]
    return case(draw, [*inputs, selector], tops, learnt=range(count))


@cases_of("Reduction")
def reduction(draw: Draw) -> Case:
    shape = draw.shape(1, 5)
    axis = draw.axis(len(shape))
    options = (
        f"reduction_param {{ operation: {draw.one('SUM', 'ASUM', 'SUMSQ', 'MEAN')} axis: {axis} "
        f"coeff: {draw.number_text(-2, 2)} }}"
    )
    return case(draw, [draw.values(shape)], [shape[: axis % len(shape)]], options)


@cases_of("Silence")
def silence(draw: Draw) -> Case:
    return case(draw, [draw.values(draw.shape()) for _ in range(draw.whole(1, 3))], [])


@cases_of("Parameter")
def parameter(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    dims = "".join(f" dim: {size}" for size in shape)
    return case(draw, [], [shape], f"parameter_param {{ shape {{ {dims} }} }}")


# -- soft-max and losses ---------------------------------------------------------------------------


@cases_of("Softmax")
def softmax(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    options = f"softmax_param {{ axis: {draw.axis(len(shape))} }}"
    scale = draw.one(1, 5, 50)
    return case(draw, [scale * draw.values(shape)], [shape], options, in_place=draw.flip(0.2))


def _normalization(draw: Draw, *others: str) -> str:
    kinds = ("FULL", "VALID", "BATCH_SIZE", "NONE")
    return draw.one("", *(f"normalization: {kind}" for kind in kinds), *others)


_OLD = ("normalize: true", "normalize: false")


def _scores(draw: Draw, least_axis: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw scores, labels and the axis of the classes: losses want as many labels as items."""
    shape = draw.shape(2, 4)
    axis = draw.whole(least_axis, len(shape) - 1)
    labels = draw.numbers((*shape[:axis], 1, *shape[axis + 1 :]), shape[axis])
    return draw.one(1, 5) * draw.values(shape), labels, axis


@cases_of("SoftmaxWithLoss")
def softmax_with_loss(draw: Draw) -> Case:
    scores, labels, axis = _scores(draw)
    text = _normalization(draw, *_OLD)
    if draw.flip():
        ignored = draw.one(0, 255, -1)
        text += f" ignore_label: {ignored}"
        labels[draw.rng.random(labels.shape) < draw.one(0.3, 0.3, 1)] = ignored
    # Genuine Caffe cannot set up the second top, the probabilities.
    options = f"loss_param {{ {text} }} softmax_param {{ axis: {axis} }}"
    return case(draw, [scores, labels], [()], options, loss=True)


@cases_of("InfogainLoss")
def infogain_loss(draw: Draw) -> Case:
    scores, labels, axis = _scores(draw)
    classes = scores.shape[axis]
    matrix = draw.values((1, 1, classes, classes), 0, 1)
    options = (
        f"infogain_loss_param {{ axis: {axis} }} softmax_param {{ axis: {axis} }} "
        f"loss_param {{ {_normalization(draw)} }}"
    )
    return case(draw, [scores, labels, matrix], [()], options, loss=True, learnt=[0])


@cases_of("MultinomialLogisticLoss")
def multinomial_logistic_loss(draw: Draw) -> Case:
    items, classes = draw.whole(1, 6), draw.whole(1, 6)
    inputs = [draw.values((items, classes), 0.01, 1), draw.numbers((items,), classes)]
    return case(draw, inputs, [()], loss=True)


@cases_of("SigmoidCrossEntropyLoss")
def sigmoid_cross_entropy_loss(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    targets = draw.numbers(shape, 2) if draw.flip() else draw.values(shape, 0, 1)
    text = _normalization(draw, *_OLD)
    if draw.flip():
        text += " ignore_label: 5"
        targets[draw.rng.random(shape) < draw.one(0.3, 0.3, 1)] = 5
    inputs = [draw.one(1, 5, 50) * draw.values(shape), targets]
    return case(draw, inputs, [()], f"loss_param {{ {text} }}", loss=True)


@cases_of("HingeLoss")
def hinge_loss(draw: Draw) -> Case:
    items, classes = draw.whole(1, 6), draw.whole(1, 6)
    inputs = [3 * draw.values((items, classes)), draw.numbers((items,), classes)]
    options = f"hinge_loss_param {{ norm: {draw.one('L1', 'L2')} }}"
    return case(draw, inputs, [()], options, loss=True)


@cases_of("EuclideanLoss")
def euclidean_loss(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    # Only the number of values in an item counts.
    other = draw.one(shape, shape, (*shape, 1)[:4], (shape[0], int(np.prod(shape[1:]))))
    return case(draw, [draw.values(shape), draw.values(other)], [()], loss=True)


@cases_of("ContrastiveLoss")
def contrastive_loss(draw: Draw) -> Case:
    items, features = draw.whole(1, 6), draw.whole(1, 5)
    shape = (items, features, 1, 1) if draw.flip() else (items, features)
    options = (
        f"contrastive_loss_param {{ margin: {draw.number_text(0.5, 2)} "
        f"legacy_version: {draw.one('true', 'false')} }}"
    )
    inputs = [draw.values(shape), draw.values(shape), draw.numbers((items,), 2)]
    return case(draw, inputs, [()], options, loss=True)


@cases_of("Accuracy")
def accuracy(draw: Draw) -> Case:
    scores, labels, axis = _scores(draw, 0)
    text = f"top_k: {draw.whole(1, scores.shape[axis])} axis: {axis}"
    if draw.flip():
        text += " ignore_label: 255"
        labels[draw.rng.random(labels.shape) < draw.one(0.3, 0.3, 1)] = 255
    tops = [(), (scores.shape[axis],)] if draw.flip(0.3) else [()]
    return case(draw, [scores, labels], tops, f"accuracy_param {{ {text} }}", backward=False)


# -- recurrent -------------------------------------------------------------------------------------


def _flags(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Draw where sequences go on: 0 or 1, or anything about that."""
    values = draw.rng.random(shape)
    between = 3 * values - 1
    return (between if draw.flip(0.3) else values < 0.7).astype(np.float32)


def _sequences(draw: Draw, states: int) -> Case:
    time, streams, maps = draw.whole(1, 5), draw.whole(1, 4), draw.whole(1, 4)
    exposed = draw.flip()
    go_on = _flags(draw, (time, streams))
    inputs = [draw.values((time, streams, *draw.shape(1, 2, 4))), go_on]
    if draw.flip():
        inputs.append(draw.values((streams, *draw.shape(1, 2, 4))))
    tops = [(time, streams, maps)]
    if exposed:
        inputs += [draw.values((1, streams, maps)) for _ in range(states)]
        tops += [(1, streams, maps)] * states
    options = (
        f"recurrent_param {{ num_output: {maps} expose_hidden: {str(exposed).lower()} "
        f"weight_filler {{ {filler(draw)} }} }}"
    )
    learnt = [place for place in range(len(inputs)) if place != 1]
    return case(draw, inputs, tops, options, learnt=learnt)


@cases_of("RNN")
def rnn(draw: Draw) -> Case:
    return _sequences(draw, 1)


@cases_of("LSTM")
def lstm(draw: Draw) -> Case:
    return _sequences(draw, 2)


@cases_of("LSTMUnit")
def lstm_unit(draw: Draw) -> Case:
    streams, maps = draw.whole(1, 4), draw.whole(1, 4)
    cell = (1, streams, maps)
    inputs = [
        draw.values(cell),
        3 * draw.values((1, streams, 4 * maps)),
        _flags(draw, (1, streams)),
    ]
    return case(draw, inputs, [cell, cell], learnt=[0, 1])
