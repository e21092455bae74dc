"""Soft-max and the losses made of logarithms of probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.files import caffemodel
from caffe.layer_types import register
from caffe.layers.base import Blobs, NeuronLayer
from caffe.layers.loss import LabelledLoss, split_at_classes
from caffe.layers.scalars_on_gpu import Scalar, at_least, or_if_zero, scalar, truncated
from caffe.proto import caffe_pb2

# Probabilities below count as this in logarithms.
_LEAST = 1e-20
_KINDS = caffe_pb2.LossParameter


@register("Softmax")
class Softmax(NeuronLayer):
    """exp(x_k) / sum exp(x) along an axis (1 by default)."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.axis = self.canonical_axis(self.layer_param.softmax_param.axis, bottom[0].shape)
        super().reshape(bottom, top)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].set_data(torch.softmax(bottom[0].data_tensor(), self.axis))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        # As in genuine Caffe, whatever propagate_down says.
        data, grad = top[0].data_tensor(), top[0].diff_tensor()
        inner = (grad * data).sum(self.axis, keepdim=True)
        bottom[0].set_diff((grad - inner) * data)


class _NormalizedLoss(LabelledLoss):
    """A cross entropy that leaves labels out and is normalised as loss_param says."""

    usual = _KINDS.VALID

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.loss_param
        self.ignore = param.ignore_label if param.HasField("ignore_label") else None
        self.normalization = self.usual
        if param.HasField("normalization"):
            self.normalization = param.normalization
        elif param.HasField("normalize"):
            self.normalization = _KINDS.VALID if param.normalize else _KINDS.BATCH_SIZE

    def _normalizer(self, labels: int, valid: Scalar, items: int) -> Scalar:
        values = {_KINDS.FULL: labels, _KINDS.VALID: valid, _KINDS.BATCH_SIZE: items}
        return at_least(values.get(self.normalization, 1.0), 1.0)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(_NormalizedLoss):
    """Mean of -log softmax at the labels, normalised as loss_param says.

    Notes
    -----
    A third bottom, which BVLC's layer does not take, weights every label, as in caffe_unet (Falk et
    al., Nature Methods 16, 2019): the loss is sum(w * -log p) / max(1, n), n being int(sum w) with
    VALID, the number of labels with FULL, of items with BATCH_SIZE, 1 with NONE; its gradient is
    that of VALID, w * (p - onehot) / sum w, whatever loss_param says of normalisation.
    """

    bottom_range = (2, 3)
    top_range = (1, 2)
    fixed = "the labels or their weights"
    # Whether a third bottom is the labels' weights: not in losses derived from this one.
    weights_labels = True

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        super().setup(bottom, top)
        if self._is_weighted(bottom):
            self.beyond_bvlc("takes the labels' weights as a third bottom, as caffe_unet does")
        if len(top) > 1 and (self.weights_labels or not self.layer_param.loss_weight):
            # Its own layers are given loss weights for other numbers of tops.
            self.beyond_bvlc("gives the probabilities as a second top")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        self.axis, self.outer, self.inner = split_at_classes(self, self._loss_axis(), bottom)
        if self._is_weighted(bottom) and bottom[2].count != bottom[1].count:
            raise self.fail(
                f"needs one weight per label: labels {bottom[1].shape}, weights {bottom[2].shape}"
            )
        if len(top) > 1:
            top[1].reshape(*bottom[0].shape)

    def _is_weighted(self, bottom: Blobs) -> bool:
        return self.weights_labels and len(bottom) > 2

    def _loss_axis(self) -> int:
        return self.layer_param.softmax_param.axis

    def _norm(self, valid: Scalar) -> Scalar:
        return self._normalizer(self.outer * self.inner, valid, self.outer)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        scores = bottom[0].data_tensor()
        classes = scores.shape[self.axis]
        labels = bottom[1].data_tensor().to(torch.int64).reshape(self.outer, 1, self.inner)
        self.counted = torch.ones_like(labels, dtype=torch.bool)
        if self.ignore is not None:
            self.counted = labels != self.ignore
            labels = labels.masked_fill(~self.counted, 0)
        self.labels = labels = self.check_numbers(labels, classes, "labels")
        self.probabilities = torch.softmax(scores, self.axis)
        flat = self.probabilities.reshape(self.outer, classes, self.inner)
        chosen = flat.gather(1, labels).clamp_(min=torch.finfo(torch.float32).tiny)
        if self._is_weighted(bottom):
            weights = bottom[2].data_tensor().reshape(self.outer, 1, self.inner)
            self.label_weights = weights.masked_fill(~self.counted, 0)
            total = scalar(self.label_weights.sum(dtype=torch.float64))
            self.norm = self._norm(truncated(total))
            self.gradient_norm = or_if_zero(total, 1.0)
        else:
            self.label_weights = self.counted
            self.norm = self.gradient_norm = self._norm(scalar(self.counted.sum()))
        loss = -(chosen.log_() * self.label_weights).sum()
        top[0].set_data(loss / self.norm)
        if len(top) > 1:
            top[1].set_data(self.probabilities)

    def gradient(self, bottom: Blobs, weight: Scalar) -> torch.Tensor:
        classes = self.probabilities.shape[self.axis]
        grad = self.probabilities.reshape(self.outer, classes, self.inner).clone()
        grad.scatter_add_(1, self.labels, torch.full_like(self.labels, -1, dtype=grad.dtype))
        grad *= self.label_weights
        grad *= weight / self.gradient_norm
        return grad


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LabelledLoss):
    """Mean of -log of the probabilities at the labels."""

    of_four_axes = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        if not bottom[0].shape:
            raise self.fail("needs items of probabilities, the bottom is a single number")
        if bottom[1].count != bottom[0].shape[0]:
            raise self.fail(
                f"needs one label per item: {bottom[0].shape[0]} items, labels {bottom[1].shape}"
            )

    def _at_labels(self, bottom: Blobs) -> tuple[torch.Tensor, torch.Tensor]:
        rows = bottom[0].data_tensor().reshape(bottom[0].shape[0], -1)
        labels = bottom[1].data_tensor().to(torch.int64).reshape(-1, 1)
        labels = self.check_numbers(labels, rows.shape[1], "labels")
        return labels, rows.gather(1, labels).clamp(min=_LEAST)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        _, chosen = self._at_labels(bottom)
        top[0].set_data(-chosen.log().sum() / bottom[0].shape[0])

    def gradient(self, bottom: Blobs, weight: Scalar) -> torch.Tensor:
        labels, chosen = self._at_labels(bottom)
        count = bottom[0].shape[0]
        grad = chosen.new_zeros(count, bottom[0].count // count)
        return grad.scatter_(1, labels, -weight / count / chosen)


@register("InfogainLoss")
class InfogainLoss(SoftmaxWithLoss):
    """Cross entropy of the soft-max with rows of a matrix H in place of single labels.

    Notes
    -----
    H is the third bottom, or lies in a binaryproto file named by infogain_loss_param.source.
    """

    weights_labels = False
    fixed = "the labels or to H"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        super().setup(bottom, top)
        if self.layer_param.loss_param.HasField("normalize"):
            raise self.fail("normalize is deprecated: give normalization")
        self.matrix = None
        if len(bottom) < 3:
            source = self.layer_param.infogain_loss_param.source
            if not source:
                raise self.fail("needs infogain_loss_param.source or a third bottom")
            self.matrix = torch.from_numpy(caffemodel.read_blob(source))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        classes = bottom[0].shape[self.axis]
        count = bottom[2].count if self.matrix is None else self.matrix.numel()
        if count != classes * classes:
            raise self.fail(f"H must be {classes} x {classes}, it has {count} elements")

    def _loss_axis(self) -> int:
        return self.layer_param.infogain_loss_param.axis

    def _rows(self, bottom: Blobs) -> torch.Tensor:
        """Return H at the labels, 0 where ignored: (outer, classes, inner)."""
        classes = bottom[0].shape[self.axis]
        if self.matrix is None:
            matrix = bottom[2].data_tensor()
        else:
            # Kept there: it is copied to a GPU once.
            matrix = self.matrix = self.matrix.to(self.labels.device)
        labels = self.labels.reshape(self.outer, self.inner)
        rows = matrix.reshape(classes, classes)[labels].transpose(1, 2)
        return rows * self.counted

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        super().forward(bottom, top)
        flat = self.probabilities.reshape(self.outer, -1, self.inner)
        loss = -(self._rows(bottom) * flat.clamp(min=_LEAST).log()).sum()
        top[0].set_data(loss / self.norm)

    def gradient(self, bottom: Blobs, weight: Scalar) -> torch.Tensor:
        rows = self._rows(bottom)
        flat = self.probabilities.reshape(rows.shape)
        grad = flat * rows.sum(1, keepdim=True) - rows
        grad *= weight / self.norm
        return grad


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_NormalizedLoss):
    """Cross entropy of the sigmoid with targets from 0 to 1, stable for scores of any size."""

    fixed = "the targets"
    usual = _KINDS.BATCH_SIZE

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        if bottom[0].count != bottom[1].count:
            raise self.fail(
                f"needs a target per score: scores {bottom[0].shape}, targets {bottom[1].shape}"
            )

    def _counted(self, targets: torch.Tensor) -> torch.Tensor:
        if self.ignore is None:
            return torch.ones_like(targets)
        return (targets.trunc() != self.ignore).to(targets.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        scores = bottom[0].data_tensor()
        targets = bottom[1].data_tensor().reshape(scores.shape)
        counted = self._counted(targets)
        entropy = scores.clamp(min=0) - scores * targets + torch.log1p((-scores.abs()).exp())
        self.norm = self._normalizer(scores.numel(), scalar(counted.sum()), scores.shape[0])
        top[0].set_data((entropy * counted).sum() / self.norm)

    def gradient(self, bottom: Blobs, weight: Scalar) -> torch.Tensor:
        scores = bottom[0].data_tensor()
        targets = bottom[1].data_tensor().reshape(scores.shape)
        grad = (torch.sigmoid(scores) - targets) * self._counted(targets)
        return grad * (weight / self.norm)
