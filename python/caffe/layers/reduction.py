"""Reduction: sums and means over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.proto import caffe_pb2


@register("Reduction")
class Reduction(BuiltInLayer):
    """coeff times the sum of x, |x| or x^2, or the mean, over the axes from `axis` on."""

    bottom_range = top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.reduction_param
        self.operation = param.operation
        self.coefficient = param.coeff

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        axis = self.canonical_axis(self.layer_param.reduction_param.axis, shape) if shape else 0
        top[0].reshape(*shape[:axis])
        self.outer = math.prod(shape[:axis])
        inner = math.prod(shape[axis:])
        mean = self.operation == caffe_pb2.ReductionParameter.MEAN
        self.factor = self.coefficient / inner if mean and inner else self.coefficient

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        rows = bottom[0].data_tensor().reshape(self.outer, -1)
        if self.operation == caffe_pb2.ReductionParameter.ASUM:
            rows = rows.abs()
        elif self.operation == caffe_pb2.ReductionParameter.SUMSQ:
            rows = rows.square()
        top[0].set_data(rows.sum(1).mul_(self.factor).view(top[0].shape))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        shape = bottom[0].shape
        grad = top[0].diff_tensor() * self.factor
        grad = grad.view(*top[0].shape, *(1,) * (len(shape) - len(top[0].shape)))
        if self.operation == caffe_pb2.ReductionParameter.ASUM:
            result = grad * bottom[0].data_tensor().sign()
        elif self.operation == caffe_pb2.ReductionParameter.SUMSQ:
            result = grad * bottom[0].data_tensor() * 2
        else:
            result = grad.expand(shape).clone()
        bottom[0].set_diff(result)
