"""Write networks in Python: `L.Convolution(bottom, num_output=64)`, collected by a NetSpec."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import NotAKeyError, NotAnAttributeError, did_you_mean
from caffe.proto import caffe_pb2

# What a field of a type takes, and what genuine Caffe's protobuf calls that.
_WHOLE = ((int, np.integer), "int, long")
_FLOAT = ((int, float, np.number), "int, long, float")
_EXPECTED = {
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32),
        _WHOLE,
    ),
    FieldDescriptor.TYPE_BOOL: _WHOLE,
    FieldDescriptor.TYPE_FLOAT: _FLOAT,
    FieldDescriptor.TYPE_STRING: ((str, bytes), "bytes, unicode"),
}


def param_name_dict() -> dict[str, str]:
    """Return layer type name -> its field in LayerParameter without `_param`; e.g. Convolution."""
    layer = caffe_pb2.LayerParameter
    # Those of other Caffes have numbers beyond.
    own = [field for field in layer.DESCRIPTOR.fields if field.number < 1000]
    fields = [field.name for field in own if field.name.endswith("_param")]
    types = [type(getattr(layer(), name)).__name__ for name in fields]
    return {kind[: -len("Parameter")]: name[: -len("_param")] for kind, name in zip(types, fields)}


def to_proto(*tops: Top) -> caffe_pb2.NetParameter:
    """Return the net that makes `tops`, with generated names."""
    layers: OrderedDict[Function, caffe_pb2.LayerParameter] = OrderedDict()
    counts: Counter[str] = Counter()
    for top in tops:
        top.fn._to_proto(layers, {}, counts)
    net = caffe_pb2.NetParameter()
    net.layer.extend(layers.values())
    return net


def assign_proto(proto: Message, name: str, value: Any) -> None:
    """Set field `name` of a message from plain Python values.

    A list fills a repeated field (of messages: a list of dictionaries), a dictionary a message; a
    single value may stand for a repeated field of one.

    Raises
    ------
    AttributeError
        If the message has no such field.
    TypeError, ValueError
        If the field cannot hold the value.
    """
    owner = proto.DESCRIPTOR
    field = owner.fields_by_name.get(name)
    if field is None:
        near = did_you_mean(name, owner.fields_by_name)
        raise NotAnAttributeError(f"{name} is not a field of {owner.name}{near}")
    target = getattr(proto, name)
    if hasattr(target, "extend") and not isinstance(value, (list, tuple)):
        value = [value]
    try:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                assign_proto(target, key, inner)
        elif not isinstance(value, (list, tuple)):
            setattr(proto, name, value)
        elif value and isinstance(value[0], Mapping):
            for item in value:
                entry = target.add()
                for key, inner in item.items():
                    assign_proto(entry, key, inner)
        else:
            target.extend(value)
    except (TypeError, ValueError) as error:
        raise _worded(error, field, value) from None


def _worded(error: Exception, field: FieldDescriptor, value: Any) -> Exception:
    """Return what protobuf says of a value in the words of genuine Caffe's protobuf."""
    where = f"{field.containing_type.name}.{field.name}"
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if field.enum_type is not None:
            values = field.enum_type.values_by_name
            if isinstance(item, int) and item not in field.enum_type.values_by_number:
                return ValueError(f"Unknown enum value: {item}; {where} is {_one_of(values)}")
            if isinstance(item, str) and item not in values:
                return TypeError(
                    f"{item!r} has type str, but expected one of: int, long; {where} is "
                    f"{_one_of(values)}"
                )
        elif field.type in _EXPECTED and not isinstance(item, _EXPECTED[field.type][0]):
            kinds = _EXPECTED[field.type][1]
            return TypeError(
                f"{item!r} has type {type(item).__name__}, but expected one of: {kinds} ({where})"
            )
    return type(error)(f"{error} ({where})")


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def _several(value: object) -> str:
    return ": unpack the tops of a layer of several" if isinstance(value, (list, tuple)) else ""


class _NoTopError(NotAKeyError, AttributeError):
    """A top that a net does not have; an AttributeError too, so that hasattr can be asked."""


