"""Read and write Caffe's text format; errors name file, line and column."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from caffe.upgrade import upgrade_net, upgrade_solver

M = TypeVar("M", bound=Message)

# No prototxt of a real network comes near these; hostile ones are refused before they cost anything.
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 100

_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')


def _near_fields(message: str) -> str:
    found = _NO_FIELD.search(message)
    if not found:
        return ""
    descriptor = caffe_pb2.DESCRIPTOR.message_types_by_name.get(found.group(1).split(".")[-1])
    if descriptor is None:
        return ""
    near = difflib.get_close_matches(found.group(2), descriptor.fields_by_name, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _parse(text: str, message: M, source: str) -> M:
    depth = deepest = 0
    for character in re.sub(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*', "", text):
        if character in "{<":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}>":
            depth -= 1
    if deepest > MAX_DEPTH:
        raise CaffeError(f"{source}: messages are nested {deepest} deep, {MAX_DEPTH} is the limit")
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        found = re.match(r"(?:(\d+):(\d+) : )?(?:'(.*)': )?(.*)", str(error), re.DOTALL)
        line, column = error.GetLine(), error.GetColumn()
        place = f"{source}:{line}:{column}" if line else source
        what = found.group(4).strip() if found else str(error)
        raise CaffeError(f"{place}: {what}{_near_fields(str(error))}") from None
    except (ValueError, RecursionError) as error:
        raise CaffeError(f"{source}: cannot be read as a prototxt: {error}") from None
    return message


def _read(path: str | os.PathLike) -> str:
    source = os.fspath(path)
    try:
        size = os.stat(source).st_size
        if size > MAX_BYTES:
            raise CaffeError(f"{source}: {size} bytes are too many for a prototxt")
        return Path(source).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise CaffeError(f"{source}: no such prototxt") from None
    except IsADirectoryError:
        raise CaffeError(f"{source}: is a folder, not a prototxt") from None
    except UnicodeDecodeError as error:
        raise CaffeError(f"{source}: is not a text file (byte {error.start})") from None


def parse_net(text: str, source: str = "<text>") -> caffe_pb2.NetParameter:
    """Read a net from text, upgraded to the current format.

    Raises
    ------
    CaffeError
        Names `source`, line and column.
    """
    return upgrade_net(_parse(text, caffe_pb2.NetParameter(), source), source)


def read_net(path: str | os.PathLike) -> caffe_pb2.NetParameter:
    """Read a net's prototxt; as `parse_net`."""
    return parse_net(_read(path), os.fspath(path))


def parse_solver(text: str, source: str = "<text>") -> caffe_pb2.SolverParameter:
    """Read a solver from text, upgraded to the current format.

    Raises
    ------
    CaffeError
        Names `source`, line and column.
    """
    return upgrade_solver(_parse(text, caffe_pb2.SolverParameter(), source), source)


def read_solver(path: str | os.PathLike) -> caffe_pb2.SolverParameter:
    """Read a solver's prototxt; as `parse_solver`."""
    return parse_solver(_read(path), os.fspath(path))


def write_text(message: Message, path: str | os.PathLike) -> None:
    """Write a message in the text format."""
    Path(path).write_text(text_format.MessageToString(message), encoding="utf-8")
