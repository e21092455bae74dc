"""Where things stand in a prototxt, and how much of it there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf import text_encoding

from caffe.errors import CaffeError

# No prototxt of a real network comes near these; others are refused before they cost anything.
# A residual net of a thousand convolutions, about the largest published, takes 111,000 tokens.
MAX_BYTES = 2 * 2**20
MAX_LINE = 2**19
MAXTOKENS = 200_000
MAX_DEPTH = 100

# No layer's name in an error is longer.
_LONGEST_NAME = 100

# Each alternative takes what it begins, closed or not: a text is gone through once, whatever it is.
TOKEN = re.compile(
    r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'?"
    r"|#[^\n]*|[A-Za-z_]\w*|[^\s\"'#{}<>\[\]:,;]+|[^\s]"
)


@dataclass
class _Opened:
    """A message that is not closed yet: its field, which of its kind it is, and where it begins."""

    field: str
    index: int
    place: int
    counts: dict[str, int]


def line_column(text: str, place: int) -> str:
    """Return line:column of a place in a text, both from 1."""
    return f"{text.count(chr(10), 0, place) + 1}:{place - text.rfind(chr(10), 0, place)}"


def check_size(text: str, source: str) -> None:
    """Refuse a text that would take long to read, or much memory, before it does.

    Raises
    ------
    CaffeError
        Names `source`, and the line where it becomes too much.
    """
    if len(text) > MAX_BYTES:
        raise CaffeError(f"{source}: is too large for a prototxt, {MAX_BYTES} bytes are the limit")
    start = 0
    while start >= 0:
        end = text.find("\n", start, start + MAX_LINE + 1)
        if end < 0 and len(text) - start > MAX_LINE:
            line = text.count("\n", 0, start) + 1
            raise CaffeError(f"{source}:{line}: the line is longer than {MAX_LINE} bytes")
        start = end + 1 if end >= 0 else -1
    depth = 0
    for number, token in enumerate(TOKEN.finditer(text)):
        if number == MAXTOKENS:
            line = text.count("\n", 0, token.start()) + 1
            raise CaffeError(
                f"{source}:{line}: more than {MAXTOKENS} words and signs are too many for a "
                "prototxt"
            )
        sign = token.group()
        if sign in ("{", "<"):
            depth += 1
            if depth > MAX_DEPTH:
                line = text.count("\n", 0, token.start()) + 1
                raise CaffeError(f"{source}:{line}: messages are nested more than {MAX_DEPTH} deep")
        elif sign in ("}", ">"):
            depth -= 1


def _walk(text: str) -> Iterator[tuple[list[_Opened], str, str]]:
    """Yield what is open around each token, the last word before it, and the token."""
    opened = [_Opened("", 0, 0, {})]
    word, word_place = "", 0
    for token in TOKEN.finditer(text):
        sign = token.group()
        if sign[0] == "#":
            continue
        if sign in ("{", "<"):
            counts = opened[-1].counts
            index = counts[word] = counts.get(word, -1) + 1
            opened.append(_Opened(word, index, word_place, {}))
        elif sign in ("}", ">"):
            if len(opened) > 1:
                # In a list the next message is of the same field.
                closed = opened.pop()
                word, word_place = closed.field, closed.place
        elif sign[0].isalpha() or sign[0] == "_":
            word, word_place = sign, token.start()
        yield opened, word, sign


def unclosed(text: str) -> str:
    """Return line:column of the innermost brace that is not closed, or nothing."""
    opened: list[int] = []
    for token in TOKEN.finditer(text):
        if token.group() in ("{", "<"):
            opened.append(token.start())
        elif token.group() in ("}", ">") and opened:
            opened.pop()
    return line_column(text, opened[-1]) if opened else ""


def place_of_message(text: str, path: Sequence[tuple[str, int]]) -> str:
    """Return line:column where the message at a path of (field, index) begins, or nothing."""
    for opened, _, sign in _walk(text):
        if sign in ("{", "<") and [(entry.field, entry.index) for entry in opened[1:]] == [*path]:
            return line_column(text, opened[-1].place)
    return ""


@dataclass
class LayerText:
    """A layer as it stands in a text.

    Attributes
    ----------
    block : {"layer", "layers"}
    place : int
        Where it begins.
    name, kind : str
        Its name and type as written, as far as they are.
    """

    block: str
    place: int
    name: str = ""
    kind: str = ""

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        return f"layer '{self.name}'{kind}" if self.name else f"a layer of type {self.kind}"


def layer_around(text: str, line: int, column: int) -> LayerText | None:
    """Return the layer that a place in a text lies in, or nothing.

    Parameters
    ----------
    text : str
        A net's, or a solver's with nets in it; the layer need not be closed.
    line, column : int
        From 1.
    """
    if "layer" not in text:
        return None
    place = column - 1
    for _ in range(line - 1):
        place = text.index("\n", place - column + 1) + column
    found: LayerText | None = None
    opened: list[str] = []
    word, key = "", ""
    for token in TOKEN.finditer(text):
        sign = token.group()
        if sign[0] == "#":
            continue
        if sign in ("{", "<"):
            if found is None and token.start() > place:
                break
            if found is None and word in ("layer", "layers"):
                found = LayerText(word, token.start())
                opened = []
            opened.append(word)
        elif sign in ("}", ">") and opened:
            opened.pop()
            if found is not None and not opened:
                if token.start() >= place:
                    break
                found = None
        elif found is not None and key and opened in (["layers"], ["layer"], ["layers", "layer"]):
            value = _readable(sign)
            if key == "name":
                found.name = found.name or value
            elif key == "type":
                found.kind = found.kind or value
        key = word if sign == ":" else ""
        word = sign
    return found if found is not None and (found.name or found.kind) else None


def place_of_layer(text: str, name: str) -> str:
    """Return line:column where the first layer of a name begins, or nothing.

    The text may be a net's, of any format, or a solver's with nets in it.
    """
    names: dict[int, str] = {}
    for opened, word, sign in _walk(text):
        around = next((entry for entry in opened if entry.field in ("layer", "layers")), None)
        if around is None:
            continue
        names.setdefault(around.place, "")
        # In a layer of V0 the name stands one message deeper.
        if word == "name" and sign[0] in "\"'" and opened[-1].field in ("layer", "layers"):
            names[around.place] = _unquoted(sign)
    place = next((place for place, given in names.items() if given == name), None)
    return "" if place is None else line_column(text, place)


def _readable(token: str) -> str:
    """Return a name or a type of a text that may hold anything, to be told in an error."""
    try:
        value = _unquoted(token) if token[0] in "\"'" else token
    except ValueError:
        value = token
    cut = value if len(value) <= _LONGEST_NAME else f"{value[:_LONGEST_NAME]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def _unquoted(token: str) -> str:
    return text_encoding.CUnescape(token[1:-1]).decode("utf-8", "replace")
