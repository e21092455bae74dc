"""Data: labelled images from an LMDB database."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator

import numpy as np

from caffe import common
from caffe.files.atomic import missing
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.data_transformer import DataTransformer, set_batch
from caffe.layers.images import decode
from caffe.layers.sources import kind_of, told
from caffe.proto import caffe_pb2


class _Database:
    """An open LMDB database; a process may open each one only once, so layers share it."""

    def __init__(self, path: str) -> None:
        import lmdb

        self.environment = lmdb.open(path, readonly=True, lock=False)

    def __del__(self) -> None:
        environment = getattr(self, "environment", None)
        if environment is not None:
            environment.close()


_open: weakref.WeakValueDictionary[str, _Database] = weakref.WeakValueDictionary()


def _shared(path: str) -> _Database:
    path = os.path.realpath(path)
    database = _open.get(path)
    if database is None:
        database = _open[path] = _Database(path)
    return database


@register("Data")
class Data(BuiltInLayer):
    """Batches of Datum messages, in the order of their keys, over and over.

    Notes
    -----
    In training, solver r of n takes the messages r, r + n, ... of what one alone would take. As in
    genuine Caffe, rand_skip has no effect.
    """

    bottom_range = (0, 0)
    top_range = (1, 2)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.data_param
        self.source, self.batch = param.source, param.batch_size
        self._check_kind(param.backend == caffe_pb2.DataParameter.LMDB)
        if self.batch < 1:
            raise self.fail("needs a positive batch_size")
        self.transformer = DataTransformer(self)
        self.data = self._endless()
        self.next = next(self.data)
        top[0].reshape(self.batch, *self.transformer.shape(self.next[0]))
        if len(top) > 1:
            top[1].reshape(self.batch)

    def _check_kind(self, lmdb_named: bool) -> None:
        """Refuse what is not the folder of an LMDB database, and say what it is."""
        if not os.path.exists(self.source):
            raise self.fail(f"{missing(self.source)}; source names the folder of a database")
        kind = kind_of(self.source)
        if kind == "a LevelDB database":
            raise self.fail(
                f"'{self.source}' is a LevelDB database, which this engine cannot read; convert it "
                "to LMDB and give backend: LMDB"
            )
        if kind != "an LMDB database":
            raise self.fail(told(self.source, "the folder of an LMDB database"))
        if not lmdb_named:
            raise self.fail(f"'{self.source}' is an LMDB database: give backend: LMDB")

    def _endless(self) -> Iterator[tuple[np.ndarray, int]]:
        try:
            import lmdb
        except ImportError:
            raise self.fail("needs the Python package lmdb: pip install lmdb") from None
        try:
            database = _shared(self.source)
            first, step = common.share_of_items(self.phase)
            number = 0
            while True:
                empty = True
                with database.environment.begin() as transaction:
                    for key, value in transaction.cursor():
                        empty = False
                        if number % step == first:
                            yield self._image(key, value)
                        number += 1
                if empty:
                    raise self.fail(f"'{self.source}' is empty")
        except lmdb.Error as error:
            raise self.fail(f"'{self.source}' cannot be read: {error}") from None

    def _image(self, key: bytes, value: bytes) -> tuple[np.ndarray, int]:
        transform = self.layer_param.transform_param
        where = f"'{self.source}', key {key.decode(errors='replace')!r}"
        datum = caffe_pb2.Datum()
        try:
            datum.ParseFromString(value)
        except Exception:
            raise self.fail(f"{where}: is no Datum") from None
        if datum.encoded:
            color = True if transform.force_color else False if transform.force_gray else None
            image = decode(datum.data, color)
            if image is None:
                raise self.fail(f"{where}: holds no picture that can be decoded")
            return image, datum.label
        shape = datum.channels, datum.height, datum.width
        values = (
            np.frombuffer(datum.data, np.uint8)
            if datum.data
            else np.array(datum.float_data, np.float32)
        )
        if min(shape) < 1 or values.size != math.prod(shape):
            raise self.fail(f"{where}: {values.size} values do not fill the shape {shape}")
        return values.reshape(shape), datum.label

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        images, labels = [], []
        for _ in range(self.batch):
            image, label = self.next
            images.append(self.transformer(image))
            labels.append(label)
            self.next = next(self.data)
        set_batch(self, top, images, labels)
