"""Words of other Caffes for what BVLC's says in its own: taken where they mean the same."""

from __future__ import annotations

import re

from caffe.errors import CaffeError
from caffe.files.text_places import TOKEN, line_column
from caffe.log import log_warning_once

# How the text format writes a bool, and what a pooling with it does.
_ROUNDED = {
    **dict.fromkeys(("true", "True", "t", "1"), "CEIL"),
    **dict.fromkeys(("false", "False", "f", "0"), "FLOOR"),
}
_MODES = {"0": "CEIL", "1": "FLOOR"}

# What may stand between two fields.
_SEPARATOR = re.compile(r"\s*[,;]?")

_Field = tuple[re.Match, re.Match]


def say_round_mode(text: str, source: str) -> str:
    """Write `round_mode` where a pooling says `ceil_mode`, the word of most DenseNets and SegNets.

    Parameters
    ----------
    text : str
        A prototxt.
    source : str
        What errors and the warning call it.

    Returns
    -------
    str
        `ceil_mode: false` as `round_mode: FLOOR`, true as CEIL; the lines stay what they are.

    Raises
    ------
    CaffeError
        If a value is neither true nor false, or contradicts a round_mode beside it.
    """
    if "ceil_mode" not in text:
        return text
    parts, end, first = [], 0, ""
    for fields in _poolings(text):
        if "ceil_mode" not in fields:
            continue
        name, value = fields["ceil_mode"]
        place = f"{source}:{line_column(text, name.start())}"
        mode = _ROUNDED.get(value.group())
        if mode is None:
            raise CaffeError(f"{place}: ceil_mode is true or false, not {value.group()}")
        written = f"round_mode{text[name.end() : value.start()]}{mode}"
        stop = value.end()
        if "round_mode" in fields:
            given = fields["round_mode"][1].group()
            if _MODES.get(given, given) != mode:
                raise CaffeError(
                    f"{place}: ceil_mode: {value.group()} is round_mode: {mode}, and round_mode: "
                    f"{given} stands beside it; leave one of them out"
                )
            stop = _SEPARATOR.match(text, stop).end()
            written = "\n" * text.count("\n", name.start(), stop)
        parts += [text[end : name.start()], written]
        end = stop
        first = first or place
    if first:
        log_warning_once(
            f"{first}: 'ceil_mode' is taken for 'round_mode' (true: CEIL, false: FLOOR); genuine "
            "BVLC Caffe refuses this"
        )
    return "".join([*parts, text[end:]])


def _poolings(text: str) -> list[dict[str, _Field]]:
    """Return the two words of each pooling_param, with their values, in the order of ceil_mode."""
    found: list[dict[str, _Field]] = []
    opened: list[tuple[str, dict[str, _Field]]] = [("", {})]
    name: re.Match | None = None
    valued = False
    for token in TOKEN.finditer(text):
        sign = token.group()
        if sign[0] == "#":
            continue
        if sign in ("{", "<"):
            opened.append((name.group() if name else "", {}))
            valued = False
        elif sign in ("}", ">"):
            if len(opened) > 1:
                field, fields = opened.pop()
                found += [fields] if field == "pooling_param" else []
        elif sign == ":":
            valued = name is not None
        elif valued:
            opened[-1][1][name.group()] = (name, token)
            valued = False
        elif sign[0].isalpha() or sign[0] == "_":
            name = token
    return found
