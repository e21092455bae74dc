"""Model definitions of caffe_unet (2019), behind the Fiji plugin: NAME.modeldef.h5.

They hold the text of a network and what a program has to know to run it; the weights lie in
NAME.caffemodel.h5, Caffe's own HDF5.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from unet.errors import InputError
from unet.files.hdf5 import damage_is_told, find
from unet.files.names import PathLike
from unet.network.geometry import Geometry
from unet.volumes.element_size import NORMALIZATIONS

SUFFIX = ".modeldef.h5"
WEIGHTS_SUFFIX = ".caffemodel.h5"
PADDINGS = ("mirror", "zero")
# No text of a network comes near.
_LONGEST_TEXT = 1 << 24
_MOST_AXES = 3
_MOST_CLASSES = 1 << 15


@dataclass(frozen=True)
class ModelDefinition:
    """What a .modeldef.h5 holds.

    Attributes
    ----------
    model_prototxt : str
        The network, without an input: the program that segments puts it there.
    solver_prototxt : str
    name, description : str
    input_blob_name : str
        The blob that pictures are put into.
    input_dataset_name : str
        The data set of pictures in the plugin's files.
    padding : {"mirror", "zero"}
        What lies beyond the picture.
    normalization_type : {0, 1, 2, 3}
        How grey values are scaled, see `unet.volumes.element_size.normalized`.
    element_size_um : tuple of float
        Micrometres of a pixel that the network was trained for: (z,) y, x. Its length is the number
        of dimensions.
    downsample_factor, pad_input, pad_output : tuple of int
        Of all axes, or of each: an input of downsample_factor n + pad_input pixels gives
        downsample_factor n + pad_output.
    ident : str
        Tells the definition from others of the same name.
    class_names : tuple of str
        Of all classes, the background first; empty where the definition names none.
    memory_map : tuple of (int, int)
        Pixels of an input and the megabytes of a GPU's memory that it takes; may be empty.
    """

    model_prototxt: str
    solver_prototxt: str = ""
    name: str = ""
    description: str = ""
    input_blob_name: str = "data"
    input_dataset_name: str = "data"
    padding: str = "mirror"
    normalization_type: int = 1
    element_size_um: tuple[float, ...] = (1.0, 1.0)
    downsample_factor: tuple[int, ...] = (16,)
    pad_input: tuple[int, ...] = (60,)
    pad_output: tuple[int, ...] = (-124,)
    ident: str = ""
    class_names: tuple[str, ...] = ()
    memory_map: tuple[tuple[int, int], ...] = ()

    @property
    def axes(self) -> tuple[Geometry, ...]:
        """Sizes of tiles along each axis: (z,) y, x."""
        numbers = (self.downsample_factor, self.pad_input, self.pad_output)
        many = len(self.element_size_um)
        return tuple(Geometry(*one) for one in zip(*(n * (many // len(n)) for n in numbers)))


_TEXTS = ("name", "description", "input_blob_name", "input_dataset_name", "padding")
# Of each number for every axis: its name in the file.
_PER_AXIS = {
    "downsample_factor": "downsampleFactor",
    "pad_input": "padInput",
    "pad_output": "padOutput",
}


def read_modeldef(path: PathLike) -> ModelDefinition:
    """Read a .modeldef.h5.

    An InputError if it is missing, damaged, of another kind, or a value lies in another file.
    """
    source = os.fspath(path)
    if not os.path.isfile(source):
        raise InputError(f"{source}: there is no such model definition")
    with damage_is_told(source, "a model definition"), h5py.File(source, "r") as file:
        return _read(file, source)


def _read(file: h5py.File, source: str) -> ModelDefinition:
    values: dict[str, Any] = {"model_prototxt": _text(file, "model_prototxt", source)}
    if values["model_prototxt"] is None:
        raise InputError(f"{source}: has no /model_prototxt: it is no model definition")
    values["solver_prototxt"] = _text(file, "solver_prototxt", source)
    values["ident"] = _text(file, ".unet-ident", source)
    for name in _TEXTS:
        values[name] = _text(file, f"unet_param/{name}", source)
    sizes = _numbers(file, "unet_param/element_size_um", source)
    kind = _numbers(file, "unet_param/normalization_type", source)
    axes = len(sizes or (1, 1))
    values["element_size_um"] = None if sizes is None else tuple(map(float, sizes))
    values["normalization_type"] = None if kind is None else int(kind[0])
    for name, stored in _PER_AXIS.items():
        numbers = _numbers(file, f"unet_param/{stored}", source)
        if numbers is not None:
            # One for all axes, or one for each.
            if len(numbers) not in (1, axes):
                raise InputError(
                    f"{source}: /unet_param/{stored} has {len(numbers)} of {axes} axes"
                )
            values[name] = tuple(int(n) for n in numbers * (axes // len(numbers)))
    values["class_names"] = _texts(file, "unet_param/classNames", source)
    values["memory_map"] = _memory_map(file, source)
    given = {name: value for name, value in values.items() if value is not None}
    definition = ModelDefinition(**given)
    problem = _problem_of(definition)
    if problem:
        raise InputError(f"{source}: /unet_param/{problem}")
    return definition


def _problem_of(definition: ModelDefinition) -> str | None:
    """Return what no image can be segmented with."""
    if definition.padding not in PADDINGS:
        return f"padding is '{definition.padding[:40]}', not mirror or zero"
    if definition.normalization_type not in NORMALIZATIONS:
        return f"normalization_type is {definition.normalization_type}, not 0, 1, 2 or 3"
    if not re.fullmatch(r"[\w.-]{1,100}", definition.input_blob_name):
        return f"input_blob_name is '{definition.input_blob_name[:40]}', no name of a blob"
    sizes = definition.element_size_um
    if len(sizes) not in (2, 3) or min(sizes) <= 0:
        return f"element_size_um is {sizes}, not the height and width, or depth too, of a pixel"
    for axis in definition.axes:
        if axis.downsample_factor < 1:
            return "downsampleFactor is below 1"
        if axis.pad_input < axis.pad_output or (axis.pad_input - axis.pad_output) % 2:
            return "padInput and padOutput do not differ by twice a border"
    return None


def _dataset(file: h5py.File, name: str, source: str) -> h5py.Dataset | None:
    entry = find(file, name)
    if entry is not None and not isinstance(entry, h5py.Dataset):
        raise InputError(f"{source}: /{name} is a group where a value should be")
    return entry


def _text(file: h5py.File, name: str, source: str) -> str | None:
    dataset = _dataset(file, name, source)
    if dataset is None:
        return None
    if (
        dataset.size != 1
        or dataset.dtype.kind not in "OS"
        or dataset.dtype.itemsize > _LONGEST_TEXT
    ):
        raise InputError(f"{source}: /{name} is no text")
    # h5py 2 and 3 give bytes, text, or an array of one.
    value = np.asarray(dataset[()], object).reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise InputError(f"{source}: /{name} is no text")
    return value.rstrip("\0")


def _texts(file: h5py.File, name: str, source: str) -> tuple[str, ...] | None:
    dataset = _dataset(file, name, source)
    if dataset is None:
        return None
    if dataset.dtype.kind not in "OS" or not 1 <= dataset.size <= _MOST_CLASSES:
        raise InputError(f"{source}: /{name} is no list of names")
    values = np.asarray(dataset[()], object).reshape(-1)
    texts = (one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in values)
    return tuple(str(one).rstrip("\0") for one in texts)


def _memory_map(file: h5py.File, source: str) -> tuple[tuple[int, int], ...] | None:
    name = "unet_param/mapInputNumPxGPUMemMB"
    dataset = _dataset(file, name, source)
    if dataset is None:
        return None
    if dataset.dtype.kind not in "iu" or dataset.ndim != 2 or dataset.shape[0] != 2:
        raise InputError(f"{source}: /{name} is not one row of pixels and one of megabytes")
    return tuple((int(pixels), int(size)) for pixels, size in zip(*dataset[()]))


def _numbers(file: h5py.File, name: str, source: str) -> list[float] | None:
    dataset = _dataset(file, name, source)
    if dataset is None:
        return None
    if dataset.dtype.kind not in "iuf" or not 1 <= dataset.size <= _MOST_AXES:
        raise InputError(f"{source}: /{name} is not 1 to {_MOST_AXES} numbers")
    values = np.asarray(dataset[()], np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise InputError(f"{source}: /{name} is not finite")
    return values.tolist()


def check_segments(definition: ModelDefinition, source: PathLike) -> None:
    """Refuse a definition of volumes, of another input than `data`, or with zeros around."""
    axes = len(definition.element_size_um)
    problem = None
    if axes != 2:
        problem = f"is of {axes} dimensions; networks of pictures, with 2, are run"
    elif definition.input_blob_name != "data":
        problem = f"has the input '{definition.input_blob_name}'; networks with 'data' are run"
    elif definition.padding != "mirror":
        problem = "expects zeros beyond the picture; networks that see it mirrored are run"
    if problem:
        raise InputError(f"{os.fspath(source)}: {problem}")
