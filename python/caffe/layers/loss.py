"""What a loss is; losses of distances and margins; accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.scalars_on_gpu import Scalar, at_least, scalar
from caffe.proto import caffe_pb2


def loss_weight(top: Blob) -> Scalar:
    """Return the diff of a loss's top: its weight."""
    return scalar(top.diff_tensor())


class LossLayer(BuiltInLayer):
    """A layer whose first top is a scalar that training makes smaller."""

    bottom_range = (2, 2)
    top_range = (1, 1)
    auto_tops = True

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        first, second = (blob.shape for blob in bottom[:2])
        if first[:1] != second[:1]:
            raise self.fail(f"bottoms must have as many items each: {first} and {second}")
        top[0].reshape()


class LabelledLoss(LossLayer):
    """A loss whose gradient flows to its first bottom, the scores, alone."""

    # What its other bottoms are.
    fixed = "the labels"

    def gradient(self, bottom: Blobs, weight: Scalar) -> torch.Tensor:
        """Return the gradient of the scores for a loss of that weight."""
        raise NotImplementedError

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down[1:]):
            raise self.fail(f"cannot propagate to {self.fixed}")
        if propagate_down[0]:
            grad = self.gradient(bottom, loss_weight(top[0]))
            bottom[0].set_diff(grad.view(bottom[0].shape))


def split_at_classes(layer: BuiltInLayer, axis: int, bottom: Blobs) -> tuple[int, int, int]:
    """Return the axis of the classes, and how many labels lie outside and inside of it."""
    shape = bottom[0].shape
    axis = layer.canonical_axis(axis, shape)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if outer * inner != bottom[1].count:
        raise layer.fail(
            f"needs one label per prediction: scores {shape}, labels {bottom[1].shape}"
        )
    return axis, outer, inner


@register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """Sum of squared differences / (2 * number of examples)."""

    of_four_axes = True

    def allows_force_backward(self, bottom_index: int) -> bool:
        return True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        if bottom[0].count != bottom[1].count:
            raise self.fail(f"bottoms differ in size: {bottom[0].shape} and {bottom[1].shape}")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        first, second = (blob.data_tensor() for blob in bottom)
        self.difference = first - second.reshape(first.shape)
        loss = self.difference.square().sum() / (2 * bottom[0].shape[0])
        top[0].set_data(loss)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for index, sign in ((0, 1), (1, -1)):
            if propagate_down[index]:
                scale = sign * loss_weight(top[0]) / bottom[index].shape[0]
                grad = self.difference * scale
                bottom[index].set_diff(grad.reshape(bottom[index].shape))


