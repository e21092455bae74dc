"""The parameters of a net's layers: shared with another net, read from files, written to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.files import caffemodel
from caffe.layers import Layer
from caffe.log import Log
from caffe.proto import caffe_pb2
from caffe.synced_memory import SyncedMemory

_log = Log("net.cpp")

_OF_CAFFE_UNET = ("CreateDeformation", "ValueTransformation", "IoU", "F1")


def share(layers: Mapping[str, Layer], others: Mapping[str, Layer]) -> None:
    """Use the parameters of other layers wherever one of the same name has them."""
    for name in others:
        if name not in layers:
            _log.info(f"Ignoring source layer {name}")
    for name, other in others.items():
        if name not in layers or not other.blobs:
            continue
        own = layers[name].blobs
        if len(own) != len(other.blobs):
            raise CaffeError(
                f"layer '{name}': {len(own)} parameter blobs here, {len(other.blobs)} there"
            )
        for index, (mine, theirs) in enumerate(zip(own, other.blobs)):
            if mine.shape != theirs.shape:
                raise CaffeError(
                    f"layer '{name}', parameter {index}: shape {mine.shape} here, "
                    f"{theirs.shape} there"
                )
            mine.share_data(theirs)


def copy_from(
    path: str | os.PathLike, layers: Mapping[str, Layer], other_outputs: bool = False
) -> None:
    """Copy parameters by layer name from a .caffemodel or HDF5 file; as `Net.copy_from`.

    `other_outputs`: convolutions may have more or fewer outputs than in the file, those that both
    have are copied, as caffe_unet does where a net is to tell other classes apart.
    """
    path = os.fspath(path)
    shared = _shared(layers)
    for name, arrays in caffemodel.read_layers(path).items():
        if name not in layers:
            _log.info(f"Ignoring source layer {name}")
            continue
        if not arrays:
            continue
        blobs = layers[name].blobs
        # HDF5 files leave out what another layer owns and this one shares.
        while len(arrays) < len(blobs) and (name, len(arrays)) in shared:
            arrays.append(None)
        if len(blobs) != len(arrays):
            raise CaffeError(
                f"{path}: layer '{name}' has {len(arrays)} parameter blob(s), "
                f"the net's has {len(blobs)}{_anew(name)}"
            )
        for index, array in enumerate(arrays):
            if array is None and (name, index) not in shared:
                raise CaffeError(f"{path}: layer '{name}', parameter {index} is missing")
        given = [
            (index, blob, array)
            for index, (blob, array) in enumerate(zip(blobs, arrays))
            if array is not None
        ]
        resized = other_outputs and _differ_in_outputs(layers[name], given)
        for index, blob, array in given:
            if not (resized or _same_shape(blob.shape, array.shape)):
                raise CaffeError(
                    f"{path}: layer '{name}', parameter {index}: the file's shape is "
                    f"{array.shape}, the net's is {blob.shape}{_anew(name)}"
                )
        for _, blob, array in given:
            target, values = blob.data_tensor(), torch.from_numpy(array)
            if resized:
                values = values.view(-1, *blob.shape[1:])
                both = min(len(target), len(values))
                target[:both] = values[:both]
            else:
                target.copy_(values.view(blob.shape))
        if resized:
            layers[name].beyond_bvlc(
                f"has {given[0][1].shape[0]} outputs, {given[0][2].shape[0]} in {path}: those that "
                "both have are copied, as caffe_unet does"
            )


def of_caffe_unet(layers: Mapping[str, Layer]) -> bool:
    """Tell whether a net has layers of caffe_unet."""
    return any(layer.type in _OF_CAFFE_UNET for layer in layers.values())


def _differ_in_outputs(layer: Layer, given: Sequence[tuple[int, Blob, np.ndarray]]) -> bool:
    """Tell whether a convolution's parameters have other shapes by the number of outputs alone."""
    (_, weights, array), *biases = given
    return (
        layer.type == "Convolution"
        and array.shape[1:] == weights.shape[1:]
        and array.shape[0] != weights.shape[0]
        and all(values.size == array.shape[0] for _, _, values in biases)
    )


def _anew(name: str) -> str:
    return f"; to learn the layer anew rename it in the net, to '{name}_new' for example"


def save(
    path: str | os.PathLike, param: caffe_pb2.NetParameter, layers: Mapping[str, Layer]
) -> None:
    """Write all parameters, and the net's description, to a .caffemodel."""
    caffemodel.write_caffemodel(path, param, _arrays(layers, "data"))


def save_hdf5(path: str | os.PathLike, layers: Mapping[str, Layer], write_diff: bool) -> None:
    """Write all parameters, with `write_diff` their diffs too, to an HDF5 file."""
    diffs = _owned_arrays(layers, "diff") if write_diff else None
    caffemodel.write_weights_hdf5(path, _owned_arrays(layers, "data"), diffs)


def _owned_arrays(layers: Mapping[str, Layer], which: str) -> dict[str, list[np.ndarray | None]]:
    # As genuine Caffe's HDF5 has them: every layer, a shared parameter at its first one.
    arrays: dict[str, list[np.ndarray | None]] = {name: [] for name in layers}
    arrays.update(_arrays(layers, which))
    for name, index in _shared(layers):
        arrays[name][index] = None
    return arrays


def _shared(layers: Mapping[str, Layer]) -> set[tuple[str, int]]:
    """Return the layers and places of the parameters that an earlier layer owns."""
    shared: set[tuple[str, int]] = set()
    seen: set[SyncedMemory] = set()
    for name, layer in layers.items():
        for index, blob in enumerate(layer.blobs):
            memory = blob.data_memory.source
            if memory in seen:
                shared.add((name, index))
            seen.add(memory)
    return shared


def _arrays(layers: Mapping[str, Layer], which: str) -> dict[str, list[np.ndarray]]:
    return {
        name: [_array(getattr(blob, f"{which}_tensor")()) for blob in layer.blobs]
        for name, layer in layers.items()
        if layer.blobs
    }


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().contiguous().numpy()


def _same_shape(ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    # Old files pad every shape with ones in front to four axes.
    if ours == theirs:
        return True
    return len(theirs) == 4 and (1,) * (4 - len(ours)) + tuple(ours) == tuple(theirs)
