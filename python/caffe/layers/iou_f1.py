"""How well scores agree with labels, class by class, on the log: IoU and F1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from google.protobuf.message import Message

from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.loss import split_at_classes
from caffe.log import Log
from caffe.proto import caffe_pb2

_iou_log, _f1_log = Log("iou_layer.cpp"), Log("f1_layer.cpp")


class _Agreement(BuiltInLayer):
    """What IoU and F1 share: the classes of pixels that count, and counts on the log.

    Notes
    -----
    Bottoms: scores, labels and, if wanted, weights: pixels of weight 0 do not count. The top is one
    number, the mean of the classes that occur in the labels or in what is predicted; 1 if none
    does. What each class has is on the log, in each pass anew, without the background.
    """

    bottom_range = (2, 3)
    top_range = (0, 1)

    def _param(self) -> Message:
        raise NotImplementedError

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beyond_bvlc("is a layer of caffe_unet")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.axis, self.outer, self.inner = split_at_classes(self, self._param().axis, bottom)
        if len(bottom) > 2 and bottom[2].count != bottom[1].count:
            raise self.fail(
                f"needs one weight per label: labels {bottom[1].shape}, weights {bottom[2].shape}"
            )
        for blob in top:
            blob.reshape()

    def _classes(self, bottom: Blobs) -> list[int]:
        count = bottom[0].shape[self.axis]
        return [index for index in range(count) if index != self._param().background_label]

    def _items(self, bottom: Blobs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield labels and predictions of each item; both are background where nothing counts."""
        classes, pixels = bottom[0].shape[self.axis], bottom[0].shape[self.axis + 1 :]
        labels = bottom[1].data_tensor().to(torch.int64).reshape(self.outer, -1)
        counted = torch.ones_like(labels, dtype=torch.bool)
        if len(bottom) > 2:
            counted = bottom[2].data_tensor().reshape(self.outer, -1) != 0
        background = self._param().background_label
        labels = self.check_numbers(labels.masked_fill(~counted, background), classes, "labels")
        scores = bottom[0].data_tensor().reshape(self.outer, classes, -1)
        predicted = scores.argmax(1).masked_fill_(~counted, background)
        for item in zip(labels.cpu().numpy(), predicted.cpu().numpy()):
            yield tuple(values.reshape(pixels) for values in item)

    def _tell(self, log: Log, what: str, counts: np.ndarray) -> None:
        log.info(f"{self.name} - Per class {what}: {' '.join(map(str, counts.tolist()))}")

    @staticmethod
    def _give(top: Blobs, parts: np.ndarray, wholes: np.ndarray) -> None:
        """Set the top to the mean of parts / wholes over what is not empty."""
        occurs = wholes > 0
        mean = float((parts[occurs] / wholes[occurs]).mean()) if occurs.any() else 1.0
        for blob in top:
            blob.set_data(torch.tensor(mean, dtype=torch.float32))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down):
            raise self.fail("has no gradient: give it loss_weight 0, or include it in TEST only")


@register("IoU")
class IoU(_Agreement):
    """Intersection over union of the pixels of each class but the background, as in caffe_unet."""

    def _param(self) -> caffe_pb2.IoUParameter:
        return self.layer_param.iou_param

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        classes = self._classes(bottom)
        intersections = np.zeros(len(classes), np.int64)
        unions = np.zeros_like(intersections)
        for labels, predicted in self._items(bottom):
            for index, which in enumerate(classes):
                true, found = labels == which, predicted == which
                intersections[index] += (true & found).sum()
                unions[index] += (true | found).sum()
        self._tell(_iou_log, "intersection", intersections)
        self._tell(_iou_log, "union", unions)
        self._give(top, intersections, unions)


@register("F1")
class F1(_Agreement):
    """F1 = 2 TP / (predictions + objects) of the connected components of each class.

    Notes
    -----
    As in caffe_unet. Pixels of a class that touch, if by corners, are one object. Objects and
    predictions are assigned to each other with the least total distance (Hungarian method), and
    those nearer than distance_threshold are true positives; the distance is 1 - intersection over
    union, or with EUCLIDEAN that of the centres of mass, in pixels.

    References
    ----------
    Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods
    16, 2019.
    """

    def _param(self) -> caffe_pb2.F1Parameter:
        return self.layer_param.f1_param

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        classes = self._classes(bottom)
        # True positives, predictions, objects.
        counts = np.zeros((3, len(classes)), np.int64)
        for labels, predicted in self._items(bottom):
            for index, which in enumerate(classes):
                counts[:, index] += self._matched(labels == which, predicted == which)
        for what, values in zip(("true positive", "prediction", "object"), counts):
            self._tell(_f1_log, f"{what} count", values)
        self._give(top, 2 * counts[0], counts[1] + counts[2])

    def _matched(self, true: np.ndarray, found: np.ndarray) -> tuple[int, int, int]:
        # Imported where it is used: it takes longer than the rest of the package.
        from scipy import ndimage, optimize

        touching = np.ones((3,) * true.ndim)
        (objects, many), (predictions, several) = (
            ndimage.label(mask, touching) for mask in (true, found)
        )
        if not many or not several:
            return 0, several, many
        if self._param().distance_mode == caffe_pb2.F1Parameter.EUCLIDEAN:
            centres = [
                np.array(ndimage.center_of_mass(mask, numbers, range(1, count + 1)))
                for mask, numbers, count in ((true, objects, many), (found, predictions, several))
            ]
            distances = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=-1)
        else:
            pairs = objects.astype(np.int64) * (several + 1) + predictions
            table = np.bincount(pairs.ravel(), minlength=(many + 1) * (several + 1))
            table = table.reshape(many + 1, several + 1)
            either = table[1:].sum(1)[:, None] + table[:, 1:].sum(0) - table[1:, 1:]
            distances = 1 - table[1:, 1:] / either
        assigned = distances[optimize.linear_sum_assignment(distances)]
        return int((assigned < self._param().distance_threshold).sum()), several, many
