"""HTML and SVG as text in which everything that is not markup is escaped."""

from __future__ import annotations

import html

from unet.files.names import printable

_VOID = frozenset({"img", "input", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Return a text as HTML shows it; `Markup` stays what it is.

    Examples
    --------
    >>> escaped("a < b")
    'a &lt; b'
    """
    return text if isinstance(text, Markup) else Markup(html.escape(printable(str(text))))


def joined(*parts: object) -> Markup:
    """Return parts one after the other, each `escaped`; None is nothing."""
    return Markup("".join(escaped(part) for part in parts if part is not None))


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
    *content : object
        What is not `Markup` is escaped; None is nothing.
    **attributes : object
        class_ stands for class, data_x for data-x; True has no value, None and False is left out.

    Examples
    --------
    >>> tag("p", "a & b", tag("b", "c"), class_="note", hidden=True)
    '<p class="note" hidden>a &amp; b<b>c</b></p>'
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{escaped(value)}"')
    opening = f"<{' '.join(words)}>"
    if name in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{joined(*content)}</{name}>")
