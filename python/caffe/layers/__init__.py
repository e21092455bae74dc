"""The layer types, one file a family; importing this package fills the table `LAYERS`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from caffe.errors import CaffeError
from caffe.files import forks
from caffe.layer_types import LAYERS, written_like
from caffe.layers.base import BlobVec, Layer
from caffe.proto import caffe_pb2

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["LAYERS", "BlobVec", "Layer", "create"]


def create(param: caffe_pb2.LayerParameter) -> Layer:
    """Make the layer that a LayerParameter describes.

    Raises
    ------
    CaffeError
        If there is no such type; near names are listed.
    """
    if param.type not in LAYERS:
        kind = f" ({param.type})" if param.type else ""
        raise CaffeError(f"layer '{param.name}'{kind}: {_unknown(param)}", param.name)
    cls = LAYERS[param.type]
    return cls.make(param) if hasattr(cls, "make") else cls(param)


def _unknown(param: caffe_pb2.LayerParameter) -> str:
    """Return what is wrong with a type that is not in the table."""
    if not param.type:
        return 'the type is missing, as in type: "Convolution"'
    if about := forks.about_type(param.type):
        return f"the type {about}"
    near = written_like(param.type) or difflib.get_close_matches(
        param.type, LAYERS, n=3, cutoff=0.6
    )
    if near:
        return f"unknown layer type; did you mean {' or '.join(near)}?"
    return (
        "unknown layer type, BVLC Caffe has none of this name: if it is of another Caffe, write "
        "it as a Python layer or use that Caffe"
    )
