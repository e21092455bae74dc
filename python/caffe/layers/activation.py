"""Activations: ReLU, Sigmoid, TanH, and drop-out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe import device
from caffe.blob import Blob
from caffe.layers.base import NeuronLayer, register
from caffe.proto import caffe_pb2


@register("ReLU")
class ReLU(NeuronLayer):
    """max(x, 0) + negative_slope * min(x, 0)."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.slope = self.layer_param.relu_param.negative_slope

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = bottom[0].data_side.tensor()
        if bottom[0] is not top[0]:
            data = data.clone()
        if self.slope:
            torch.nn.functional.leaky_relu_(data, self.slope)
        else:
            data.relu_()
        top[0].data_side.set(data)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if not propagate_down[0]:
            return
        in_place = bottom[0] is top[0]
        grad = top[0].diff_side.tensor() if in_place else self.take_diff(top[0])
        # In place only the result is left; its sign is that of the input for any slope >= 0.
        data = bottom[0].data_side.tensor()
        if self.slope:
            grad = torch.where(data > 0, grad, grad * self.slope)
        else:
            torch.ops.aten.threshold_backward.grad_input(grad, data, 0, grad_input=grad)
        bottom[0].diff_side.set(grad)


@register("Sigmoid")
class Sigmoid(NeuronLayer):
    """1 / (1 + exp(-x))."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].data_side.set(torch.sigmoid(bottom[0].data_side.tensor()))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            data = top[0].data_side.tensor()
            bottom[0].diff_side.set(top[0].diff_side.tensor() * data * (1 - data))


@register("TanH")
class TanH(NeuronLayer):
    """Hyperbolic tangent."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].data_side.set(torch.tanh(bottom[0].data_side.tensor()))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            data = top[0].data_side.tensor()
            bottom[0].diff_side.set(top[0].diff_side.tensor() * (1 - data * data))


@register("Dropout")
class Dropout(NeuronLayer):
    """Set each element to 0 with probability dropout_ratio and scale the rest up; TRAIN only."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.ratio = self.layer_param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.fail(f"dropout_ratio {self.ratio} must lie in [0, 1)")
        self.mask: torch.Tensor | None = None

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = bottom[0].data_side.tensor()
        if self.phase == caffe_pb2.TRAIN:
            # Drawn in NCHW order whatever the layout of the data, so that one seed gives one mask.
            keep = torch.empty(data.shape, device=data.device)
            keep.bernoulli_(1 - self.ratio, generator=device.generator())
            self.mask = keep.mul_(1 / (1 - self.ratio))
            data = data.mul_(self.mask) if bottom[0] is top[0] else data * self.mask
        top[0].data_side.set(data)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if not propagate_down[0]:
            return
        grad = top[0].diff_side.tensor() if bottom[0] is top[0] else self.take_diff(top[0])
        bottom[0].diff_side.set(grad if self.mask is None else grad.mul_(self.mask))
