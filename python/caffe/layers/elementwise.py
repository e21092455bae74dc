"""Arithmetic on elements: Eltwise, Exp, Log, Power, AbsVal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer, PointwiseLayer
from caffe.proto import caffe_pb2

_PROD = caffe_pb2.EltwiseParameter.PROD
_SUM = caffe_pb2.EltwiseParameter.SUM


@register("Eltwise")
class Eltwise(BuiltInLayer):
    """Product, weighted sum or maximum of two or more blobs of one shape.

    Notes
    -----
    MAX sends the gradient to the first bottom only where it is strictly larger than the second, and
    to a later one only where it is strictly larger than all before.
    """

    bottom_range = (2, None)
    top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.eltwise_param
        self.operation = param.operation
        if param.coeff and len(param.coeff) != len(bottom):
            raise self.fail(f"needs one coeff per bottom: {len(bottom)}, has {len(param.coeff)}")
        if param.coeff and self.operation != _SUM:
            raise self.fail("coeff is for SUM only")
        self.coefficients = list(param.coeff) or [1.0] * len(bottom)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for index, blob in enumerate(bottom):
            if blob.shape != bottom[0].shape:
                raise self.fail(
                    f"bottoms must have one shape: bottom 0 is {bottom[0].shape}, "
                    f"bottom {index} is {blob.shape}"
                )
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = [blob.data_tensor() for blob in bottom]
        if self.operation == _PROD:
            result = data[0] * data[1]
            for factor in data[2:]:
                result *= factor
        elif self.operation == _SUM:
            result = data[0] * self.coefficients[0]
            for term, coefficient in zip(data[1:], self.coefficients[1:]):
                result.add_(term, alpha=coefficient)
        else:
            first = data[0] > data[1]
            result = torch.where(first, data[0], data[1])
            self.winner = torch.where(first, 0, 1).to(torch.int16)
            for index, other in enumerate(data[2:], 2):
                larger = other > result
                result = torch.where(larger, other, result)
                self.winner.masked_fill_(larger, index)
        top[0].set_data(result)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        grad = top[0].diff_tensor()
        for index, (blob, down) in enumerate(zip(bottom, propagate_down)):
            if not down:
                continue
            if self.operation == _PROD:
                result = self._product_gradient(grad, top[0], bottom, index)
            elif self.operation == _SUM:
                result = grad * self.coefficients[index]
            else:
                result = grad * (self.winner == index)
            blob.set_diff(result)

    def _product_gradient(
        self, grad: torch.Tensor, top: Blob, bottom: Blobs, index: int
    ) -> torch.Tensor:
        if not self.layer_param.eltwise_param.stable_prod_grad:
            return top.data_tensor() / bottom[index].data_tensor() * grad
        result = grad.clone()
        for other, blob in enumerate(bottom):
            if other != index:
                result *= blob.data_tensor()
        return result


@register("Exp")
class Exp(PointwiseLayer):
    """base ^ (shift + scale * x); base -1 is e."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.exp_param
        if param.base != -1 and param.base <= 0:
            raise self.fail(f"base {param.base} must be positive, or -1 for e")
        log_base = 1.0 if param.base == -1 else math.log(param.base)
        self.inner = log_base * param.scale
        # Infinite where it is too large, as in Caffe; Python's own raises.
        self.outer = torch.tensor(param.shift * log_base, dtype=torch.float64).exp().item()

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.inner).exp_().mul_(self.outer)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (grad * y).mul_(self.inner)


@register("Log")
class Log(PointwiseLayer):
    """log_base(shift + scale * x); base -1 is e."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.log_param
        if param.base != -1 and (param.base <= 0 or param.base == 1):
            raise self.fail(f"base {param.base} must be positive and not 1, or -1 for e")
        self.per_log = 1.0 if param.base == -1 else 1 / math.log(param.base)
        self.scale, self.shift = param.scale, param.shift

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.scale + self.shift).log_().mul_(self.per_log)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # In place the input is no longer there: e ^ top is what was inside.
        inside = y.div(self.per_log).exp_() if self.in_place else x * self.scale + self.shift
        return (grad / inside).mul_(self.per_log * self.scale)


@register("Power")
class Power(PointwiseLayer):
    """(shift + scale * x) ^ power."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.power_param
        self.power, self.scale, self.shift = param.power, param.scale, param.shift

    def value(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale * self.power == 0:
            return torch.full_like(x, 1.0 if self.power == 0 else self.shift**self.power)
        result = x * self.scale
        if self.shift:
            result += self.shift
        return result if self.power == 1 else result.pow_(self.power)

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        factor = self.scale * self.power
        if factor == 0 or self.power == 1:
            return grad * factor
        if self.in_place:
            raise self.fail(
                "has no gradient where it works in place with a power other than 0 and 1: give "
                "the top another name"
            )
        inside = x * self.scale + self.shift
        return grad * inside.pow_(self.power - 1).mul_(factor)


@register("AbsVal")
class AbsVal(PointwiseLayer):
    """|x|."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0] is top[0]:
            raise self.fail("cannot work in place: give the top another name")

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()

    def gradient(self, grad: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.sign() * grad
