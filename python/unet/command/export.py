"""Write a trained network for other tools: ONNX, or a model package of bioimage.io."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from types import ModuleType

from unet.command.options import add_overwrite
from unet.errors import InputError


def main(argv: Sequence[str] | None = None) -> None:
    """Export a network."""
    options = parse(argv)
    export = _exporter()
    told = export.write_onnx(
        options.model, options.output, options.net, overwrite=options.overwrite
    )
    for name, shape in (*told.inputs.items(), *told.outputs.items()):
        print(f"{name:16s}{' x '.join(map(str, shape))}")
    for name, value in told.metadata.items():
        print(f"{name:16s}{value}")
    print(f"written: {options.output}")


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
    add("-o", "--output", required=True, metavar="FILE.onnx", help="batch and sizes are free")
    add_overwrite(parser)
    return parser.parse_args(argv)


def _exporter() -> ModuleType:
    """Import what needs more than the rest; say what to install where that is missing."""
    try:
        return importlib.import_module("unet_export")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("caffe", "unet", "unet_export"):
            raise
        raise InputError(
            f"{error.name} is missing, which the export needs: pip install 'unet-in-caffe[export]'"
        ) from None
