"""Write a trained network for other tools: ONNX, or a model package of bioimage.io."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, Callable

from unet.command.options import add_overwrite
from unet.errors import InputError

# What is imported under another name than it is installed under.
_PACKAGES = {"bioimageio": "bioimageio.spec", "google": "protobuf"}
_OURS = ("caffe", "unet", "unet_export")


def main(argv: Sequence[str] | None = None) -> None:
    """Export a network."""
    options = parse(argv)
    common = {"net": options.net, "overwrite": options.overwrite}
    if options.output:
        told = _writer("write_onnx")(options.model, options.output, **common)
        for name, shape in (*told.inputs.items(), *told.outputs.items()):
            print(f"{name:17s}{' x '.join(map(str, shape))}")
        for name, value in told.metadata.items():
            print(f"{name:17s}{value}")
        print(f"written: {options.output}")
    if options.bioimageio:
        about = {"author": options.author, "licence": options.licence}
        about = {name: value for name, value in about.items() if value is not None}
        write = _writer("write_bioimageio")
        formats = write(options.model, options.bioimageio, **common, **about)
        print(f"weights          {', '.join(formats)}\nwritten: {options.bioimageio}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="isbi2012_slim or another network that comes with this; a model folder; a file of "
        "weights, as unet segment --weights takes it",
    )
    add("--net", help="its prototxt or .modeldef.h5 (default: the one beside the weights)")
    add("-o", "--output", metavar="FILE.onnx", help="ONNX; batch and sizes of tiles are free")
    add("--bioimageio", metavar="FILE.zip", help="a model package of bioimage.io")
    add("--author", metavar="NAME", help="of the package: who trained the network")
    add("--licence", metavar="SPDX", help="of the package, such as CC-BY-4.0 (MIT)")
    add_overwrite(parser)
    options = parser.parse_args(argv)
    if not options.output and not options.bioimageio:
        parser.error("name what is to be written: -o FILE.onnx, or --bioimageio FILE.zip")
    if not options.bioimageio and (options.author or options.licence):
        parser.error("--author and --licence are for --bioimageio")
    return options


def _writer(name: str) -> Callable[..., Any]:
    """Import what needs more than the rest; say what to install where that is missing."""
    try:
        return getattr(importlib.import_module("unet_export"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in _OURS:
            raise
        package = _PACKAGES.get(missing, missing)
        raise InputError(f"export needs the package {package}: pip install {package}") from None
