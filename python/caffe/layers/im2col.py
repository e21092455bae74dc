"""Im2col: windows as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.conv_geometry import conv_geometry


@register("Im2col")
class Im2col(BuiltInLayer):
    """Windows as columns: the axes channels times window elements, then positions of windows."""

    bottom_range = top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param, shape = self.layer_param.convolution_param, bottom[0].shape
        self.axis = self.canonical_axis(param.axis, shape)
        axes = len(shape) - self.axis - 1
        if axes < 1:
            raise self.fail(f"needs spatial axes after axis {self.axis}, the bottom is {shape}")
        if any(blob in bottom for blob in top):
            raise self.fail("cannot work in place: give the top another name")
        self.kernel, self.stride, self.pad, self.dilation = conv_geometry(self, param, axes)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        sizes = [
            (size + 2 * pad - (dilation * (kernel - 1) + 1)) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                shape[self.axis + 1 :], self.kernel, self.stride, self.pad, self.dilation
            )
        ]
        if min(sizes) < 1:
            raise self.fail(f"the bottom {shape} is too small for kernel {self.kernel}")
        self.sizes = sizes
        columns = shape[self.axis] * math.prod(self.kernel)
        top[0].reshape(*shape[: self.axis], columns, *sizes)
        self.indices = self._padded_indices(bottom[0])

    def _padded_indices(self, bottom: Blob) -> torch.Tensor:
        """Return, for each element of the top, where in the padded bottom it is from."""
        padded = [size + 2 * pad for size, pad in zip(bottom.shape[self.axis + 1 :], self.pad)]
        flat = torch.arange(math.prod(padded)).view(padded)
        for axis, (kernel, stride, dilation, size) in enumerate(
            zip(self.kernel, self.stride, self.dilation, self.sizes)
        ):
            starts = torch.arange(size) * stride
            index = starts[None, :] + (torch.arange(kernel) * dilation)[:, None]
            # Each axis becomes two: within the window, and which window.
            flat = flat.index_select(2 * axis, index.reshape(-1)).unflatten(
                2 * axis, (kernel, size)
            )
        axes = len(self.kernel)
        order = [*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]
        return flat.permute(order).reshape(-1)

    def _indices_on(self, rows: torch.Tensor) -> torch.Tensor:
        # Kept there: they are copied to a GPU once a shape.
        self.indices = self.indices.to(rows.device)
        return self.indices

    def _padded(self, tensor: torch.Tensor) -> torch.Tensor:
        around = [side for pad in reversed(self.pad) for side in (pad, pad)]
        return torch.nn.functional.pad(tensor, around)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = self._padded(bottom[0].data_tensor())
        rows = data.reshape(math.prod(data.shape[: self.axis + 1]), -1)
        top[0].set_data(rows.index_select(1, self._indices_on(rows)).reshape(top[0].shape))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        # As in genuine Caffe, whatever propagate_down says.
        shape = bottom[0].shape
        padded = [size + 2 * pad for size, pad in zip(shape[self.axis + 1 :], self.pad)]
        grad = top[0].diff_tensor()
        rows = grad.new_zeros(math.prod(shape[: self.axis + 1]), math.prod(padded))
        rows.index_add_(1, self._indices_on(rows), grad.reshape(len(rows), -1))
        whole = rows.view(*shape[: self.axis + 1], *padded)
        inner = [slice(pad, pad + size) for pad, size in zip(self.pad, shape[self.axis + 1 :])]
        bottom[0].set_diff(whole[(..., *inner)])
