"""What a training begins with that begins as another network: its layers, the outer two adapted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import text_format

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.names import PathLike
from unet.model.modeldef import read_modeldef
from unet.model.open_modeldef import open_definition
from unet.model.open_net import find_model, is_modeldef, load_net
from unet.network.geometry import Geometry
from unet.volumes.intensity import is_normalised

Weights = dict[str, list[np.ndarray]]


class Adapted(NamedTuple):
    """Weights by layer, and what was done to the first layer and to the last, in words."""

    weights: Weights
    first: str
    last: str


@dataclass(frozen=True)
class Pretrained:
    """A trained network that another one begins as.

    Attributes
    ----------
    name : str
        As it was asked for.
    files : tuple of pathlib.Path
        Its prototxt, or .modeldef.h5, and its weights.
    layers : tuple of caffe_pb2.LayerParameter
        From blob `data`, which a convolution reads, to blob `score`, which the last one makes,
        another convolution.
    weights : dict of str to list of ndarray
        Of each layer, float32.
    folded : str
        What was before its first convolution and is in the parameters of that now, in words.
    geometry : Geometry
    normalised : bool, optional
        Whether it learnt from normalised slices; None: nobody knows.
    """

    name: str
    files: tuple[Path, Path]
    layers: tuple[Any, ...]
    weights: Weights
    geometry: Geometry
    normalised: bool | None
    folded: str = ""

    @property
    def channels(self) -> int:
        """Channels of its input."""
        return self.weights[self._first.name][0].shape[1]

    @property
    def classes(self) -> int:
        """Channels of its scores."""
        return self.layers[-1].convolution_param.num_output

    @property
    def maps(self) -> int:
        """Maps after the first convolution."""
        return self._first.convolution_param.num_output

    @property
    def _first(self) -> Any:
        return next(layer for layer in self.layers if "data" in layer.bottom)

    @property
    def padded(self) -> bool:
        """Whether padding within it reaches into its scores."""
        return self.geometry.margin > 0

    def body(self, classes: int) -> list[Any]:
        """Return its layers, the last of which gives so many classes."""
        layers = [type(layer).FromString(layer.SerializeToString()) for layer in self.layers]
        layers[-1].convolution_param.num_output = classes
        return layers

    def adapted(self, channels: int, classes: int, seed: int) -> Adapted:
        """Return weights for so many channels and classes; a last layer that begins anew is drawn.

        Notes
        -----
        Filters f_1 to f_n of n channels become m times (f_1 + ... + f_n) / m: channels that are
        equal give what n equal ones gave. Another number of classes begins anew, from N(0, 2/k) of
        k incoming values, for which class becomes which is not known.
        """
        weights = dict(self.weights)
        first, last = self._first.name, self.layers[-1].name
        filters, *biases = weights[first]
        said_first, said_last = (f"layer '{name}' is kept" for name in (first, last))
        if channels != self.channels:
            mean = filters.sum(axis=1, keepdims=True) / channels
            weights[first] = [np.repeat(mean.astype(np.float32), channels, axis=1), *biases]
            each = "the filters" if self.channels == 1 else "the sum of the filters"
            said_first = (
                f"layer '{first}' takes {_count(channels, 'channel')} in place of {self.channels}: "
                f"{each}, divided by {channels}, for each"
            )
        if classes != self.classes:
            shape = (classes, *weights[last][0].shape[1:])
            deviation = (2 / np.prod(shape[1:])) ** 0.5
            drawn = np.random.RandomState(seed).normal(0, deviation, shape).astype(np.float32)
            weights[last] = [drawn, *(np.zeros(classes, np.float32) for _ in weights[last][1:])]
            said_last = (
                f"layer '{last}' gives {_count(classes, 'class', 'es')} in place of "
                f"{self.classes}: it begins anew"
            )
        if self.folded:
            said_first += f" ({self.folded})"
        return Adapted(weights, said_first, said_last)


def open_pretrained(caffe: ModuleType, source: PathLike) -> Pretrained:
    """Open a trained network for another one to begin as.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it.
    source : path
        As of `unet.load`.

    Raises
    ------
    InputError
        If it cannot be opened, see `unet.model.open_net.load_net`; or it does not begin and end
        with a convolution of its own.
    """
    prototxt, weights = find_model(source)
    if is_modeldef(prototxt) and read_modeldef(prototxt).input_blob_name != "data":
        return _of_plugin(caffe, source, prototxt, weights)
    net, geometry = load_net(caffe, prototxt, weights)
    found = _values(net)
    layers = _layers_between(_read(prototxt), "data", "score", prototxt)
    if not isinstance(layers[0].type, str):
        layers = _in_current_format(caffe, layers, found, geometry)
    _check_ends(layers, prototxt)
    # How the plugin scaled grey values is a number of its own.
    normalised = None if is_modeldef(prototxt) else is_normalised(prototxt)
    return Pretrained(
        *(os.fspath(source), (Path(prototxt), Path(weights)), tuple(layers), found),
        *(geometry, normalised),
    )


def _of_plugin(caffe: ModuleType, source: PathLike, prototxt: Path, weights: Path) -> Pretrained:
    """Open a network as the plugin's editor writes it, whose pictures come through other layers.

    Its ValueTransformation, s (x + o) of each channel, becomes a part of the first convolution,
    which nothing pads: filters s w, biases b + sum(s w o).
    """
    net, definition = open_definition(caffe, prototxt, weights)
    if len(definition.axes) != 2:
        raise InputError(
            f"{prototxt}: is of {len(definition.axes)} dimensions; only a network of pictures, "
            f"with 2, can be begun as"
        )
    data, score = definition.input_blob_name, next(iter(net.outputs))
    layers = _layers_between(_read(prototxt), data, score, prototxt)
    found = _values(net)
    moves = []
    while layers[0].type == "ValueTransformation" and list(layers[0].bottom) == [data]:
        moves.append(layers.pop(0))
        data = moves[-1].top[0]
    usual = {data: "data", score: "score"}
    for layer in layers:
        for blobs in (layer.bottom, layer.top):
            blobs[:] = [usual.get(name, name) for name in blobs]
    _check_ends(layers, prototxt)
    first = next(layer for layer in layers if "data" in layer.bottom)
    if moves and (any(first.convolution_param.pad) or len(found[first.name]) != 2):
        raise InputError(
            f"{prototxt}: '{first.name}', behind '{moves[-1].name}', pads its input or has no "
            f"biases, so that this cannot become a part of it"
        )
    for move in reversed(moves):
        filters, biases = found[first.name]
        scale, offset = (
            np.array(list(values.v) or [neutral], np.float32)[:, np.newaxis, np.newaxis]
            for values, neutral in (
                (move.value_transformation_param.scale, 1),
                (move.value_transformation_param.offset, 0),
            )
        )
        scaled = scale * filters
        found[first.name] = [scaled, biases + (scaled * offset).sum(axis=(1, 2, 3))]
    geometry = Geometry.of(_net_of(layers))
    told = ", ".join(f"'{move.name}'" for move in moves)
    return Pretrained(
        *(os.fspath(source), (Path(prototxt), Path(weights)), tuple(layers), found),
        *(geometry, None, f"{told} is in its weights" if moves else ""),
    )


def _values(net: Any) -> Weights:
    return {
        name: [np.array(blob.data, np.float32) for blob in blobs]
        for name, blobs in net.params.items()
    }


def _net_of(layers: Sequence[Any]) -> Any:
    from caffe.proto import caffe_pb2

    return caffe_pb2.NetParameter(layer=layers)


def write_adapted(
    caffe: ModuleType, pretrained: Pretrained, deploy: PathLike, path: PathLike, seed: int
) -> Adapted:
    """Write weights, adapted to the network of a deploy prototxt, as .caffemodel."""
    net = caffe.Net(os.fspath(deploy), caffe.TEST)
    channels, classes = net.blobs["data"].shape[1], net.blobs["score"].shape[1]
    adapted = pretrained.adapted(channels, classes, seed)
    for name, blobs in net.params.items():
        for blob, values in zip(blobs, adapted.weights[name]):
            blob.data[...] = values
    with atomic_path(Path(path)) as fresh:
        net.save(os.fspath(fresh))
    return adapted


def _read(prototxt: Path) -> Any:
    from caffe.proto import caffe_pb2

    if is_modeldef(prototxt):
        text = read_modeldef(prototxt).model_prototxt
    else:
        text = prototxt.read_bytes().decode("utf-8", "replace")
    return text_format.Merge(text, caffe_pb2.NetParameter())


def _layers_between(net: Any, data: str, score: str, source: Path) -> list[Any]:
    """Return the layers that make a blob of another, in order; of any phase, if in place."""
    wanted, found = {score}, []
    for layer in reversed([*net.layer, *net.layers]):
        makes = wanted & set(layer.top)
        in_place = list(layer.bottom) == list(layer.top)
        if not makes or data in layer.top or (_trains_only(layer) and not in_place):
            continue
        found.append(layer)
        wanted.update(layer.bottom)
    if data not in wanted:
        raise InputError(f"{source}: '{score}' does not come from '{data}': it is no U-Net")
    for layer in found:
        # Drop-out, which the authors left out of the network that segments, does nothing there.
        layer.ClearField("include")
        layer.ClearField("exclude")
    return found[::-1]


def _trains_only(layer: Any) -> bool:
    rules = layer.include
    return bool(rules) and all(rule.HasField("phase") and rule.phase == 0 for rule in rules)


def _in_current_format(
    caffe: ModuleType, layers: Sequence[Any], weights: Weights, geometry: Geometry
) -> list[Any]:
    """Return V1 layers in the current format, as the engine writes them."""
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter(input=["data"], layers=layers)
    channels = next(iter(weights.values()))[0].shape[1]
    net.input_dim.extend([1, channels, geometry.smallest, geometry.smallest])
    with tempfile.TemporaryDirectory() as folder:
        text, saved = Path(folder, "net.prototxt"), Path(folder, "net.caffemodel")
        text.write_text(str(net), encoding="utf-8")
        caffe.Net(str(text), caffe.TEST).save(str(saved))
        net = caffe_pb2.NetParameter.FromString(saved.read_bytes())
    # What the engine puts in where a blob is read twice.
    whole = {top: one.bottom[0] for one in net.layer if one.type == "Split" for top in one.top}
    current = [layer for layer in net.layer if layer.type not in ("Split", "Input")]
    for layer in current:
        layer.bottom[:] = [whole.get(name, name) for name in layer.bottom]
        layer.ClearField("blobs")
        layer.ClearField("phase")
    return current


def _check_ends(layers: Sequence[Any], source: Path) -> None:
    """Refuse a network whose first or last layer is not one convolution that can be adapted."""
    ends = (
        ("data", "read", [layer for layer in layers if "data" in layer.bottom]),
        ("score", "made", [layer for layer in layers if "score" in layer.top]),
    )
    for blob, what, found in ends:
        one = found[0] if len(found) == 1 else None
        if one is None or one.type != "Convolution" or one.convolution_param.group > 1:
            kinds = ", ".join(f"'{layer.name}' ({layer.type})" for layer in found)
            raise InputError(
                f"{source}: '{blob}' is {what} by {kinds}, not by one convolution of all channels: "
                f"there is nothing to adapt to other pictures or classes"
            )


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number > 1 else ''}"
