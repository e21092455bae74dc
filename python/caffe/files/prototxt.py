"""Caffe's text format, read and written; a mistake is told with file, line, column and remedy."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import CaffeError, did_you_mean
from caffe.files import forks, limits
from caffe.files.atomic import atomic_path, missing
from caffe.files.upgrade import upgrade_net_as_needed, upgrade_solver
from caffe.layer_types import written_like
from caffe.log import Log, log_warning_once
from caffe.proto import caffe_pb2

_log = Log("upgrade_proto.cpp")

M = TypeVar("M", bound=Message)

# Fields of PoolingParameter that caffe_unet repeats; here several values have the plural's field.
_BY_AXIS = ("kernel_size", "stride", "pad")
_PLURAL = re.compile(rf"^(\s*)({'|'.join(_BY_AXIS)})s: ", re.MULTILINE)
_PLACE = re.compile(r"\A\d+:\d+ : (?:'.*': )?", re.DOTALL)


def _parse(text: str, message: M, source: str) -> M:
    _check_size(text, source)
    try:
        _merge(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = f"{source}:{line}:{column}" if line else source
        around = _layer_around(text, line, column) if line else None
        what = _explain(_PLACE.sub("", str(error)), message.DESCRIPTOR, text, around)
        if around is not None:
            what = f"{around}: {what}"
        raise CaffeError(f"{place}: {what}") from None
    # The last is protobuf's answer to an enumeration's value that UTF-8 cannot hold.
    except (ValueError, RecursionError, SystemError) as error:
        raise CaffeError(f"{source}: cannot be read as a prototxt: {error}") from None
    if missing := message.FindInitializationErrors():
        around = missing[0].split(".")[:-1]
        path = [(name, int(index or 0)) for name, index in map(_step, around)]
        place = _place_of_message(text, path)
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
    for opened, field, token in _walk(text):
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
    place = "" if error.layer is None else _place_of_layer(text, error.layer)
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
    """Read a solver's prototxt; as `parse_solver`.

    Its snapshot_prefix is the file's path without its suffix if it has none, and the file's name in
    it if it is a folder.
    """
    source = os.fspath(path)
    param = parse_solver(_read(path), source)
    named_after_file = not param.snapshot_prefix or os.path.isdir(param.snapshot_prefix)
    if named_after_file and re.search("[\ud800-\udfff]", source):
        raise CaffeError(
            f"{source}: snapshots cannot have the name of this file, which is not UTF-8; give it "
            "another one, or a snapshot_prefix"
        )
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


# -- where things stand ----------------------------------------------------------------------------

# Each alternative takes what it begins, closed or not: a text is gone through once, whatever it is.
_TOKEN = re.compile(
    r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'?"
    r"|#[^\n]*|[A-Za-z_]\w*|[^\s\"'#{}<>\[\]:,;]+|[^\s]"
)
_TOO_LONG = re.compile(rf"^[^\n]{{{limits.TEXT_LINE + 1}}}", re.MULTILINE)


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _line_column(text: str, place: int) -> str:
    """Return line:column of a place in a text, both from 1."""
    return f"{_line(text, place)}:{place - text.rfind(chr(10), 0, place)}"


def _check_size(text: str, source: str) -> None:
    """Refuse a text that would take long to read, or much memory, before it does."""
    if len(text) > limits.TEXT_BYTES:
        told = f"is too large for a prototxt, {limits.TEXT_BYTES} bytes are the limit"
        raise CaffeError(f"{source}: {told}")
    if found := _TOO_LONG.search(text):
        told = f"the line is longer than {limits.TEXT_LINE} bytes"
        raise CaffeError(f"{source}:{_line(text, found.start())}: {told}")
    depth = 0
    for number, token in enumerate(_TOKEN.finditer(text)):
        sign, told = token.group(), ""
        depth += (sign in ("{", "<")) - (sign in ("}", ">"))
        if number == limits.TEXT_TOKENS:
            told = f"more than {number} words and signs are too many for a prototxt"
        elif depth > limits.TEXT_DEPTH:
            told = f"messages are nested more than {limits.TEXT_DEPTH} deep"
        if told:
            raise CaffeError(f"{source}:{_line(text, token.start())}: {told}")


@dataclass
class _Opened:
    """A message that is not closed yet: its field, which of its kind it is, and where it begins."""

    field: str
    index: int
    place: int
    brace: int
    counts: dict[str, int]


def _walk(text: str) -> Iterator[tuple[list[_Opened], str, re.Match]]:
    """Yield what is open around each token, the field that it is a value of, and the token."""
    opened = [_Opened("", 0, 0, 0, {})]
    word, word_place, field = "", 0, ""
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign[0] == "#":
            continue
        if sign in ("{", "<"):
            counts = opened[-1].counts
            index = counts[word] = counts.get(word, -1) + 1
            opened.append(_Opened(word, index, word_place, token.start(), {}))
        elif sign in ("}", ">") and len(opened) > 1:
            # In a list the next message is of the same field.
            closed = opened.pop()
            word, word_place = closed.field, closed.place
        yield opened, field, token
        field = word if sign == ":" else ""
        if sign[0].isalpha() or sign[0] == "_":
            word, word_place = sign, token.start()


def _unclosed(text: str) -> str:
    """Return line:column of the innermost brace that is not closed, or nothing."""
    opened: list[_Opened] = []
    for opened, _, _ in _walk(text):  # noqa: B007
        pass
    return _line_column(text, opened[-1].brace) if len(opened) > 1 else ""


def _place_of_message(text: str, path: Sequence[tuple[str, int]]) -> str:
    """Return line:column where the message at a path of (field, index) begins, or nothing."""
    for opened, _, token in _walk(text):
        way = [(entry.field, entry.index) for entry in opened[1:]]
        if way == [*path] and token.start() == opened[-1].brace:
            return _line_column(text, opened[-1].place)
    return ""


def _place_of_layer(text: str, name: str) -> str:
    """Return line:column where the first layer of a name begins, or nothing.

    The text may be a net's, of any format, or a solver's with nets in it.
    """
    names: dict[int, str] = {}
    for opened, field, token in _walk(text):
        around = _layer_of(opened)
        if not around:
            continue
        names.setdefault(around[0].place, "")
        # In a layer of V0 the name stands one message deeper.
        own = around[-1].field in ("layer", "layers")
        if own and field == "name" and token.group()[0] in "\"'":
            names[around[0].place] = _unescaped(token.group())
    place = next((place for place, given in names.items() if given == name), None)
    return "" if place is None else _line_column(text, place)


def _layer_of(opened: list[_Opened]) -> list[_Opened]:
    """Return the outermost layer among open messages, and those in it."""
    for depth, entry in enumerate(opened):
        if entry.field in ("layer", "layers"):
            return opened[depth:]
    return []


@dataclass
class _LayerText:
    """A layer as it stands in a text: its block, `layer` or `layers`, name and type as written."""

    block: str
    name: str = ""
    kind: str = ""

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        return f"layer '{self.name}'{kind}" if self.name else f"a layer of type {self.kind}"


def _layer_around(text: str, line: int, column: int) -> _LayerText | None:
    """Return the layer, closed or not, that a place in a text lies in, or nothing."""
    place = column - 1
    for _ in range(line - 1):
        place = text.index("\n", place - column + 1) + column
    found: _LayerText | None = None
    for opened, field, token in _walk(text):
        around = _layer_of(opened)
        if not around:
            if token.start() >= place:
                break
            found = None
            continue
        if found is None:
            if token.start() > place:
                break
            found = _LayerText(around[0].field)
        # In a layer of V0 name and type stand one message deeper.
        if all(entry.field in ("layer", "layers") for entry in around):
            if field == "name":
                found.name = found.name or _readable(token.group())
            elif field == "type":
                found.kind = found.kind or _readable(token.group())
    return found if found is not None and (found.name or found.kind) else None


def _readable(token: str) -> str:
    """Return a name or a type of a text that may hold anything, to be told in an error."""
    try:
        value = _unescaped(token) if token[0] in "\"'" else token
    except ValueError:
        value = token
    cut = value if len(value) <= limits.QUOTED_NAME else f"{value[: limits.QUOTED_NAME]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def _unescaped(token: str) -> str:
    return text_encoding.CUnescape(token[1:-1]).decode("utf-8", "replace")


# -- what is wrong ---------------------------------------------------------------------------------

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


def _explain(message: str, root: Descriptor, text: str, around: _LayerText | None) -> str:
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
    if message.startswith('Expected "}"') and (opened := _unclosed(text)):
        return f'expected "}}": the brace opened at {opened} is never closed'
    if message.startswith("Expected identifier") and message.rstrip(".").endswith("got }"):
        return 'a "}" closes nothing'
    if message.startswith("Expected identifier") and message.rstrip(".").endswith("got /"):
        return "a comment begins with #, not with /"
    told = message[:1].lower() + message[1 : limits.QUOTED].rstrip(".")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)


def _field(owner: Descriptor, field: str, root: Descriptor, around: _LayerText | None) -> str:
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


def _unquoted(given: str, around: _LayerText | None) -> str:
    """Return what is wrong with a text that has no quotes around it."""
    if around is not None and around.block == "layer" and given == around.kind:
        kinds = written_like(given) or [given]
        return f'expected a type in quotes: write type: "{kinds[0]}"'
    if given[:1] in "“”„‟‘’«»":
        return f'{given[:1]} is not a quotation mark of this format: write "'
    told = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in given)
    return f"expected text in quotes, found {told}"
