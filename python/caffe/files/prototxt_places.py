"""Where things stand in the text of a prototxt: tokens, messages, layers, by line and column.

Texts may be broken, and are gone through once, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf import text_encoding

from caffe.errors import CaffeError
from caffe.files import limits

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


def check_size(text: str, source: str) -> None:
    """Refuse a text that would take long to read, or much memory, before it does.

    Raises
    ------
    CaffeError
        Names `source` and the line.
    """
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
class Opened:
    """A message that is not closed yet: its field, which of its kind it is, and where it begins."""

    field: str
    index: int
    place: int
    brace: int
    counts: dict[str, int]


def walk(text: str) -> Iterator[tuple[list[Opened], str, re.Match]]:
    """Yield what is open around each token, the field that it is a value of, and the token."""
    opened = [Opened("", 0, 0, 0, {})]
    word, word_place, field = "", 0, ""
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign[0] == "#":
            continue
        if sign in ("{", "<"):
            counts = opened[-1].counts
            index = counts[word] = counts.get(word, -1) + 1
            opened.append(Opened(word, index, word_place, token.start(), {}))
        elif sign in ("}", ">") and len(opened) > 1:
            # In a list the next message is of the same field.
            closed = opened.pop()
            word, word_place = closed.field, closed.place
        yield opened, field, token
        field = word if sign == ":" else ""
        if sign[0].isalpha() or sign[0] == "_":
            word, word_place = sign, token.start()


def unclosed(text: str) -> str:
    """Return line:column of the innermost brace that is not closed, or nothing."""
    opened: list[Opened] = []
    for opened, _, _ in walk(text):  # noqa: B007
        pass
    return _line_column(text, opened[-1].brace) if len(opened) > 1 else ""


def place_of_message(text: str, path: Sequence[tuple[str, int]]) -> str:
    """Return line:column where the message at a path of (field, index) begins, or nothing."""
    for opened, _, token in walk(text):
        way = [(entry.field, entry.index) for entry in opened[1:]]
        if way == [*path] and token.start() == opened[-1].brace:
            return _line_column(text, opened[-1].place)
    return ""


def place_of_layer(text: str, name: str) -> str:
    """Return line:column where the first layer of a name begins, or nothing.

    The text may be a net's, of any format, or a solver's with nets in it.
    """
    names: dict[int, str] = {}
    for opened, field, token in walk(text):
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


def _layer_of(opened: list[Opened]) -> list[Opened]:
    """Return the outermost layer among open messages, and those in it."""
    for depth, entry in enumerate(opened):
        if entry.field in ("layer", "layers"):
            return opened[depth:]
    return []


@dataclass
class LayerText:
    """A layer as it stands in a text: its block, `layer` or `layers`, name and type as written."""

    block: str
    name: str = ""
    kind: str = ""

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        return f"layer '{self.name}'{kind}" if self.name else f"a layer of type {self.kind}"


def layer_around(text: str, line: int, column: int) -> LayerText | None:
    """Return the layer, closed or not, that a place in a text lies in, or nothing."""
    place = column - 1
    for _ in range(line - 1):
        place = text.index("\n", place - column + 1) + column
    found: LayerText | None = None
    for opened, field, token in walk(text):
        around = _layer_of(opened)
        if not around:
            if token.start() >= place:
                break
            found = None
            continue
        if found is None:
            if token.start() > place:
                break
            found = LayerText(around[0].field)
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
