"""Kernel, stride, padding and dilation, as a ConvolutionParameter gives them."""

from __future__ import annotations

from collections.abc import Sequence

from caffe.layers.base import Layer
from caffe.proto import caffe_pb2

Sizes = tuple[int, ...]


def conv_geometry(
    layer: Layer, param: caffe_pb2.ConvolutionParameter, axes: int
) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """Return kernel, stride, padding and dilation, one value per spatial axis.

    Raises
    ------
    CaffeError
        If they are missing, too many, given twice or not positive.
    """

    def per_axis(what: str, repeated: Sequence[int], default: int | None) -> Sizes:
        sides = [f"{what}_h", f"{what}_w"]
        # Given as 0 is given, too.
        if what != "dilation" and any(map(param.HasField, sides)):
            if repeated or axes != 2:
                raise layer.fail(f"{what}: give either {what}_h and {what}_w (2-D only) or a list")
            return tuple(getattr(param, side) for side in sides)
        values = tuple(repeated) or (() if default is None else (default,))
        if len(values) == 1:
            return values * axes
        if len(values) != axes:
            raise layer.fail(
                f"{what} needs 1 or {axes} value(s), one per spatial axis, has {len(values)}"
            )
        return values

    kernel = per_axis("kernel", param.kernel_size, None)
    stride = per_axis("stride", param.stride, 1)
    pad = per_axis("pad", param.pad, 0)
    dilation = per_axis("dilation", param.dilation, 1)
    for what, values in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise layer.fail(f"{what} {values} must be positive")
    return kernel, stride, pad, dilation
