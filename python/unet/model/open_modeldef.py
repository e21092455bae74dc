"""Open a network of caffe_unet: an input before its text, as its program puts it, and weights.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019), and its caffe_unet.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from unet.errors import InputError
from unet.files.names import PathLike
from unet.files.weights import StoredBlob
from unet.model.modeldef import ModelDefinition, read_modeldef
from unet.model.open_net import open_text, read_weights, stored_in
from unet.segmentation.caffe_unet_tiles import TileRules

_COMMENT = re.compile(r"#.*")
_NAME = re.compile(r"""\bname\s*:\s*(['"])(.*?)\1""")


def open_definition(
    caffe: ModuleType, source: PathLike, weights: PathLike
) -> tuple[Any, ModelDefinition]:
    """Open the network of a model definition with its weights, in phase TEST.

    Parameters
    ----------
    caffe : module
        As `unet.machine.engine.open_engine` gives it.
    source : path
        NAME.modeldef.h5.
    weights : path
        NAME.caffemodel.h5, or any file of weights.

    Returns
    -------
    net : caffe.Net
        Its one input is the definition's input_blob_name, with the channels of the weights.
    definition : ModelDefinition

    Raises
    ------
    InputError
        If a file is missing or damaged, weights and network do not belong together, or the scores
        are not of the size that the definition says. Errors in the text are the engine's.
    """
    definition = read_modeldef(source)
    stored = stored_in(weights)
    tiles = TileRules(definition.axes).smallest((1,) * len(definition.axes))
    dims = " ".join(f"dim: {dim}" for dim in (1, _channels_of(definition, stored), *tiles.input))
    name = definition.input_blob_name
    # On the text's first line, so that errors name the lines of the text.
    text = (
        f'state {{ phase: TEST }} layer {{ name: "{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {dims} }} }} }} {definition.model_prototxt}"
    )
    net = open_text(caffe, text, source)
    net.retain_data = False
    if list(net.inputs) != [name] or not net.outputs:
        raise InputError(
            f"{source}: its network has the inputs {list(net.inputs)} and the outputs "
            f"{list(net.outputs)}, and not the one input '{name}' and scores"
        )
    for output in net.outputs:
        given = tuple(net.blobs[output].shape)[2:]
        if given != tiles.output:
            raise InputError(
                f"{source}: an input of {tiles.input} gives {given} in '{output}', but padInput, "
                f"padOutput and downsampleFactor say {tiles.output}"
            )
    read_weights(net, source, weights, stored)
    return net, definition


def _channels_of(definition: ModelDefinition, stored: dict[str, list[StoredBlob]]) -> int:
    """Return the channels that the first layer of the text with weights has them for."""
    for found in _NAME.finditer(_COMMENT.sub("", definition.model_prototxt)):
        kernel = stored.get(found.group(2))
        if kernel and len(kernel[0].shape) > 1:
            return kernel[0].shape[1]
    return 1
