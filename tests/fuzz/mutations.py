"""Damage to valid files that a reader must survive: of their structure, of their text, of bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.files import wire
from caffe.layers import LAYERS

INTEGERS = (0, 1, -1, 2, 3, 7, 33, 255, 4096, 10**6, 10**9)
INTEGERS += tuple(2**power + step for power in (16, 31, 32, 40, 62, 63, 64) for step in (-1, 0))
INTEGERS += tuple(-(2**power) for power in (31, 63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, 1e308, float("nan"), float("inf"), float("-inf"))
STRINGS = ("", "a", "data", "label", "conv", "p" * 300, "ü", "\0", "\n", "'", "a/b", "..", "%s{0}")
# Anything that a prototxt can name a Python module is run: that is what such layers are for.
TYPES = tuple(kind for kind in sorted(LAYERS) if kind != "Python")

_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|[-+\w.]+|[^\S\n]+|\n|.', re.DOTALL)
_LITERALS = (
    *map(str, INTEGERS),
    *("nan", "inf", "-inf", "1e999", "-1e-999", "0x7fffffff", "0777", "1.5f", "9" * 5000),
    *('"', "'", '"\\', '"\\xff"', '"\\400"', '"\\u12"', "true", "MAX", "é", "\0", "\ufeff", "\r"),
    *("{", "}", "<", ">", "[", "]", ":", ",", ";", "#", "layer {", "layers {", "[a.b.C] {"),
)


def _messages(message: Message) -> list[Message]:
    found = [message]
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                found += _messages(inner)
    return found


def _value(rng: random.Random, field: FieldDescriptor) -> object:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice((*FLOATS, *map(float, INTEGERS)))
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TYPES if field.name == "type" and rng.random() < 0.9 else STRINGS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.randrange(9))
    low, high = _RANGES[field.type]
    return rng.choice([number for number in INTEGERS if low <= number <= high])


def change_message(rng: random.Random, message: Message) -> None:
    """Change one field of a message, or of one in it, in place: to a value of its type."""
    target = rng.choice(_messages(message))
    present = [field for field, _ in target.ListFields()]
    every = target.DESCRIPTOR.fields
    field = rng.choice(present if present and rng.random() < 0.7 else every)
    if rng.random() < 0.15:
        target.ClearField(field.name)
        return
    values = getattr(target, field.name)
    if isinstance(values, Message):
        values.SetInParent()
    elif hasattr(values, "add"):
        copy = values.add()
        if len(values) > 1:
            copy.CopyFrom(rng.choice(values[:-1]))
    elif not hasattr(values, "MergeFrom"):
        setattr(target, field.name, _value(rng, field))
    elif values and rng.random() < 0.6:
        values[rng.randrange(len(values))] = _value(rng, field)
    else:
        values.extend([_value(rng, field)] * rng.choice((1, 1, 2, 5, 40)))


def change_text(rng: random.Random, text: str, words: Sequence[str]) -> str:
    """Return a prototxt with tokens lost, doubled, in another place or of another kind."""
    tokens = _TOKEN.findall(text) or [""]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(tokens))
        end = min(len(tokens), place + rng.choice((1, 1, 2, 5, 30)))
        kind = rng.randrange(6)
        if kind == 0:
            tokens[place:end] = [""]
        elif kind == 1:
            tokens[place:place] = tokens[place:end] * rng.choice((1, 2, 50))
        elif kind == 2:
            tokens[place] = rng.choice(_LITERALS)
        elif kind == 3:
            tokens[place] = rng.choice(words)
        elif kind == 4:
            tokens.insert(place, f" {rng.choice(words)}: {rng.choice(_LITERALS)} ")
        else:
            other = rng.randrange(len(tokens))
            tokens[place], tokens[other] = tokens[other], tokens[place]
    return "".join(tokens)


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes that are cut, changed, lost, doubled or inserted somewhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(changed) + 1)
        end = place + rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0:
            changed[place:] = b""
        elif kind == 1:
            changed[place:end] = b""
        elif kind == 2:
            changed[place:place] = changed[place:end] * rng.choice((1, 2, 50))
        elif kind == 3:
            changed[place : place + 1] = rng.randbytes(1)
        elif kind == 4:
            changed[place:end] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (end - place)
        elif kind == 5:
            number = wire.varint(rng.choice(INTEGERS) % 2**64)
            changed[place : place + rng.choice((0, 1, len(number)))] = number
        else:
            changed[place:place] = unknown_field(rng)
    return bytes(changed)


def unknown_field(rng: random.Random) -> bytes:
    """Return a field that no message of Caffe has, or that is of another type there."""
    number = rng.choice((1, 2, 5, 7, 8, 100, 999, 2**29 - 1))
    kind = rng.choice((0, 1, 2, 3, 4, 5, 6, 7))
    body = wire.varint(rng.choice(INTEGERS) % 2**64) if kind in (0, 2) else rng.randbytes(8)
    return wire.varint(number << 3 | kind) + body


def words_of(message: Message) -> list[str]:
    """Return the names of all fields and enum values that can stand in a message's text."""
    found: dict[str, None] = {}
    seen = set()

    def visit(descriptor) -> None:
        if descriptor.full_name in seen:
            return
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            found[field.name] = None
            if field.enum_type is not None:
                found.update(dict.fromkeys(field.enum_type.values_by_name))
            if field.message_type is not None:
                visit(field.message_type)

    visit(message.DESCRIPTOR)
    return list(found)
