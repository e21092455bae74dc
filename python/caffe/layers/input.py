"""Where values enter a net without files: Input, DummyData, Parameter, MemoryData."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe import device_memory
from caffe.layer_types import register
from caffe.layers import fillers
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.proto import caffe_pb2


@register("Input")
class Input(BuiltInLayer):
    """Blobs that the user writes into."""

    bottom_range = (0, 0)
    top_range = (1, None)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shapes = self.layer_param.input_param.shape
        if len(shapes) not in (0, 1, len(top)):
            raise self.fail(
                f"needs one shape, or one per top: {len(top)} tops, {len(shapes)} shapes"
            )
        for index, blob in enumerate(top):
            if shapes:
                blob.reshape(*shapes[index if len(shapes) > 1 else 0].dim)
            blob.data_memory.is_fed = True


@register("DummyData")
class DummyData(BuiltInLayer):
    """Blobs filled by fillers: constants once, random ones before each pass."""

    bottom_range = (0, 0)
    top_range = (1, None)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.dummy_data_param
        count = len(top)
        shapes = [tuple(shape.dim) for shape in param.shape]
        legacy = (param.num, param.channels, param.height, param.width)
        if shapes and any(legacy):
            raise self.fail("takes either shape, or num, channels, height and width")
        if not shapes:
            shapes = list(zip(*legacy))
        if len(shapes) not in (1, count) or len(param.data_filler) not in (0, 1, count):
            raise self.fail(f"needs 1 or {count} shapes and 0, 1 or {count} fillers")
        given = list(param.data_filler) or [caffe_pb2.FillerParameter(type="constant", value=0)]
        self.fillers = given if len(given) == count else given * count
        for index, blob in enumerate(top):
            blob.reshape(*(shapes[index] if len(shapes) > 1 else shapes[0]))
            blob.set_data(fillers.fill(blob.shape, self.fillers[index]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for blob, filler in zip(top, self.fillers):
            if filler.type != "constant":
                drawn = fillers.fill(blob.shape, filler)
                blob.set_data(device_memory.to_current(drawn.numpy()))


@register("Parameter")
class Parameter(BuiltInLayer):
    """A parameter as a top."""

    bottom_range = (0, 0)
    top_range = (1, 1)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if not self.blobs:
            self.blobs.add_blob(*self.layer_param.parameter_param.shape.dim)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*self.blobs[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].set_data(self.blobs[0].data_tensor())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.blobs[0].diff_memory.accumulate(self.take_diff(top[0]))


@register("MemoryData")
class MemoryData(BuiltInLayer):
    """Batches of arrays that a program hands over with `net.set_input_arrays`."""

    bottom_range = (0, 0)
    top_range = (2, 2)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.memory_data_param
        self.batch = param.batch_size
        self.item = (param.channels, param.height, param.width)
        if self.batch < 1 or min(self.item) < 1:
            raise self.fail("needs batch_size, channels, height and width, all positive")
        self.arrays: tuple[np.ndarray, np.ndarray] | None = None
        self.next_item = 0
        top[0].reshape(self.batch, *self.item)
        top[1].reshape(self.batch)

    def set_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Take images (n, channels, height, width) and n labels, n a multiple of the batch."""
        data, labels = np.asarray(data), np.asarray(labels)
        if data.dtype != np.float32 or labels.dtype != np.float32:
            raise self.fail(f"needs float32 arrays, not {data.dtype} and {labels.dtype}")
        if data.shape[1:] != self.item:
            raise self.fail(f"needs items of shape {self.item}, the array is {data.shape}")
        if labels.size != len(data) or not len(data) or len(data) % self.batch:
            raise self.fail(
                f"needs a label per item, and a multiple of {self.batch} items: {len(data)} "
                f"item(s) and {labels.size} label(s) were given"
            )
        self.arrays, self.next_item = (data, labels.reshape(-1)), 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.arrays is None:
            raise self.fail("has no data: call net.set_input_arrays first")
        # As in genuine Caffe, labels take four axes with the first pass.
        top[1].reshape(self.batch, 1, 1, 1)
        for blob, values in zip(top, self.arrays):
            batch = np.array(values[self.next_item : self.next_item + self.batch])
            blob.set_data(device_memory.to_current(batch.reshape(blob.shape)))
        self.next_item = (self.next_item + self.batch) % len(self.arrays[0])
