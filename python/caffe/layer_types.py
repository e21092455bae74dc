"""The table of layer types, which the layers fill, and how a type's name may be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe.layers.base import Layer

LAYERS: dict[str, type[Layer]] = {}


def register(name: str) -> Callable[[type[Layer]], type[Layer]]:
    """Enter a class in the table of layer types under `name` (a class decorator)."""

    def enter(cls: type[Layer]) -> type[Layer]:
        LAYERS[name] = cls
        cls._kind = name
        return cls

    return enter


def written_like(name: str) -> list[str]:
    """Return the types that a name is but for capitals and underscores, as in INNER_PRODUCT."""
    plain = name.replace("_", "").lower()
    return [kind for kind in LAYERS if kind.lower() == plain]
