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


@pytest.mark.parametrize("windows", [1, 500, 2**20])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape", "param"),
    [
        ("Convolution", (1, 1, 19, 23), dict(num_output=16, kernel_size=3)),
        ("Convolution", (2, 3, 9, 8), dict(num_output=9, kernel_size=3, pad=1)),
        (
            "Convolution",
            (2, 2, 7, 12),
            dict(num_output=10, kernel_h=2, kernel_w=5, pad_h=0, pad_w=2),
        ),
        ("Deconvolution", (2, 24, 5, 7), dict(num_output=12, kernel_size=2, stride=2)),
        (
            "Deconvolution",
            (1, 5, 4, 3),
            dict(num_output=6, kernel_h=1, kernel_w=3, stride_h=1, stride_w=3),
        ),
    ],
)
def test_without_a_pass_backward_pixels_are_the_same_some_rows_at_a_time(
    monkeypatch, kind, shape, param, bias, windows
):
    monkeypatch.setattr(convolution, "_WINDOWS", windows)
    # PyTorch's own is not asked.
    monkeypatch.setattr(torch, "convolution", lambda *_: pytest.fail("computed otherwise"))
    filler = dict(type="gaussian", std=1)
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(shape)))
    fillers = dict(weight_filler=filler, **(dict(bias_filler=filler) if bias else {}))
    n.out = getattr(L, kind)(n.data, convolution_param=dict(**param, **fillers, bias_term=bias))
    n.relu = L.ReLU(n.out, in_place=True)
    # The ReLU of the first pass is one with the convolution, that of the second is not.
    net = caffe.Net(n.to_proto(), caffe.TEST)
    rng = np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=shape)
    found = net.forward()["out"].copy()
    linear = net.forward(end="out")["out"]
    tensors = [torch.tensor(b.data).double() for b in (net.blobs["data"], *net.params["out"])]

    def pair(name, default):
        both = param.get(name, default), param.get(name, default)
        sides = "kernel" if name == "kernel_size" else name
        return param.get(f"{sides}_h", both[0]), param.get(f"{sides}_w", both[1])

    if kind == "Convolution":
        wanted = torch.nn.functional.conv2d(*tensors, padding=pair("pad", 0))
    else:
        wanted = torch.nn.functional.conv_transpose2d(*tensors, stride=pair("stride", 1))
    np.testing.assert_allclose(linear, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, wanted.clamp(min=0), rtol=1e-5, atol=1e-5)
