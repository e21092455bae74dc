"""Activations, element by element, and drop-out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe import common
from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import NeuronLayer
from caffe.proto import caffe_pb2


def _in_one_piece(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor has its memory for itself, in either layout."""
    if tensor.is_contiguous():
        return True
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


@register("ReLU")
class ReLU(NeuronLayer):
    """max(x, 0) + negative_slope * min(x, 0)."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.slope = self.layer_param.relu_param.negative_slope

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = bottom[0].data_memory.native()
        if bottom[0] is not top[0]:
            data = data.clone()
        if self.slope:
            torch.nn.functional.leaky_relu_(data, self.slope)
        else:
            data.relu_()
        top[0].set_data(data)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
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
class Sigmoid(NeuronLayer):
    """1 / (1 + exp(-x))."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].set_data(torch.sigmoid(bottom[0].data_tensor()))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            data = top[0].data_tensor()
            bottom[0].set_diff(top[0].diff_tensor() * data * (1 - data))


@register("TanH")
class TanH(NeuronLayer):
    """Hyperbolic tangent."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].set_data(torch.tanh(bottom[0].data_tensor()))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            data = top[0].data_tensor()
            bottom[0].set_diff(top[0].diff_tensor() * (1 - data * data))


@register("Dropout")
class Dropout(NeuronLayer):
    """Set each element to 0 with probability dropout_ratio and scale the rest up; TRAIN only."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.ratio = self.layer_param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.fail(f"dropout_ratio {self.ratio} must lie in [0, 1)")
        self.mask: torch.Tensor | None = None

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
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

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if not propagate_down[0]:
            return
        grad = top[0].diff_memory.native() if bottom[0] is top[0] else self.take_diff(top[0])
        bottom[0].set_diff(grad if self.mask is None else grad.mul_(self.mask))


@register("ELU")
class ELU(NeuronLayer):
    """x where it is positive, else alpha (e^x - 1)."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.alpha = self.layer_param.elu_param.alpha

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].set_data(torch.nn.functional.elu(bottom[0].data_tensor(), self.alpha))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            result = top[0].data_tensor()
            slope = torch.where(bottom[0].data_tensor() > 0, 1.0, result + self.alpha)
            bottom[0].set_diff(top[0].diff_tensor() * slope)


@register("PReLU")
class PReLU(NeuronLayer):
    """max(x, 0) + a min(x, 0), with one a learnt for each channel, or for all."""

    of_four_axes = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
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

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = bottom[0].data_tensor()
        # In place the input is gone afterwards, and both gradients need it.
        self.kept = data.clone() if bottom[0] is top[0] else None
        top[0].set_data(torch.where(data > 0, data, data * self._slopes(data)))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        data = bottom[0].data_tensor() if self.kept is None else self.kept
        grad = top[0].diff_tensor()
        if self.param_propagate_down[0]:
            total = grad * data.clamp(max=0)
            axes = range(data.dim()) if self.shared else (0, *range(2, data.dim()))
            blob = self.blobs[0]
            blob.diff_memory.accumulate(total.sum(tuple(axes)).view(blob.shape))
        if propagate_down[0]:
            bottom[0].set_diff(torch.where(data > 0, grad, grad * self._slopes(data)))


@register("BNLL")
class BNLL(NeuronLayer):
    """log(1 + e^x)."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = bottom[0].data_tensor()
        self.kept = data.clone() if bottom[0] is top[0] else None
        top[0].set_data(torch.logaddexp(data, torch.zeros_like(data)))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            data = bottom[0].data_tensor() if self.kept is None else self.kept
            bottom[0].set_diff(top[0].diff_tensor() * torch.sigmoid(data))


@register("Swish")
class Swish(NeuronLayer):
    """x / (1 + e^(-beta x))."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.beta = self.layer_param.swish_param.beta

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = bottom[0].data_tensor()
        self.gate = torch.sigmoid(data * self.beta)
        top[0].set_data(data * self.gate)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            scaled = top[0].data_tensor() * self.beta
            slope = scaled + self.gate * (1 - scaled)
            bottom[0].set_diff(top[0].diff_tensor() * slope)


@register("Clip")
class Clip(NeuronLayer):
    """Values below min become min, above max max."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.clip_param
        self.least, self.most = param.min, param.max

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        # Not in one: where min is above max, max would win.
        values = bottom[0].data_tensor().clamp(max=self.most).clamp_(min=self.least)
        top[0].set_data(values)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            # In place what was outside lies on the edge by now, and passes, as in genuine Caffe.
            data = bottom[0].data_tensor()
            inside = (data >= self.least) & (data <= self.most)
            bottom[0].set_diff(top[0].diff_tensor() * inside)


@register("Threshold")
class Threshold(NeuronLayer):
    """1 above the threshold, else 0; nothing can be learnt through it."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        limit = self.layer_param.threshold_param.threshold
        top[0].set_data((bottom[0].data_tensor() > limit).to(torch.float32))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            raise self.fail("has no gradient")
