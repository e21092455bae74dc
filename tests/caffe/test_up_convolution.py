"""Gradients of up-convolutions whose windows do not overlap, against PyTorch's own."""

import numpy as np
import pytest
import torch

import caffe
from caffe import layers as L
from caffe.layers import convolution

SHAPE, MAPS = (2, 3, 5, 4), 6


def up_convolution(kernel):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(SHAPE)))
    n.up = L.Deconvolution(
        n.data,
        convolution_param=dict(
            num_output=MAPS, kernel_size=kernel, stride=kernel, weight_filler=dict(type="msra")
        ),
    )
    param = n.to_proto()
    param.force_backward = True
    caffe.set_random_seed(1)
    return caffe.Net(param, caffe.TRAIN)


@pytest.mark.parametrize("windows", [1, 100, 2**20])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_gradients_do_not_depend_on_how_many_rows_are_taken_at_a_time(monkeypatch, kernel, windows):
    monkeypatch.setattr(convolution, "_WINDOWS", windows)
    net, rng = up_convolution(kernel), np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=SHAPE)
    net.forward()
    gradient = rng.normal(size=net.blobs["up"].shape).astype(np.float32)
    net.blobs["up"].diff[...] = gradient
    net.backward()

    inputs = [net.blobs["data"].data, *(blob.data for blob in net.params["up"])]
    data, weights, bias = (torch.tensor(values, requires_grad=True) for values in inputs)
    torch.nn.functional.conv_transpose2d(data, weights, bias, kernel).backward(
        torch.tensor(gradient)
    )
    found = [net.blobs["data"].diff, *(blob.diff for blob in net.params["up"])]
    for values, wanted in zip(found, (data.grad, weights.grad, bias.grad)):
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)
