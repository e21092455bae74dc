"""A trained network for other tools: as ONNX, and as a model package of bioimage.io.

>>> import unet_export
>>> unet_export.write_onnx("isbi2012_slim", "net.onnx")                # doctest: +SKIP
>>> unet_export.write_bioimageio("isbi2012_slim", "net.zip")           # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["write_bioimageio", "write_onnx"]

if TYPE_CHECKING:
    from unet_export.bioimageio import write_bioimageio
    from unet_export.onnx_file import write_onnx

# Imported when they are first used: ONNX alone needs no bioimageio.spec.
_FILES = {"write_bioimageio": "unet_export.bioimageio", "write_onnx": "unet_export.onnx_file"}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module 'unet_export' has no attribute {name!r}")
    return getattr(import_module(_FILES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
