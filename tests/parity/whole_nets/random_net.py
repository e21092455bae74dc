"""Random architectures: small nets of common layers in random order, shapes and wiring."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.parity.harness import Case

Shape = tuple[int, ...]


class RandomNet:
    """Draws a net, layer by layer.

    Parameters
    ----------
    number : int
        All that is drawn follows from it.
    """

    def __init__(self, number: int) -> None:
        self.rng = np.random.default_rng([2015, number])
        self.text: list[str] = []
        self.inputs: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.unread: list[str] = []
        # Blobs that a layer in place may change: nobody has read them, nor do their makers go
        # back by what they gave.
        self.free: set[str] = set()
        self.count = self.whole(1, 3)
        for _ in range(self.whole(1, 2)):
            self.input(self.count, self.whole(2, 4), self.whole(7, 12), self.whole(7, 12))
        for _ in range(self.whole(5, 10)):
            # What does not fit is drawn anew.
            while not self.choice(LAYERS)(self):
                pass
        for name in list(self.unread):
            self.choice(ENDS)(self, name)

    def case(self) -> Case:
        """Return the net with its inputs."""
        force = f"force_backward: {self.choice(['true', 'false'])}"
        return Case("\n".join([force, *self.text]), self.inputs, phase=0)

    # -- drawing -------------------------------------------------------------------------------

    def whole(self, least: int, most: int) -> int:
        return int(self.rng.integers(least, most + 1))

    def choice(self, options: list):
        return options[self.whole(0, len(options) - 1)]

    def blob(self, axes: int | None = None) -> str:
        """Choose a blob: one that nobody reads yet, as a rule."""
        fitting = [n for n, shape in self.shapes.items() if axes in (None, len(shape))]
        unread = [name for name in fitting if name in self.unread]
        if unread and self.rng.random() < 0.7:
            return self.choice(unread)
        return self.choice(fitting) if fitting else ""

    # -- adding --------------------------------------------------------------------------------

    def input(self, *shape: int, values: np.ndarray | None = None) -> str:
        name = f"in{len(self.inputs)}"
        if values is None:
            # All distinct, so that no maximum is shared.
            values = self.rng.permutation(np.linspace(-1, 1.3, math.prod(shape))).reshape(shape)
        dims = " ".join(f"dim: {size}" for size in shape)
        self.text.append(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
        self.inputs[name] = values.astype(np.float32)
        self.shapes[name] = shape
        self.unread.append(name)
        return name

    def layer(
        self,
        kind: str,
        bottoms: list[str],
        tops: list[Shape],
        options: str = "",
        free: bool = False,
        in_place: bool = False,
    ) -> bool:
        name = f"l{len(self.text)}"
        tops_named = {f"{name}_{index}": shape for index, shape in enumerate(tops)}
        if in_place:
            tops_named = {bottoms[0]: tops[0]}
        wiring = "".join(f' bottom: "{blob}"' for blob in bottoms)
        wiring += "".join(f' top: "{blob}"' for blob in tops_named)
        self.text.append(f'layer {{ name: "{name}" type: "{kind}"{wiring} {options} }}')
        for blob in bottoms:
            if blob in self.unread:
                self.unread.remove(blob)
            self.free.discard(blob)
        self.shapes.update(tops_named)
        self.unread += tops_named
        if free:
            self.free.update(tops_named)
        return True


def _size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def _convolution(net: RandomNet) -> bool:
    bottom = net.blob(4)
    if not bottom:
        return False
    n, c, h, w = net.shapes[bottom]
    kernel, stride, pad = net.whole(1, 3), net.whole(1, 2), net.whole(0, 1)
    dilation = net.choice([1, 1, 2])
    group = net.choice([g for g in (1, 1, 2, 3) if c % g == 0])
    maps = group * net.whole(1, 3)
    out = [_size(size, kernel, stride, pad, dilation) for size in (h, w)]
    if min(out) < 1:
        return False
    options = (
        f"convolution_param {{ num_output: {maps} kernel_size: {kernel} stride: {stride} "
        f"pad: {pad} dilation: {dilation} group: {group} "
        f"bias_term: {net.choice(['true', 'false'])} }}"
    )
    return net.layer("Convolution", [bottom], [(n, maps, *out)], options, free=True)


def _deconvolution(net: RandomNet) -> bool:
    bottom = net.blob(4)
    if not bottom or max(net.shapes[bottom]) > 12:
        return False
    n, _, h, w = net.shapes[bottom]
    kernel, stride = net.whole(2, 4), net.whole(1, 2)
    maps = net.whole(1, 4)
    out = [stride * (size - 1) + kernel for size in (h, w)]
    options = f"convolution_param {{ num_output: {maps} kernel_size: {kernel} stride: {stride} }}"
    return net.layer("Deconvolution", [bottom], [(n, maps, *out)], options, free=True)


def _pooling(net: RandomNet) -> bool:
    bottom = net.blob(4)
    if not bottom or min(net.shapes[bottom][2:]) < 3:
        return False
    n, c, *sizes = net.shapes[bottom]
    kernel, stride = net.whole(2, 3), net.whole(1, 2)
    pad = net.choice([0, 0, 1])
    out = []
    for size in sizes:
        count = -(-(size + 2 * pad - kernel) // stride) + 1
        out.append(count - 1 if pad and (count - 1) * stride >= size + pad else count)
    options = (
        f"pooling_param {{ pool: {net.choice(['MAX', 'AVE'])} kernel_size: {kernel} "
        f"stride: {stride} pad: {pad} }}"
    )
    return net.layer("Pooling", [bottom], [(n, c, *out)], options, free=True)


def _lrn(net: RandomNet) -> bool:
    bottom = net.blob(4)
    if not bottom:
        return False
    region = net.choice(["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
    options = f"lrn_param {{ local_size: {net.choice([3, 5])} alpha: 0.5 norm_region: {region} }}"
    return net.layer("LRN", [bottom], [net.shapes[bottom]], options)


def _activation(net: RandomNet) -> bool:
    bottom = net.blob()
    kind = net.choice(["ReLU", "ReLU", "ReLU", "Sigmoid", "TanH", "ELU", "AbsVal", "BNLL"])
    in_place = bottom in net.free and kind in ("ReLU", "Sigmoid", "TanH", "ELU")
    options = ""
    if kind == "ReLU" and net.choice([True, False]):
        options = "relu_param { negative_slope: 0.25 }"
    return net.layer(kind, [bottom], [net.shapes[bottom]], options, in_place=in_place)


def _normalised(net: RandomNet) -> bool:
    bottom = net.blob(4)
    # Of few values rounding moves the variance, and the sign of what is left over.
    if not bottom or math.prod(net.shapes[bottom]) < 16 * net.shapes[bottom][1]:
        return False
    shape = net.shapes[bottom]
    net.layer("BatchNorm", [bottom], [shape], "batch_norm_param { eps: 1e-2 }", free=True)
    if net.choice([True, False, False]):
        return True
    options = "scale_param { bias_term: true }"
    return net.layer("Scale", [net.unread[-1]], [shape], options, free=True, in_place=True)


def _eltwise(net: RandomNet) -> bool:
    first = net.blob()
    others = [n for n, shape in net.shapes.items() if shape == net.shapes[first] and n != first]
    if not others:
        return False
    options = net.choice(
        ["", "eltwise_param { coeff: 0.5 coeff: -1 }", "eltwise_param { operation: MAX }"]
        + ["eltwise_param { operation: PROD }"]
    )
    shape = net.shapes[first]
    free = "operation" not in options
    return net.layer("Eltwise", [first, net.choice(others)], [shape], options, free=free)


def _concat(net: RandomNet) -> bool:
    first = net.blob(4)
    if not first:
        return False
    n, _, h, w = net.shapes[first]
    others = [
        name
        for name, shape in net.shapes.items()
        if len(shape) == 4 and (shape[0], *shape[2:]) == (n, h, w)
    ]
    bottoms = [first, *(net.choice(others) for _ in range(net.whole(1, 2)))]
    maps = sum(net.shapes[name][1] for name in bottoms)
    return net.layer("Concat", bottoms, [(n, maps, h, w)], free=True)


def _slice(net: RandomNet) -> bool:
    bottom = net.blob(4)
    if not bottom or net.shapes[bottom][1] < 2:
        return False
    n, c, h, w = net.shapes[bottom]
    point = net.whole(1, c - 1)
    options = f"slice_param {{ slice_point: {point} }}"
    return net.layer("Slice", [bottom], [(n, point, h, w), (n, c - point, h, w)], options, True)


def _inner_product(net: RandomNet) -> bool:
    bottom = net.blob()
    shape = net.shapes[bottom]
    maps = net.whole(2, 6)
    options = f"inner_product_param {{ num_output: {maps} }}"
    return net.layer("InnerProduct", [bottom], [(shape[0], maps)], options, free=True)


def _flatten(net: RandomNet) -> bool:
    bottom = net.blob(4)
    if not bottom:
        return False
    n, *rest = net.shapes[bottom]
    return net.layer("Flatten", [bottom], [(n, math.prod(rest))])


def _crop(net: RandomNet) -> bool:
    first, second = net.blob(4), net.blob(4)
    if not first or first == second:
        return False
    wanted = net.shapes[second]
    offsets = [size - small for size, small in zip(net.shapes[first][2:], wanted[2:])]
    if min(offsets) < 0:
        return False
    text = " ".join(f"offset: {net.whole(0, offset)}" for offset in offsets)
    top = (*net.shapes[first][:2], *wanted[2:])
    options = f"crop_param {{ axis: 2 {text} }}"
    return net.layer("Crop", [first, second], [top], options, free=True)


def _softmax(net: RandomNet) -> bool:
    bottom = net.blob()
    return net.layer("Softmax", [bottom], [net.shapes[bottom]])


def _euclidean(net: RandomNet, name: str) -> None:
    target = net.input(*net.shapes[name])
    weight = net.choice(["", "loss_weight: 0.5"])
    net.layer("EuclideanLoss", [name, target], [()], weight)


def _classes(net: RandomNet, name: str) -> None:
    n, classes, *sizes = net.shapes[name]
    labels = net.rng.integers(0, classes, (n, *sizes))
    target = net.input(n, *sizes, values=labels)
    net.layer("SoftmaxWithLoss", [name, target], [()])


def _reduction(net: RandomNet, name: str) -> None:
    options = f"loss_weight: {net.choice([1, -0.25])} reduction_param {{ operation: SUMSQ }}"
    net.layer("Reduction", [name], [()], options)


LAYERS: list[Callable[[RandomNet], bool]] = [
    *[_convolution] * 4,
    *[_activation] * 4,
    *[_pooling, _eltwise, _concat] * 2,
    *[_deconvolution, _lrn, _normalised, _slice, _inner_product, _flatten, _crop, _softmax],
]
ENDS: list[Callable[[RandomNet, str], None]] = [_euclidean, _classes, _reduction]
