"""Read and write Caffe's text format; errors name file, line and column."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from caffe import glog
from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.proto import caffe_pb2
from caffe.upgrade import upgrade_net, upgrade_solver

_log = glog.Log("upgrade_proto.cpp")

M = TypeVar("M", bound=Message)

# No prototxt of a real network comes near these; others are refused before they cost anything.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 100

_BRACES = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*|[{}<>]')
_PLACE = re.compile(r"\A\d+:\d+ : (?:'.*': )?", re.DOTALL)
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')
_TWICE = re.compile(r'Message type "([\w.]+)" should not have multiple "([^"]+)" fields')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) (\w+)')

_KINDS = {caffe_pb2.NetParameter.DESCRIPTOR: "net", caffe_pb2.SolverParameter.DESCRIPTOR: "solver"}


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _explain(message: str, root: Descriptor, text: str) -> str:
    """Return what is wrong in the words of a prototxt's writer, from protobuf's `message`."""
    pool = caffe_pb2.DESCRIPTOR.pool
    if found := _NO_FIELD.search(message):
        owner, field = pool.FindMessageTypeByName(found.group(1)), found.group(2)
        if owner is root:
            for other, kind in _KINDS.items():
                if other is not root and field in other.fields_by_name:
                    return f"'{field}' is a field of a {kind}, not of a {_KINDS[root]}"
        return f"{owner.name} has no field '{field}'{_near(field, list(owner.fields_by_name))}"
    if found := _TWICE.search(message):
        return f"'{found.group(2)}' is given twice"
    if found := _NO_VALUE.search(message):
        enum = pool.FindEnumTypeByName(found.group(1))
        return f"{enum.name} is one of {', '.join(enum.values_by_name)}, not {found.group(2)}"
    if message.startswith('Expected "}"') and (opened := _unclosed(text)):
        return f'expected "}}": the brace opened at {opened} is never closed'
    if message.startswith("Expected identifier") and message.rstrip(".").endswith("got }"):
        return 'a "}" closes nothing'
    told = message[:1].lower() + message[1:200].rstrip(".")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)


def _unclosed(text: str) -> str:
    """Return line:column of the innermost brace that is not closed, or nothing."""
    opened: list[int] = []
    for token in _BRACES.finditer(text):
        if token.group() in "{<":
            opened.append(token.start())
        elif token.group() in "}>" and opened:
            opened.pop()
    if not opened:
        return ""
    before = text[: opened[-1]]
    return f"{before.count(chr(10)) + 1}:{opened[-1] - before.rfind(chr(10))}"


def _check_depth(text: str, source: str) -> None:
    depth = 0
    for token in _BRACES.finditer(text):
        if token.group() in "{<":
            depth += 1
            if depth > MAX_DEPTH:
                line = text.count("\n", 0, token.start()) + 1
                raise CaffeError(f"{source}:{line}: messages are nested more than {MAX_DEPTH} deep")
        elif token.group() in "}>":
            depth -= 1


def _parse(text: str, message: M, source: str) -> M:
    if len(text) > MAX_BYTES:
        raise CaffeError(f"{source}: is too large for a prototxt, {MAX_BYTES} bytes are the limit")
    _check_depth(text, source)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = f"{source}:{line}:{column}" if line else source
        what = _explain(_PLACE.sub("", str(error)), message.DESCRIPTOR, text)
        raise CaffeError(f"{place}: {what}") from None
    except (ValueError, RecursionError) as error:
        raise CaffeError(f"{source}: cannot be read as a prototxt: {error}") from None
    if missing := message.FindInitializationErrors():
        raise CaffeError(f"{source}: {missing[0]} is missing, it has no default")
    return message


def _read(path: str | os.PathLike) -> str:
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise CaffeError(f"{source}: no such file") from None
    except IsADirectoryError:
        raise CaffeError(f"{source}: is a folder, not a prototxt") from None
    if b"\0" in data:
        raise CaffeError(f"{source}: is not a text file (byte {data.index(0)} is zero)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Comments of old prototxts may be in any encoding; this one never fails.
        return data.decode("latin-1")


def read_text(path: str | os.PathLike, message: M) -> M:
    """Read a file in the text format into `message`, of whatever format it is; return `message`.

    Raises
    ------
    CaffeError
        If the text is no such message; names the file, line and column.
    """
    return _parse(_read(path), message, os.fspath(path))


def parse_net(text: str, source: str = "<text>") -> caffe_pb2.NetParameter:
    """Read a net from text, upgraded to the current format.

    Parameters
    ----------
    text : str
        A net in Caffe's text format.
    source : str
        What errors call the text.

    Returns
    -------
    caffe_pb2.NetParameter

    Raises
    ------
    CaffeError
        If the text is no net; names `source`, line and column.
    """
    return upgrade_net(_parse(text, caffe_pb2.NetParameter(), source), source)


def read_net(path: str | os.PathLike) -> caffe_pb2.NetParameter:
    """Read a net's prototxt; as `parse_net`."""
    return parse_net(_read(path), os.fspath(path))


def parse_solver(text: str, source: str = "<text>") -> caffe_pb2.SolverParameter:
    """Read a solver from text, upgraded to the current format.

    Parameters
    ----------
    text : str
        A solver in Caffe's text format.
    source : str
        What errors call the text.

    Returns
    -------
    caffe_pb2.SolverParameter

    Raises
    ------
    CaffeError
        If the text is no solver; names `source`, line and column.
    """
    return upgrade_solver(_parse(text, caffe_pb2.SolverParameter(), source), source)


def read_solver(path: str | os.PathLike) -> caffe_pb2.SolverParameter:
    """Read a solver's prototxt; as `parse_solver`.

    Its snapshot_prefix is the file's path without its suffix if it has none, and the file's name in
    it if it is a folder.
    """
    source = os.fspath(path)
    param = parse_solver(_read(path), source)
    if not param.snapshot_prefix:
        param.snapshot_prefix = os.path.splitext(source)[0]
        _log.info(f"snapshot_prefix was not specified and is set to {param.snapshot_prefix}")
    elif os.path.isdir(param.snapshot_prefix):
        stem = os.path.splitext(os.path.basename(source))[0]
        param.snapshot_prefix = os.path.join(param.snapshot_prefix, stem)
        _log.info(f"snapshot_prefix was a directory and is replaced to {param.snapshot_prefix}")
    return param


def write_text(message: Message, path: str | os.PathLike) -> None:
    """Write a message in the text format; whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text_format.MessageToString(message), encoding="utf-8")


def to_text(message: Message) -> str:
    """Return a message in the text format, with numbers as genuine Caffe's log has them."""
    return "".join(f"{line}\n" for line in _lines(message))


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
