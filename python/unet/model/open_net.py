"""Open a network to segment with, from whatever form it was published in.

A deploy prototxt opens as it is. The authors' networks of 2015 (V1 prototxt) and those of
caffe_unet (2019, in a .modeldef.h5) are texts for training without an input; their programs put one
before the text, and so does this.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Union

import h5py

from unet.files.hdf5 import find, open_hdf5_file
from unet.model.modeldef import SUFFIX, check_segments, read_modeldef
from unet.segmentation.tiles import SMALLEST

PathLike = Union[str, "os.PathLike[str]"]

_COMMENT = re.compile(r"#.*")
_V1 = re.compile(r"\blayers\s*:?\s*\{")
_INPUT = re.compile(r"(?m)^\s*input\s*:|\btype\s*:\s*[\"']Input[\"']")


def is_modeldef(net: PathLike) -> bool:
    """Tell whether a network is given as a model definition of caffe_unet, by its name."""
    return os.fspath(net).endswith(SUFFIX)


def open_deployed(caffe: ModuleType, net: PathLike, weights: PathLike) -> Any:
    """Open a network in phase TEST, its parameters not yet read.

    Parameters
    ----------
    caffe : module
    net : path
        Prototxt, or .modeldef.h5.
    weights : path
        Tells how many channels the input has, where the network's text does not.

    Returns
    -------
    caffe.Net

    Raises
    ------
    InputError
        If a model definition is damaged or of no network that segments pictures. Errors in the
        network are the engine's.
    """
    if is_modeldef(net):
        definition = read_modeldef(net)
        check_segments(definition, net)
        text = definition.model_prototxt
    else:
        text = Path(net).read_bytes().decode("utf-8", "replace")
        if not _V1.search(_COMMENT.sub("", text)) or _INPUT.search(_COMMENT.sub("", text)):
            return caffe.Net(os.fspath(net), caffe.TEST)
    if _INPUT.search(_COMMENT.sub("", text)):
        return _open_text(caffe, text, net)
    opened = _open_text(caffe, _with_input(text, 1), net)
    # The first layer with parameters reads the input.
    first = next(iter(opened.params), None)
    channels = None if first is None else _stored_channels(weights, first)
    if channels in (None, 1):
        return opened
    return _open_text(caffe, _with_input(text, channels), net)


def _with_input(text: str, channels: int) -> str:
    # On the text's first line, so that errors name the lines of the file.
    size = f"input_dim: {SMALLEST} input_dim: {SMALLEST}"
    return f'input: "data" input_dim: 1 input_dim: {channels} {size} state {{ phase: TEST }} {text}'


def _open_text(caffe: ModuleType, text: str, source: PathLike) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.prototxt")
        Path(path).write_text(text, encoding="utf-8")
        try:
            return caffe.Net(path, caffe.TEST)
        except RuntimeError as error:
            raise type(error)(str(error).replace(path, os.fspath(source))) from None


def _stored_channels(weights: PathLike, layer: str) -> int | None:
    """Return the inputs of a convolution in a file of weights; None if it cannot be told."""
    path = os.fspath(weights)
    if h5py.is_hdf5(path):
        with open_hdf5_file(path) as file:
            entry = find(file, f"data/{layer}/0")
            shape = getattr(entry, "shape", ())
    else:
        from google.protobuf.message import DecodeError

        from caffe.proto import caffe_pb2

        message = caffe_pb2.NetParameter()
        try:
            message.ParseFromString(Path(path).read_bytes())
        except DecodeError:
            # Told when the weights are read.
            return None
        blobs = [
            stored.blobs[0]
            for stored in [*message.layers, *message.layer]
            if stored.name == layer and stored.blobs
        ]
        if not blobs:
            return None
        shape = blobs[0].shape.dim or (blobs[0].num, blobs[0].channels)
    return int(shape[1]) if len(shape) > 1 else None
