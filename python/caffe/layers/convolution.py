"""Convolution and Deconvolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F

from caffe import common, pages, timer
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.conv_geometry import conv_geometry
from caffe.layers.winograd import convolve
from caffe.proto import caffe_pb2
from caffe.synced_memory import ReshapedView, SyncedMemory

# Kernel elements times input channels up to which the weights' gradient is one product of matrices,
# and the values, on a CPU, one of some rows at a time.
_FEW_TAPS = 32
# Maps up to which the gradients of a 1x1 convolution are products of matrices.
_FEW_MAPS = 8
# Values of windows that are gathered, or of products that are made, at a time.
_WINDOWS = 2**20
# Shapes of a layer for which cuDNN tries all it can and keeps what was fastest. That takes up to a
# second each: a net that is fed with ever new shapes goes on with what cuDNN expects to be fast.
_TRIED_SHAPES = 8


class _ConvolutionBase(BuiltInLayer):
    """What both directions share: kernels, strides, parameters and gradients.

    Notes
    -----
    Parameters: weights, and biases unless bias_term is false. Every bottom is convolved with the
    same weights to the top of the same number (Caffe: BaseConvolutionLayer).
    """

    bottom_range = top_range = (1, None)
    transposed = False

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.convolution_param
        shape = bottom[0].shape
        self.axis = self.canonical_axis(param.axis, shape)
        self.spatial_axes = len(shape) - self.axis - 1
        if not 1 <= self.spatial_axes <= 3:
            raise self.fail(
                f"needs 1 to 3 spatial axes after axis {self.axis}, the bottom is {shape}"
            )
        if len(top) != len(bottom):
            raise self.fail(f"needs as many tops as bottoms, has {len(top)} and {len(bottom)}")
        geometry = conv_geometry(self, param, self.spatial_axes)
        self.kernel, self.stride, self.pad, self.dilation = geometry
        self.groups = param.group
        self.channels = shape[self.axis]
        self.num_output = param.num_output
        for what, count in (("input channels", self.channels), ("num_output", self.num_output)):
            if count < 1:
                raise self.fail(f"needs a positive num_output, has {what} {count}")
            if self.groups < 1 or count % self.groups:
                raise self.fail(f"{what} {count} cannot be divided into {self.groups} group(s)")
        self.has_bias = param.bias_term
        self.add_weights(self._weight_shape(), self.num_output, param)
        no_output_padding = (0,) * self.spatial_axes
        # As PyTorch's functions take it.
        self._geometry = (
            *(self.stride, self.pad, self.dilation),
            *(self.transposed, no_output_padding, self.groups),
        )
        self._tried: set[tuple[int, ...]] = set()
        # Shape and precision -> which of `_SUMS` is the fastest.
        self._fastest_sum: dict[tuple[tuple[int, ...], str], int] = {}
        # Shape and precision -> whether cuDNN is faster with the ReLU that follows.
        self._together: dict[tuple[tuple[int, ...], str], bool] = {}
        # On a GPU: weights, which version of them, and the same in the type computed in.
        self._rounded: tuple[torch.Tensor, int, torch.Tensor] | None = None

    def _weight_shape(self) -> tuple[int, ...]:
        first, second = self.num_output, self.channels
        if self.transposed:
            first, second = second, first
        return (first, second // self.groups, *self.kernel)

    def _output_size(self, size: int, axis: int) -> int:
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        if self.transposed:
            return self.stride[axis] * (size - 1) + extent - 2 * self.pad[axis]
        return (size + 2 * self.pad[axis] - extent) // self.stride[axis] + 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        first = bottom[0].shape
        for below, above in zip(bottom, top):
            shape = below.shape
            if shape != first:
                raise self.fail(f"all bottoms must have one shape, found {first} and {shape}")
            if len(shape) != self.axis + 1 + self.spatial_axes or shape[self.axis] != self.channels:
                raise self.fail(
                    f"was set up for {self.channels} channels on axis {self.axis} and "
                    f"{self.spatial_axes} spatial axes, the bottom is {shape}"
                )
            sizes = tuple(
                self._output_size(size, axis) for axis, size in enumerate(shape[self.axis + 1 :])
            )
            if min(sizes) < 1:
                raise self.fail(
                    f"the bottom {shape} is too small for kernel {self.kernel}, stride "
                    f"{self.stride}, pad {self.pad}, dilation {self.dilation}"
                )
            above.reshape(*shape[: self.axis], self.num_output, *sizes)

    def _batched(self, memory: SyncedMemory | ReshapedView, packed: bool = True) -> torch.Tensor:
        """Return (n, channels, ...) values; `packed`: in the layout that convolutions like."""
        tensor = memory.native().to(common.compute_dtype())
        # Caffe allows any number of axes before the channels, PyTorch exactly one.
        if self.axis != 1:
            tensor = tensor.flatten(0, self.axis - 1) if self.axis else tensor[None]
        # Pixel by pixel is the layout that 2-D convolutions compute fastest in; what they make
        # keeps it, so that as a rule nothing is copied here.
        if tensor.dim() != 4 or not packed:
            return tensor
        if tensor.shape[1] == 1:
            # One channel is both layouts; only strides tell PyTorch which one the result gets.
            height, width = tensor.shape[2:]
            return tensor.contiguous().as_strided(tensor.shape, (height * width, 1, width, 1))
        return tensor.contiguous(memory_format=torch.channels_last)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        weights, bias = self._parameters()
        for below, above in zip(bottom, top):
            result = self._convolve(self._batched(below.data_memory), weights, bias)
            above.set_data(result if self.axis == 1 else result.view(above.shape))

    def _parameters(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        bias = self.blobs[1].data_tensor().to(common.compute_dtype()) if self.has_bias else None
        return self._weights(), bias

    def _weights(self, again: bool = False) -> torch.Tensor:
        """Return the weights; `again`: those of the pass forward, if nobody has changed them."""
        memory, dtype = self.blobs[0].data_memory, common.compute_dtype()
        weights = memory.tensor()
        if weights.device.type == "cpu":
            return weights.to(dtype)
        packed = weights.dim() != 4 or weights.is_contiguous(memory_format=torch.channels_last)
        if not packed and memory.source is memory:
            # The GPU's lie pixel by pixel, too: else each pass would copy them for cuDNN.
            memory.set(weights.contiguous(memory_format=torch.channels_last))
            weights = memory.tensor()
        if weights.dtype == dtype:
            return weights
        if again and self._rounded is not None:
            source, version, rounded = self._rounded
            if source is weights and version == weights._version and rounded.dtype == dtype:
                return rounded
        rounded = weights.to(dtype)
        self._rounded = weights, weights._version, rounded
        return rounded

    def _choose_search(self, shape: tuple[int, ...]) -> bool:
        """Tell cuDNN whether to search for the fastest way, as it then does once a shape."""
        search = shape in self._tried or len(self._tried) < _TRIED_SHAPES
        if search:
            self._tried.add(shape)
        torch.backends.cudnn.benchmark = search
        return search

    def _convolve(
        self, data: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if data.device.type == "cuda":
            self._choose_search(tuple(data.shape))
        elif self._mixes_few_maps and data.dtype == torch.float32:
            return self._mix(data, weights, bias)
        return torch.convolution(data, weights, bias, *self._geometry)

    def _is_inference(self) -> bool:
        """Tell whether what is computed lives for a few layers, so that its pages are passed on.

        In training it waits for the pass backward, and PyTorch's own convolutions do as well.
        """
        return self.phase == caffe_pb2.TEST

    @property
    def _mixes_few_maps(self) -> bool:
        """Whether this is a 1x1 convolution to few maps: the scores of a segmentation."""
        return (
            type(self) is Convolution
            and self.kernel == self.stride == (1, 1)
            and self.pad == (0, 0)
            and self.axis == self.groups == 1
            and self.num_output <= _FEW_MAPS
        )

    def _mix(
        self, data: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Return a 1x1 convolution by a product of matrices.

        Its sums are the same, to the last bit, in whatever number of threads; oneDNN's are not.
        """
        matrix = weights.flatten(1)
        if data.is_contiguous():
            mixed = torch.matmul(matrix, data.flatten(2)).view(len(data), -1, *data.shape[2:])
            return mixed if bias is None else mixed.add_(bias.view(-1, 1, 1))
        return F.linear(data.permute(0, 2, 3, 1), matrix, bias).permute(0, 3, 1, 2)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        wants = self.param_propagate_down
        wants_bias = self.has_bias and wants[1]
        for above, down, below in zip(top, propagate_down, bottom):
            if not (down or wants[0] or wants_bias):
                continue
            grad_bottom, grad_weights, grad_bias = self._gradients(
                self._batched(above.diff_memory, not self._non_overlapping()),
                self._batched(below.data_memory),
                (down, wants[0], wants_bias),
            )
            if wants[0]:
                self.blobs[0].diff_memory.accumulate(grad_weights)
            if wants_bias:
                self.blobs[1].diff_memory.accumulate(grad_bias)
            if down:
                below.set_diff(grad_bottom if self.axis == 1 else grad_bottom.view(below.shape))

    def _sums_of_maps(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the bias, float32, in the way that the GPU has the fastest."""
        precision = common.get_precision()
        products = gradient.dim() == 4 and (precision != "bf16" or _WIDE_PRODUCTS)
        if gradient.device.type != "cuda" or not products:
            return _sum_at_once(gradient)
        key = tuple(gradient.shape), precision
        search = torch.backends.cudnn.benchmark and not torch.cuda.is_current_stream_capturing()
        if search and key not in self._fastest_sum:
            self._fastest_sum[key] = timer.fastest(*(partial(way, gradient) for way in _SUMS))
        return _SUMS[self._fastest_sum.get(key, 0)](gradient)

    def _non_overlapping(self) -> bool:
        """Tell whether gradients are cut into windows, whatever their layout."""
        return False

    def _gradients(
        self, gradient: torch.Tensor, data: torch.Tensor, wants: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        *wants_products, wants_bias = wants
        grad_bias = None
        if data.device.type == "cuda":
            self._choose_search(tuple(data.shape))
        if wants_bias and data.device.type != "cpu":
            wants_bias, grad_bias = False, self._sums_of_maps(gradient)
        if not any((*wants_products, wants_bias)):
            return None, None, grad_bias
        *grads, summed = torch.ops.aten.convolution_backward(
            gradient,
            data,
            self._weights(again=True),
            [self.num_output] if self.has_bias else None,
            *self._geometry,
            (*wants_products, wants_bias),
        )
        if wants[1] and data.device.type == "cpu" and data.dtype == torch.bfloat16:
            # oneDNN leaves in them what happened to be in memory.
            for axis, taps in enumerate(self._in_padding(data.shape[2:], gradient.shape[2:])):
                for tap in taps:
                    grads[1].select(2 + axis, tap).zero_()
        return (*grads, summed if grad_bias is None else grad_bias)

    def _in_padding(self, below: Sequence[int], above: Sequence[int]) -> list[list[int]]:
        """Return, axis by axis, the taps of the kernel that meet nothing but padding."""
        few, many = (below, above) if self.transposed else (above, below)
        return [
            [
                tap
                for tap in range(self.kernel[axis])
                if not any(
                    0 <= step * self.stride[axis] - pad + self.dilation[axis] * tap < many[axis]
                    for step in range(few[axis])
                )
            ]
            for axis, pad in enumerate(self.pad)
        ]


def _sum_at_once(gradient: torch.Tensor) -> torch.Tensor:
    """Return the sum of each map of (n, maps, ...), float32."""
    return gradient.sum((0, *range(2, gradient.dim())), dtype=torch.float32)


def _sum_by_rows(gradient: torch.Tensor) -> torch.Tensor:
    """Return the same of (n, maps, height, width), pixel by pixel, by a product for each row.

    Sums of a few maps over all pixels at once leave most of a GPU idle.
    """
    rows = gradient.permute(0, 2, 3, 1).flatten(0, 1)
    ones = rows.new_ones(1, 1, rows.shape[1]).expand(len(rows), 1, rows.shape[1])
    return torch.bmm(ones, rows, **_wide(rows)).sum((0, 1))


def _sum_by_product(gradient: torch.Tensor) -> torch.Tensor:
    """Return the same by one product."""
    pixels = gradient.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.mm(pixels.new_ones(1, len(pixels)), pixels, **_wide(pixels))[0]


def _wide(tensor: torch.Tensor) -> dict[str, torch.dtype]:
    """Return what makes a product float32."""
    return {} if tensor.dtype == torch.float32 else {"out_dtype": torch.float32}


# Of what a GPU has the fastest is taken.
_SUMS = (_sum_at_once, _sum_by_rows, _sum_by_product)
# Products of bfloat16 in float32 came with PyTorch 2.8.
_WIDE_PRODUCTS = "dtype" in torch.ops.aten.bmm.overloads()


@register("Convolution")
class Convolution(_ConvolutionBase):
    """Convolution without flipping the kernel; weights (num_output, channels / group, ...)."""

    def forward_rectified(self, bottom: Blobs, top: Blobs) -> None:
        """Run forward together with the ReLU that follows in place, which saves a pass."""
        if self._use_winograd(top[0].shape):
            self._forward_winograd(bottom, top, relu=True)
            return
        if self._has_few_taps():
            self._forward_few_taps(bottom, top, relu=True)
            return
        plain = self.spatial_axes == 2 and self.axis == 1
        kind = common.current_device().type
        if plain and kind == "cuda" and torch.backends.cudnn.is_available():
            self._forward_by_cudnn(bottom, top)
            return
        if not (plain and kind == "cpu" and torch.backends.mkldnn.is_available()):
            self.forward(bottom, top)
            for blob in top:
                blob.data_memory.native().relu_()
            return
        weights, bias = self._parameters()
        for below, above in zip(bottom, top):
            above.set_data(
                torch.ops.mkldnn._convolution_pointwise(
                    self._batched(below.data_memory),
                    weights,
                    bias,
                    self.pad,
                    self.stride,
                    self.dilation,
                    self.groups,
                    "relu",
                    [],
                    "",
                )
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self._use_winograd(top[0].shape):
            self._forward_winograd(bottom, top, relu=False)
        elif self._has_few_taps():
            self._forward_few_taps(bottom, top, relu=False)
        else:
            super().forward(bottom, top)

    def _forward_by_cudnn(self, bottom: Blobs, top: Blobs) -> None:
        """Run both layers in one launch or in three, whichever is faster for the shape."""
        weights, bias = self._parameters()
        for below, above in zip(bottom, top):
            data = self._batched(below.data_memory)

            def apart(data: torch.Tensor = data) -> torch.Tensor:
                return self._convolve(data, weights, bias).relu_()

            def together(data: torch.Tensor = data) -> torch.Tensor:
                return torch.ops.aten.cudnn_convolution_relu(
                    data, weights, bias, self.stride, self.pad, self.dilation, self.groups
                )

            key = tuple(data.shape), common.get_precision()
            known = self._choose_search(key[0])
            if known and key not in self._together and not torch.cuda.is_current_stream_capturing():
                self._together[key] = timer.fastest(apart, together) == 1
            above.set_data(together() if self._together.get(key) else apart())

    def _use_winograd(self, output: tuple[int, ...]) -> bool:
        """Tell whether the minimal algorithm can and should be used."""
        return (
            common.current_device().type == "cpu"
            and common.compute_dtype() == torch.float32
            and self.kernel == (3, 3)
            and self.stride == self.dilation == (1, 1)
            and self.axis == self.groups == 1
            and max(self.pad) <= 2
            and convolve.is_faster(self.channels, self.num_output, output[2:])
        )

    def _forward_winograd(self, bottom: Blobs, top: Blobs, relu: bool) -> None:
        weights, bias = self._parameters()
        for below, above in zip(bottom, top):
            parts = below.data_memory.parts(self.axis)
            if not all(convolve.takes(part.shape[1]) for part in parts):
                parts = [below.data_memory.native()]
            data = [part.to(torch.float32) for part in parts]
            above.set_data(convolve.forward(data, weights, bias, self.pad, relu))

    def _has_few_taps(self) -> bool:
        """Tell whether this is a layer on the CPU like the first of a network, from one channel."""
        return (
            self._is_inference()
            and common.current_device().type == "cpu"
            and common.compute_dtype() == torch.float32
            and self.spatial_axes == 2
            and self.stride == self.dilation == (1, 1)
            and self.axis == self.groups == 1
            and math.prod(self.kernel) * self.channels <= _FEW_TAPS
            and self.num_output > _FEW_MAPS
        )

    def _forward_few_taps(self, bottom: Blobs, top: Blobs, relu: bool) -> None:
        weights, bias = self._parameters()
        for below, above in zip(bottom, top):
            data = self._batched(below.data_memory)
            above.set_data(_by_windows(data, weights, bias, self.pad, relu))

    def _gradients(
        self, gradient: torch.Tensor, data: torch.Tensor, wants: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        if self._use_winograd(gradient.shape):
            return convolve.backward(gradient, data, self._weights(again=True), self.pad, wants)
        if self._pointwise_to_few(data.device):
            return self._gradients_pointwise(gradient, data, wants)
        taps = math.prod(self.kernel) * self.channels
        simple = self.groups == 1 and self.spatial_axes == 2 and len(data) == 1
        if wants[0] or not simple or data.device.type != "cpu" or taps > _FEW_TAPS:
            return super()._gradients(gradient, data, wants)
        # Few taps, as in a first layer: one product of matrices reads the large gradient once,
        # where PyTorch's general way takes five times as long.
        columns = F.unfold(data, self.kernel, self.dilation, self.pad, self.stride)[0]
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, self.num_output)
        if self.has_bias:
            columns = torch.cat([columns, columns.new_ones(1, columns.shape[1])])
        product = (columns @ rows).t()
        weights = product[:, :taps].reshape(self.blobs[0].shape) if wants[1] else None
        return None, weights, product[:, taps].contiguous() if wants[2] else None

    def _pointwise_to_few(self, where: torch.device) -> bool:
        """Tell whether each pixel alone gives few maps, on the CPU, as in a last layer."""
        return (
            where.type == "cpu"
            and self.kernel == self.stride == (1, 1)
            and self.pad == (0, 0)
            and self.groups == 1
            and self.num_output <= _FEW_MAPS
        )

    def _gradients_pointwise(
        self, gradient: torch.Tensor, data: torch.Tensor, wants: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        # Products of matrices: PyTorch's general way rearranges the data first, for as long again.
        size, channels, height, width = data.shape
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, self.num_output)
        grad_data = grad_weights = None
        if wants[0]:
            weights = self._weights(again=True).reshape(self.num_output, channels)
            products = (rows @ weights).view(size, height, width, channels)
            grad_data = products.permute(0, 3, 1, 2)
        if wants[1]:
            pixels = data.permute(0, 2, 3, 1).reshape(-1, channels)
            grad_weights = (rows.t() @ pixels).view(self.blobs[0].shape)
        return grad_data, grad_weights, rows.sum(0) if wants[2] else None


def _rows_at_a_time(height: int, values: int) -> int:
    """Return how many rows of so many values are gathered, or made, at a time."""
    return min(height, max(1, _WINDOWS // values))


def _by_windows(
    data: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None,
    pad: Sequence[int],
    relu: bool,
) -> torch.Tensor:
    """Convolve with stride 1 by products of matrices, some rows at a time, while they are cached.

    All is float32 on the CPU; `relu` tells whether a ReLU follows.
    """
    if any(pad):
        data = F.pad(data, (pad[1], pad[1], pad[0], pad[0]))
    maps, _, *kernel = weights.shape
    windows = data.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1).permute(0, 2, 3, 1, 4, 5)
    size, height, width = windows.shape[:3]
    result, matrix = pages.empty((size, maps, height, width)), weights.flatten(1).t()
    pixels = result.permute(0, 2, 3, 1)
    many = _rows_at_a_time(height, width * maps)
    room = data.new_empty(many, *windows.shape[2:])
    for image, first in itertools.product(range(size), range(0, height, many)):
        rows = slice(first, first + many)
        part, sums = windows[image, rows], pixels[image, rows].view(-1, maps)
        columns = room[: len(part)].copy_(part).view(len(sums), -1)
        if bias is None:
            torch.mm(columns, matrix, out=sums)
        else:
            torch.addmm(bias, columns, matrix, out=sums)
        if relu:
            sums.relu_()
    return result


@register("Deconvolution")
class Deconvolution(_ConvolutionBase):
    """The transpose of a convolution; weights (channels, num_output / group, ...)."""

    transposed = True

    def _non_overlapping(self) -> bool:
        return (
            common.current_device().type == "cpu"
            and self.spatial_axes == 2
            and self.kernel == self.stride
            and self.pad == (0, 0)
            and self.dilation == (1, 1)
            and self.groups == 1
        )

    def _matrix(self) -> torch.Tensor:
        # Columns in the order of `_windows`: row and column in the window, then map.
        return self._weights(again=True).permute(0, 2, 3, 1).reshape(self.channels, -1)

    def _kernels(self, matrix: torch.Tensor) -> torch.Tensor:
        """Undo `_matrix`."""
        by_window = matrix.view(self.channels, *self.kernel, self.num_output)
        return by_window.permute(0, 3, 1, 2).contiguous()

    def _windows(self, tensor: torch.Tensor) -> torch.Tensor:
        """View (n, maps, rows * h, columns * w) as (n, rows, columns, h, w, maps)."""
        (h, w), (size, maps, height, width) = self.kernel, tensor.shape
        pixels = tensor.permute(0, 2, 3, 1)
        return pixels.view(size, height // h, h, width // w, w, maps).permute(0, 1, 3, 2, 4, 5)

    def _convolve(
        self, data: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        here = self._non_overlapping() and self._is_inference() and data.dtype == torch.float32
        if not here:
            return super()._convolve(data, weights, bias)
        (h, w), (size, _, height, width) = self.kernel, data.shape
        result = pages.empty((size, self.num_output, height * h, width * w))
        windows, pixels, matrix = self._windows(result), data.permute(0, 2, 3, 1), self._matrix()
        # Some rows at a time: of all of them the products would be as large as the result.
        many = _rows_at_a_time(height, math.prod(windows.shape[2:]))
        room = data.new_empty(many, *windows.shape[2:])
        for image, first in itertools.product(range(size), range(0, height, many)):
            rows = slice(first, first + many)
            part, above = pixels[image, rows].reshape(-1, self.channels), windows[image, rows]
            products = room[: len(above)]
            torch.mm(part, matrix, out=products.view(len(part), -1))
            if bias is None:
                above.copy_(products)
            else:
                torch.add(products, bias, out=above)
        return result

    def _gradients(
        self, gradient: torch.Tensor, data: torch.Tensor, wants: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        if not self._non_overlapping():
            return super()._gradients(gradient, data, wants)
        windows, pixels, matrix = self._windows(gradient), data.permute(0, 2, 3, 1), self._matrix()
        grad_data = pixels.new_empty(pixels.shape) if wants[0] else None
        grad_matrix, grad_bias = torch.zeros(matrix.shape), torch.zeros(self.num_output)
        # Some rows at a time: the windows of all of them would be another copy of the gradient.
        height = _rows_at_a_time(len(windows[0]), math.prod(windows.shape[2:]))
        # One room for all of them: fresh memory would cost as much as the products.
        room = gradient.new_empty(height, *windows.shape[2:])
        for image, first in itertools.product(range(len(data)), range(0, data.shape[2], height)):
            rows = slice(first, first + height)
            part = windows[image, rows]
            products = room[: len(part)].copy_(part).view(-1, matrix.shape[1])
            if wants[0]:
                torch.mm(products, matrix.t(), out=grad_data[image, rows].view(-1, self.channels))
            if wants[1]:
                grad_matrix += pixels[image, rows].reshape(-1, self.channels).t() @ products
            if wants[2]:
                grad_bias += products.view(-1, self.num_output).sum(0)
        return (
            grad_data.permute(0, 3, 1, 2) if wants[0] else None,
            self._kernels(grad_matrix) if wants[1] else None,
            grad_bias if wants[2] else None,
        )
