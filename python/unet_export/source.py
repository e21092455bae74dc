"""A trained network opened for export: any deploy net, whether or not it segments."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import text_format

from unet.errors import InputError
from unet.files.names import PathLike
from unet.files.version import VERSION
from unet.machine.engine import open_engine, unwarned
from unet.model.modeldef import ModelDefinition
from unet.model.open_modeldef import open_definition
from unet.model.open_net import find_model, is_modeldef, open_deployed, read_weights, stored_in
from unet.network.geometry import Geometry
from unet.volumes.element_size import NORMALIZATIONS
from unet.volumes.intensity import is_normalised

LICENCE = "MIT"
_SCALED = "0 and 1 are the ends of the range of grey: 0 and 255 of 8 bit"
_NORMALISED = "each slice to mean 1/2 and standard deviation 1/6"


class Source(NamedTuple):
    """A network that is to be exported.

    Attributes
    ----------
    net : caffe.Net
    prototxt, weights : pathlib.Path
    axes : tuple of Geometry
        Of each axis of pixels; empty where the sizes of tiles follow no such rule.
    definition : ModelDefinition, optional
        Of a network of the Fiji plugin.
    """

    net: Any
    prototxt: Path
    weights: Path
    axes: tuple[Geometry, ...]
    definition: ModelDefinition | None = None

    @property
    def name(self) -> str:
        """What the network is called: its folder, or its file."""
        if self.definition is not None:
            return self.definition.name or self.weights.name.split(".")[0]
        if self.weights.stem.split(".")[0] == "weights":
            return self.weights.absolute().parent.name
        return self.weights.name.split(".")[0]

    @property
    def score(self) -> str:
        """The blob of scores."""
        return "score" if "score" in self.net.blobs else self.net.outputs[0]

    @property
    def normalisation(self) -> str:
        """How the network is given grey values, in words."""
        if self.definition is not None:
            return NORMALIZATIONS[self.definition.normalization_type]
        return _NORMALISED if is_normalised(self.prototxt) else _SCALED


def open_source(source: PathLike, net: PathLike | None = None) -> Source:
    """Open a network with its weights, on the CPU.

    Parameters
    ----------
    source, net : path
        As of `unet.load`; it need not segment.

    Raises
    ------
    InputError
        If a file is missing or damaged, or weights and network do not belong together.
    """
    prototxt, weights = find_model(source, net)
    caffe = open_engine("cpu")
    if is_modeldef(prototxt):
        with unwarned():
            opened, definition = open_definition(caffe, prototxt, weights)
        return Source(opened, prototxt, weights, definition.axes, definition)
    stored = stored_in(weights)
    opened, text = open_deployed(caffe, prototxt, stored)
    read_weights(opened, prototxt, weights, stored)
    return Source(opened, prototxt, weights, _axes_of(opened, text))


def _axes_of(net: Any, text: str) -> tuple[Geometry, ...]:
    from caffe.proto import caffe_pb2

    many = len(net.blobs[net.inputs[0]].shape) - 2 if len(net.inputs) == 1 else 0
    if many < 1 or "score" not in net.blobs:
        return ()
    try:
        message = text_format.Merge(text, caffe_pb2.NetParameter())
        return (Geometry.of(message, net.inputs[0], "score"),) * many
    except InputError:
        return ()


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def metadata(source: Source, licence: str = LICENCE) -> dict[str, str]:
    """Return what is said of a network beside its graph.

    Returns
    -------
    dict of str to str
        version, licence, weights_sha256, input_blob, classes, normalisation; of a network whose
        tiles fit together pad_input (pixels that they lose on each side), and padInput, padOutput
        and downsampleFactor, lists with a number for each axis, as caffe_unet calls them: an input
        of downsampleFactor n + padInput pixels gives downsampleFactor n + padOutput.
    """
    net, found = source.net, {}
    found["version"] = VERSION
    found["licence"] = licence
    found["weights_sha256"] = checksum(source.weights)
    found["input_blob"] = ",".join(net.inputs)
    if source.axes or source.definition:
        found["classes"] = str(net.blobs[source.score].shape[1])
        found["normalisation"] = source.normalisation
        found["pad_input"] = json.dumps([axis.border for axis in source.axes])
        found["padInput"] = json.dumps([axis.pad_input for axis in source.axes])
        found["padOutput"] = json.dumps([axis.pad_output for axis in source.axes])
        found["downsampleFactor"] = json.dumps([axis.downsample_factor for axis in source.axes])
    if source.definition is not None:
        found["class_names"] = json.dumps(source.definition.class_names)
        found["padding"] = source.definition.padding
        found["element_size_um"] = json.dumps(source.definition.element_size_um)
    return found
