"""Detector: a net that scores windows of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from caffe import io
from caffe.classifier import make_transformer
from caffe.errors import CaffeError
from caffe.net.net import TEST, Net


class Detector(Net):
    """A net for scoring windows of images, each warped to the net's input.

    Parameters
    ----------
    model_file, pretrained_file : path
        Prototxt and weights.
    mean, input_scale, raw_scale, channel_swap
        As of `io.Transformer`.
    context_pad : int, optional
        How many pixels of the net's input, on each side, show what surrounds the window, as in
        R-CNN; none by default.
    """

    def __init__(
        self,
        model_file: str | os.PathLike,
        pretrained_file: str | os.PathLike,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = make_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set how many pixels of the net's input show context, on each side.

        Raises
        ------
        CaffeError
            If these leave nothing for the window, or the input is wider than high.
        """
        name, transformer = self.inputs[0], self.transformer
        shape = self.blobs[name].data.shape
        self.crop_dims = np.array(shape)[[2, 3, 1]]
        self.context_pad = context_pad
        if not context_pad:
            return
        # The width decides, for both sides of the crop.
        if shape[2] < shape[3] or 2 * context_pad >= shape[3]:
            raise CaffeError(
                f"{self.source}: windows with a context of {context_pad} pixels on each side need "
                f"a square input of more than {2 * context_pad} pixels, not {shape[2]} x {shape[3]}"
            )
        # What becomes zero in the net: so much of the context as lies outside the image.
        mean = transformer.mean.get(name)
        if mean is None:
            self.crop_mean = np.zeros(self.crop_dims, np.float32)
            return
        mean = mean.transpose(np.argsort(transformer.transpose[name]))
        if name in transformer.channel_swap:
            mean = mean[:, :, np.argsort(transformer.channel_swap[name])]
        self.crop_mean = mean / transformer.raw_scale.get(name, 1)

    def crop(self, im: np.ndarray, window: Sequence[float]) -> np.ndarray:
        """Cut a window out of an image, with its context.

        Parameters
        ----------
        im : array (height, width, channels)
        window : (top, left, bottom, right)
            In pixels; bottom and right are left out.

        Returns
        -------
        array (height, width, channels)
            The window as it is; with a context, of the size of the net's input.

        Raises
        ------
        CaffeError
            If nothing of it lies in the image.
        """
        window = np.asarray(window)
        if not self.context_pad:
            return _cut(im, window, window)
        size = self.crop_dims[1]
        half = (window[2:] - window[:2] + 1) / 2
        reach = half * (size / (size - 2 * self.context_pad))
        centre = window[:2] + half
        box = np.round(np.concatenate([centre - reach, centre + reach]))
        scale = size / (box[2:] - box[:2] + 1)
        margin = np.round(np.maximum(0, -box[:2]) * scale).astype(int)
        inside = np.clip(box, 0, np.tile(im.shape[:2], 2))
        extent = np.round((inside[2:] - inside[:2] + 1) * scale).astype(int)
        height, width = np.minimum(extent, size - margin)
        image = io.resize_image(_cut(im, inside, window), (height, width))
        crop = np.ones(self.crop_dims, np.float32) * self.crop_mean
        top, left = margin
        crop[top : top + height, left : left + width] = image
        return crop

    def detect_windows(
        self, images_windows: Iterable[tuple[str, Sequence[Sequence[float]]]]
    ) -> list[dict[str, Any]]:
        """Score windows of images.

        Parameters
        ----------
        images_windows : iterable of (file name, windows)
            A window is (top, left, bottom, right), in pixels.

        Returns
        -------
        list of dict
            One for each window, in their order, with "window", "prediction" (float32 array: the
            net's first output for it) and "filename".

        Raises
        ------
        CaffeError
            If a window has nothing of its image in it; names both.
        """
        name, detections, crops = self.inputs[0], [], []
        for filename, windows in images_windows:
            image = io.load_image(filename).astype(np.float32)
            for window in windows:
                try:
                    crops.append(self.transformer.preprocess(name, self.crop(image, window)))
                except CaffeError as error:
                    raise CaffeError(f"{filename}: {error}") from None
                detections.append({"window": window, "filename": filename})
        if crops:
            outputs = self.forward_all(**{name: np.stack(crops)})[self.outputs[0]]
            for detection, prediction in zip(detections, outputs):
                detection["prediction"] = prediction
        return detections

    def detect_selective_search(self, image_fnames: Sequence[str]) -> list[dict[str, Any]]:
        """Score the windows that Selective Search proposes for images; as `detect_windows`.

        Raises
        ------
        ModuleNotFoundError
            If the package selective_search_ijcv_with_python, which calls Matlab, is missing.
        """
        try:
            import selective_search_ijcv_with_python as selective_search
        except ImportError:
            raise ModuleNotFoundError(
                "No module named 'selective_search_ijcv_with_python': proposing windows needs this "
                "package (https://github.com/sergeyk/selective_search_ijcv_with_python); or give "
                "windows yourself, to detect_windows"
            ) from None
        names = [os.path.abspath(name) for name in image_fnames]
        windows = selective_search.get_windows(names, cmd="selective_search_rcnn")
        return self.detect_windows(zip(names, windows))


def _cut(im: np.ndarray, box: np.ndarray, window: np.ndarray) -> np.ndarray:
    top, left, bottom, right = box.astype(int)
    cut = im[top:bottom, left:right]
    if not cut.size:
        raise CaffeError(
            f"window {window.tolist()} (top, left, bottom, right) has nothing of the picture of "
            f"{im.shape[0]} x {im.shape[1]} pixels in it"
        )
    return cut
