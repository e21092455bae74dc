"""What TransformationParameter says is done to images before a net sees them."""

from __future__ import annotations

import math

import numpy as np

from caffe import common, device_memory
from caffe.files import caffemodel
from caffe.layers.base import Blobs, Layer
from caffe.proto import caffe_pb2


class DataTransformer:
    """Crops, mirrors, takes the mean off and scales, as a layer's `transform_param` and phase say.

    In training a crop lies anywhere, in testing in the middle; mirroring is random in both.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.param = layer.layer_param.transform_param
        self.training = layer.phase == caffe_pb2.TRAIN
        self.mean: np.ndarray | None = None
        if self.param.mean_file:
            if self.param.mean_value:
                raise layer.fail("give mean_file or mean_value, not both")
            mean = caffemodel.read_blob(self.param.mean_file)
            if mean.ndim < 3 or mean.size != math.prod(mean.shape[-3:]):
                raise layer.fail(
                    f"the mean of {self.param.mean_file} is of shape {mean.shape}, not of "
                    "(channels, height, width)"
                )
            self.mean = mean.reshape(mean.shape[-3:])

    def shape(self, image: np.ndarray) -> tuple[int, int, int]:
        """Return the shape that an image (channels, height, width) comes out with."""
        channels, height, width = image.shape
        crop = self.param.crop_size
        if not crop:
            return channels, height, width
        if crop > min(height, width):
            raise self.layer.fail(f"crop_size {crop} exceeds the picture's {height} x {width}")
        return channels, crop, crop

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Transform one image, (channels, height, width), to float32.

        Raises
        ------
        CaffeError
            If mean or crop do not fit.
        """
        param = self.param
        channels, height, width = self.shape(image)
        spare = image.shape[1] - height, image.shape[2] - width
        row, column = (
            common.random_below(size + 1) if self.training and param.crop_size else size // 2
            for size in spare
        )
        window = (slice(None), slice(row, row + height), slice(column, column + width))
        result = image[window].astype(np.float32)
        if self.mean is not None:
            if self.mean.shape != image.shape:
                raise self.layer.fail(
                    f"the mean of {param.mean_file} is {self.mean.shape}, a picture {image.shape}"
                )
            result -= self.mean[window]
        elif param.mean_value:
            if len(param.mean_value) not in (1, channels):
                raise self.layer.fail(f"give one mean_value or {channels}, one per channel")
            result -= np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
        result *= np.float32(param.scale)
        if param.mirror and common.random_below(2):
            result = result[:, :, ::-1]
        return result


def set_batch(layer: Layer, top: Blobs, images: list[np.ndarray], labels: list[int]) -> None:
    """Set the tops of a layer to images and, if there is a second one, labels.

    Raises
    ------
    CaffeError
        If the images differ in shape.
    """
    first = images[0].shape
    for image in images:
        if image.shape != first:
            raise layer.fail(f"pictures of one batch differ in shape: {first} and {image.shape}")
    top[0].reshape(len(images), *first)
    top[0].set_data(device_memory.to_current(np.stack(images)))
    if len(top) > 1:
        top[1].set_data(device_memory.to_current(np.array(labels, np.float32)))
