"""Soft-max and the losses made of logarithms of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.files import caffemodel
from caffe.layer_types import register
from caffe.layers.base import NeuronLayer
from caffe.layers.loss import LossLayer, loss_weight
from caffe.layers.scalars import Scalar, at_least, or_if_zero, scalar, truncated
from caffe.proto import caffe_pb2

# Probabilities below count as this in logarithms.
_LEAST = 1e-20


@register("Softmax")
class Softmax(NeuronLayer):
    """exp(x_k) / sum exp(x) along an axis (1 by default)."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.axis = self.canonical_axis(self.layer_param.softmax_param.axis, bottom[0].shape)
        super().reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].set_data(torch.softmax(bottom[0].data_tensor(), self.axis))

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        # As in genuine Caffe, whatever propagate_down says.
        data, grad = top[0].data_tensor(), top[0].diff_tensor()
        inner = (grad * data).sum(self.axis, keepdim=True)
        bottom[0].set_diff((grad - inner) * data)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
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
    # Of the third bottom: it is no weights in every loss made of this one.
    weights_labels = True

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.loss_param
        if self._is_weighted(bottom):
            self.beyond_bvlc("takes the labels' weights as a third bottom, as caffe_unet does")
        if len(top) > 1 and (self.weights_labels or not self.layer_param.loss_weight):
            # Its own layers are given loss weights for other numbers of tops.
            self.beyond_bvlc("gives the probabilities as a second top")
        self.ignore = param.ignore_label if param.HasField("ignore_label") else None
        if not param.HasField("normalization") and param.HasField("normalize"):
            kinds = caffe_pb2.LossParameter
            self.normalization = kinds.VALID if param.normalize else kinds.BATCH_SIZE
        else:
            self.normalization = param.normalization

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        shape = bottom[0].shape
        self.axis = self.canonical_axis(self._loss_axis(), shape)
        self.outer, self.inner = math.prod(shape[: self.axis]), math.prod(shape[self.axis + 1 :])
        if self.outer * self.inner != bottom[1].count:
            raise self.fail(
                f"needs one label per prediction: scores {shape}, labels {bottom[1].shape}"
            )
        if self._is_weighted(bottom) and bottom[2].count != bottom[1].count:
            raise self.fail(
                f"needs one weight per label: labels {bottom[1].shape}, weights {bottom[2].shape}"
            )
        if len(top) > 1:
            top[1].reshape(*shape)

    def _is_weighted(self, bottom: Sequence[Blob]) -> bool:
        return self.weights_labels and len(bottom) > 2

    def _loss_axis(self) -> int:
        return self.layer_param.softmax_param.axis

    def _normalizer(self, valid: Scalar) -> Scalar:
        kinds = caffe_pb2.LossParameter
        value = {
            kinds.FULL: float(self.outer * self.inner),
            kinds.VALID: valid,
            kinds.BATCH_SIZE: float(self.outer),
            kinds.NONE: 1.0,
        }[self.normalization]
        return at_least(value, 1.0)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        scores = bottom[0].data_tensor()
        classes = scores.shape[self.axis]
        labels = bottom[1].data_tensor().to(torch.int64).reshape(self.outer, 1, self.inner)
        self.kept = torch.ones_like(labels, dtype=torch.bool)
        if self.ignore is not None:
            self.kept = labels != self.ignore
            labels = labels.masked_fill(~self.kept, 0)
        self.labels = labels = self.check_numbers(labels, classes, "labels")
        self.probabilities = torch.softmax(scores, self.axis)
        flat = self.probabilities.reshape(self.outer, classes, self.inner)
        chosen = flat.gather(1, labels).clamp_(min=torch.finfo(torch.float32).tiny)
        if self._is_weighted(bottom):
            weights = bottom[2].data_tensor().reshape(self.outer, 1, self.inner)
            self.counts = weights.masked_fill(~self.kept, 0)
            total = scalar(self.counts.sum(dtype=torch.float64))
            self.norm = self._normalizer(truncated(total))
            self.gradient_norm = or_if_zero(total, 1.0)
        else:
            self.counts = self.kept
            self.norm = self.gradient_norm = self._normalizer(scalar(self.kept.sum()))
        loss = -(chosen.log_() * self.counts).sum()
        top[0].set_data(loss / self.norm)
        if len(top) > 1:
            top[1].set_data(self.probabilities)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if any(propagate_down[1:]):
            raise self.fail("cannot propagate to the labels or their weights")
        if not propagate_down[0]:
            return
        classes = self.probabilities.shape[self.axis]
        grad = self.probabilities.reshape(self.outer, classes, self.inner).clone()
        grad.scatter_add_(1, self.labels, torch.full_like(self.labels, -1, dtype=grad.dtype))
        grad *= self.counts
        grad *= loss_weight(top[0]) / self.gradient_norm
        bottom[0].set_diff(grad.view(bottom[0].shape))


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    """Mean of -log of the probabilities at the labels."""

    of_four_axes = True

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        if not bottom[0].shape:
            raise self.fail("needs items of probabilities, the bottom is a single number")
        if bottom[1].count != bottom[0].shape[0]:
            raise self.fail(
                f"needs one label per item: {bottom[0].shape[0]} items, labels {bottom[1].shape}"
            )

    def _at_labels(self, bottom: Sequence[Blob]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = bottom[0].data_tensor().reshape(bottom[0].shape[0], -1)
        labels = bottom[1].data_tensor().to(torch.int64).reshape(-1, 1)
        labels = self.check_numbers(labels, rows.shape[1], "labels")
        return labels, rows.gather(1, labels).clamp(min=_LEAST)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        _, chosen = self._at_labels(bottom)
        top[0].set_data(-chosen.log().sum() / bottom[0].shape[0])

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[1]:
            raise self.fail("cannot propagate to the labels")
        if propagate_down[0]:
            labels, chosen = self._at_labels(bottom)
            count = bottom[0].shape[0]
            grad = chosen.new_zeros(count, bottom[0].count // count)
            grad.scatter_(1, labels, -loss_weight(top[0]) / count / chosen)
            bottom[0].set_diff(grad.view(bottom[0].shape))


@register("InfogainLoss")
class InfogainLoss(SoftmaxWithLoss):
    """Cross entropy of the soft-max with rows of a matrix H in place of single labels.

    Notes
    -----
    H is the third bottom, or lies in a binaryproto file named by infogain_loss_param.source.
    """

    weights_labels = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().setup(bottom, top)
        if self.layer_param.loss_param.HasField("normalize"):
            raise self.fail("normalize is deprecated: give normalization")
        self.matrix = None
        if len(bottom) < 3:
            source = self.layer_param.infogain_loss_param.source
            if not source:
                raise self.fail("needs infogain_loss_param.source or a third bottom")
            self.matrix = torch.from_numpy(caffemodel.read_blob(source))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        classes = bottom[0].shape[self.axis]
        count = bottom[2].count if self.matrix is None else self.matrix.numel()
        if count != classes * classes:
            raise self.fail(f"H must be {classes} x {classes}, it has {count} elements")

    def _loss_axis(self) -> int:
        return self.layer_param.infogain_loss_param.axis

    def _rows(self, bottom: Sequence[Blob]) -> torch.Tensor:
        """Return H at the labels, 0 where ignored: (outer, classes, inner)."""
        classes = bottom[0].shape[self.axis]
        if self.matrix is None:
            matrix = bottom[2].data_tensor()
        else:
            # Kept there: it is copied to a GPU once.
            matrix = self.matrix = self.matrix.to(self.labels.device)
        labels = self.labels.reshape(self.outer, self.inner)
        rows = matrix.reshape(classes, classes)[labels].transpose(1, 2)
        return rows * self.kept

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().forward(bottom, top)
        flat = self.probabilities.reshape(self.outer, -1, self.inner)
        loss = -(self._rows(bottom) * flat.clamp(min=_LEAST).log()).sum()
        top[0].set_data(loss / self.norm)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if any(propagate_down[1:]):
            raise self.fail("cannot propagate to the labels or to H")
        if propagate_down[0]:
            rows = self._rows(bottom)
            flat = self.probabilities.reshape(rows.shape)
            grad = flat * rows.sum(1, keepdim=True) - rows
            grad *= loss_weight(top[0]) / self.norm
            bottom[0].set_diff(grad.view(bottom[0].shape))


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """Cross entropy of the sigmoid with targets from 0 to 1, stable for scores of any size."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.loss_param
        kinds = caffe_pb2.LossParameter
        self.ignore = param.ignore_label if param.HasField("ignore_label") else None
        self.normalization = kinds.BATCH_SIZE
        if param.HasField("normalization"):
            self.normalization = param.normalization
        elif param.HasField("normalize") and param.normalize:
            self.normalization = kinds.VALID

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        if bottom[0].count != bottom[1].count:
            raise self.fail(
                f"needs a target per score: scores {bottom[0].shape}, targets {bottom[1].shape}"
            )

    def _kept(self, targets: torch.Tensor) -> torch.Tensor:
        if self.ignore is None:
            return torch.ones_like(targets)
        return (targets.trunc() != self.ignore).to(targets.dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        scores = bottom[0].data_tensor()
        targets = bottom[1].data_tensor().reshape(scores.shape)
        kept = self._kept(targets)
        entropy = scores.clamp(min=0) - scores * targets + torch.log1p((-scores.abs()).exp())
        kinds = caffe_pb2.LossParameter
        counts = {
            kinds.FULL: float(scores.numel()),
            kinds.VALID: scalar(kept.sum()),
            kinds.BATCH_SIZE: float(scores.shape[0]),
            kinds.NONE: 1.0,
        }
        self.norm = at_least(counts[self.normalization], 1.0)
        top[0].set_data((entropy * kept).sum() / self.norm)

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        if propagate_down[1]:
            raise self.fail("cannot propagate to the targets")
        if propagate_down[0]:
            scores = bottom[0].data_tensor()
            targets = bottom[1].data_tensor().reshape(scores.shape)
            grad = (torch.sigmoid(scores) - targets) * self._kept(targets)
            bottom[0].set_diff(grad * (loss_weight(top[0]) / self.norm))
