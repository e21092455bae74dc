"""The table of layer types, which the layers fill, and how a type's name may be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Class = TypeVar("Class", bound=type)

# Type, as in the prototxt -> the class of its layers, derived from `layers.base.Layer`.
LAYERS: dict[str, type] = {}


def register(name: str) -> Callable[[Class], Class]:
    """Enter a class in the table of layer types under `name` (a class decorator)."""

    def enter(cls: Class) -> Class:
        LAYERS[name] = cls
        cls._kind = name
        return cls

    return enter


def written_like(name: str) -> list[str]:
    """Return the types that a name is but for capitals and underscores, as in INNER_PRODUCT."""
    plain = name.replace("_", "").lower()
    return [kind for kind in LAYERS if kind.lower() == plain]
