"""A graph of ONNX while it is written: values, nodes, constants, sizes known when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from unet.errors import InputError

#: Operators are those of this version; ONNX Runtime has them since 1.12.
OPSET = 17
# An end of Slice beyond every axis.
_END = 2**31 - 1

Value = str


class CannotSay(InputError):
    """A layer that ONNX has no words for; the sentence names it."""


class Graph:
    """Nodes of ONNX, one after the other; a value is the name of what a node gives.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
    constants : list of onnx.TensorProto
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: set[str] = set()
        self._known: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        #: What names begin with: the layer that is being written.
        self.scope = ""

    def name(self, wanted: str) -> Value:
        """Return a name that nothing has yet, `wanted` if it is free."""
        found, number = wanted, 1
        while found in self._names:
            number += 1
            found = f"{wanted}_{number}"
        self._names.add(found)
        return found

    def rename(self, old: Value, new: Value) -> None:
        """Give a value the name of an output of the network, which nothing else keeps."""
        inverse = {old: new, new: self.name(f"{new}/before")}
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [inverse.get(name, name) for name in names]
        self._names.add(new)

    def node(
        self, kind: str, inputs: Sequence[Value], top: str | None = None, **attributes: Any
    ) -> Value:
        """Add a node with one output and return that; `top` is what it is to be named."""
        return self.several(kind, inputs, 1, top, **attributes)[0]

    def several(
        self,
        kind: str,
        inputs: Sequence[Value],
        number: int,
        top: str | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """Add a node with several outputs and return these."""
        outputs = [self.name(top or f"{self.scope}/{kind}") for _ in range(number)]
        name = f"{self.scope}/{kind}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs

    def constant(self, values: Any, what: str = "constant") -> Value:
        """Return a constant, float32 unless `values` are of whole numbers: int64."""
        array = np.asarray(values)
        array = np.ascontiguousarray(array, np.int64 if array.dtype.kind in "iu" else np.float32)
        array = array.reshape(np.shape(values))
        key = array.dtype.str, array.shape, array.tobytes() if array.size < 64 else b""
        if array.size < 64 and key in self._known:
            return self._known[key]
        value = self.name(f"{self.scope}/{what}")
        self.constants.append(numpy_helper.from_array(array, value))
        if array.size < 64:
            self._known[key] = value
        return value

    def sizes(self, value: Value, first: int = 0, stop: int | None = None) -> Value:
        """Return the sizes of axes, as int64, known when the graph runs."""
        more = {} if stop is None else {"end": stop}
        return self.node("Shape", [value], start=first, **more)

    def whole(self, numbers: Sequence[int]) -> Value:
        """Return whole numbers as a constant of one axis."""
        return self.constant(np.array(numbers, np.int64), "sizes")

    def slice(
        self,
        value: Value,
        starts: Value | Sequence[int],
        stops: Value | Sequence[int | None],
        axes: Sequence[int],
        top: str | None = None,
        steps: Sequence[int] | None = None,
    ) -> Value:
        """Cut a value along axes; None: to the end."""
        if not isinstance(starts, str):
            starts = self.whole(starts)
        if not isinstance(stops, str):
            stops = self.whole([_END if stop is None else stop for stop in stops])
        inputs = [value, starts, stops, self.whole(axes)]
        return self.node("Slice", inputs + ([self.whole(steps)] if steps else []), top)

    def reshape(
        self, value: Value, parts: Sequence[Value | Sequence[int]], top: str | None = None
    ) -> Value:
        """Give a value another shape: parts are whole numbers, or sizes known when it runs."""
        known = [part if isinstance(part, str) else self.whole(part) for part in parts if len(part)]
        shape = known[0] if len(known) == 1 else self.node("Concat", known, axis=0)
        # A 0 is a size of 0, and copies nothing.
        return self.node("Reshape", [value, shape], top, allowzero=0)

    def times(self, value: Value, factor: float, top: str | None = None) -> Value:
        """Multiply by a number; 1 adds no node, unless the result is to have a name."""
        if factor == 1 and top is None:
            return value
        return self.node("Mul", [value, self.constant(np.float32(factor))], top)

    def plus(self, value: Value, number: float, top: str | None = None) -> Value:
        """Add a number; 0 adds no node, unless the result is to have a name."""
        if number == 0 and top is None:
            return value
        return self.node("Add", [value, self.constant(np.float32(number))], top)
