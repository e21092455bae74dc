"""Caffe's text format, read and written; a mistake is told with file, line, column and remedy."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import CaffeError
from caffe.files import limits
from caffe.files.atomic import atomic_path, missing
from caffe.files.prototxt_mistakes import explain
from caffe.files.prototxt_places import (
    check_size,
    layer_around,
    place_of_layer,
    place_of_message,
    walk,
)
from caffe.files.upgrade import name_snapshots, upgrade_net_as_needed, upgrade_solver
from caffe.log import Log, log_warning_once
from caffe.proto import caffe_pb2

_log = Log("upgrade_proto.cpp")

M = TypeVar("M", bound=Message)

# Fields of PoolingParameter that caffe_unet repeats; here several values have the plural's field.
_BY_AXIS = ("kernel_size", "stride", "pad")
_PLURAL = re.compile(rf"^(\s*)({'|'.join(_BY_AXIS)})s: ", re.MULTILINE)
_PLACE = re.compile(r"\A\d+:\d+ : (?:'.*': )?", re.DOTALL)


def _parse(text: str, message: M, source: str) -> M:
    check_size(text, source)
    try:
        _merge(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = f"{source}:{line}:{column}" if line else source
        around = layer_around(text, line, column) if line else None
        what = explain(_PLACE.sub("", str(error)), message.DESCRIPTOR, text, around)
        if around is not None:
            what = f"{around}: {what}"
        raise CaffeError(f"{place}: {what}") from None
    # The last is protobuf's answer to an enumeration's value that UTF-8 cannot hold.
    except (ValueError, RecursionError, SystemError) as error:
        raise CaffeError(f"{source}: cannot be read as a prototxt: {error}") from None
    if missing := message.FindInitializationErrors():
        around = missing[0].split(".")[:-1]
        path = [(name, int(index or 0)) for name, index in map(_step, around)]
        place = place_of_message(text, path)
        raise CaffeError(
            f"{source}{place and ':'}{place}: {missing[0]} is missing, it has no default"
        )
    return message


def _merge(text: str, message: Message) -> None:
    """As `text_format.Parse`; what caffe_unet repeats, once a spatial axis, is taken as such."""
    try:
        text_format.Parse(text, message)
        return
    except text_format.ParseError:
        ends = _repeated_by_axis(text)
        if not ends:
            raise
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *ends, len(text)])]
    message.Clear()
    try:
        text_format.Parse("s".join(pieces), message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        if line:
            # Back to the place in the text as it is.
            start = sum(map(len, text.splitlines(keepends=True)[: line - 1]))
            added = [
                end - start + number for number, end in enumerate(e for e in ends if e > start)
            ]
            column -= sum(place < column for place in added)
        raise text_format.ParseError(_PLACE.sub("", str(error)), line, column) from None


def _repeated_by_axis(text: str) -> list[int]:
    """Return where the names end that PoolingParameter has in the plural, for one value an axis."""
    ends: dict[tuple[int, str], list[int]] = {}
    lists: set[tuple[int, str]] = set()
    key = None
    for opened, field, token in walk(text):
        sign = token.group()
        if opened[-1].field != "pooling_param":
            continue
        if sign in _BY_AXIS and not field:
            key = opened[-1].brace, sign
            ends.setdefault(key, []).append(token.end())
        elif sign == "[" and key is not None:
            lists.add(key)
    several = [places for key, places in ends.items() if len(places) > 1 or key in lists]
    return sorted(itertools.chain.from_iterable(several))


def _step(word: str) -> tuple[str, str]:
    name, _, index = word.rstrip("]").partition("[")
    return name, index


def _read(path: str | os.PathLike) -> str:
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            data = file.read(limits.TEXT_BYTES + 1)
    except FileNotFoundError:
        raise CaffeError(missing(source)) from None
    except IsADirectoryError:
        raise CaffeError(f"{source}: is a folder, not a prototxt") from None
    except OSError as error:
        raise CaffeError(f"{source[: limits.QUOTED]}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise CaffeError(f"{source!r}: is no name of a file") from None
    if b"\0" in data:
        raise CaffeError(
            f"{source}: is not a text file (byte {data.index(0)} is zero): nets and solvers are "
            "read from .prototxt files"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Comments of old prototxts may be in any encoding; this one never fails.
        return data.decode("latin-1")


def located(error: CaffeError, text: str, source: str) -> CaffeError:
    """Return an error about a net with the place of its layer in the net's text, of a file."""
    told = str(error).removeprefix(f"{source}: ")
    place = "" if error.layer is None else place_of_layer(text, error.layer)
    return CaffeError(f"{source}{place and ':'}{place}: {told}", error.layer)


