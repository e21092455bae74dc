"""Where values enter a net without files: Input, DummyData, Parameter."""

from __future__ import annotations

from collections.abc import Sequence

from caffe import fillers
from caffe.blob import Blob
from caffe.layers.base import Layer, register
from caffe.proto import caffe_pb2


@register("Input")
class Input(Layer):
    """Blobs that the user writes into."""

    bottom_range = (0, 0)
    top_range = (1, None)
    keeps_tops = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shapes = self.layer_param.input_param.shape
        if len(shapes) not in (0, 1, len(top)):
            raise self.fail(
                f"needs one shape, or one per top: {len(top)} tops, {len(shapes)} shapes"
            )
        for index, blob in enumerate(top):
            if shapes:
                blob.reshape(*shapes[index if len(shapes) > 1 else 0].dim)


@register("DummyData")
class DummyData(Layer):
    """Blobs filled by fillers: constants once, random ones before each pass."""

    bottom_range = (0, 0)
    top_range = (1, None)
    keeps_tops = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param = self.layer_param.dummy_data_param
        count = len(top)
        shapes = [tuple(shape.dim) for shape in param.shape]
        if not shapes:
            shapes = list(zip(param.num, param.channels, param.height, param.width))
        if len(shapes) not in (1, count) or len(param.data_filler) not in (0, 1, count):
            raise self.fail(f"needs 1 or {count} shapes and 0, 1 or {count} fillers")
        given = list(param.data_filler) or [caffe_pb2.FillerParameter(type="constant", value=0)]
        self.fillers = given if len(given) == count else given * count
        for index, blob in enumerate(top):
            blob.reshape(*(shapes[index] if len(shapes) > 1 else shapes[0]))
            blob.data_side.set(fillers.fill(blob.shape, self.fillers[index]))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob, filler in zip(top, self.fillers):
            if filler.type != "constant":
                blob.data_side.set(fillers.fill(blob.shape, filler))


@register("Parameter")
class Parameter(Layer):
    """A parameter as a top."""

    bottom_range = (0, 0)
    top_range = (1, 1)
    keeps_tops = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if not self.blobs:
            self.blobs.add_blob(*self.layer_param.parameter_param.shape.dim)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].reshape(*self.blobs[0].shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        top[0].data_side.set(self.blobs[0].data_side.tensor())

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        self.blobs[0].diff_side.accumulate(self.take_diff(top[0]))
