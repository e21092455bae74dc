"""Normalisation: LRN, BatchNorm, MVN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.layer_types import register
from caffe.layers.base import Blobs, NeuronLayer
from caffe.layers.scalars_on_gpu import inverse_or_zero, scalar
from caffe.proto import caffe_pb2


@register("LRN")
class LRN(NeuronLayer):
    """x (k + alpha / n * sum of the squares nearby)^-beta, across channels or within each one."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.lrn_param
        self.size, self.alpha, self.beta = param.local_size, param.alpha, param.beta
        if self.size % 2 == 0:
            raise self.fail(f"local_size {self.size} must be odd")
        self.across = param.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS
        # Within a channel genuine Caffe knows no k.
        self.k = param.k if self.across else 1.0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom[0].shape) != 4:
            raise self.fail(f"needs a bottom of 4 axes, not {bottom[0].shape}")
        super().reshape(bottom, top)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average over the neighbourhood; what lies outside counts as 0."""
        half = self.size // 2
        if not self.across:
            return F.avg_pool2d(F.pad(values, (half, half, half, half)), self.size, 1)
        lined = F.pad(values, (0, 0, 0, 0, half, half)).unsqueeze(1)
        return F.avg_pool3d(lined, (self.size, 1, 1), 1).squeeze(1)

    def _base(self, data: torch.Tensor) -> torch.Tensor:
        return self._mean(data.square()).mul_(self.alpha).add_(self.k)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        top[0].set_data(self._base(data).pow_(-self.beta).mul_(data))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if bottom[0] is top[0]:
            raise self.fail("has no gradient where it works in place: give the top another name")
        # As in genuine Caffe, only the kind within channels heeds propagate_down.
        if propagate_down[0] or self.across:
            data, grad = bottom[0].data_tensor(), top[0].diff_tensor()
            base = self._base(data)
            shared = self._mean(grad * top[0].data_tensor() / base)
            direct = base.pow_(-self.beta).mul_(grad)
            bottom[0].set_diff(direct.addcmul_(data, shared, value=-2 * self.alpha * self.beta))


@register("BatchNorm")
class BatchNorm(NeuronLayer):
    """(x - mean) / sqrt(variance + eps) for each channel, of the batch or as averaged in training.

    Notes
    -----
    Parameters: mean, variance, and the factor that both were summed with. In training they take in
    the batch's statistics with every forward pass; solvers leave them alone.
    """

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.batch_norm_param
        self.momentum, self.eps = param.moving_average_fraction, param.eps
        self.use_global_stats = self.phase == caffe_pb2.TEST
        if param.HasField("use_global_stats"):
            self.use_global_stats = param.use_global_stats
        self.channels = bottom[0].shape[1] if len(bottom[0].shape) > 1 else 1
        if not self.blobs:
            for shape in ((self.channels,), (self.channels,), (1,)):
                self.blobs.add_blob(*shape)
        specs = self.layer_param.param
        if any(spec.lr_mult for spec in specs):
            raise self.fail("statistics cannot be learnt: its param must have lr_mult 0")
        while len(specs) < len(self.blobs):
            specs.add(lr_mult=0)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) > 1 and shape[1] != self.channels:
            raise self.fail(f"was set up for {self.channels} channels, the bottom is {shape}")
        self.broadcast_shape = (1, -1, *(1,) * (len(shape) - 2)) if len(shape) > 1 else (-1,)
        self.reduced_axes = tuple(
            axis for axis in range(len(shape)) if axis != 1 or len(shape) == 1
        )
        super().reshape(bottom, top)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(self.reduced_axes).reshape(-1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        mean_blob, variance_blob, factor_blob = self.blobs
        if self.use_global_stats:
            factor = inverse_or_zero(scalar(factor_blob.data_tensor()))
            mean = mean_blob.data_tensor() * factor
            variance = variance_blob.data_tensor() * factor
            centred = data - mean.view(self.broadcast_shape)
        else:
            mean = self._mean(data)
            centred = data - mean.view(self.broadcast_shape)
            variance = self._mean(centred.square())
            count = data.numel() / self.channels
            unbiased = count / (count - 1) if count > 1 else 1.0
            for blob, value, scale in (
                (mean_blob, mean, 1.0),
                (variance_blob, variance, unbiased),
                (factor_blob, mean.new_ones(1), 1.0),
            ):
                blob.data_tensor().mul_(self.momentum).add_(value * scale)
        self.deviation = (variance + self.eps).sqrt_()
        normed = centred.div_(self.deviation.view(self.broadcast_shape))
        # Kept apart from the top, which a layer in place above, often a ReLU, changes.
        self.normed = None if self.use_global_stats else normed.clone()
        top[0].set_data(normed)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        # As in genuine Caffe, whatever propagate_down says.
        grad = top[0].diff_tensor()
        if not self.use_global_stats:
            mean = self._mean(grad).view(self.broadcast_shape)
            slope = self._mean(grad * self.normed).view(self.broadcast_shape)
            grad = grad - mean - slope * self.normed
        bottom[0].set_diff(grad / self.deviation.view(self.broadcast_shape))


@register("MVN")
class MVN(NeuronLayer):
    """Each channel, or each item, minus its mean, over its standard deviation + eps.

    Notes
    -----
    As in genuine Caffe the top has four axes where the bottom has fewer.
    """

    of_four_axes = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.mvn_param
        self.scaled, self.eps = param.normalize_variance, param.eps
        self.outer_axes = 1 if param.across_channels else 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        top[0].reshape(*shape, *(1,) * (4 - len(shape)))

    def _rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take all that is normalised together as one row."""
        rows = math.prod(tensor.shape[: self.outer_axes])
        return tensor.reshape(rows, tensor.numel() // max(rows, 1))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        rows = self._rows(bottom[0].data_tensor())
        result = rows - rows.mean(1, keepdim=True)
        if self.scaled:
            self.deviation = result.square().mean(1, keepdim=True).sqrt_().add_(self.eps)
            result /= self.deviation
        top[0].set_data(result.view(top[0].shape))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        # As in genuine Caffe, whatever propagate_down says.
        grad, data = map(self._rows, (top[0].diff_tensor(), top[0].data_tensor()))
        result = grad - grad.mean(1, keepdim=True)
        if self.scaled:
            result = (result - data * (grad * data).mean(1, keepdim=True)) / self.deviation
        bottom[0].set_diff(result.view(bottom[0].shape))
