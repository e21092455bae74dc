"""Gradients of convolutions of single pixels to few maps, against PyTorch's own."""

import numpy as np
import pytest
import torch

import caffe
from caffe import layers as L
from caffe.layers.convolution import Convolution

SHAPE = (2, 5, 4, 3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("maps", "few"), [(1, True), (8, True), (9, False)])
def test_gradients_equal_pytorchs_whichever_way_they_are_computed(monkeypatch, maps, few, bias):
    taken = []
    real = Convolution._gradients_pointwise
    monkeypatch.setattr(
        Convolution, "_gradients_pointwise", lambda *rest: taken.append(1) or real(*rest)
    )
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(SHAPE)))
    param = dict(num_output=maps, kernel_size=1, bias_term=bias, weight_filler=dict(type="msra"))
    n.score = L.Convolution(n.data, convolution_param=param)
    net_param = n.to_proto()
    net_param.force_backward = True
    net, rng = caffe.Net(net_param, caffe.TRAIN), np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=SHAPE)
    net.forward()
    gradient = rng.normal(size=net.blobs["score"].shape).astype(np.float32)
    net.blobs["score"].diff[...] = gradient
    net.backward()
    assert bool(taken) == few

    inputs = [net.blobs["data"].data, *(blob.data for blob in net.params["score"])]
    tensors = [torch.tensor(values, requires_grad=True) for values in inputs]
    torch.conv2d(*tensors).backward(torch.tensor(gradient))
    found = [net.blobs["data"].diff, *(blob.diff for blob in net.params["score"])]
    for values, tensor in zip(found, tensors):
        np.testing.assert_allclose(values, tensor.grad, rtol=1e-4, atol=1e-5)
