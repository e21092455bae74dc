"""The Python layer: a class of the user's, named in the prototxt."""

from __future__ import annotations

import importlib
import traceback
from types import ModuleType

from caffe.errors import CaffeError
from caffe.layer_types import register
from caffe.layers.base import Layer
from caffe.proto import caffe_pb2


@register("Python")
class Python(Layer):
    """Finds the user's class; what stands in the net is an instance of that class."""

    always_reshape = True

    @staticmethod
    def make(param: caffe_pb2.LayerParameter) -> Layer:
        """Import `python_param.module` and make an instance of its class `python_param.layer`.

        As in genuine Caffe a function that returns a layer will do, too.

        Raises
        ------
        CaffeError
            If there is no such module, it cannot be imported, or what it makes is not a
            `caffe.Layer`.
        """
        wanted = param.python_param
        where = f"layer '{param.name}' (Python)"
        maker = getattr(_module(wanted.module, where), wanted.layer, None)
        if isinstance(maker, type) and not issubclass(maker, Layer):
            raise CaffeError(
                f"{where}: class '{wanted.layer}' of module '{wanted.module}' does not derive from "
                "caffe.Layer"
            )
        if not callable(maker):
            raise CaffeError(
                f"{where}: module '{wanted.module}' has no class '{wanted.layer}' "
                "that derives from caffe.Layer"
            )
        layer = maker(param)
        if not isinstance(layer, Layer):
            raise CaffeError(
                f"{where}: '{wanted.layer}' of module '{wanted.module}' makes a value of type "
                f"{type(layer).__name__}, not a caffe.Layer"
            )
        if "_blobs" not in vars(layer):
            raise CaffeError(
                f"{where}: class '{type(layer).__name__}' has an __init__ that does not call "
                "caffe.Layer's: write super().__init__(layer_param) there, or use setup in its "
                "place"
            )
        layer._kind = "Python"
        layer.param_str = wanted.param_str
        layer.always_reshape = True
        return layer


def _module(name: str, where: str) -> ModuleType:
    """Import a user's module; an error begins with `where` and names file and line of the fault."""
    if not all(name.split(".")):
        # Python takes a leading dot for "beside this file": beside the engine's.
        raise CaffeError(
            f"{where}: python_param needs the name of a module, as in `import {{name}}`, not "
            f"'{name}'".replace("{name}", name.strip(".") or "my_layers")
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CaffeError(
                f"{where}: no module '{name}' on the Python path; add its folder to PYTHONPATH"
            ) from error
        raise _not_imported(name, where, error) from error
    except Exception as error:
        raise _not_imported(name, where, error) from error


def _not_imported(name: str, where: str, error: Exception) -> CaffeError:
    """Return what is wrong in a module, and where: the last line of it that ran."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line, told = error.filename, error.lineno, error.msg
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        file, line, told = last.filename, last.lineno, str(error)
    return CaffeError(
        f"{where}: module '{name}' cannot be imported: {type(error).__name__}: {told} "
        f"({file}:{line})"
    )
