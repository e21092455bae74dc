"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe import common, pages
from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.proto import caffe_pb2

_MAX = caffe_pb2.PoolingParameter.MAX
_AVE = caffe_pb2.PoolingParameter.AVE
_KERNEL = ("kernel_size", "kernel_h", "kernel_w")
_STOCHASTIC = caffe_pb2.PoolingParameter.STOCHASTIC
_max_pool = torch.ops.aten.max_pool2d_with_indices


@register("Pooling")
class Pooling(BuiltInLayer):
    """Maximum, average, or one value drawn at random, of each window of the pixels' axes.

    Notes
    -----
    As in caffe_unet (Falk et al., Nature Methods 16, 2019), and not in BVLC Caffe, blobs of 3 and 5
    axes are pooled as well, and texts may repeat kernel_size, stride and pad, once an axis.
    Sizes round up, and a last window that would start in the padding is left out. AVE divides by
    the window clipped to the padded image. Of equal maxima the first in row-major order gets the
    gradient. MAX: a second top holds where in the plane of its channel each maximum lies.
    STOCHASTIC (Zeiler and Fergus, ICLR 2013): in training a value is drawn with a probability
    proportional to it, in testing the values' mean weighted by themselves is taken.
    """

    bottom_range = (1, 1)
    top_range = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.pooling_param
        self.method = param.pool
        self.maximum = param.pool == _MAX
        if len(top) > 1 and not self.maximum:
            raise self.fail("a second top, where the maxima lie, needs pool: MAX")
        self.floor = self._floor()
        self.axes = len(bottom[0].shape) - 2
        if not 1 <= self.axes <= 3:
            raise self.fail(f"needs a bottom of 3 to 5 axes, not {bottom[0].shape}")
        self._refuse_on_other_axes(len(top))
        self.stride = self._sizes("stride")
        # Where the maxima lie, if a forward pass on a GPU has found them.
        self.indices: torch.Tensor | None = None
        self.pad = self._sizes("pad")
        self.global_pooling = param.global_pooling
        if any(self.pad) and param.pool == _STOCHASTIC:
            raise self.fail("pads with pool: MAX or AVE only")
        if self.global_pooling:
            given = [name for name in _KERNEL if param.HasField(name)]
            given += ["kernel_size"] if param.kernel_sizes else []
            if given or any(self.pad) or max(self.stride) != 1:
                what = given[0] if given else "pad" if any(self.pad) else "stride"
                raise self.fail(f"takes whole planes with global_pooling: leave {what} out")
        else:
            size, *sides = (param.HasField(name) for name in _KERNEL)
            if (size or bool(param.kernel_sizes)) == all(sides):
                raise self.fail("takes either kernel_size, or kernel_h and kernel_w")
            self.kernel = (
                (param.kernel_h, param.kernel_w) if all(sides) else self._by_axis("kernel_size")
            )
            if min(self.kernel) < 1 or min(self.stride) < 1:
                raise self.fail(f"kernel {self.kernel} and stride {self.stride} must be positive")
            if any(pad >= kernel for pad, kernel in zip(self.pad, self.kernel)):
                raise self.fail(f"pad {self.pad} must be smaller than the kernel {self.kernel}")

    def _floor(self) -> bool:
        """Tell whether sizes round down: by `round_mode`, or `ceil_mode`, as other Caffes say."""
        param = self.layer_param.pooling_param
        floor = param.round_mode == caffe_pb2.PoolingParameter.FLOOR
        if not param.HasField("ceil_mode"):
            return floor
        if param.HasField("round_mode") and floor == param.ceil_mode:
            given, meant = ("FLOOR", "CEIL") if floor else ("CEIL", "FLOOR")
            raise self.fail(
                f"ceil_mode: {str(param.ceil_mode).lower()} is round_mode: {meant}, and "
                f"round_mode: {given} stands beside it; leave one of them out"
            )
        self.beyond_bvlc("'ceil_mode' is taken for 'round_mode' (true: CEIL, false: FLOOR)")
        return not param.ceil_mode

    def _refuse_on_other_axes(self, tops: int) -> None:
        """Refuse what is for planes alone, where the bottom has depth as well, or one axis."""
        if self.axes == 2:
            return
        if self.method == _STOCHASTIC or tops > 1:
            what = "a second top" if tops > 1 else "pool: STOCHASTIC"
            raise self.fail(f"takes {what} with 2 spatial axes only, the bottom has {self.axes}")
        self.beyond_bvlc(f"pools over {self.axes} spatial axes, as caffe_unet does")

    def _sizes(self, name: str) -> tuple[int, ...]:
        """Return what is given for each spatial axis: one value for all, or one for each."""
        param = self.layer_param.pooling_param
        sides = [f"{name}_h", f"{name}_w"]
        given = [param.HasField(side) for side in sides]
        if not any(given):
            return self._by_axis(name)
        if not all(given) or param.HasField(name) or getattr(param, f"{name}s"):
            raise self.fail(f"takes either {name}, or {sides[0]} and {sides[1]}")
        if self.axes != 2:
            raise self.fail(f"takes {sides[0]} and {sides[1]} with 2 spatial axes only")
        return getattr(param, sides[0]), getattr(param, sides[1])

    def _by_axis(self, name: str) -> tuple[int, ...]:
        param = self.layer_param.pooling_param
        several = tuple(getattr(param, f"{name}s"))
        if not several:
            return (getattr(param, name),) * self.axes
        self.beyond_bvlc(f"takes {name} once a spatial axis, as caffe_unet does")
        if len(several) not in (1, self.axes):
            raise self.fail(
                f"{name} needs 1 or {self.axes} value(s), one per spatial axis, has {len(several)}"
            )
        return several * (self.axes // len(several))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) != self.axes + 2:
            raise self.fail(f"was set up for {self.axes} spatial axes, the bottom is {shape}")
        if self.global_pooling:
            self.kernel = shape[2:]
        sizes = [
            self._pooled(size, kernel, stride, pad)
            for size, kernel, stride, pad in zip(shape[2:], self.kernel, self.stride, self.pad)
        ]
        if min(sizes) < 1:
            raise self.fail(f"the bottom {shape} is too small for the kernel {self.kernel}")
        for blob in top:
            blob.reshape(*shape[:2], *sizes)

    def _pooled(self, size: int, kernel: int, stride: int, pad: int) -> int:
        steps = (size + 2 * pad - kernel) / stride
        pooled = (math.floor(steps) if self.floor else math.ceil(steps)) + 1
        # Padding on either axis has both looked at.
        if any(self.pad) and (pooled - 1) * stride >= size + pad:
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
        # Of the last axis first.
        sides = [side for pair in zip(self.pad[::-1], below[::-1]) for side in pair]
        return F.pad(data, sides, value=value)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = self._padded(bottom[0].data_memory.native(), top[0])
        if self.axes != 2:
            pooled = self._pool_volume(data, bottom[0], top[0])
        elif len(top) > 1:
            pooled, indices = _max_pool(data, self.kernel, self.stride)
            width, whole = bottom[0].shape[3], data.shape[3]
            rows, columns = indices // whole - self.pad[0], indices % whole - self.pad[1]
            top[1].set_data((rows * width + columns).to(torch.float32))
        elif self.maximum and data.device.type != "cpu" and self.phase == caffe_pb2.TRAIN:
            # GPUs find the indices anyway.
            pooled, self.indices = _max_pool(data, self.kernel, self.stride)
        elif self.maximum and self._halves(data):
            pooled = _halved(data)
        elif self.maximum:
            pooled = F.max_pool2d(data, self.kernel, self.stride)
        elif self.method == _STOCHASTIC:
            pooled = self._drawn(data)
        else:
            pooled = F.avg_pool2d(data, self.kernel, self.stride, divisor_override=1)
            pooled = pooled / self._areas(bottom[0], top[0], pooled)
        top[0].set_data(pooled[(..., *map(slice, top[0].shape[2:]))])

    def _halves(self, data: torch.Tensor) -> bool:
        """Tell whether the maxima of 2 x 2 pixels each are asked for, on a CPU, channels last."""
        return (
            data.device.type == "cpu"
            and data.dtype == torch.float32
            and self.kernel == self.stride == (2, 2)
            and data.is_contiguous(memory_format=torch.channels_last)
        )

    def _pool_volume(self, padded: torch.Tensor, bottom: Blob, top: Blob) -> torch.Tensor:
        """Return the pooled values of 1 or 3 spatial axes."""
        if self.maximum:
            pool = F.max_pool1d if self.axes == 1 else F.max_pool3d
            return pool(padded, self.kernel, self.stride)
        pool = F.avg_pool1d if self.axes == 1 else F.avg_pool3d
        sums = pool(padded, self.kernel, self.stride) * math.prod(self.kernel)
        return sums / self._areas(bottom, top, sums)

    def _drawn(self, data: torch.Tensor) -> torch.Tensor:
        windows = data.unfold(2, self.kernel[0], self.stride[0])
        windows = windows.unfold(3, self.kernel[1], self.stride[1]).flatten(-2)
        total = windows.sum(-1, keepdim=True)
        if self.phase == caffe_pb2.TEST:
            weighted = windows.square().sum(-1, keepdim=True)
            return torch.where(total > 0, weighted / total, 0.0).squeeze(-1)
        drawn = torch.empty(total.shape, device=data.device)
        drawn.uniform_(generator=common.generator(data.device))
        reached = windows.cumsum(-1) >= drawn * total
        self.drawn = reached.to(torch.uint8).argmax(-1, keepdim=True)
        return windows.gather(-1, self.drawn).squeeze(-1)

    def _undrawn(self, grad: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        height, width = padded.shape[2:]
        rows = self.drawn // self.kernel[1] + (
            torch.arange(grad.shape[2], device=grad.device) * self.stride[0]
        ).view(1, 1, -1, 1, 1)
        columns = self.drawn % self.kernel[1] + (
            torch.arange(grad.shape[3], device=grad.device) * self.stride[1]
        ).view(1, 1, 1, -1, 1)
        flat = grad.new_zeros(*grad.shape[:2], height * width)
        flat.scatter_add_(2, (rows * width + columns).flatten(2), grad.flatten(2))
        return flat.view(padded.shape)

    def _areas(self, bottom: Blob, top: Blob, like: torch.Tensor) -> torch.Tensor:
        where, dtype = like.device, like.dtype
        lines = []
        for size, pooled, kernel, stride, pad in zip(
            bottom.shape[2:], top.shape[2:], self.kernel, self.stride, self.pad
        ):
            start = torch.arange(pooled, device=where) * stride - pad
            lines.append(torch.clamp(start + kernel, max=size + pad) - start)
        areas = lines[0]
        for line in lines[1:]:
            areas = areas[..., None] * line
        return areas.to(dtype)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        data = bottom[0].data_memory.native()
        padded = self._padded(data, top[0])
        grad = top[0].diff_memory.native().to(data.dtype)
        if self.axes != 2:
            with torch.enable_grad():
                below = padded.detach().requires_grad_()
                pooled = self._pool_volume(below, bottom[0], top[0])
            (grad,) = torch.autograd.grad(pooled, below, grad)
        elif self.maximum:
            indices = self.indices
            if indices is None or indices.shape != grad.shape or indices.device != grad.device:
                # On a CPU they are found again here: kept from the forward pass they would take
                # more memory than the pooled maps themselves.
                _, indices = _max_pool(padded, self.kernel, self.stride)
            grad = torch.ops.aten.max_pool2d_with_indices_backward(
                grad, padded, self.kernel, self.stride, (0, 0), (1, 1), False, indices
            )
        elif self.method == _STOCHASTIC:
            if self.phase == caffe_pb2.TEST:
                raise self.fail("STOCHASTIC has a gradient in phase TRAIN only")
            grad = self._undrawn(grad, padded)
        else:
            grad = torch.ops.aten.avg_pool2d_backward(
                grad / self._areas(bottom[0], top[0], grad),
                padded,
                self.kernel,
                self.stride,
                (0, 0),
                False,
                True,
                1,
            )
        inside = (slice(pad, pad + size) for pad, size in zip(self.pad, data.shape[2:]))
        bottom[0].set_diff(grad[(..., *inside)])


def _halved(data: torch.Tensor) -> torch.Tensor:
    """Return the maxima of 2 x 2 pixels each; PyTorch's pooling notes where each of them lies."""
    size, maps, height, width = data.shape
    pooled = pages.empty((size, maps, height // 2, width // 2))
    inside = data[:, :, : height // 2 * 2, : width // 2 * 2]
    torch.maximum(inside[:, :, ::2, ::2], inside[:, :, ::2, 1::2], out=pooled)
    for column in range(2):
        torch.maximum(pooled, inside[:, :, 1::2, column::2], out=pooled)
    return pooled


@register("SPP")
class SPP(BuiltInLayer):
    """Spatial pyramid: each plane pooled to 1, 2 x 2, 4 x 4, ... values, in one row per item.

    References
    ----------
    He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, ECCV 2014.
    """

    bottom_range = top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.spp_param
        self.levels = param.pyramid_height
        if self.levels < 1:
            raise self.fail("needs a positive pyramid_height")
        self.pool = {"MAX": _MAX, "AVE": _AVE, "STOCHASTIC": _STOCHASTIC}[
            caffe_pb2.SPPParameter.PoolMethod.Name(param.pool)
        ]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) != 4:
            raise self.fail(f"needs a bottom of 4 axes, not {shape}")
        self.poolings, self.pooled = [], []
        for level in range(self.levels):
            bins = 2**level
            kernel = [-(-size // bins) for size in shape[2:]]
            missing = [bins * side - size for side, size in zip(kernel, shape[2:])]
            pad = [(side + 1) // 2 for side in missing]
            if any(side >= wide for side, wide in zip(pad, kernel)):
                raise self.fail(f"the bottom {shape} is too small for {bins} x {bins} bins")
            param = caffe_pb2.LayerParameter(name=self.name, type="Pooling", phase=self.phase)
            pooling = param.pooling_param
            pooling.pool = self.pool
            pooling.kernel_h, pooling.kernel_w = kernel
            pooling.stride_h, pooling.stride_w = kernel
            pooling.pad_h, pooling.pad_w = pad
            made, blob = Pooling(param), Blob()
            made.setup(bottom, [blob])
            made.reshape(bottom, [blob])
            self.poolings.append(made)
            self.pooled.append(blob)
        if self.levels == 1:
            # One value per plane stays a plane.
            top[0].reshape(*self.pooled[0].shape)
        else:
            count = sum(blob.count // max(shape[0], 1) for blob in self.pooled)
            top[0].reshape(shape[0], count)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        rows = []
        for pooling, blob in zip(self.poolings, self.pooled):
            pooling.forward(bottom, [blob])
            rows.append(blob.data_tensor().reshape(bottom[0].shape[0], -1))
        top[0].set_data(torch.cat(rows, 1).view(top[0].shape))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        sizes = [blob.count // max(bottom[0].shape[0], 1) for blob in self.pooled]
        grad = top[0].diff_tensor().reshape(bottom[0].shape[0], -1)
        total = None
        for pooling, blob, part in zip(self.poolings, self.pooled, grad.split(sizes, 1)):
            blob.set_diff(part.reshape(blob.shape))
            pooling.backward([blob], [True], bottom)
            below = bottom[0].diff_tensor()
            total = below.clone() if total is None else total.add_(below)
        bottom[0].set_diff(total)