class Top:
    """One output of a layer, to be named by a NetSpec or read by another layer."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """Return the net that makes this top."""
        return to_proto(self)

    def _update(self, params: Mapping) -> None:
        self.fn._update(params)

    def _to_proto(self, layers, names, autonames):
        return self.fn._to_proto(layers, names, autonames)


class Function:
    """A layer to be: its type, what it reads, its parameters."""

    def __init__(self, type_name: str, inputs: Sequence[Top], params: dict) -> None:
        self.type_name = type_name
        for place, value in enumerate(inputs):
            if not isinstance(value, Top):
                raise TypeError(
                    f"{type_name} input {place} is not a Top (type is {type(value)})"
                    f"{_several(value)}"
                )
        self.inputs = tuple(inputs)
        self.params = params
        self.ntop = self.params.pop("ntop", 1)
        self.in_place = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _name(self, names: Mapping[Top, str], autonames: Counter[str]) -> str:
        if self not in names and self.ntop > 0:
            names[self] = self._top_name(self.tops[0], names, autonames)
        elif self not in names:
            autonames[self.type_name] += 1
            names[self] = self.type_name + str(autonames[self.type_name])
        return names[self]

    def _top_name(self, top: Top, names, autonames: Counter[str]) -> str:
        if top not in names:
            autonames[self.type_name] += 1
            names[top] = self.type_name + str(autonames[self.type_name])
        return names[top]

    def _update(self, params: Mapping) -> None:
        self.params.update(params)

    def _to_proto(self, layers, names, autonames) -> None:
        if self in layers:
            return
        bottoms = []
        for top in self.inputs:
            top.fn._to_proto(layers, names, autonames)
            bottoms.append(layers[top.fn].top[top.n])
        layer = caffe_pb2.LayerParameter()
        layer.type = self.type_name
        layer.bottom.extend(bottoms)
        if self.in_place:
            layer.top.extend(layer.bottom)
        else:
            for top in self.tops:
                layer.top.append(self._top_name(top, names, autonames))
        layer.name = self._name(names, autonames)
        for key, value in self.params.items():
            if key.endswith("param"):
                assign_proto(layer, key, value)
                continue
            own = _PARAM_NAMES.get(self.type_name)
            inner = getattr(layer, f"{own}_param") if own else None
            if inner is not None and key in inner.DESCRIPTOR.fields_by_name:
                assign_proto(inner, key, value)
            else:
                if key not in layer.DESCRIPTOR.fields_by_name:
                    names = [*layer.DESCRIPTOR.fields_by_name]
                    names += inner.DESCRIPTOR.fields_by_name if inner is not None else []
                    told = f"{key} is not a parameter of a {self.type_name} layer"
                    raise NotAnAttributeError(told + did_you_mean(key, names))
                assign_proto(layer, key, value)
        layers[self] = layer


class NetSpec:
    """A net under construction; its attributes are named tops.

    Examples
    --------
    >>> from caffe import NetSpec, layers as L
    >>> n = NetSpec()
    >>> n.data = L.Input(shape=dict(dim=[1, 1, 8, 8]))
    >>> n.score = L.Convolution(n.data, num_output=2, kernel_size=1)
    >>> [layer.name for layer in n.to_proto().layer]
    ['data', 'score']
    """

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self[name] = value

    def __getattr__(self, name: str) -> Top:
        return self[name]

    def __setitem__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Top:
        if name not in self.tops:
            raise _NoTopError(
                f"{name!r}: the net has no top of this name{did_you_mean(name, self.tops)}"
            )
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[self[name] and name]

    def __delattr__(self, name: str) -> None:
        del self[name]

    def update(self, name: str, params: Mapping) -> None:
        """Change parameters of the layer that makes top `name`."""
        self[name]._update(params)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """Return the net; layers are named after their first named top."""
        names = {top: name for name, top in self.tops.items()}
        autonames: Counter[str] = Counter()
        layers: OrderedDict[Function, caffe_pb2.LayerParameter] = OrderedDict()
        for name, top in self.tops.items():
            if not isinstance(top, (Top, Function)):
                raise AttributeError(
                    f"{type(top).__name__!r} object has no attribute '_to_proto': top {name!r} of "
                    f"the net is not a layer's top{_several(top)}"
                )
            top._to_proto(layers, names, autonames)
        net = caffe_pb2.NetParameter()
        net.layer.extend(layers.values())
        return net


class Layers:
    """`L.Type(*tops, **parameters)` makes a layer of any type: its top, or a tuple of them."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*args, **kwargs):
            fn = Function(name, args, kwargs)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        return layer


class Parameters:
    """`P.Pooling.MAX` is the number of an enum value of PoolingParameter."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        class Param:
            def __getattr__(self, value: str):
                return getattr(getattr(caffe_pb2, f"{name}Parameter"), value)

        return Param()


_PARAM_NAMES = param_name_dict()
layers = Layers()
params = Parameters()
