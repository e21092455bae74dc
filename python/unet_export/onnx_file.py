"""A network in one file of ONNX, with what one has to know to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.names import PathLike
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import EXPORT
from unet_export.network import model_of, write_model, write_network
from unet_export.source import metadata, open_source


class Told(NamedTuple):
    """What was written: shapes of inputs and outputs, names where sizes are free; metadata."""

    inputs: Mapping[str, list[int | str]]
    outputs: Mapping[str, list[int | str]]
    metadata: Mapping[str, str]


def write_onnx(
    source: PathLike, path: PathLike, net: PathLike | None = None, *, overwrite: bool = False
) -> Told:
    """Write a trained network as ONNX: the same numbers for every size of tile and batch.

    Parameters
    ----------
    source, net : path
        As of `unet.load`; any deploy net of layers that ONNX can say.
    path : path
        The file, NAME.onnx; equal networks give equal bytes.
    overwrite : bool
        Whether what no program of this project has written may be replaced.

    Returns
    -------
    Told

    Raises
    ------
    InputError
        If the network cannot be opened, a layer cannot be said in ONNX, or the file not written.
    """
    if Path(path).suffix.lower() != ".onnx":
        raise InputError(f"{path}: name a file NAME.onnx")
    opened = open_source(source, net)
    guard_outputs([Output(path, EXPORT)], [opened.prototxt, opened.weights], overwrite)
    written = write_network(opened.net)
    said = metadata(opened)
    model = model_of(written.graph, written.inputs, written.outputs, opened.name, said)
    with atomic_path(path) as temporary:
        write_model(model, temporary)
    return Told(written.inputs, written.outputs, said)
