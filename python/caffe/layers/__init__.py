"""The layer types, one file a family; importing this package fills the table `LAYERS`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from caffe.errors import CaffeError
from caffe.layers.base import LAYERS, BlobVec, Layer
from caffe.proto import caffe_pb2

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["LAYERS", "BlobVec", "Layer", "create"]

# Layers that only training with caffe_unet has.
_OF_CAFFE_UNET = (
    "CreateDeformation",
    "ApplyDeformation",
    "ValueAugmentation",
    "ValueTransformation",
)


def create(param: caffe_pb2.LayerParameter) -> Layer:
    """Make the layer that a LayerParameter describes.

    Raises
    ------
    CaffeError
        If there is no such type; near names are listed.
    """
    if param.type in _OF_CAFFE_UNET:
        raise CaffeError(
            f"layer '{param.name}': type '{param.type}' is of caffe_unet's own training: open the "
            "net in phase TEST, or train with the data layer of prototxt/unet in its place",
            param.name,
        )
    if param.type not in LAYERS:
        near = difflib.get_close_matches(param.type, LAYERS, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise CaffeError(
            f"layer '{param.name}': unknown layer type '{param.type}'{hint}", param.name
        )
    cls = LAYERS[param.type]
    return cls.make(param) if hasattr(cls, "make") else cls(param)
