"""Values moved and scaled, all alike or channel by channel: ValueTransformation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.layer_types import register
from caffe.layers.base import Blobs, NeuronLayer


@register("ValueTransformation")
class ValueTransformation(NeuronLayer):
    """scale * (x + offset); one scale and offset for all channels, or one for each.

    Notes
    -----
    Not BVLC's: of caffe_unet (Falk et al., Nature Methods 16, 2019), whose nets bring normalised
    pictures to -0.5..0.5 by it, in phase TEST as well.
    """

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beyond_bvlc("is a layer of caffe_unet")
        # Where the values of channels lie: on a GPU once, not in each pass.
        self._moved: dict[tuple[str, torch.device], torch.Tensor] = {}

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        param, shape = self.layer_param.value_transformation_param, bottom[0].shape
        self.offset = self._by_channel("offset", list(param.offset.v) or [0.0], shape)
        self.scale = self._by_channel("scale", list(param.scale.v) or [1.0], shape)
        self._moved.clear()

    def _by_channel(self, name: str, values: list[float], shape: tuple[int, ...]) -> torch.Tensor:
        channels = shape[1] if len(shape) > 1 else 1
        if len(values) not in (1, channels):
            raise self.fail(
                f"{name} needs 1 value, or {channels}, one per channel of {shape}, has "
                f"{len(values)}"
            )
        return torch.tensor(values).view(-1, *(1,) * (len(shape) - 2))

    def _on(self, device: torch.device, name: str) -> torch.Tensor:
        key = name, device
        if key not in self._moved:
            self._moved[key] = getattr(self, name).to(device)
        return self._moved[key]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0].data_tensor()
        top[0].set_data(self._on(x.device, "scale") * (x + self._on(x.device, "offset")))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            grad = top[0].diff_tensor()
            bottom[0].set_diff(self._on(grad.device, "scale") * grad)
