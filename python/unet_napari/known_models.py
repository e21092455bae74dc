"""Which trained networks the widgets offer: those that come along, and those met in a session."""

from __future__ import annotations

import os

from qtpy.QtCore import QObject, Signal

from unet.model import shipped


class KnownModels(QObject):
    """Names and paths, as `unet.load` takes them; the newest last.

    Attributes
    ----------
    added : qtpy.QtCore.Signal
        Is emitted with a path that was added, or was there and is meant again.
    """

    added = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._met: list[str] = []

    def add(self, path: str | os.PathLike[str]) -> str:
        """Take up a model folder or file; return how it is offered."""
        path = os.path.abspath(path)
        if path not in self._met:
            self._met.append(path)
        self.added.emit(path)
        return path

    @property
    def all(self) -> list[str]:
        """All of them."""
        return [*shipped(), *self._met]


#: Both widgets of a session share it: what one has trained the other offers.
KNOWN_MODELS = KnownModels()
