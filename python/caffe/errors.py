"""The exceptions of the engine: genuine Caffe aborts the process, this engine raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch


class CaffeError(RuntimeError):
    """A net, a solver or a file that cannot be used as it stands.

    The message names the file and line, or the layer and the shapes, and what to do.

    Who knows the file of the `layer` that it is about, if there is one, adds the line.
    """

    def __init__(self, message: str, layer: str | None = None) -> None:
        super().__init__(message)
        self.layer = layer


class NotAKeyError(CaffeError, KeyError):
    """A name that a dictionary of genuine Caffe's lacks."""

    # That of KeyError puts quotation marks around the sentence.
    __str__ = CaffeError.__str__


class NotAnItemError(CaffeError, ValueError):
    """A name that a list of genuine Caffe's lacks."""


class NotAnAttributeError(CaffeError, AttributeError):
    """A name that an object or a message lacks."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question after the names that are like one; nothing if there are none."""
    near = difflib.get_close_matches(name, list(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def is_short_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is that there was not enough memory."""
    if error is None:
        return False
    full = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    # What PyTorch raises for the host's is a RuntimeError.
    return full or "allocate memory" in str(error) or is_short_of_memory(error.__cause__)


def memory_is_full(error: Exception) -> str:
    """Return what PyTorch says of a GPU's memory, shortened, and what to do."""
    # What follows are counts of PyTorch's own, and its settings.
    sizes = ". ".join(str(error).split(". ")[:3]).rstrip(".")
    return f"the GPU's memory is full: {sizes}; take a smaller batch or smaller pictures"
