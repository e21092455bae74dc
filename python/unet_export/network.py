"""From an open network to a model of ONNX: the layers that its outputs need, in their order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, checker, helper

from unet.errors import InputError
from unet.files.version import VERSION
from unet.files.weights import read_message
from unet_export.graph import OPSET, CannotSay, Graph, Value
from unet_export.layers import pointwise, shape, windows  # noqa: F401
from unet_export.layers.table import WRITERS, Given

# Version of the file format, the one of operators of version 17.
_IR = 8
# Of weights in one file of ONNX, which as every protobuf ends at 2 GiB; the rest is for nodes.
_MOST_BYTES = 2**31 - 2**24
# Names of free sizes, of the last axes.
_AXES = ("depth", "height", "width")
# By so much a network is tried larger; five poolings and strides of 3 fit.
_LARGER = 96
# Of so many sizes on, one by one, it is seen which maps become unequal: four poolings.
_STEPS = 16


class Written(NamedTuple):
    """A network in operators of ONNX.

    Attributes
    ----------
    graph : Graph
    inputs, outputs : dict
        Of each blob that the network takes or gives: its shape, names where a size is free.
    """

    graph: Graph
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]


def layers_needed(net: Any, outputs: Sequence[str]) -> list[Any]:
    """Return the layers that outputs come from, as caffe_pb2.LayerParameter, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.caffemodel")
        net.save(path)
        message = read_message(path, "NetParameter")
    wanted, kept = set(outputs), []
    for layer in reversed(message.layer):
        if wanted.intersection(layer.top):
            wanted.update(layer.bottom)
            # The network has them, too.
            layer.ClearField("blobs")
            kept.append(layer)
    return kept[::-1]


def write_network(net: Any, outputs: Sequence[str] = ()) -> Written:
    """Say a network in operators of ONNX.

    Parameters
    ----------
    net : caffe.Net
        In phase TEST, with its weights.
    outputs : sequence of str
        The blobs that are wanted; by default the network's own outputs.

    Raises
    ------
    InputError
        If a layer on the way cannot be said in ONNX: names it. If a file of ONNX cannot hold the
        weights.
    """
    size = sum(4 * blob.count for blobs in net.params.values() for blob in blobs)
    if size > _MOST_BYTES:
        raise InputError(
            f"the network's weights take {size / 2**30:.1f} GiB, but a file of ONNX holds 2: "
            f"export a smaller network"
        )
    outputs = list(outputs or net.outputs)
    graph, values = Graph(), {}
    shapes = {name: tuple(blob.shape) for name, blob in net.blobs.items()}
    inputs = _free_sizes(net, shapes, list(net.inputs))
    layers = layers_needed(net, outputs)
    cutting = _cutting(net, inputs, layers)
    for layer in layers:
        if layer.type in ("Input", "Split"):
            for top in layer.top:
                # Nets insert Split by themselves; what it hands on has one name here.
                first = layer.bottom[0] if layer.type == "Split" else top
                values[top] = values[first] if layer.type == "Split" else graph.name(top)
                shapes.setdefault(top, shapes[first])
        else:
            values.update(_write_layer(graph, layer, net, values, shapes, cutting))
    graph.scope = "outputs"
    taken = set(inputs)
    for name in outputs:
        if values[name] in taken:
            # Of an input, or of another output: a layer that hands values on gives it two names.
            values[name] = graph.node("Identity", [values[name]], name)
        elif values[name] != name:
            given = values[name]
            graph.rename(given, name)
            values = {blob: name if value == given else value for blob, value in values.items()}
        taken.add(name)
    free = _free_outputs(net, inputs, outputs)
    return Written(graph, inputs, free)


def _write_layer(
    graph: Graph,
    layer: Any,
    net: Any,
    values: Mapping[str, Value],
    shapes: Mapping[str, tuple[int, ...]],
    cutting: Container[str],
) -> dict[str, Value]:
    blobs = [np.array(blob.data) for blob in net.params.get(layer.name, ())]
    given = Given(
        layer,
        [values[name] for name in layer.bottom],
        [shapes[name] for name in layer.bottom],
        blobs,
        layer.name in cutting,
    )
    if layer.type not in WRITERS:
        raise CannotSay(
            f"layer '{layer.name}' is of type {layer.type}, which ONNX cannot say; export a "
            f"network without it"
        )
    graph.scope = layer.name
    return dict(zip(layer.top, WRITERS[layer.type](graph, given)))


