"""Fully connected layers: InnerProduct, and Embed, which reads rows by their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe import common
from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer


@register("InnerProduct")
class InnerProduct(BuiltInLayer):
    """Weights times the axes from `axis` on, taken as one vector, plus a bias."""

    bottom_range = top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.inner_product_param
        shape = bottom[0].shape
        self.axis = self.canonical_axis(param.axis, shape)
        self.inputs = math.prod(shape[self.axis :])
        self.maps, self.transposed = param.num_output, param.transpose
        self.has_bias = param.bias_term
        if self.maps < 1:
            raise self.fail("needs a positive num_output")
        shape = (self.inputs, self.maps) if self.transposed else (self.maps, self.inputs)
        self.add_weights(shape, self.maps, param)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if math.prod(shape[self.axis :]) != self.inputs:
            raise self.fail(
                f"was set up for {self.inputs} inputs from axis {self.axis} on, the bottom is "
                f"{shape}"
            )
        top[0].reshape(*shape[: self.axis], self.maps)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        dtype = common.compute_dtype()
        rows = bottom[0].data_memory.native().to(dtype).reshape(-1, self.inputs)
        result = rows @ self._matrix(dtype)
        if self.has_bias:
            result += self.blobs[1].data_tensor()
        top[0].set_data(result.view(top[0].shape))

    def _matrix(self, dtype: torch.dtype) -> torch.Tensor:
        weights = self.blobs[0].data_tensor().to(dtype)
        return weights if self.transposed else weights.t()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        dtype = common.compute_dtype()
        grad = top[0].diff_memory.native().to(dtype).reshape(-1, self.maps)
        if self.param_propagate_down[0]:
            rows = bottom[0].data_memory.native().to(dtype).reshape(-1, self.inputs)
            product = rows.t() @ grad if self.transposed else grad.t() @ rows
            self.blobs[0].diff_memory.accumulate(product)
        if self.has_bias and self.param_propagate_down[1]:
            self.blobs[1].diff_memory.accumulate(grad.sum(0))
        if propagate_down[0]:
            bottom[0].set_diff((grad @ self._matrix(dtype).t()).view(bottom[0].shape))


@register("Embed")
class Embed(BuiltInLayer):
    """Row number x of the weights, for each x, plus a bias."""

    bottom_range = top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.embed_param
        self.rows, self.maps, self.has_bias = param.input_dim, param.num_output, param.bias_term
        for name, count in (("input_dim", self.rows), ("num_output", self.maps)):
            if count < 1:
                raise self.fail(f"needs a positive {name}")
        self.add_weights((self.rows, self.maps), self.maps, param)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*bottom[0].shape, self.maps)

    def _numbers(self, bottom: Blob) -> torch.Tensor:
        numbers = bottom.data_tensor().to(torch.int64).reshape(-1)
        return self.check_numbers(numbers, self.rows, "numbers of rows")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        result = self.blobs[0].data_tensor()[self._numbers(bottom[0])]
        if self.has_bias:
            result += self.blobs[1].data_tensor()
        top[0].set_data(result.view(top[0].shape))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            raise self.fail("cannot propagate to numbers of rows")
        grad = top[0].diff_tensor().reshape(-1, self.maps)
        if self.param_propagate_down[0]:
            total = grad.new_zeros(self.rows, self.maps)
            total.index_add_(0, self._numbers(bottom[0]), grad)
            self.blobs[0].diff_memory.accumulate(total)
        if self.has_bias and self.param_propagate_down[1]:
            self.blobs[1].diff_memory.accumulate(grad.sum(0))
