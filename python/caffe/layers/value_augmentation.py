"""Random curves through which values are sent: ValueAugmentation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from caffe import common, device_memory, late_checks
from caffe.layer_types import register
from caffe.layers import scalars_on_gpu
from caffe.layers.base import Blobs, NeuronLayer

_CPU = torch.device("cpu")


@register("ValueAugmentation")
class ValueAugmentation(NeuronLayer):
    """Grey values of each item by a random rising curve, as in caffe_unet.

    Notes
    -----
    0 becomes a value from black_from to black_to, 1 one from white_from to white_to. Then the
    middle of each piece is moved, n_control_point_insertions times: up or down as far as the slopes
    on both sides stay from slope_min to slope_max. Values are looked up in a table of lut_size
    equal steps from 0 to 1, linearly between them; beyond, the first and the last step go on.

    References
    ----------
    Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods
    16, 2019.
    """

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beyond_bvlc("is a layer of caffe_unet")
        self.param = param = self.layer_param.value_augmentation_param
        if param.lut_size < 2 or not 0 <= param.n_control_point_insertions <= 16:
            raise self.fail("needs a lut_size of 2 or more, and 0 to 16 n_control_point_insertions")
        if param.slope_min > param.slope_max:
            raise self.fail(f"slope_min {param.slope_min} is above slope_max {param.slope_max}")

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False

    def draw_table(self) -> torch.Tensor:
        """Draw a curve: what lut_size values from 0 to 1 become, float64."""
        param = self.param
        values = [
            self._between(param.black_from, param.black_to),
            self._between(param.white_from, param.white_to),
        ]
        step = 1.0
        for _ in range(param.n_control_point_insertions):
            step /= 2
            finer = values[:1]
            for left, right in pairwise(values):
                low = max(left + param.slope_min * step, right - param.slope_max * step)
                high = min(left + param.slope_max * step, right - param.slope_min * step)
                # No slopes lead from one to the other: a straight line.
                middle = self._between(low, high) if low <= high else (left + right) / 2
                finer += [middle, right]
            values = finer
        points = torch.tensor(values, dtype=torch.float64)
        return _looked_up(points, torch.linspace(0, 1, param.lut_size, dtype=torch.float64))

    @staticmethod
    def _between(low: float, high: float) -> float:
        drawn = torch.rand((), generator=common.generator(_CPU), dtype=torch.float64)
        return low + (high - low) * float(drawn)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        data = bottom[0].data_tensor()
        self._check_values(data)
        tables = torch.stack([self.draw_table() for _ in range(len(data))])
        tables = device_memory.to_current(tables.to(torch.float32).numpy())
        top[0].set_data(torch.stack(list(map(_looked_up, tables, data))))

    def _check_values(self, data: torch.Tensor) -> None:
        error = self.fail("the bottom holds NaN or infinite values: the pictures have such")
        wrong = ~torch.isfinite(data).all()
        if not scalars_on_gpu.on_host(wrong):
            late_checks.add(wrong, lambda: error)
        elif wrong:
            raise error

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            raise self.fail("has no gradient: nothing below it can learn")


def _looked_up(table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the values of a table of equal steps from 0 to 1, and beyond, at any values."""
    place = values * (len(table) - 1)
    # NaN is no place in the table: it stays NaN by what is added.
    first = place.floor().nan_to_num(0).clamp(0, len(table) - 2)
    index = first.to(torch.int64)
    below = table[index]
    return below + (table[index + 1] - below) * (place - first)
