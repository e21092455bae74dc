"""Layers that let blobs lie in one memory: nobody notices, whoever writes where."""

import numpy as np
import pytest
import torch

import caffe
from caffe import layers as L

SHAPE = (1, 16, 6, 5)


def moved(n, kind, source):
    """Add the layer: half of its top is part of the source."""
    if kind == "Crop":
        n.small = L.Input(shape=dict(dim=[1, 16, 3, 3]))
        return L.Crop(source, n.small, axis=2, offset=1)
    return L.Concat(source, n.other)


def expected(kind, source, other):
    if kind == "Crop":
        return source[:, :, 1:4, 1:4]
    return np.concatenate([source, other], axis=1)


def net_of(kind, made_by, later=None, phase=caffe.TRAIN):
    """Return a net whose layer `later` works in place above ("top") or beside ("bottom") it."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(SHAPE)))
    if made_by == "Convolution":
        # Its maps lie pixel by pixel.
        one = dict(type="constant", value=1)
        many = dict(num_output=16, group=16, kernel_size=1, bias_term=False, weight_filler=one)
        n.source = L.Convolution(n.data, convolution_param=many)
        n.other = L.Convolution(n.data, convolution_param=many)
    else:
        n.source, n.other = L.Power(n.data), L.Power(n.data)
    n.top = moved(n, kind, n.source)
    if later == "top":
        n.act = L.ReLU(n.top, in_place=True)
    if later == "bottom":
        # Flatten's top has the data of its bottom: this changes the source.
        n.flat = L.Flatten(n.source)
        n.act = L.ReLU(n.flat, in_place=True)
    if later == "flattened top":
        n.sum = L.Eltwise(n.top, n.top)
        n.flat = L.Flatten(n.top)
        n.act = L.ReLU(n.flat, in_place=True)
    # Outputs are looked at after each pass.
    n.end = L.Reduction(n.top)
    return caffe.Net(n.to_proto(), phase)


def filled(net):
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=SHAPE)
    net.forward()
    return net.blobs["data"].data.copy()


@pytest.mark.parametrize("kind", ["Crop", "Concat"])
@pytest.mark.parametrize("made_by", ["Convolution", "Power"])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_user_writes_into_one_blob_alone(kind, made_by, phase):
    for name, others in (("source", ["top", "other"]), ("top", ["source", "other"])):
        net = net_of(kind, made_by, phase=phase)
        values = filled(net)
        wanted = {"source": values, "other": values, "top": expected(kind, values, values)}
        net.blobs[name].data[...] = 7
        for other in others:
            np.testing.assert_array_equal(net.blobs[other].data, wanted[other])


@pytest.mark.parametrize("kind", ["Crop", "Concat"])
@pytest.mark.parametrize("made_by", ["Convolution", "Power"])
@pytest.mark.parametrize("later", ["top", "bottom", "flattened top"])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_layer_in_place_writes_into_one_blob_alone(kind, made_by, later, phase):
    net = net_of(kind, made_by, later, phase)
    values = filled(net)
    top = expected(kind, values, values)
    np.testing.assert_array_equal(net.blobs["other"].data, values)
    rectified = np.maximum(values, 0) if later == "bottom" else values
    np.testing.assert_array_equal(net.blobs["source"].data, rectified)
    rectified = top if later == "bottom" else np.maximum(top, 0)
    np.testing.assert_array_equal(net.blobs["top"].data, rectified)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_dropout_leaves_its_bottom_to_itself(phase):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(SHAPE)))
    n.source = L.Power(n.data)
    n.top = L.Dropout(n.source)
    n.act = L.ReLU(n.top, in_place=True)
    net = caffe.Net(n.to_proto(), phase)
    values = filled(net)
    np.testing.assert_array_equal(net.blobs["source"].data, values)


def test_the_gradient_of_batch_norm_below_a_relu_in_place():
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[3, 4, 5, 6]))
    n.top = L.BatchNorm(n.data)
    n.act = L.ReLU(n.top, in_place=True)
    param = n.to_proto()
    param.force_backward = True
    net = caffe.Net(param, caffe.TRAIN)
    rng = np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=(3, 4, 5, 6))
    net.forward()
    gradient = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    net.blobs["top"].diff[...] = gradient
    net.backward()
    data = torch.tensor(net.blobs["data"].data, requires_grad=True)
    torch.relu(torch.nn.functional.batch_norm(data, None, None, training=True)).backward(
        torch.tensor(gradient)
    )
    np.testing.assert_allclose(net.blobs["data"].diff, data.grad, atol=1e-5)