@register("Accuracy")
class Accuracy(BuiltInLayer):
    """The share of predictions whose label is among the top_k scores; a second top: per class.

    Notes
    -----
    A score that equals the true class's counts as better, as in genuine Caffe.
    """

    bottom_range = (2, 2)
    top_range = (1, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        param = self.layer_param.accuracy_param
        self.axis, self.outer, self.inner = split_at_classes(self, param.axis, bottom)
        if param.top_k > bottom[0].count // bottom[1].count:
            raise self.fail(f"top_k {param.top_k} exceeds the number of classes of {shape}")
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(shape[self.axis])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.accuracy_param
        scores = bottom[0].data_tensor()
        classes = scores.shape[self.axis]
        scores = scores.reshape(self.outer, classes, self.inner)
        labels = bottom[1].data_tensor().to(torch.int64).reshape(self.outer, 1, self.inner)
        counted = torch.ones_like(labels, dtype=torch.bool)
        if param.HasField("ignore_label"):
            counted = labels != param.ignore_label
        safe = self.check_numbers(labels.masked_fill(~counted, 0), classes, "labels")
        better = (scores >= scores.gather(1, safe)).sum(1, keepdim=True) - 1
        right = (better < param.top_k) & counted
        # Without any label right is 0 as well.
        top[0].set_data(right.sum().to(torch.float32) / at_least(scalar(counted.sum()), 1))
        if len(top) > 1:
            counts, hits = (self._per_class(safe, which, classes) for which in (counted, right))
            top[1].set_data((hits / counts.clamp(min=1)).float())

    @staticmethod
    def _per_class(labels: torch.Tensor, counted: torch.Tensor, classes: int) -> torch.Tensor:
        # Not bincount, which waits for a GPU to learn of the largest label.
        counts = torch.zeros(classes, dtype=torch.int64, device=labels.device)
        return counts.scatter_add_(0, labels.flatten(), counted.flatten().to(torch.int64))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, down in zip(bottom, propagate_down):
            if down:
                self.beyond_bvlc("has no gradient, 0 is given in a backward pass that wants one")
                blob.diff_memory.clear()


@register("HingeLoss")
class HingeLoss(LabelledLoss):
    """Hinge loss of one score per class against all others, L1 or squared."""

    of_four_axes = True

    def _margins(self, bottom: Blobs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the margins that are missed, and -1 at the labels, 1 elsewhere."""
        rows = bottom[0].data_tensor().reshape(bottom[0].shape[0], -1)
        labels = bottom[1].data_tensor().to(torch.int64).reshape(-1, 1)
        if len(labels) < len(rows):
            raise self.fail(
                f"needs one label per item: {bottom[0].shape[0]} items, labels {bottom[1].shape}"
            )
        labels = self.check_numbers(labels[: len(rows)], rows.shape[1], "labels")
        signs = torch.ones_like(rows).scatter_(1, labels, -1.0)
        return (1 + rows * signs).clamp(min=0), signs

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        margins, _ = self._margins(bottom)
        squared = self.layer_param.hinge_loss_param.norm == caffe_pb2.HingeLossParameter.L2
        total = margins.square().sum() if squared else margins.sum()
        top[0].set_data(total / bottom[0].shape[0])

    def gradient(self, bottom: Blobs, weight: Scalar) -> torch.Tensor:
        margins, signs = self._margins(bottom)
        squared = self.layer_param.hinge_loss_param.norm == caffe_pb2.HingeLossParameter.L2
        grad = 2 * margins * signs if squared else (margins * signs).sign()
        grad *= weight / bottom[0].shape[0]
        return grad


@register("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    """Draw pairs of one label together, push others apart up to a margin.

    Notes
    -----
    Pairs of different labels: max(margin - d, 0)^2; with legacy_version max(margin - d^2, 0).
    """

    bottom_range = (3, 3)

    of_four_axes = True

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        shapes = [blob.shape for blob in bottom]
        if len(shapes[0]) < 2 or shapes[0][:2] != shapes[1][:2] or bottom[2].count != shapes[0][0]:
            raise self.fail(f"needs two blobs of one shape and a label per pair, has {shapes}")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.contrastive_loss_param
        count = bottom[0].shape[0]
        first, second = (blob.data_tensor().reshape(count, -1) for blob in bottom[:2])
        self.similar = bottom[2].data_tensor().reshape(count).to(torch.int64) != 0
        self.difference = first - second
        self.squared = self.difference.square().sum(1)
        if param.legacy_version:
            apart = (param.margin - self.squared).clamp(min=0)
        else:
            apart = (param.margin - self.squared.sqrt()).clamp(min=0).square()
        total = torch.where(self.similar, self.squared, apart).sum()
        top[0].set_data(total / (2 * count))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        param = self.layer_param.contrastive_loss_param
        if param.legacy_version:
            missing = param.margin - self.squared
            push = torch.full_like(missing, -1.0)
        else:
            distance = self.squared.sqrt()
            missing = param.margin - distance
            push = -missing / (distance + 1e-4)
        pull = torch.where(missing > 0, push, 0.0)
        factor = torch.where(self.similar, 1.0, pull)[:, None] * self.difference
        for index, sign in ((0, 1), (1, -1)):
            if propagate_down[index]:
                scale = sign * loss_weight(top[0]) / bottom[index].shape[0]
                bottom[index].set_diff((factor * scale).view(bottom[index].shape))
