"""Layers that choose values by others: ArgMax, BatchReindex, Filter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer


@register("ArgMax")
class ArgMax(BuiltInLayer):
    """Where the top_k largest values lie, along an axis or in each item, and how large they are.

    Notes
    -----
    Of equal values the one with the larger index comes first, as in genuine Caffe.
    """

    bottom_range = top_range = (1, 1)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, shape = self.layer_param.argmax_param, bottom[0].shape
        self.axis = None
        if param.HasField("axis"):
            self.axis = self.canonical_axis(param.axis, shape)
            candidates = shape[self.axis]
            result = [*shape[: self.axis], param.top_k, *shape[self.axis + 1 :]]
        elif not shape:
            raise self.fail("needs items, the bottom is a single number")
        else:
            candidates = math.prod(shape[1:])
            result = [shape[0], 2 if param.out_max_val else 1, param.top_k]
            result += [1] * (len(shape) - 3)
        if not 1 <= param.top_k <= candidates:
            raise self.fail(f"top_k {param.top_k} must lie in 1..{candidates}")
        top[0].reshape(*result)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.argmax_param
        data = bottom[0].data_tensor()
        axis = self.axis
        if axis is None:
            data, axis = data.reshape(data.shape[0], -1), 1
        # Backwards and stable, so that of equal values the last one comes first.
        values, indices = data.flip(axis).sort(dim=axis, descending=True, stable=True)
        values = values.narrow(axis, 0, param.top_k)
        indices = (data.shape[axis] - 1 - indices.narrow(axis, 0, param.top_k)).to(torch.float32)
        if self.axis is not None:
            result = values if param.out_max_val else indices
        else:
            parts = [indices, values] if param.out_max_val else [indices]
            result = torch.stack(parts, 1)
        top[0].set_data(result.reshape(top[0].shape))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down):
            raise self.fail("has no gradient")


@register("BatchReindex")
class BatchReindex(BuiltInLayer):
    """Items of the first bottom, in the order of the numbers in the second."""

    bottom_range = (2, 2)
    top_range = (1, 1)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom[1].shape) != 1:
            raise self.fail(f"needs numbers on one axis, not {bottom[1].shape}")
        top[0].reshape(bottom[1].shape[0], *bottom[0].shape[1:])

    def _numbers(self, bottom: Blobs) -> torch.Tensor:
        numbers = bottom[1].data_tensor().to(torch.int64)
        return self.check_numbers(numbers, bottom[0].shape[0], "numbers")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].set_data(bottom[0].data_tensor()[self._numbers(bottom)])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.fail("cannot propagate to the numbers")
        if propagate_down[0]:
            grad = torch.zeros_like(bottom[0].data_tensor())
            grad.index_add_(0, self._numbers(bottom), top[0].diff_tensor())
            bottom[0].set_diff(grad)


@register("Filter")
class Filter(BuiltInLayer):
    """Items of each bottom but the last, where the last one, the selector, is not 0."""

    bottom_range = (2, None)
    top_range = (1, None)
    always_reshape = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if len(top) != len(bottom) - 1:
            raise self.fail(f"needs a top per bottom but the last: {len(bottom) - 1}")
        if any(above in bottom for above in top):
            raise self.fail("cannot work in place: give the tops other names")
        self.shaped = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        selector = bottom[-1]
        count = selector.shape[0] if selector.shape else 0
        if selector.count != count:
            raise self.fail(
                f"the selector must have one value per item, its shape is {selector.shape}"
            )
        for blob in bottom[:-1]:
            if blob.shape[:1] != (count,):
                raise self.fail(f"the selector has {count} values, a bottom is {blob.shape}")
        self.chosen = torch.nonzero(selector.data_tensor().reshape(-1)).reshape(-1)
        kept = len(self.chosen)
        if not self.shaped:
            # Before the first pass nothing is selected yet: layers behind it want some shape.
            self.shaped, kept = True, count
        for blob, above in zip(bottom, top):
            above.reshape(kept, *blob.shape[1:])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for blob, above in zip(bottom, top):
            above.set_data(blob.data_tensor()[self.chosen])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[-1]:
            raise self.fail("cannot propagate to the selector")
        for blob, above, down in zip(bottom, top, propagate_down):
            if down:
                grad = torch.zeros_like(blob.data_tensor())
                grad[self.chosen] = above.diff_tensor()
                blob.set_diff(grad)