def located_in_file(error: CaffeError, path: str | os.PathLike) -> CaffeError:
    """Return an error about a net that was read from a file with file and line; as `located`."""
    return located(error, _read(path), os.fspath(path))


def warn_beyond_bvlc(source: str, what: CaffeError) -> None:
    """Warn, once, that genuine Caffe refuses a net that this engine takes.

    `what` says what is not BVLC's, and whose it is; the line is named where `source` is a file.
    """
    if os.path.isfile(source):
        what = located_in_file(what, source)
    log_warning_once(f"{what}; genuine BVLC Caffe refuses this")


def read_text(path: str | os.PathLike, message: M) -> M:
    """Read a file in the text format into `message`, of whatever format it is; return `message`.

    Raises
    ------
    CaffeError
        If the text is not such a message; names the file, line and column.
    """
    return _parse(_read(path), message, os.fspath(path))


def parse_net(text: str, source: str = "<text>") -> caffe_pb2.NetParameter:
    """Read a net, `source` in errors, from text, upgraded to the current format.

    Raises
    ------
    CaffeError
        If the text is not a net; names `source`, line and column.
    """
    net = _parse(text, caffe_pb2.NetParameter(), source)
    if net.input and not net.input_shape and not net.input_dim:
        _log.warning(
            f"{source}: input '{net.input[0]}' has no shape and is left out, as in genuine Caffe: "
            "give input_shape { dim: ... }, or four input_dim"
        )
    try:
        upgrade_net_as_needed(net, source)
    except CaffeError as error:
        raise located(error, text, source) from None
    return net


def read_net(path: str | os.PathLike) -> caffe_pb2.NetParameter:
    """Read a net's prototxt; as `parse_net`."""
    return parse_net(_read(path), os.fspath(path))


def parse_solver(text: str, source: str = "<text>") -> caffe_pb2.SolverParameter:
    """Read a solver from text, upgraded to the current format; as `parse_net`."""
    solver = _parse(text, caffe_pb2.SolverParameter(), source)
    try:
        return upgrade_solver(solver, source)
    except CaffeError as error:
        raise located(error, text, source) from None


def read_solver(path: str | os.PathLike) -> caffe_pb2.SolverParameter:
    """Read a solver's prototxt, as `parse_solver`; snapshots have names, as `name_snapshots`."""
    source = os.fspath(path)
    param = parse_solver(_read(path), source)
    name_snapshots(param, source)
    return param


def write_text(message: Message, path: str | os.PathLike) -> None:
    """Write a message in the text format; whole or not at all."""
    with atomic_path(path) as temporary:
        text = _PLURAL.sub(r"\1\2: ", text_format.MessageToString(message))
        temporary.write_text(text, encoding="utf-8")


def to_text(message: Message) -> str:
    """Return a message in the text format, with numbers as genuine Caffe's log has them."""
    return _PLURAL.sub(r"\1\2: ", "".join(f"{line}\n" for line in _lines(message)))


def _lines(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        single = isinstance(value, (Message, str, bytes, int, float))
        for item in [value] if single else value:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield f"{field.name} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
            else:
                yield f"{field.name}: {_scalar(field, item)}"


def _scalar(field: FieldDescriptor, value: float | str | bytes) -> str:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return f'"{text_encoding.CEscape(value, as_utf8=False)}"'
    if field.type == FieldDescriptor.TYPE_BOOL:
        return str(value).lower()
    if field.type == FieldDescriptor.TYPE_FLOAT:
        short = f"{value:.6g}"
        return short if np.float32(short) == np.float32(value) else f"{value:.9g}"
    return str(value)
