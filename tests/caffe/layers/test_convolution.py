"""Ways to the gradients of convolutions beside PyTorch's own, against that."""

import numpy as np
import pytest
import torch

import caffe
from caffe import layers as L
from caffe.layers import convolution
from caffe.layers.convolution import _SUMS, Convolution

SHAPE = (2, 5, 4, 3)


def gradients_equal_pytorchs(kind, param, reference):
    """Hold the gradients of a net of one layer against those of a function of PyTorch."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(SHAPE)))
    param = dict(weight_filler=dict(type="msra"), **param)
    n.out = getattr(L, kind)(n.data, convolution_param=param)
    net_param = n.to_proto()
    net_param.force_backward = True
    caffe.set_random_seed(1)
    net, rng = caffe.Net(net_param, caffe.TRAIN), np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=SHAPE)
    net.forward()
    gradient = rng.normal(size=net.blobs["out"].shape).astype(np.float32)
    net.blobs["out"].diff[...] = gradient
    net.backward()
    blobs = [net.blobs["data"], *net.params["out"]]
    tensors = [torch.tensor(blob.data, requires_grad=True) for blob in blobs]
    reference(*tensors).backward(torch.tensor(gradient))
    for blob, tensor in zip(blobs, tensors):
        np.testing.assert_allclose(blob.diff, tensor.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("windows", [1, 100, 2**20])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_up_convolutions_do_not_depend_on_how_many_rows_are_taken_at_a_time(
    monkeypatch, kernel, windows
):
    monkeypatch.setattr(convolution, "_WINDOWS", windows)
    gradients_equal_pytorchs(
        "Deconvolution",
        dict(num_output=6, kernel_size=kernel, stride=kernel),
        lambda *tensors: torch.conv_transpose2d(*tensors, stride=kernel),
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("maps", "few"), [(1, True), (8, True), (9, False)])
def test_convolutions_of_pixels_whichever_way_they_are_computed(monkeypatch, maps, few, bias):
    taken = []
    real = Convolution._gradients_pointwise
    monkeypatch.setattr(
        Convolution, "_gradients_pointwise", lambda *rest: taken.append(1) or real(*rest)
    )
    param = dict(num_output=maps, kernel_size=1, bias_term=bias)
    gradients_equal_pytorchs("Convolution", param, torch.conv2d)
    assert bool(taken) == few


@pytest.mark.parametrize("way", _SUMS)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 64, 9, 4), (3, 1, 1, 6)])
def test_every_way_gives_the_sum_of_each_map(way, shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    sums = way(gradient)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, gradient.double().sum((0, 2, 3)).float())
