"""A U-Net of Caffe in plain PyTorch: the list of its layers says what it is.

Needs PyTorch and nothing else. Layers and blobs have the names of Caffe's prototxt.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """Scores of an image of any size, (batch, channels, [depth,] height, width).

    Parameters
    ----------
    layers : list of dict
        name, type, bottom and top as in Caffe, and what the type needs: see `_module` and `_apply`.
    axes : list of dict
        Of each axis of pixels: `downsample_factor` f and `pad_input`, for an input of f n +
        pad_input pixels is one that the network takes; `border`, how many pixels its scores lose
        on each side; `margin`, how many of these it gives that are of no use; `halo`, see below.
    source, score : str
        The blobs that are put in and taken out.

    Notes
    -----
    The scores are as large as the image: those within `halo` pixels of its edges are 0. A tool that
    cuts these off and mirrors the image as far beyond its edges gets the scores of every pixel. The
    network is given the largest part that it takes, from halo - border pixels on.
    """

    def __init__(
        self,
        layers: list[dict[str, Any]],
        axes: list[dict[str, int]],
        source: str = "data",
        score: str = "score",
    ) -> None:
        super().__init__()
        self.layers, self.axes, self.source, self.score = layers, axes, source, score
        made = {layer["name"]: _module(layer, len(axes)) for layer in layers}
        self.weights = nn.ModuleDict(
            {_key(name): module for name, module in made.items() if module is not None}
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores of an image."""
        cut: list[slice] = []
        for size, axis in zip(image.shape[2:], self.axes):
            factor, pad = axis["downsample_factor"], axis["pad_input"]
            first = axis["halo"] - axis["border"]
            cut.append(slice(first, first + (size - first - pad) // factor * factor + pad))
        blobs = {self.source: image[(..., *cut)]}
        modules = dict(self.weights.items())
        for layer in self.layers:
            inputs = [blobs[name] for name in layer["bottom"]]
            blobs[layer["top"]] = _apply(layer, modules.get(_key(layer["name"])), inputs)
        return self._placed(blobs[self.score], image)

    def _placed(self, scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Put scores where their pixels lie in the image."""
        sides: list[int] = []
        for number, axis in enumerate(self.axes, 2):
            margin = axis["margin"]
            scores = scores.narrow(number, margin, scores.shape[number] - 2 * margin)
            before = axis["halo"]
            # Of the last axis first.
            sides = [before, image.shape[number] - before - scores.shape[number], *sides]
        return F.pad(scores, sides)


def _key(name: str) -> str:
    return name.replace(".", "_")


def _module(layer: dict[str, Any], axes: int) -> nn.Module | None:
    """Return what holds the weights of a layer."""
    if layer["type"] not in ("Convolution", "Deconvolution"):
        return None
    kinds = {
        "Convolution": {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d},
        "Deconvolution": {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d},
    }
    return kinds[layer["type"]][axes](
        layer["channels"],
        layer["num_output"],
        tuple(layer["kernel_size"]),
        stride=tuple(layer["stride"]),
        padding=tuple(layer["pad"]),
        dilation=tuple(layer["dilation"]),
        groups=layer["group"],
        bias=layer["bias_term"],
    )


def _apply(
    layer: dict[str, Any], module: nn.Module | None, bottoms: list[torch.Tensor]
) -> torch.Tensor:
    """Return the top of a layer."""
    kind, x = layer["type"], bottoms[0]
    if module is not None:
        return module(x)
    if kind == "ReLU":
        return F.leaky_relu(x, layer["negative_slope"]) if layer["negative_slope"] else F.relu(x)
    if kind == "Pooling":
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[x.dim() - 2]
        return pool(x, layer["kernel_size"], layer["stride"], ceil_mode=True)
    if kind == "Crop":
        sizes, first = bottoms[1].shape, layer["axis"]
        for axis, offset in enumerate(layer["offset"], first):
            x = x.narrow(axis, offset, sizes[axis])
        return x
    if kind == "Concat":
        # caffe_unet's takes the middle of what is larger than the first.
        parts = [x]
        for other in bottoms[1:]:
            for axis in range(2, x.dim()):
                more = other.shape[axis] - x.shape[axis]
                other = other.narrow(axis, more // 2, x.shape[axis])
            parts.append(other)
        return torch.cat(parts, 1)
    if kind == "ValueTransformation":
        ones = (1,) * (x.dim() - 2)
        offset, scale = (
            torch.tensor(layer[name], dtype=x.dtype, device=x.device).view(-1, *ones)
            for name in ("offset", "scale")
        )
        return scale * (x + offset)
    raise ValueError(f"layer {layer['name']!r} is of type {kind}, which is not known here")
