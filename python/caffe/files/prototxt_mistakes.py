"""What is wrong with a prototxt, in words that say what to write in its place."""

from __future__ import annotations

import re

from google.protobuf.descriptor import Descriptor, EnumDescriptor

from caffe.errors import did_you_mean
from caffe.files import forks, limits
from caffe.files.prototxt_places import LayerText, unclosed
from caffe.layer_types import written_like
from caffe.proto import caffe_pb2

_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')
_TWICE = re.compile(r'Message type "([\w.]+)" should not have multiple "([^"]+)" fields')
_NO_VALUE = re.compile(
    r'Enum type "([\w.]+)" has no value (?:named|with number) (\w+|"[^"]*")', re.DOTALL
)
_NO_TEXT = re.compile(r"Expected string but found: '(.*)'", re.DOTALL)

_KINDS = {caffe_pb2.NetParameter.DESCRIPTOR: "net", caffe_pb2.SolverParameter.DESCRIPTOR: "solver"}
_LAYER = caffe_pb2.LayerParameter.DESCRIPTOR
_V1_LAYER = caffe_pb2.V1LayerParameter.DESCRIPTOR
_V1_TYPE = caffe_pb2.V1LayerParameter.LayerType.DESCRIPTOR
# Fields of the old blocks, `layers`, and what stands for them in the current ones.
_OLD = {
    "blobs_lr": "param { lr_mult: ... } for each parameter",
    "weight_decay": "param { decay_mult: ... } for each parameter",
    "blob_share_mode": "param { share_mode: ... } for each parameter",
}


def explain(message: str, root: Descriptor, text: str, around: LayerText | None) -> str:
    """Return what is wrong, without its place.

    `message` is what protobuf says, without its place, `root` of the message that the text is to
    be, `around` the layer that the mistake is in.
    """
    pool = caffe_pb2.DESCRIPTOR.pool
    if found := _NO_FIELD.search(message):
        return _field(pool.FindMessageTypeByName(found[1]), found[2][: limits.QUOTED], root, around)
    if found := _TWICE.search(message):
        return f"'{found[2]}' is given twice"
    if found := _NO_VALUE.search(message):
        return _value(pool.FindEnumTypeByName(found[1]), found[2][: limits.QUOTED])
    if found := _NO_TEXT.match(message):
        return _unquoted(found[1][: limits.QUOTED], around)
    if message.startswith('Expected "}"') and (opened := unclosed(text)):
        return f'expected "}}": the brace opened at {opened} is never closed'
    if message.startswith("Expected identifier") and message.rstrip(".").endswith("got }"):
        return 'a "}" closes nothing'
    if message.startswith("Expected identifier") and message.rstrip(".").endswith("got /"):
        return "a comment begins with #, not with /"
    told = message[:1].lower() + message[1 : limits.QUOTED].rstrip(".")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)


def _field(owner: Descriptor, field: str, root: Descriptor, around: LayerText | None) -> str:
    """Return what is wrong with a field that its message does not have."""
    kind = "" if around is None else around.kind
    if owner is root:
        for other, named in _KINDS.items():
            if other is not root and field in other.fields_by_name:
                return f"'{field}' is a field of a {named}, not of a {_KINDS[root]}"
    if field[0].isdigit() or field[0] == "-":
        return f"{field} is not a field's name: several values stand in brackets, as in [1, 3, 8]"
    if about := forks.about_field(owner.name, field, kind):
        return f"'{field}' {about}"
    if owner is _V1_LAYER and field in _LAYER.fields_by_name:
        return (
            f"'{field}' is not a field of an old 'layers' block: write layer {{ ... }}, with the "
            'type in quotes, as in type: "Convolution", in all of the file'
        )
    if owner is _LAYER:
        if field in _OLD:
            return (
                f"'{field}' is a field of the old 'layers' blocks: in a 'layer' block write "
                f"{_OLD[field]}"
            )
        if about := forks.about_type(kind):
            return f"LayerParameter has no field '{field}'; the layer's type {about}"
        if place := _inner_place(field, kind):
            return f"'{field}' stands in {place} {{ ... }}, not in the layer itself"
    return f"{owner.name} has no field '{field}'{did_you_mean(field, owner.fields_by_name)}"


def _inner_place(field: str, kind: str) -> str:
    """Return the message in a layer of a type that has a field."""
    for name, inner in _LAYER.fields_by_name.items():
        if name.endswith("_param") and inner.message_type is not None:
            of_type = name.replace("_", "") == f"{kind.lower()}param"
            if of_type and field in inner.message_type.fields_by_name:
                return name
    if field in caffe_pb2.ParamSpec.DESCRIPTOR.fields_by_name:
        return "param"
    return ""


def _value(enum: EnumDescriptor, given: str) -> str:
    """Return what is wrong with a value that is not one of an enumeration."""
    names, plain = enum.values_by_name, given.strip('"')
    if enum is _V1_TYPE:
        return _v1_type(given, plain)
    if plain != given and plain in names:
        return f"{plain} stands without quotes"
    alike = [name for name in names if name.lower() == plain.lower()] or ""
    hint = alike and f"; did you mean {alike[0]}?"
    return f"{given} is not a {enum.name}: there are {', '.join(names)}{hint}"


def _v1_type(given: str, plain: str) -> str:
    """Return what is wrong with the type of an old block, `layers`."""
    if about := forks.about_type(plain):
        return f"type {given} {about}"
    if given != plain:
        return (
            "the old 'layers' blocks take types without quotes, such as CONVOLUTION: write "
            f"layer {{ type: {given} ... }}, and all other blocks alike"
        )
    names = [name for name in _V1_TYPE.values_by_name if name != "NONE"]
    current = written_like(plain)
    if current:
        return (
            f"type {given} is not one of the old 'layers' blocks: write "
            f'layer {{ type: "{current[0]}" ... }}, and all other blocks alike'
        )
    hint = did_you_mean(plain, names) or f": the old 'layers' blocks have {', '.join(names)}"
    return f"unknown layer type {given}{hint}"


def _unquoted(given: str, around: LayerText | None) -> str:
    """Return what is wrong with a text that has no quotes around it."""
    if around is not None and around.block == "layer" and given == around.kind:
        kinds = written_like(given) or [given]
        return f'expected a type in quotes: write type: "{kinds[0]}"'
    if given[:1] in "“”„‟‘’«»":
        return f'{given[:1]} is not a quotation mark of this format: write "'
    told = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in given)
    return f"expected text in quotes, found {told}"
