"""Products and sums with a smaller blob along some axes: Scale and Bias."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.proto import caffe_pb2


class _Broadcast(BuiltInLayer):
    """What Scale and Bias share: a second factor, a bottom or a parameter, laid along axes."""

    bottom_range = (1, 2)
    top_range = (1, 1)

    def _setup(
        self,
        bottom: Blobs,
        param: caffe_pb2.ScaleParameter | caffe_pb2.BiasParameter,
        default: float,
    ) -> None:
        self.param = param
        self.learnt = len(bottom) == 1
        shape = bottom[0].shape
        if self.learnt and not self.blobs:
            axis = self.canonical_axis(param.axis, shape) if shape else 0
            if param.num_axes < -1:
                raise self.fail(f"num_axes {param.num_axes} must be -1 or more")
            stop = len(shape) if param.num_axes == -1 else axis + param.num_axes
            if stop > len(shape):
                raise self.fail(
                    f"axis {axis} and num_axes {param.num_axes} leave the shape {shape}"
                )
            filler = caffe_pb2.FillerParameter()
            filler.CopyFrom(param.filler)
            if not param.HasField("filler"):
                filler.type, filler.value = "constant", default
            self.add_parameter(shape[axis:stop], filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape, other = bottom[0].shape, self._factor(bottom).shape
        # A scalar fits whatever the axis is.
        self.start = 0 if not other else self.canonical_axis(self.param.axis, shape)
        stop = self.start + len(other)
        if shape[self.start : stop] != other:
            raise self.fail(f"{other} does not fit {shape} from axis {self.start} on")
        self.broadcast_shape = (1,) * self.start + other + (1,) * (len(shape) - stop)
        self.reduced_axes = (*range(self.start), *range(stop, len(shape)))
        if bottom[0] is not top[0]:
            top[0].reshape(*shape)

    def _factor(self, bottom: Blobs) -> Blob:
        return self.blobs[0] if self.learnt else bottom[1]

    def _sum(self, values: torch.Tensor, like: Blob) -> torch.Tensor:
        total = values.sum(self.reduced_axes) if self.reduced_axes else values.clone()
        return total.reshape(like.shape)


@register("Scale")
class Scale(_Broadcast):
    """x * s, and + b with bias_term; s and b learnt, or s the second bottom."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.scale_param
        given = len(self.blobs)
        self._setup(bottom, param, 1.0)
        self.has_bias = param.bias_term
        if self.has_bias and not given:
            self.add_parameter(self._factor(bottom).shape, param.bias_filler)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        # In place the input is gone afterwards, and the factor's gradient needs it.
        self.input = data.clone() if bottom[0] is top[0] else None
        result = data * self._factor(bottom).data_tensor().view(self.broadcast_shape)
        if self.has_bias:
            result += self.blobs[-1].data_tensor().view(self.broadcast_shape)
        top[0].set_data(result)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        grad = top[0].diff_tensor()
        wants = self.param_propagate_down
        if self.has_bias and wants[-1]:
            bias = self.blobs[-1]
            bias.diff_memory.accumulate(self._sum(grad, bias))
        if wants[0] if self.learnt else propagate_down[1]:
            data = bottom[0].data_tensor() if self.input is None else self.input
            factor = self._factor(bottom)
            total = self._sum(grad * data, factor)
            if self.learnt:
                factor.diff_memory.accumulate(total)
            else:
                factor.set_diff(total)
        if propagate_down[0]:
            scaled = grad * self._factor(bottom).data_tensor().view(self.broadcast_shape)
            bottom[0].set_diff(scaled)


@register("Bias")
class Bias(_Broadcast):
    """x + b; b learnt, or the second bottom."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._setup(bottom, self.layer_param.bias_param, 0.0)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        factor = self._factor(bottom).data_tensor().view(self.broadcast_shape)
        top[0].set_data(bottom[0].data_tensor() + factor)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        grad = top[0].diff_tensor()
        factor = self._factor(bottom)
        if self.learnt:
            if self.param_propagate_down[0]:
                factor.diff_memory.accumulate(self._sum(grad, factor))
        elif propagate_down[1]:
            factor.set_diff(self._sum(grad, factor))
        if propagate_down[0] and bottom[0] is not top[0]:
            bottom[0].set_diff(grad.clone())
