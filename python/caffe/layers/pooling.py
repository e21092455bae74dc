"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.blob import Blob
from caffe.layers.base import Layer, register
from caffe.proto import caffe_pb2

_MAX = caffe_pb2.PoolingParameter.MAX
_AVE = caffe_pb2.PoolingParameter.AVE


@register("Pooling")
class Pooling(Layer):
    """Maximum or average over windows of a 4-D blob.

    Notes
    -----
    Sizes round up, and a last window that would start in the padding is left out. AVE divides by
    the window clipped to the padded image. Of equal maxima the first in row-major order gets the
    gradient.
    """

    bottom_range = top_range = (1, 1)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.pooling_param
        if param.pool not in (_MAX, _AVE):
            raise self.fail("this engine pools by MAX and AVE only")
        self.maximum = param.pool == _MAX
        self.stride = (param.stride_h or param.stride, param.stride_w or param.stride)
        self.pad = (param.pad_h or param.pad, param.pad_w or param.pad)
        self.global_pooling = param.global_pooling
        self.kernel = (param.kernel_h or param.kernel_size, param.kernel_w or param.kernel_size)
        if not self.global_pooling:
            if min(self.kernel) < 1 or min(self.stride) < 1:
                raise self.fail(f"kernel {self.kernel} and stride {self.stride} must be positive")
            if any(pad >= kernel for pad, kernel in zip(self.pad, self.kernel)):
                raise self.fail(f"pad {self.pad} must be smaller than the kernel {self.kernel}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        if len(shape) != 4:
            raise self.fail(f"needs a bottom of 4 axes, not {shape}")
        if self.global_pooling:
            self.kernel = shape[2:]
        sizes = [
            self._pooled(size, kernel, stride, pad)
            for size, kernel, stride, pad in zip(shape[2:], self.kernel, self.stride, self.pad)
        ]
        if min(sizes) < 1:
            raise self.fail(f"the bottom {shape} is too small for the kernel {self.kernel}")
        top[0].reshape(*shape[:2], *sizes)

    def _pooled(self, size: int, kernel: int, stride: int, pad: int) -> int:
        steps = (size + 2 * pad - kernel) / stride
        floor = self.layer_param.pooling_param.round_mode == caffe_pb2.PoolingParameter.FLOOR
        pooled = (math.floor(steps) if floor else math.ceil(steps)) + 1
        if pad and (pooled - 1) * stride >= size + pad:
            pooled -= 1
        return pooled

    def _padded(self, data: torch.Tensor, top: Blob) -> torch.Tensor:
        # Padded to what the windows cover, so that sizes never depend on PyTorch's rounding.
        below = [
            max(0, (pooled - 1) * stride + kernel - size - pad)
            for pooled, stride, kernel, size, pad in zip(
                top.shape[2:], self.stride, self.kernel, data.shape[2:], self.pad
            )
        ]
        if not any(below) and not any(self.pad):
            return data
        value = -torch.finfo(data.dtype).max if self.maximum else 0.0
        return F.pad(data, (self.pad[1], below[1], self.pad[0], below[0]), value=value)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data = self._padded(bottom[0].data_side.tensor(), top[0])
        if self.maximum:
            pooled = F.max_pool2d(data, self.kernel, self.stride)
        else:
            pooled = F.avg_pool2d(data, self.kernel, self.stride, divisor_override=1)
            pooled = pooled / self._areas(bottom[0], top[0], pooled.device)
        top[0].data_side.set(pooled[:, :, : top[0].shape[2], : top[0].shape[3]])

    def _areas(self, bottom: Blob, top: Blob, where: torch.device) -> torch.Tensor:
        lines = []
        for size, pooled, kernel, stride, pad in zip(
            bottom.shape[2:], top.shape[2:], self.kernel, self.stride, self.pad
        ):
            start = torch.arange(pooled, device=where) * stride - pad
            lines.append(torch.clamp(start + kernel, max=size + pad) - start)
        return (lines[0][:, None] * lines[1][None, :]).to(torch.float32)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if not propagate_down[0]:
            return
        data = bottom[0].data_side.tensor()
        padded = self._padded(data, top[0])
        grad = top[0].diff_side.tensor()
        if self.maximum:
            # The places of the maxima are found again here: kept from the forward pass they would
            # take more memory than the pooled maps themselves.
            places = torch.ops.aten.max_pool2d_with_indices(padded, self.kernel, self.stride)[1]
            grad = torch.ops.aten.max_pool2d_with_indices_backward(
                grad, padded, self.kernel, self.stride, (0, 0), (1, 1), False, places
            )
        else:
            grad = torch.ops.aten.avg_pool2d_backward(
                grad / self._areas(bottom[0], top[0], grad.device),
                padded,
                self.kernel,
                self.stride,
                (0, 0),
                False,
                True,
                1,
            )
        rows, columns = (slice(pad, pad + size) for pad, size in zip(self.pad, data.shape[2:]))
        bottom[0].diff_side.set(grad[:, :, rows, columns])
