"""What a file of weights holds, .caffemodel or HDF5: layers, and the shapes of their blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.hdf5 import check_all_inside, damage_is_told, datasets, find, open_hdf5_file
from unet.files.names import PathLike


class StoredBlob(NamedTuple):
    """The shape that a blob is said to have, and how many values of it are there."""

    shape: tuple[int, ...]
    count: int


def stored_blobs(path: PathLike) -> dict[str, list[StoredBlob]]:
    """Return the blobs of each layer that a file has weights for.

    It is a .caffemodel of the current format or of V1, or HDF5 as Caffe writes it.

    Raises
    ------
    InputError
        If the file is torn or of another kind, or not all of it lies in it.
    """
    path = str(path)
    if not path.endswith(".h5") and not h5py.is_hdf5(path):
        net = read_message(path, "NetParameter")
        return {
            layer.name: [_stored(blob) for blob in layer.blobs]
            for layer in [*net.layers, *net.layer]
            if layer.blobs
        }
    found: dict[str, dict[int, StoredBlob]] = {}
    with open_hdf5_file(path) as file, damage_is_told(path, "parameters"):
        check_all_inside(file)
        layers = find(file, "data")
        if not isinstance(layers, h5py.Group):
            raise InputError(f"{path}: has no group /data with weights, as Caffe writes them")
        for name, item in datasets(layers):
            layer, _, number = name.rpartition("/")
            blob = StoredBlob(item.shape, int(np.prod(item.shape)))
            found.setdefault(layer, {})[int(number)] = blob
    return {layer: [blobs[k] for k in sorted(blobs)] for layer, blobs in found.items()}


def read_message(path: PathLike, kind: str) -> Any:
    """Read a file that holds one message of Caffe's, such as a NetParameter."""
    from google.protobuf.message import DecodeError

    from caffe.proto import caffe_pb2

    message = getattr(caffe_pb2, kind)()
    try:
        message.ParseFromString(Path(path).read_bytes())
    except DecodeError as error:
        raise InputError(f"{path}: is torn or no {kind} ({error})") from None
    return message


def count_values(blob: Any) -> int:
    """Return how many values a BlobProto holds."""
    return len(blob.data) or len(blob.double_data)


def _stored(blob: Any) -> StoredBlob:
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    return StoredBlob(tuple(blob.shape.dim) or legacy, count_values(blob))
