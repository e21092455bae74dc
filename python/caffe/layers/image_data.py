"""ImageData: labelled image files from a list."""

from __future__ import annotations

import numpy as np

from caffe import common
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.data_transformer import DataTransformer, set_batch
from caffe.layers.images import decode, resize
from caffe.layers.sources import read_list, told
from caffe.log import log_warning
from caffe.proto import caffe_pb2


@register("ImageData")
class ImageData(BuiltInLayer):
    """Batches of the images that a list names, `PATH LABEL` a line, over and over."""

    bottom_range = (0, 0)
    top_range = (1, 2)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.image_data_param
        if len(top) < 2:
            self.beyond_bvlc("leaves out the top of the labels")
        if (param.new_height > 0) != (param.new_width > 0):
            raise self.fail("give new_height and new_width, or neither")
        if param.batch_size < 1:
            raise self.fail("needs a positive batch_size")
        lines = read_list(param.source, "the path of a picture and a label").splitlines()
        self.entries = [self._entry(line) for line in lines if line.strip()]
        if not self.entries:
            raise self.fail(f"'{param.source}' names no picture")
        self.transformer = DataTransformer(self)
        self.order, self.next_item = self._permutation(), 0
        everywhere = not (param.shuffle or param.rand_skip)
        if everywhere and self.phase == caffe_pb2.TRAIN and not common.is_root():
            # Genuine Caffe shares out the items of Data and HDF5Data, but not these.
            log_warning("Shuffling or skipping recommended for multi-GPU")
        if param.rand_skip:
            if param.rand_skip > len(self.entries):
                raise self.fail(
                    f"rand_skip {param.rand_skip} exceeds the {len(self.entries)} pictures"
                )
            self.next_item = common.random_below(param.rand_skip)
        shape = self.transformer.shape(self._image(self.entries[self.order[self.next_item]][0]))
        top[0].reshape(param.batch_size, *shape)
        if len(top) > 1:
            top[1].reshape(param.batch_size)

    def _entry(self, line: str) -> tuple[str, int]:
        # A path may have blanks in it; the label comes last.
        path, _, label = line.rstrip().rpartition(" ")
        try:
            return path, int(label)
        except ValueError:
            source = self.layer_param.image_data_param.source
            raise self.fail(f"'{source}': line '{line.strip()}' is not PATH LABEL") from None

    def _permutation(self) -> list[int]:
        count = len(self.entries)
        if not self.layer_param.image_data_param.shuffle:
            return list(range(count))
        return common.random_order(count)

    def _image(self, path: str) -> np.ndarray:
        param = self.layer_param.image_data_param
        whole = param.root_folder + path
        try:
            with open(whole, "rb") as file:
                image = decode(file.read(), param.is_color)
        except FileNotFoundError:
            raise self.fail(f"{told(whole, 'a picture')}; it is named in {param.source}") from None
        except OSError as error:
            raise self.fail(f"'{whole}': {error.strerror}") from None
        if image is None:
            what = told(whole, "a picture that can be decoded")
            raise self.fail(f"{what}; it is named in {param.source}")
        size = (param.new_width, param.new_height)
        if param.new_height and image.shape[:0:-1] != size:
            planes = [resize(plane, *size) for plane in image]
            image = np.stack(planes)
        return image

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        images, labels = [], []
        for _ in range(self.layer_param.image_data_param.batch_size):
            path, label = self.entries[self.order[self.next_item]]
            images.append(self.transformer(self._image(path)))
            labels.append(label)
            self.next_item += 1
            if self.next_item == len(self.order):
                self.order, self.next_item = self._permutation(), 0
        set_batch(self, top, images, labels)
