"""What a net is made of: nodes (layers between named blobs), blobs and parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from caffe.blob import Blob
from caffe.containers import Vector
from caffe.errors import CaffeError, memory_is_full
from caffe.layers import Layer
from caffe.log import log_error


@dataclass
class Node:
    """A layer in a net, with the blobs that it reads and writes."""

    name: str
    layer: Layer
    bottoms: list[Blob]
    tops: list[Blob]
    bottom_names: list[str]
    top_names: list[str]
    # Of each top, in the loss.
    loss_weights: list[float]
    # Whether backward runs here at all, and into which bottoms.
    needs_backward: bool = False
    bottom_needs: list[bool] = field(default_factory=list)
    # The bottoms' shapes that the layer was last shaped for.
    seen_shapes: tuple[tuple[int, ...], ...] = ()
    # Whether the next layer is a ReLU in place that this one can run together with itself.
    rectifies: bool = False
    # Names of the blobs that nobody reads after this layer, forward and backward.
    spent: list[str] = field(default_factory=list)
    spent_backward: list[str] = field(default_factory=list)


@dataclass
class NetParts:
    """All of a net, as its builder leaves it.

    Attributes
    ----------
    source : str
        Where its description comes from, a file as a rule; named in errors.
    nodes : list of Node
    blobs : collections.OrderedDict
        Name -> Blob, in the order they are made.
    loss_weights : collections.OrderedDict
        Blob name -> its weight in the loss.
    inputs : list of str
        Blobs of Input layers.
    outputs : list of str
        Blobs that nobody reads, in the order of their names.
    learnable : list of Blob
        Parameter blobs, shared ones once.
    lr_mults, decay_mults : list of float
        Of each learnable blob.
    """

    source: str
    nodes: list[Node] = field(default_factory=list)
    blobs: OrderedDict[str, Blob] = field(default_factory=OrderedDict)
    loss_weights: OrderedDict[str, float] = field(default_factory=OrderedDict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    learnable: list[Blob] = field(default_factory=list)
    lr_mults: list[float] = field(default_factory=list)
    decay_mults: list[float] = field(default_factory=list)

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by name."""
        return {node.name: node.layer for node in self.nodes}


class LayerVec(Vector[Layer]):
    """The layers of a net; one that is put in the place of another runs there."""

    kind = Layer

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        super().__init__(node.layer for node in nodes)

    def __getitem__(self, index: int | slice) -> Layer | list[Layer]:
        return self._items[index if isinstance(index, slice) else self._index(index)]

    def _replace(self, index: int, item: Layer) -> None:
        super()._replace(index, item)
        self._nodes[index].layer = item

    def _grow(self, items: list[Layer]) -> None:
        raise TypeError("a net cannot be given further layers: change the prototxt")

    def _cut(self, part: slice, items: list[Layer]) -> None:
        raise TypeError("a net's layers cannot be removed: change the prototxt")


def run_step(layer: Layer, step: str, *blobs: object) -> None:
    """Run a method of a layer; what PyTorch then complains of names the layer.

    What a layer in Python raises stays what it is.
    """
    try:
        getattr(layer, step)(*blobs)
    except CaffeError as error:
        # Blobs and fillers do not know whose they are.
        if error.layer is not None:
            raise
        raise layer.fail(str(error)) from error
    except Exception as error:
        full = isinstance(error, torch.cuda.OutOfMemoryError)
        told = isinstance(error, (RuntimeError, IndexError, ArithmeticError))
        if not full and (layer.type == "Python" or not told):
            note_layer(error, layer.name, layer.type, step)
            raise
        bottoms = blobs[2] if step == "backward" else blobs[0]
        shapes = ", ".join(str(blob.shape) for blob in bottoms)
        reason = memory_is_full(error) if full else str(error)
        raise layer.fail(f"{reason} (bottoms: {shapes or 'none'})") from error


def note_layer(error: Exception, layer: str, kind: str, step: str) -> None:
    """Note at an exception of a layer's own code where it was raised; its traceback ends with that.

    Class and message stay as they are, for programs that look at them. Python 3.10 does not print
    notes: there the note is in the log as well.
    """
    # That names the layer itself.
    if isinstance(error, CaffeError):
        return
    note = f"in {step} of layer '{layer}' ({kind})"
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]
        log_error(f"{type(error).__name__} {note}: {error}")
