"""Crop: one blob cut to the size of another."""

from __future__ import annotations

from collections.abc import Sequence

from caffe.layer_types import register
from caffe.layers.base import Blobs
from caffe.layers.shape import SharingLayer, alone


@register("Crop")
class Crop(SharingLayer):
    """Cut the first bottom, from `axis` on and at `offset`, to the size of the second."""

    bottom_range = (2, 2)
    top_range = (1, 1)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.crop_param
        shape, reference = bottom[0].shape, bottom[1].shape
        axis = self.canonical_axis(param.axis, shape)
        cropped = len(shape) - axis
        if len(reference) != len(shape):
            raise self.fail(f"both bottoms need the same number of axes: {shape} and {reference}")
        if len(param.offset) not in (0, 1, cropped):
            raise self.fail(f"needs 0, 1 or {cropped} offsets, has {len(param.offset)}")
        offsets = list(param.offset) or [0]
        if len(offsets) == 1:
            offsets *= cropped
        window = []
        for index, (size, wanted) in enumerate(zip(shape, reference)):
            if index < axis:
                window.append(slice(0, size))
                continue
            start = offsets[index - axis]
            if start + wanted > size:
                raise self.fail(
                    f"offset {start} + size {wanted} exceeds {size} on axis {index}: "
                    f"cannot crop {shape} to {reference}"
                )
            window.append(slice(start, start + wanted))
        self.window = tuple(window)
        top[0].reshape(*(part.stop - part.start for part in window))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        # A view where that may be: what reads it next (a Concat as a rule) copies anyway.
        top[0].set_data(bottom[0].data_memory.native()[self.window])
        if not self.may_share(bottom, 0, top[0]):
            top[0].set_data(top[0].data_memory.native().clone())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            part = alone(top[0].diff_memory.native())
            bottom[0].diff_memory.set_window(self.window, part)
