"""WindowData: windows of images, objects and background, as R-CNN learns from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from caffe import common
from caffe.files import caffemodel
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.data_transformer import set_batch
from caffe.layers.images import load, resize
from caffe.layers.sources import read_list, told


@dataclass(frozen=True)
class _Window:
    path: str
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


@register("WindowData")
class WindowData(BuiltInLayer):
    """Batches of windows drawn at random: first background, then objects.

    Notes
    -----
    The list has, for each image: `# number`, its path, channels, height, width, how many windows
    there are, and these, a line each: class, overlap with an object, x1, y1, x2, y2. An overlap of
    at least fg_threshold makes an object, one below bg_threshold background (label 0).

    References
    ----------
    Girshick et al., Rich feature hierarchies, CVPR 2014, App. A.
    """

    bottom_range = (0, 0)
    top_range = (2, 2)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param, transform = self.layer_param.window_data_param, self.layer_param.transform_param
        self.size = transform.crop_size
        if self.size < 1 or param.batch_size < 1:
            raise self.fail("needs a positive crop_size and batch_size")
        if param.crop_mode not in ("warp", "square"):
            raise self.fail(f"crop_mode '{param.crop_mode}' must be warp or square")
        if 2 * param.context_pad >= self.size:
            raise self.fail(f"context_pad {param.context_pad} leaves nothing of {self.size} pixels")
        self.objects: list[_Window] = []
        self.background: list[_Window] = []
        channels = self._read(iter(read_list(param.source, "a picture or a window").split()))
        self.counts = [0, int(param.batch_size * param.fg_fraction)]
        self.counts[0] = param.batch_size - self.counts[1]
        for count, windows, what in zip(
            self.counts, (self.background, self.objects), ("background", "objects")
        ):
            if count and not windows:
                raise self.fail(f"'{param.source}' has no window of {what}")
        self.mean: np.ndarray | None = None
        if transform.mean_file:
            mean = caffemodel.read_blob(transform.mean_file)
            mean = mean.reshape(mean.shape[-3:])
            off = (mean.shape[2] - self.size) // 2
            if off < 0 or mean.shape[1] < self.size:
                raise self.fail(f"the mean of {transform.mean_file} is smaller than crop_size")
            self.mean = mean[:, off : off + self.size, off : off + self.size]
        elif transform.mean_value:
            if len(transform.mean_value) not in (1, channels):
                raise self.fail(f"give one mean_value or {channels}, one per channel")
            values = np.array(transform.mean_value, np.float32).reshape(-1, 1, 1)
            self.mean = np.broadcast_to(values, (channels, self.size, self.size))
        self.cache: dict[str, np.ndarray] = {}
        top[0].reshape(param.batch_size, channels, self.size, self.size)
        top[1].reshape(param.batch_size)

    def _read(self, words: Iterator[str]) -> int:
        param = self.layer_param.window_data_param
        channels = 0
        try:
            for mark in words:
                if mark != "#":
                    raise ValueError(f"'#' is missing before picture {mark}")
                next(words)
                path = param.root_folder + next(words)
                channels, _, _, count = (int(next(words)) for _ in range(4))
                for _ in range(count):
                    label, overlap = int(next(words)), float(next(words))
                    corners = [int(next(words)) for _ in range(4)]
                    if overlap >= param.fg_threshold:
                        if label < 1:
                            raise ValueError(f"an object of {path} has the class {label}")
                        self.objects.append(_Window(path, label, *corners))
                    elif overlap < param.bg_threshold:
                        self.background.append(_Window(path, 0, *corners))
        except (StopIteration, ValueError, RuntimeError) as error:
            what = "it ends too early" if not isinstance(error, ValueError) else error
            raise self.fail(f"'{param.source}' is not a list of windows: {what}") from None
        if not channels:
            raise self.fail(f"'{param.source}' names no picture")
        return channels

    def _image(self, path: str) -> np.ndarray:
        if path in self.cache:
            return self.cache[path]
        image = load(path) if os.path.isfile(path) else None
        if image is None:
            source = self.layer_param.window_data_param.source
            raise self.fail(f"{told(path, 'a picture that can be read')}; it is named in {source}")
        if self.layer_param.window_data_param.cache_images:
            self.cache[path] = image
        return image

    def _cut(self, window: _Window, mirror: bool) -> np.ndarray:
        """Return a window, warped to crop_size, with 0 where it leaves the image."""
        param, size = self.layer_param.window_data_param, self.size
        image = self._image(window.path)
        height, width = image.shape[:2]
        x1, y1, x2, y2 = window.x1, window.y1, window.x2, window.y2
        to_width = to_height = size
        left = above = right = 0
        if param.context_pad or param.crop_mode == "square":
            grow = size / (size - 2 * param.context_pad)
            half_h, half_w = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 2
            middle_x, middle_y = x1 + half_w, y1 + half_h
            if param.crop_mode == "square":
                half_h = half_w = max(half_h, half_w)
            x1, x2 = _rounded(middle_x - half_w * grow), _rounded(middle_x + half_w * grow)
            y1, y2 = _rounded(middle_y - half_h * grow), _rounded(middle_y + half_h * grow)
            scale_x, scale_y = size / (x2 - x1 + 1), size / (y2 - y1 + 1)
            left, above, right = max(0, -x1), max(0, -y1), max(0, x2 - width + 1)
            x1, y1 = x1 + left, y1 + above
            x2, y2 = x2 - right, min(y2, height - 1)
            to_width = _rounded((x2 - x1 + 1) * scale_x)
            to_height = _rounded((y2 - y1 + 1) * scale_y)
            left, above = _rounded(left * scale_x), _rounded(above * scale_y)
            left = _rounded(right * scale_x) if mirror else left
            to_width, to_height = min(to_width, size - left), min(to_height, size - above)
        part = image[y1 : y2 + 1, x1 : x2 + 1]
        if not part.size or to_width < 1 or to_height < 1:
            raise self.fail(f"'{window.path}': window {window} does not lie in the picture")
        part = resize(part, to_width, to_height)
        if mirror:
            part = part[:, ::-1]
        inside = (slice(None), slice(above, above + to_height), slice(left, left + to_width))
        pixels = part.transpose(2, 0, 1).astype(np.float32)
        if self.mean is not None:
            pixels -= self.mean[inside]
        result = np.zeros((3, size, size), np.float32)
        # The old field, as in genuine Caffe, which leaves transform_param's alone here.
        result[inside] = pixels * np.float32(param.scale)
        return result

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        images, labels = [], []
        for windows, count in zip((self.background, self.objects), self.counts):
            for _ in range(count):
                window = windows[common.random_below(len(windows))]
                mirror = self.layer_param.transform_param.mirror and common.random_below(2) == 1
                images.append(self._cut(window, mirror))
                labels.append(window.label)
        set_batch(self, top, images, labels)


def _rounded(value: float) -> int:
    """Round halves away from 0, as C's round."""
    return int(np.floor(abs(value) + 0.5) * np.sign(value))
