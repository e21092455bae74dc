"""A trained network for other tools: as ONNX, and as a model package of bioimage.io.

>>> import unet_export
>>> unet_export.write_onnx("isbi2012_slim", "net.onnx")                # doctest: +SKIP
>>> unet_export.write_bioimageio("isbi2012_slim", "net.zip")           # doctest: +SKIP
"""

from unet_export.onnx_file import write_onnx

__all__ = ["write_onnx"]
