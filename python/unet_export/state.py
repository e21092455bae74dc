"""A network's layers and weights as `architecture.UNet` takes them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from unet_export.architecture import UNet
from unet_export.layers.windows import rounds_down, sizes_by_axis
from unet_export.network import layers_needed
from unet_export.source import Source
from unet_export.whole import halo


def described(source: Source) -> dict[str, Any] | None:
    """Return the arguments of `architecture.UNet`; None where it does not know a layer."""
    shapes = {name: tuple(blob.shape) for name, blob in source.net.blobs.items()}
    names: dict[str, str] = {}
    layers = []
    for layer in layers_needed(source.net, [source.score]):
        bottoms = [names.get(name, name) for name in layer.bottom]
        if layer.type in ("Split", "Dropout"):
            names.update(dict.fromkeys(layer.top, bottoms[0]))
            continue
        if layer.type == "Input":
            continue
        said = _said(layer, shapes[layer.bottom[0]] if layer.bottom else ())
        if said is None or len(layer.top) > 1:
            return None
        for name in layer.top:
            names.pop(name, None)
        about = {"name": layer.name, "type": layer.type, "bottom": bottoms, "top": layer.top[0]}
        layers.append({**about, **said})
    axes = [
        {
            "downsample_factor": axis.downsample_factor,
            "pad_input": axis.pad_input,
            "border": axis.border,
            "margin": axis.margin,
            "halo": halo(axis),
        }
        for axis in source.axes
    ]
    score = names.get(source.score, source.score)
    return {"layers": layers, "axes": axes, "source": source.net.inputs[0], "score": score}


def _said(layer: Any, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """Return what a layer's type needs; None if it is not known."""
    axes, kind = len(shape) - 2, layer.type
    if kind in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        return {
            "channels": shape[1],
            "num_output": param.num_output,
            "group": param.group,
            "bias_term": param.bias_term,
            **{
                name: sizes_by_axis(param, name, default, axes) for name, default in _WINDOW.items()
            },
        }
    if kind == "Pooling":
        param = layer.pooling_param
        pads = sizes_by_axis(param, "pad", 0, axes)
        floor = rounds_down(param)
        maximum = param.PoolMethod.Name(param.pool) == "MAX"
        sizes = {name: sizes_by_axis(param, name, 1, axes) for name in ("kernel_size", "stride")}
        known = maximum and not (any(pads) or floor or param.global_pooling)
        return sizes if known and sizes["stride"] <= sizes["kernel_size"] else None
    if kind == "ReLU":
        return {"negative_slope": float(layer.relu_param.negative_slope)}
    if kind == "Crop":
        axis = layer.crop_param.axis
        axis = axis + len(shape) if axis < 0 else axis
        offset = list(layer.crop_param.offset) or [0]
        return {"axis": axis, "offset": offset * (len(shape) - axis if len(offset) == 1 else 1)}
    if kind == "Concat":
        return {} if layer.concat_param.axis == 1 else None
    if kind == "ValueTransformation":
        param = layer.value_transformation_param
        return {"offset": list(param.offset.v) or [0.0], "scale": list(param.scale.v) or [1.0]}
    return None


_WINDOW = {"kernel_size": 1, "stride": 1, "pad": 0, "dilation": 1}


def state_of(source: Source, said: dict[str, Any]) -> bytes:
    """Return the weights of a network as a file of PyTorch, for `architecture.UNet(**said)`."""
    module = UNet(**said)
    state = module.state_dict()
    for name, blobs in source.net.params.items():
        for kind, blob in zip(("weight", "bias"), blobs):
            key = f"weights.{name.replace('.', '_')}.{kind}"
            if key in state:
                values = torch.from_numpy(np.array(blob.data))
                state[key] = values.reshape(state[key].shape)
    module.load_state_dict(state)
    written = io.BytesIO()
    torch.save(module.state_dict(), written)
    return written.getvalue()
