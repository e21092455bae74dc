"""HDF5Data and HDF5Output: batches from and to HDF5 files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import h5py
import numpy as np
from h5py import h5d, h5o

from caffe import common, device_memory
from caffe.errors import CaffeError
from caffe.files.hdf5_links import ElsewhereError, find, lies_elsewhere, written_hdf5
from caffe.layer_types import register
from caffe.layers.base import Blobs, BuiltInLayer
from caffe.layers.sources import read_list, told
from caffe.log import Log

_log = Log("hdf5_data_layer.cpp")

# Bytes of all files up to which they are kept: a file is often one picture, deflated, that takes
# longer to read than a GPU takes for a step.
_KEPT = 2**30


@register("HDF5Data")
class HDF5Data(BuiltInLayer):
    """Rows of the data sets named as the tops, from the files that a list names, over and over.

    Notes
    -----
    With shuffle the order of the files, and of the rows in each, is drawn anew in every round.
    As in caffe_unet, and not in BVLC Caffe, rows of one file may be larger than those of another:
    tops take the shape of the batch, of which all rows must be alike.
    In training, solver r of n takes the rows r, r + n, ... of what one alone would take.
    """

    bottom_range = (0, 0)
    top_range = (1, None)
    keeps_tops = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.hdf5_data_param
        self.names = list(self.layer_param.top)
        if self.layer_param.HasField("transform_param"):
            raise self.fail("does not transform data")
        if param.batch_size < 1:
            raise self.fail("needs a positive batch_size")
        _log.info(f"Loading list of HDF5 filenames from: {param.source}")
        self.files = read_list(param.source, "the path of an HDF5 file").split()
        if not self.files:
            raise self.fail(f"'{param.source}' names no file")
        _log.info(f"Number of HDF5 files: {len(self.files)}")
        self.shuffled = param.shuffle
        # File -> when and how large it was, and its rows.
        self._kept: dict[str, tuple[tuple[int, int], list[np.ndarray]]] = {}
        self._begin_round()
        for blob, rows in zip(top, self.rows):
            blob.reshape(param.batch_size, *rows.shape[1:])
        first, self.step = common.share_of_items(self.phase)
        self._advance(first)

    def _permutation(self, count: int) -> np.ndarray:
        if not self.shuffled:
            return np.arange(count)
        return np.array(common.random_order(count))

    def _begin_round(self) -> None:
        self.file_order = self._permutation(len(self.files))
        self.next_file = 0
        self._load()

    def _load(self) -> None:
        path = self.files[self.file_order[self.next_file]]
        if not os.path.isfile(path) or not h5py.is_hdf5(path):
            source = self.layer_param.hdf5_data_param.source
            raise self.fail(f"{told(path, 'an HDF5 file')}; it is named in {source}")
        state = os.stat(path)
        key = state.st_mtime_ns, state.st_size
        if path in self._kept and self._kept[path][0] == key:
            self.rows = self._kept[path][1]
        else:
            self._kept.pop(path, None)
            self.rows = self._read(path)
            kept = sum(rows.nbytes for _, file in self._kept.values() for rows in file)
            if kept + sum(rows.nbytes for rows in self.rows) <= _KEPT:
                self._kept[path] = key, self.rows
        self.order, self.next_row = self._permutation(len(self.rows[0])), 0

    def _read(self, path: str) -> list[np.ndarray]:
        try:
            with h5py.File(path, "r") as file:
                read = [
                    np.asarray(self._dataset(file, path, name), np.float32) for name in self.names
                ]
        except CaffeError:
            raise
        # On damage h5py raises anything, numpy on what is not a number or too large.
        except Exception as error:
            raise self.fail(f"'{path}' cannot be read: {error}") from None
        counts = [rows.shape[0] if rows.ndim else 0 for rows in read]
        for name, rows, count in zip(self.names, read, counts):
            if not count:
                has = "has no rows" if rows.ndim else "is a single value, not rows"
                raise self.fail(f"'{path}': data set '{name}' {has}: there is nothing to read")
        if len(set(counts)) > 1:
            given = ", ".join(f"'{name}' {count}" for name, count in zip(self.names, counts))
            raise self.fail(f"'{path}': data sets must have equally many rows, they have: {given}")
        return read

    def _dataset(self, file: h5py.File, path: str, name: str) -> h5py.Dataset:
        root = h5o.open(file.id, b"/")
        try:
            entry = find(root, root, name.encode())
        except ElsewhereError as error:
            raise self.fail(f"'{path}': '{name}' {error}; copy it into this file") from None
        if not isinstance(entry, h5d.DatasetID):
            raise self.fail(f"'{path}' has no data set '{name}'")
        if lies_elsewhere(entry):
            raise self.fail(f"'{path}': '{name}' lies in another file; copy it into this one")
        return h5py.Dataset(entry)

    def _advance(self, rows: int) -> None:
        for _ in range(rows):
            self.next_row += 1
            if self.next_row < len(self.order):
                continue
            if len(self.files) == 1:
                self.order, self.next_row = self._permutation(len(self.order)), 0
                continue
            self.next_file += 1
            if self.next_file == len(self.files):
                self._begin_round()
            else:
                self._load()

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for blob, rows in zip(top, self.rows):
            if blob.shape[1:] != rows.shape[1:]:
                self.beyond_bvlc("reads files with rows of different shapes, as caffe_unet does")
                blob.reshape(blob.shape[0], *rows.shape[1:])
        batch = [np.empty(blob.shape, np.float32) for blob in top]
        for item in range(self.layer_param.hdf5_data_param.batch_size):
            for name, values, rows in zip(self.names, batch, self.rows):
                if rows.shape[1:] != values.shape[1:]:
                    raise self.fail(
                        f"rows of '{name}' are {rows.shape[1:]} in one file, {values.shape[1:]} "
                        "in another, in one batch: a batch_size of 1 takes both"
                    )
                values[item] = rows[self.order[self.next_row]]
            self._advance(self.step)
        for blob, values in zip(top, batch):
            blob.set_data(device_memory.to_current(values))


@register("HDF5Output")
class HDF5Output(BuiltInLayer):
    """Write two bottoms to the data sets `data` and `label` of a file, anew in each pass.

    Notes
    -----
    As in caffe_unet, and not in BVLC Caffe, dset_name names the data sets of any number of bottoms,
    and squeeze leaves out axes of size 1.
    """

    bottom_range = (1, None)
    top_range = (0, 0)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.layer_param.hdf5_output_param
        self.path, self.names = param.file_name, list(param.dset_name) or ["data", "label"]
        if not self.path:
            raise self.fail("needs a file_name")
        if len(self.names) != len(bottom):
            needed = "one dset_name per bottom" if param.dset_name else "2 bottoms, or dset_name"
            raise self.fail(f"needs {needed}: {len(bottom)} bottom(s), names {self.names}")
        if len(set(self.names)) < len(self.names):
            raise self.fail(f"dset_name is given twice: {self.names}")
        if param.dset_name or param.squeeze:
            self.beyond_bvlc("names or squeezes data sets, as caffe_unet does")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        named = self.layer_param.hdf5_output_param.dset_name
        if not named and bottom[0].shape[:1] != bottom[1].shape[:1]:
            raise self.fail(
                f"bottoms must have as many items each: {bottom[0].shape} and {bottom[1].shape}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with written_hdf5(self.path) as file:
            for name, blob in zip(self.names, bottom):
                values = blob.data_tensor().cpu().numpy()
                squeeze = self.layer_param.hdf5_output_param.squeeze
                file[name] = values.squeeze() if squeeze else values

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Nothing flows back."""
