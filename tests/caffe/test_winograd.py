"""3x3 convolution with 16 products: against convolution and its gradients in double precision."""

import numpy as np
import pytest
import torch

import caffe
from caffe.layers import winograd


def close(found, wanted, relative):
    """Hold values against wanted ones, to a fraction of the largest."""
    found, wanted = torch.as_tensor(found).double(), wanted.double()
    assert float((found - wanted).abs().max()) <= relative * float(wanted.abs().max())


def exact(data, weights, bias, pad, gradient):
    """Output and gradients by PyTorch's direct convolution, in double precision."""
    given = [tensor.double().requires_grad_() for tensor in (data, weights, bias)]
    output = torch.conv2d(*given, padding=pad)
    return output.detach(), torch.autograd.grad(output, given, gradient.double())


@pytest.mark.parametrize(
    ("images", "channels", "maps", "size", "pad"),
    [
        (1, 3, 2, (8, 12), (0, 0)),
        (2, 5, 7, (9, 12), (0, 1)),
        (1, 4, 3, (7, 5), (2, 1)),
        (1, 1, 1, (3, 3), (0, 0)),
        (3, 2, 2, (4, 31), (1, 0)),
        # More than one strip of tiles and more than one block of maps.
        (1, 8, 16, (70, 70), (0, 0)),
        (1, 512, 600, (24, 23), (1, 1)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("algorithm", "relative"), [(winograd.F2, 5e-6), (winograd.F4, 5e-5)])
def test_equals_convolution_in_double_precision(
    images, channels, maps, size, pad, layout, algorithm, relative
):
    torch.manual_seed(4)
    data = torch.randn(images, channels, *size).contiguous(memory_format=layout)
    weights = torch.randn(maps, channels, 3, 3) / (3 * channels**0.5)
    bias = torch.randn(maps)
    with torch.no_grad():
        output = winograd.forward(data, weights, bias, pad, False, algorithm)
        rectified = winograd.forward(data, weights, bias, pad, True, algorithm)
        gradient = torch.randn_like(output)
        found = winograd.backward(gradient, data, weights, pad, (True,) * 3, algorithm)
    wanted, gradients = exact(data, weights, bias, pad, gradient)
    close(output, wanted, relative)
    close(rectified, wanted.relu(), relative)
    for ours, theirs in zip(found, gradients):
        assert ours.shape == theirs.shape
        close(ours, theirs, relative)


@pytest.mark.parametrize("wanted", range(3))
def test_gives_only_the_gradient_that_is_wanted(wanted):
    torch.manual_seed(4)
    data, weights = torch.randn(1, 3, 8, 8), torch.randn(2, 3, 3, 3)
    gradient = torch.randn(1, 2, 6, 6)
    flags = tuple(place == wanted for place in range(3))
    with torch.no_grad():
        found = winograd.backward(gradient, data, weights, (0, 0), flags)
    _, gradients = exact(data, weights, torch.zeros(2), (0, 0), gradient)
    assert [part is not None for part in found] == list(flags)
    close(found[wanted], gradients[wanted], 1e-5)


def test_a_layer_of_many_channels_takes_this_way_and_one_of_few_does_not(tmp_path, monkeypatch):
    taken = []
    real = winograd.forward
    monkeypatch.setattr(
        winograd, "forward", lambda data, *rest: taken.append(data.shape[1]) or real(data, *rest)
    )
    path = tmp_path / "net.prototxt"
    text = 'layer { name: "in" type: "Input" top: "x0" input_param { shape { dim: 1 dim: 3 dim: 30 '
    text += "dim: 30 } } }\n"
    for number, maps in enumerate((128, 256, 256)):
        text += (
            f'layer {{ name: "conv{number}" type: "Convolution" bottom: "x{number}" '
            f'top: "x{number + 1}" convolution_param {{ num_output: {maps} kernel_size: 3 '
            'weight_filler { type: "msra" } } }\n'
        )
    path.write_text(text)
    net = caffe.Net(str(path), caffe.TEST)
    net.blobs["x0"].data[...] = np.random.default_rng(1).normal(size=(1, 3, 30, 30))
    net.forward()
    assert taken == [128, 256]
    data = torch.from_numpy(net.blobs["x1"].data)
    weights = torch.from_numpy(net.params["conv1"][0].data)
    close(net.blobs["x2"].data, torch.conv2d(data.double(), weights.double()), 5e-5)