def _free_sizes(
    net: Any, shapes: Mapping[str, tuple[int, ...]], inputs: Sequence[str]
) -> dict[str, list[int | str]]:
    """Return the shapes of inputs, with names for sizes that may be others."""
    batch = _takes(net, {name: (shapes[name][0] + 1, *shapes[name][1:]) for name in inputs})
    larger = {
        name: (*shapes[name][:2], *(size + _LARGER for size in shapes[name][2:])) for name in inputs
    }
    pixels = _takes(net, larger)
    _reshape(net, {name: shapes[name] for name in inputs})
    found: dict[str, list[int | str]] = {}
    for name in inputs:
        found[name] = list(shapes[name])
        if batch:
            found[name][0] = "batch"
        axes = len(shapes[name]) - 2
        if pixels and 0 < axes <= 3:
            found[name][2:] = _AXES[-axes:]
    return found


def _cutting(
    net: Any, inputs: Mapping[str, Sequence[int | str]], layers: Sequence[Any]
) -> set[str]:
    """Return the Concat layers whose bottoms have unequal pixels at some size: they cut them."""
    origins: dict[str, str] = {}
    joined = {}
    for layer in layers:
        bottoms = [origins.get(name, name) for name in layer.bottom]
        if layer.type == "Split":
            origins.update(dict.fromkeys(layer.top, bottoms[0]))
        elif layer.type == "Concat":
            joined[layer.name] = bottoms
    before = {name: tuple(net.blobs[name].shape) for name in inputs}
    found = set()
    for more in range(_STEPS if joined else 0):
        larger = {
            name: [*sizes[:2], *(n + more * isinstance(free, str) for n, free in pixels)]
            for name, sizes in before.items()
            for pixels in [zip(sizes[2:], inputs[name][2:])]
        }
        if _takes(net, larger):
            for name, bottoms in joined.items():
                if len({tuple(net.blobs[bottom].shape)[2:] for bottom in bottoms}) > 1:
                    found.add(name)
    _reshape(net, before)
    return found


def _reshape(net: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    for name, sizes in shapes.items():
        net.blobs[name].reshape(*sizes)
    net.reshape()


def _takes(net: Any, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Tell whether a network takes inputs of other shapes."""
    if not all(shapes.values()):
        return False
    try:
        _reshape(net, shapes)
    except (RuntimeError, ValueError):
        return False
    return True


def _free_outputs(
    net: Any, inputs: Mapping[str, list[int | str]], outputs: Sequence[str]
) -> dict[str, list[int | str]]:
    """Return the shapes of outputs: sizes that change with the inputs' have names of their own."""
    now = {name: tuple(net.blobs[name].shape) for name in outputs}
    before = {name: tuple(net.blobs[name].shape) for name in inputs}
    found: dict[str, list[int | str]] = {name: list(sizes) for name, sizes in now.items()}
    for larger, first, last in ((1, 0, 1), (_LARGER, 2, 5)):
        changed = {
            name: [
                size + larger * (first <= axis < last and isinstance(inputs[name][axis], str))
                for axis, size in enumerate(sizes)
            ]
            for name, sizes in before.items()
        }
        _reshape(net, changed)
        for name in outputs:
            axes = len(now[name]) - 2
            for axis, (old, new) in enumerate(zip(now[name], net.blobs[name].shape)):
                if old != new:
                    which = _AXES[axis - 2 - axes] if 0 < axes <= 3 and axis > 1 else f"axis{axis}"
                    found[name][axis] = "batch" if axis == 0 and larger == 1 else f"{name}_{which}"
    _reshape(net, before)
    return found


def model_of(
    graph: Graph,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    name: str,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Return a checked model of ONNX.

    Parameters
    ----------
    graph : Graph
    inputs, outputs : mapping
        Shapes by name, as of `Written`.
    name : str
        Of the network.
    metadata : mapping of str to str
        `metadata_props` of the model.
    """
    made = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        graph.constants,
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR,
        producer_name="unet-in-caffe",
        producer_version=VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    # With strict inference of shapes.
    checker.check_model(model, full_check=True)
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; equal ones give equal files."""
    path.write_bytes(model.SerializeToString(deterministic=True))
