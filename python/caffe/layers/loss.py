"""Soft-max, losses and accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layers.base import Layer, NeuronLayer, register
from caffe.proto import caffe_pb2


@register("Softmax")
class Softmax(NeuronLayer):
    """exp(x_k) / sum exp(x) along an axis (1 by default)."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.axis = self.canonical_axis(self.layer_param.softmax_param.axis, bottom[0].shape)
        super().reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].data_side.set(torch.softmax(bottom[0].data_side.tensor(), self.axis))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[0]:
            data, grad = top[0].data_side.tensor(), top[0].diff_side.tensor()
            inner = (grad * data).sum(self.axis, keepdim=True)
            bottom[0].diff_side.set((grad - inner) * data)


def _loss_weight(top: Blob) -> float:
    """Return the diff of a loss's top: its weight."""
    return float(top.diff_side.tensor())


class LossLayer(Layer):
    """A layer whose first top is a scalar that training makes smaller."""

    bottom_range = (2, 2)
    top_range = (1, 1)
    auto_tops = True

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape()


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """Sum of squared differences / (2 * number of examples)."""

    def allows_force_backward(self, bottom_index: int) -> bool:
        return True

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        if bottom[0].shape[1:] != bottom[1].shape[1:]:
            raise self.fail(f"bottoms differ in shape: {bottom[0].shape} and {bottom[1].shape}")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.difference = bottom[0].data_side.tensor() - bottom[1].data_side.tensor()
        loss = self.difference.square().sum() / (2 * bottom[0].shape[0])
        top[0].data_side.set(loss)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        for index, sign in ((0, 1), (1, -1)):
            if propagate_down[index]:
                scale = sign * _loss_weight(top[0]) / bottom[index].shape[0]
                bottom[index].diff_side.set(self.difference * scale)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
    """Mean of -log softmax at the labels, normalised as loss_param says."""

    top_range = (1, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.loss_param
        self.ignore = param.ignore_label if param.HasField("ignore_label") else None
        if not param.HasField("normalization") and param.HasField("normalize"):
            kinds = caffe_pb2.LossParameter
            self.normalization = kinds.VALID if param.normalize else kinds.BATCH_SIZE
        else:
            self.normalization = param.normalization

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        shape = bottom[0].shape
        self.axis = self.canonical_axis(self.layer_param.softmax_param.axis, shape)
        self.outer, self.inner = math.prod(shape[: self.axis]), math.prod(shape[self.axis + 1 :])
        if self.outer * self.inner != bottom[1].count:
            raise self.fail(
                f"needs one label per prediction: scores {shape}, labels {bottom[1].shape}"
            )
        if len(top) > 1:
            top[1].reshape(*shape)

    def _normalizer(self, valid: int) -> float:
        kinds = caffe_pb2.LossParameter
        value = {
            kinds.FULL: self.outer * self.inner,
            kinds.VALID: valid,
            kinds.BATCH_SIZE: self.outer,
            kinds.NONE: 1,
        }[self.normalization]
        return max(1.0, float(value))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        scores = bottom[0].data_side.tensor()
        classes = scores.shape[self.axis]
        labels = bottom[1].data_side.tensor().to(torch.int64).reshape(self.outer, 1, self.inner)
        self.kept = torch.ones_like(labels, dtype=torch.bool)
        if self.ignore is not None:
            self.kept = labels != self.ignore
            labels = labels.masked_fill(~self.kept, 0)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise self.fail(
                f"labels must lie in 0..{classes - 1}, found {int(labels.min())} "
                f"to {int(labels.max())}"
            )
        self.labels = labels
        self.probabilities = torch.softmax(scores, self.axis)
        flat = self.probabilities.reshape(self.outer, classes, self.inner)
        chosen = flat.gather(1, labels).clamp_(min=torch.finfo(torch.float32).tiny)
        loss = -(chosen.log_() * self.kept).sum()
        self.norm = self._normalizer(int(self.kept.sum()))
        top[0].data_side.set(loss / self.norm)
        if len(top) > 1:
            top[1].data_side.set(self.probabilities)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[1]:
            raise self.fail("cannot propagate to the labels")
        if not propagate_down[0]:
            return
        classes = self.probabilities.shape[self.axis]
        grad = self.probabilities.reshape(self.outer, classes, self.inner).clone()
        grad.scatter_add_(1, self.labels, torch.full_like(self.labels, -1, dtype=grad.dtype))
        grad *= self.kept
        grad *= _loss_weight(top[0]) / self.norm
        bottom[0].diff_side.set(grad.view(bottom[0].shape))


@register("Accuracy")
class Accuracy(Layer):
    """The share of predictions whose label is among the top_k scores; a second top: per class.

    Notes
    -----
    A score that equals the true class's counts as better, as in genuine Caffe.
    """

    bottom_range = (2, 2)
    top_range = (1, 2)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        param = self.layer_param.accuracy_param
        self.axis = self.canonical_axis(param.axis, shape)
        self.outer, self.inner = math.prod(shape[: self.axis]), math.prod(shape[self.axis + 1 :])
        if self.outer * self.inner != bottom[1].count:
            raise self.fail(
                f"needs one label per prediction: scores {shape}, labels {bottom[1].shape}"
            )
        if param.top_k > bottom[0].count // bottom[1].count:
            raise self.fail(f"top_k {param.top_k} exceeds the number of classes of {shape}")
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(shape[self.axis])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.accuracy_param
        scores = bottom[0].data_side.tensor()
        classes = scores.shape[self.axis]
        scores = scores.reshape(self.outer, classes, self.inner)
        labels = bottom[1].data_side.tensor().to(torch.int64).reshape(self.outer, 1, self.inner)
        kept = torch.ones_like(labels, dtype=torch.bool)
        if param.HasField("ignore_label"):
            kept = labels != param.ignore_label
        safe = labels.masked_fill(~kept, 0)
        if safe.numel() and not 0 <= int(safe.min()) <= int(safe.max()) < classes:
            raise self.fail(f"labels must lie in 0..{classes - 1}")
        better = (scores >= scores.gather(1, safe)).sum(1, keepdim=True) - 1
        right = (better < param.top_k) & kept
        total = int(kept.sum())
        top[0].data_side.set(right.sum().to(torch.float32) / total if total else torch.zeros(()))
        if len(top) > 1:
            counts = torch.bincount(safe[kept], minlength=classes)
            hits = torch.bincount(safe[right], minlength=classes)
            top[1].data_side.set(torch.where(counts > 0, hits / counts.clamp(min=1), 0.0).float())
