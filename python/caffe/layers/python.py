"""The Python layer: a class of the user's, named in the prototxt."""

from __future__ import annotations

import importlib

from caffe.errors import CaffeError
from caffe.layers.base import Layer, register
from caffe.proto import caffe_pb2


@register("Python")
class Python(Layer):
    """Finds the user's class; what stands in the net is an instance of that class."""

    always_reshape = True

    @staticmethod
    def make(param: caffe_pb2.LayerParameter) -> Layer:
        """Import `python_param.module` and make an instance of its class `python_param.layer`.

        Raises
        ------
        CaffeError
            If the module or the class does not exist, or is no `caffe.Layer`.
        """
        wanted = param.python_param
        where = f"layer '{param.name}' (Python)"
        try:
            module = importlib.import_module(wanted.module)
        except ModuleNotFoundError as error:
            if error.name != wanted.module.split(".")[0] and error.name != wanted.module:
                raise
            raise CaffeError(
                f"{where}: no module '{wanted.module}' on the Python path; "
                "add its folder to PYTHONPATH"
            ) from error
        cls = getattr(module, wanted.layer, None)
        if not (isinstance(cls, type) and issubclass(cls, Layer)):
            raise CaffeError(
                f"{where}: module '{wanted.module}' has no class '{wanted.layer}' "
                "that derives from caffe.Layer"
            )
        layer = cls(param)
        layer.type = "Python"
        layer.param_str = wanted.param_str
        layer.always_reshape = True
        return layer
