"""What a net writes to the log: how it is built, and with debug_info what flows through it.

The lines are genuine Caffe's (net.cpp, layer_factory.hpp) in its order, also while nets are made
from Python; GLOG_minloglevel=1 silences them. Not written: the nets that its recurrent layers build
inside themselves, and what its data layers say beside the list and number of HDF5 files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.log import Log, is_logged, log_error, number
from caffe.proto import caffe_pb2

if TYPE_CHECKING:
    from caffe.net.builder import Assembly, Place
    from caffe.net.net import Net

_net = Log("net.cpp")
_factory = Log("layer_factory.hpp")

_FLOAT_BYTES = 4


def _has_inner_layer(param: caffe_pb2.LayerParameter) -> bool:
    # Genuine Caffe's have a Softmax or Bias layer of their own, of the same name.
    if param.type == "Scale":
        return param.scale_param.bias_term
    return param.type in ("SoftmaxWithLoss", "InfogainLoss")


def ruled_out(reason: str, layer: str) -> None:
    """Say why a rule of a layer does not hold in the net's state."""
    _net.info(f"{reason} specified by a rule in layer {layer}")


def parameters(param: caffe_pb2.NetParameter) -> None:
    """Say what the net is made from."""
    if is_logged():
        _net.info(f"Initializing net from parameters: \n{prototxt.to_text(param).rstrip()}")


def ignored(layers: Iterable[str]) -> None:
    """Name the layers that parameters are there for, and the net lacks."""
    for layer in layers:
        _net.info(f"Ignoring source layer {layer}")


class BuildingLog:
    """Tells the log how a net is built, and adds up its memory."""

    def __init__(self) -> None:
        self._count = 0

    def creating(self, name: str) -> None:
        """Say that a layer is made."""
        _factory.info(f"Creating layer {name}")

    def wired(
        self, param: caffe_pb2.LayerParameter, top_names: Sequence[str], in_place: Sequence[bool]
    ) -> None:
        """Say what a layer reads and writes."""
        _net.info(f"Creating Layer {param.name}")
        for name in param.bottom:
            _net.info(f"{param.name} <- {name}")
        for name, same in zip(top_names, in_place):
            _net.info(f"{param.name} -> {name}{' (in-place)' if same else ''}")
        if _has_inner_layer(param):
            self.creating(param.name)

    def set_up(self, name: str, tops: Sequence[Blob], loss_weights: Sequence[float]) -> None:
        """Say what shape a layer's tops have, and what all tops take so far."""
        _net.info(f"Setting up {name}")
        for blob, weight in zip(tops, loss_weights):
            _net.info(f"Top shape: {_shape(blob)}")
            if weight:
                _net.info(f"    with loss weight {number(weight)}")
            self._count += blob.count
        _net.info(f"Memory required for data: {_FLOAT_BYTES * self._count}")

    def shared(self, parameter: str, owner: str, index: int) -> None:
        """Say whose parameter a layer uses."""
        _net.info(f"Sharing parameters '{parameter}' owned by layer '{owner}', param index {index}")

    def done(self, made: Assembly) -> None:
        """Say where backward runs, and what the outputs are."""
        for place in reversed(made.places):
            needs = "needs" if place.needs_backward else "does not need"
            _net.info(f"{place.name} {needs} backward computation.")
        for name in made.outputs:
            _net.info(f"This network produces output {name}")
        _net.info("Network initialization done.")


def _shape(blob: Blob) -> str:
    return "".join(f"{size} " for size in blob.shape) + f"({blob.count})"


def _mean(values: torch.Tensor) -> str:
    return number(values.abs().sum() / max(1, values.numel()))


def forward(place: Place) -> None:
    """Write the mean magnitudes of what a layer has made, and of its parameters."""
    head = f"    [Forward] Layer {place.name}"
    for name, blob in zip(place.top_names, place.tops):
        _net.info(f"{head}, top blob {name} data: {_mean(blob.data_tensor())}")
    specs = place.layer.layer_param.param
    for index, blob in enumerate(place.layer.blobs):
        name = (specs[index].name if index < len(specs) else "") or index
        _net.info(f"{head}, param blob {name} data: {_mean(blob.data_tensor())}")


def backward(place: Place) -> None:
    """Write the mean magnitudes of the diffs that a layer has made."""
    head = f"    [Backward] Layer {place.name}"
    for name, blob, needed in zip(place.bottom_names, place.bottoms, place.bottom_needs):
        if needed:
            _net.info(f"{head}, bottom blob {name} diff: {_mean(blob.diff_tensor())}")
    for index, blob in enumerate(place.layer.blobs):
        if place.layer.param_propagate_down[index]:
            _net.info(f"{head}, param blob {index} diff: {_mean(blob.diff_tensor())}")


def all_parameters(net: Net) -> None:
    """Write the norms of all parameters and of their diffs."""
    sides = [
        [getattr(blob, side).tensor().flatten() for blob in net.learnable]
        for side in ("data_memory", "diff_memory")
    ]
    norms = [
        [sum(float(torch.linalg.vector_norm(t, order)) ** order for t in side) for side in sides]
        for order in (1, 2)
    ]
    l1, l2 = norms[0], [value**0.5 for value in norms[1]]
    _net.error(
        "    [Backward] All net params (data, diff): "
        f"L1 norm = ({number(l1[0])}, {number(l1[1])}); "
        f"L2 norm = ({number(l2[0])}, {number(l2[1])})"
    )


def note_layer(error: Exception, layer: str, kind: str, step: str) -> None:
    """Note at an exception of a layer's own code where it was raised; its traceback ends with that.

    Class and message stay as they are, for programs that look at them. Python 3.10 does not print
    notes: there the note is in the log as well.

    Parameters
    ----------
    error : Exception
        Not changed if it is a CaffeError, which names the layer itself.
    layer, kind : str
        The layer's name and type.
    step : str
        What the layer was doing.
    """
    if isinstance(error, CaffeError):
        return
    note = f"in {step} of layer '{layer}' ({kind})"
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]
        log_error(f"{type(error).__name__} {note}: {error}")
