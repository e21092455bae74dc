"""Classifier: a net that gives class probabilities for images of any size."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from caffe import io
from caffe.net.net import TEST, Net


class Classifier(Net):
    """A net for classifying images.

    Parameters
    ----------
    model_file, pretrained_file : path
        Prototxt and weights.
    image_dims : (height, width), optional
        What images are resized to before crops are taken; by default the input's size.
    mean, input_scale, raw_scale, channel_swap
        As of `io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | os.PathLike,
        pretrained_file: str | os.PathLike,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = make_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = image_dims or self.crop_dims

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Classify images.

        Parameters
        ----------
        inputs : sequence of (height, width, channels) arrays
        oversample : bool
            Average over the four corners, the centre and their mirror images; else the centre.

        Returns
        -------
        float32 array, shape (images, classes)

        Raises
        ------
        IndexError
            If there are no images, or they have no axis of channels.
        """
        if not len(inputs):
            raise IndexError("list index out of range: no pictures were given")
        if np.ndim(inputs[0]) < 3:
            raise IndexError(
                "tuple index out of range: a picture has three axes (height, width, channels), not "
                f"the shape {np.shape(inputs[0])}"
            )
        resized = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        if oversample:
            crops = io.oversample(resized, self.crop_dims)
        else:
            first = (np.array(self.image_dims) - self.crop_dims) // 2
            (top, left), (bottom, right) = first, first + self.crop_dims
            crops = resized[:, top:bottom, left:right]
        name = self.inputs[0]
        data = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: data.astype(np.float32)})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(predictions) // 10, 10, -1).mean(1)
        return predictions


def make_transformer(
    net: Net,
    mean: np.ndarray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """Return a Transformer for the first input of a net."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].data.shape})
    transformer.set_transpose(name, (2, 0, 1))
    for value, take in (
        (mean, transformer.set_mean),
        (input_scale, transformer.set_input_scale),
        (raw_scale, transformer.set_raw_scale),
        (channel_swap, transformer.set_channel_swap),
    ):
        if value is not None:
            take(name, value)
    return transformer
