"""Activations, element by element, and drop-out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe import common
from caffe.layer_types import register
from caffe.layers.base import Blobs, NeuronLayer, PointwiseLayer
from caffe.proto import caffe_pb2


def _in_one_piece(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor has its memory for itself, in either layout."""
    if tensor.is_contiguous():
        return True
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


@register("ReLU")
class ReLU(NeuronLayer):
    """max(x, 0) + negative_slope * min(x, 0)."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.slope = self.layer_param.relu_param.negative_slope

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_memory.native()
        if bottom[0] is not top[0]:
            data = data.clone()
        if self.slope:
            torch.nn.functional.leaky_relu_(data, self.slope)
        else:
            data.relu_()
        top[0].set_data(data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        in_place = bottom[0] is top[0]
        grad = top[0].diff_memory.native() if in_place else self.take_diff(top[0])
        # In place only the result is left; its sign is that of the input for any slope >= 0.
        data = bottom[0].data_memory.native().to(grad.dtype)
        if self.slope:
            grad = torch.where(data > 0, grad, grad * self.slope)
        elif grad.device.type != "cpu" and not _in_one_piece(grad):
            # A part of a Concat's: what convolutions read next they want in one piece.
            grad = torch.ops.aten.threshold_backward(grad, data, 0)
        else:
            torch.ops.aten.threshold_backward.grad_input(grad, data, 0, grad_input=grad)
        bottom[0].set_diff(grad)


@register("Sigmoid")
class Sigmoid(PointwiseLayer):
    """1 / (1 + exp(-x))."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return grad * y * (1 - y)


@register("TanH")
class TanH(PointwiseLayer):
    """Hyperbolic tangent."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return grad * (1 - y * y)


@register("Dropout")
class Dropout(NeuronLayer):
    """Set each element to 0 with probability dropout_ratio and scale the rest up; TRAIN only."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.ratio = self.layer_param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.fail(f"dropout_ratio {self.ratio} must lie in [0, 1)")
        self.mask: torch.Tensor | None = None

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_memory.native()
        if self.phase == caffe_pb2.TRAIN:
            # On a CPU drawn in NCHW order whatever the layout of the data, which depends on the
            # CPU, so that one seed gives one mask.
            keep = torch.empty(data.shape) if data.device.type == "cpu" else torch.empty_like(data)
            keep.bernoulli_(1 - self.ratio, generator=common.generator())
            self.mask = keep.mul_(1 / (1 - self.ratio)).to(data.dtype)
            data = data.mul_(self.mask) if bottom[0] is top[0] else data * self.mask
        elif bottom[0] is not top[0]:
            # Its own: what works in place above leaves the bottom alone.
            data = data.clone()
        top[0].set_data(data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        grad = top[0].diff_memory.native() if bottom[0] is top[0] else self.take_diff(top[0])
        bottom[0].set_diff(grad if self.mask is None else grad.mul_(self.mask))


@register("ELU")
class ELU(PointwiseLayer):
    """x where it is positive, else alpha (e^x - 1)."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.alpha = self.layer_param.elu_param.alpha

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.elu(x, self.alpha)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return grad * torch.where(x > 0, 1.0, y + self.alpha)


@register("PReLU")
class PReLU(NeuronLayer):
    """max(x, 0) + a min(x, 0), with one a learnt for each channel, or for all."""

    of_four_axes = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.prelu_param
        shape = bottom[0].shape
        if len(shape) < 2:
            raise self.fail(f"needs channels on axis 1, the bottom is {shape}")
        self.shared = param.channel_shared
        if not self.blobs:
            filler = caffe_pb2.FillerParameter(type="constant", value=0.25)
            if param.HasField("filler"):
                filler.CopyFrom(param.filler)
            self.add_parameter(() if self.shared else shape[1:2], filler)
        if self.blobs[0].count != (1 if self.shared else shape[1]):
            raise self.fail(f"slopes of shape {self.blobs[0].shape} do not fit the bottom {shape}")

    def _slopes(self, data: torch.Tensor) -> torch.Tensor:
        return self.blobs[0].data_tensor().view(-1, *(1,) * (data.dim() - 2))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        # In place the input is gone afterwards, and both gradients need it.
        self.input = data.clone() if bottom[0] is top[0] else None
        top[0].set_data(torch.where(data > 0, data, data * self._slopes(data)))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        data = bottom[0].data_tensor() if self.input is None else self.input
        grad = top[0].diff_tensor()
        if self.param_propagate_down[0]:
            total = grad * data.clamp(max=0)
            axes = range(data.dim()) if self.shared else (0, *range(2, data.dim()))
            blob = self.blobs[0]
            blob.diff_memory.accumulate(total.sum(tuple(axes)).view(blob.shape))
        if propagate_down[0]:
            bottom[0].set_diff(torch.where(data > 0, grad, grad * self._slopes(data)))


@register("BNLL")
class BNLL(PointwiseLayer):
    """log(1 + e^x)."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        self.input = x.clone() if self.in_place else None
        return torch.logaddexp(x, torch.zeros_like(x))

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return grad * torch.sigmoid(x if self.input is None else self.input)


@register("Swish")
class Swish(PointwiseLayer):
    """x / (1 + e^(-beta x))."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beta = self.layer_param.swish_param.beta

    def value(self, x: torch.Tensor) -> torch.Tensor:
        self.gate = torch.sigmoid(x * self.beta)
        return x * self.gate

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scaled = y * self.beta
        return grad * (scaled + self.gate * (1 - scaled))


@register("Clip")
class Clip(PointwiseLayer):
    """Values below min become min, above max max."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.clip_param
        self.least, self.most = param.min, param.max

    def value(self, x: torch.Tensor) -> torch.Tensor:
        # Not in one: where min is above max, max would win.
        return x.clamp(max=self.most).clamp_(min=self.least)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # In place what was outside lies on the edge by now, and passes, as in genuine Caffe.
        return grad * ((x >= self.least) & (x <= self.most))


@register("Threshold")
class Threshold(PointwiseLayer):
    """1 above the threshold, else 0; nothing can be learnt through it."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return (x > self.layer_param.threshold_param.threshold).to(torch.float32)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise self.fail("has no gradient")
