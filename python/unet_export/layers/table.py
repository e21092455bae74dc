"""The table of layer types, which the families fill, and what they are given of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_export.graph import CannotSay, Graph, Value


@dataclass(frozen=True)
class Given:
    """What is known of a layer when it is written.

    Attributes
    ----------
    param : caffe_pb2.LayerParameter
    bottoms : list of str
        Values of the graph.
    shapes : list of tuple of int
        Of the bottoms, at the size at which the network was opened.
    blobs : list of ndarray
        Its parameters.
    cuts : bool
        Whether, at some size, its further bottoms are cut to the pixels of the first.
    """

    param: Any
    bottoms: list[Value]
    shapes: list[tuple[int, ...]]
    blobs: list[np.ndarray]
    cuts: bool = False

    @property
    def tops(self) -> list[str]:
        """The names of its tops."""
        return list(self.param.top)

    def axis(self, axis: int, bottom: int = 0) -> int:
        """Return an axis counted from the first."""
        return axis + len(self.shapes[bottom]) if axis < 0 else axis

    def fail(self, what: str) -> CannotSay:
        """Return the error that says why the layer has no words in ONNX."""
        return CannotSay(
            f"layer '{self.param.name}' ({self.param.type}): {what}, which ONNX cannot say; export "
            f"a network without it"
        )


Writer = Callable[[Graph, Given], Sequence[Value]]

#: Of each layer type what writes it; it returns the values of the tops.
WRITERS: dict[str, Writer] = {}


def writes(*kinds: str) -> Callable[[Writer], Writer]:
    """Enter a function into the table."""

    def enter(writer: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(kinds, writer))
        return writer

    return enter


def of_four_axes(graph: Graph, given: Given) -> Value:
    """Return the bottom with axes of 1 after its own where it has fewer than four.

    As some of genuine Caffe's layers give their tops.
    """
    missing = range(len(given.shapes[0]), 4)
    if not missing:
        return given.bottoms[0]
    return graph.node("Unsqueeze", [given.bottoms[0], graph.whole(missing)])
