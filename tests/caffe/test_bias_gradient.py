"""The gradient of a bias: the sum of each map, however a GPU computes it fastest."""

from __future__ import annotations

import pytest
import torch

from caffe.layers.convolution import _SUMS


@pytest.mark.parametrize("way", _SUMS)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 64, 9, 4), (3, 1, 1, 6)])
def test_every_way_gives_the_sum_of_each_map(way, shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    sums = way(gradient)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, gradient.double().sum((0, 2, 3)).float())
