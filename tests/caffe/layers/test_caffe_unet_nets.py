"""The nets that the Fiji plugin's editor writes, 2-D and 3-D, computed again in plain PyTorch."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import caffe
from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.proto import caffe_pb2
from tests import caffe_unet

CONVOLVE = {2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOL = {2: F.max_pool2d, 3: F.max_pool3d}


def input_size(levels: int) -> int:
    """Return the size of an axis that leaves 4 values at the lowest level."""
    size = 8
    for _ in range(levels):
        size = 2 * size + 4
    return size


def open_editors(folder, levels: tuple[int, ...], channels: int, width: int = 2) -> caffe.Net:
    sizes = [size if own else 7 for own, size in zip(levels, map(input_size, levels))]
    dims = " ".join(f"dim: {size}" for size in (1, channels, *sizes))
    path = folder / "net.prototxt"
    path.write_text(
        "state { phase: TEST }\n"
        "layer { top: 'data3' name: 'input' type: 'Input' "
        f"input_param {{ shape {{ {dims} }} }} }}\n{caffe_unet.editor_text(levels, width)}"
    )
    caffe.set_random_seed(1)
    return caffe.Net(str(path), caffe.TEST)


def compute(net: caffe.Net, data: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """Return the score by the rules: convolutions, leaky ReLUs, maxima, central crops."""
    axes, depth = len(levels), max(levels)
    values = {
        name: [torch.tensor(blob.data, dtype=torch.float64) for blob in blobs]
        for name, blobs in net.params.items()
    }

    def double(name: str, x: torch.Tensor) -> torch.Tensor:
        for first, second in ("ab", "bc") if name[0] == "d" else ("bc", "cd"):
            weights = values[f"conv_{name}{first}-{name}{second}"]
            x = F.leaky_relu(CONVOLVE[axes](x, *weights), 0.1)
        return x

    x, kept = torch.tensor(data, dtype=torch.float64) - 0.5, []
    for level in range(depth):
        kept.append(double(f"d{level}", x))
        x = POOL[axes](kept[-1], [2 if own >= depth - level else 1 for own in levels])
    x, below = double(f"d{depth}", x), f"d{depth}c"
    for level in reversed(range(depth)):
        weights, bias = values[f"upconv_{below}-u{level}a"]
        x = F.leaky_relu(TRANSPOSED[axes](x, weights, bias, list(weights.shape[2:])), 0.1)
        window = [...]
        for more, size in zip(kept[level].shape[2:], x.shape[2:]):
            window.append(slice((more - size) // 2, (more + size) // 2))
        x, below = double(f"u{level}", torch.cat([x, kept[level][tuple(window)]], 1)), f"u{level}d"
    weights, bias = values[f"conv_{below}-score"]
    return torch.einsum("oi,ni...->no...", weights.flatten(1), x).numpy() + bias.numpy().reshape(
        -1, *(1,) * axes
    )


@pytest.mark.parametrize(
    ("levels", "channels"),
    [
        *(((level, level), 1) for level in (1, 2, 3, 4, 5)),
        ((2, 3), 3),
        ((2, 2, 2), 1),
        # As for EM stacks: kernels of 1 x 3 x 3 and pooling of 1 x 2 x 2 in the upper levels.
        ((1, 2, 2), 2),
    ],
)
def test_nets_of_the_editor_are_plain_pytorch(tmp_path, levels, channels):
    net = open_editors(tmp_path, levels, channels)
    random = np.random.default_rng(2)
    for blobs in net.params.values():
        blobs[1].data[...] = random.normal(size=blobs[1].shape)
    net.blobs["data3"].data[...] = random.random(net.blobs["data3"].shape)
    score = net.forward()["score"]
    expected = compute(net, net.blobs["data3"].data, levels)
    assert score.shape == expected.shape
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# -- ValueTransformation ---------------------------------------------------------------------------


def one_layer(folder, text: str, *shape: int, phase: int = caffe.TEST) -> caffe.Net:
    dims = " ".join(f"dim: {size}" for size in shape)
    path = folder / "net.prototxt"
    path.write_text(
        "force_backward: true\nlayer { name: 'x' top: 'x' type: 'Input' input_param { shape { "
        f"{dims} }} }} }}\nlayer {{ name: 'y' bottom: 'x' top: 'y' {text} }}\n"
    )
    return caffe.Net(str(path), phase)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize(
    ("param", "offset", "scale"),
    [
        ("offset { v: -0.5 }", -0.5, 1),
        ("scale { v: 2 }", 0, 2),
        (
            "offset { v: 1 v: 2 v: 3 } scale { v: 2 v: 4 v: 8 }",
            [[[1]], [[2]], [[3]]],
            [[[2]], [[4]], [[8]]],
        ),
        ("", 0, 1),
    ],
)
def test_values_are_moved_and_then_scaled_in_both_phases(tmp_path, phase, param, offset, scale):
    text = f"type: 'ValueTransformation' value_transformation_param {{ {param} }}"
    net = one_layer(tmp_path, text, 2, 3, 4, 5, phase=phase)
    x = np.random.default_rng(3).random((2, 3, 4, 5))
    net.blobs["x"].data[...] = x
    np.testing.assert_allclose(net.forward()["y"], scale * (x + np.array(offset)), atol=1e-6)
    net.blobs["y"].diff[...] = x
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, scale * x, rtol=1e-6)


def test_values_for_another_number_of_channels_are_refused(tmp_path):
    text = "type: 'ValueTransformation' value_transformation_param { scale { v: 1 v: 2 } }"
    with pytest.raises(CaffeError, match=r"'y'.*scale needs 1 value, or 3, one per channel"):
        one_layer(tmp_path, text, 2, 3, 4, 5)


# -- Pooling by axis -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("param", "shape", "kernel", "stride", "pad"),
    [
        ("kernel_size: 1 kernel_size: 2 stride: [1, 2]", (4, 6), (1, 2), (1, 2), (0, 0)),
        (
            "kernel_size: 2 kernel_size: 3 kernel_size: 2 stride: 2 pad: 0 pad: 1 pad: 0",
            *((6, 7, 8), (2, 3, 2), (2, 2, 2), (0, 1, 0)),
        ),
        ("kernel_size: 2 stride: 2", (4, 6, 8), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
        ("kernel_size: 3 stride: 3", (9,), (3,), (3,), (0,)),
    ],
)
def test_each_axis_is_pooled_by_its_own_window(tmp_path, method, param, shape, kernel, stride, pad):
    text = f"type: 'Pooling' pooling_param {{ pool: {method} {param} }}"
    net = one_layer(tmp_path, text, 2, 3, *shape)
    x = np.random.default_rng(4).normal(size=(2, 3, *shape))
    sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, pad)]
    expected, gradient = np.empty((2, 3, *sizes)), np.zeros(x.shape)
    for place in np.ndindex(*sizes):
        starts = [i * s - p for i, s, p in zip(place, stride, pad)]
        window = tuple(slice(max(0, a), a + k) for a, k in zip(starts, kernel))
        for plane in np.ndindex(2, 3):
            values, part = x[plane][window], gradient[plane][window]
            # Windows of the mean are divided by what lies in the padded image.
            area = np.prod(
                [min(a + k, n + p) - a for a, k, n, p in zip(starts, kernel, shape, pad)]
            )
            if method == "MAX":
                expected[(*plane, *place)] = values.max()
                part[np.unravel_index(values.argmax(), values.shape)] += 1
            else:
                expected[(*plane, *place)] = values.sum() / area
                part += 1 / area
    net.blobs["x"].data[...] = x
    np.testing.assert_allclose(net.forward()["y"], expected, rtol=1e-5, atol=1e-6)
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, gradient, rtol=1e-5)


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("kernel_size: 2 kernel_size: 2 kernel_size: 2", "kernel_size needs 1 or 2 value"),
        ("kernel_size: 2 stride: [1, 2, 3]", "stride needs 1 or 2 value"),
        ("kernel_size: 2 kernel_size: 2 kernel_h: 2 kernel_w: 2", "either kernel_size, or"),
        ("kernel_size: 2 stride: 2 stride: 2 stride_h: 2 stride_w: 2", "either stride, or"),
        ("global_pooling: true kernel_size: 2 kernel_size: 2", "leave kernel_size out"),
    ],
)
def test_windows_that_fit_no_axes_are_refused(tmp_path, param, told):
    with pytest.raises(CaffeError, match=rf"net.prototxt:3:1: layer 'y'.*{told}"):
        one_layer(tmp_path, f"type: 'Pooling' pooling_param {{ {param} }}", 1, 1, 4, 4)


def test_what_is_repeated_is_written_under_its_own_name(tmp_path):
    text = (
        'layer {\n  name: "p"\n  pooling_param {\n    kernel_size: 1\n    kernel_size: 2\n'
        "    stride: 1\n    stride: 2\n  }\n}\n"
    )
    net = prototxt.parse_net(text)
    assert list(net.layer[0].pooling_param.kernel_sizes) == [1, 2]
    prototxt.write_text(net, tmp_path / "net.prototxt")
    for written in ((tmp_path / "net.prototxt").read_text(), prototxt.to_text(net)):
        assert prototxt.parse_net(written) == net
        assert sorted(written.split()) == sorted(text.split())


def test_a_mistake_beside_it_is_told_with_its_place():
    text = 'layer { name: "p" pooling_param { stride: 1 stride: 2 kernel_size: 1 strid: 3 } }'
    with pytest.raises(CaffeError) as error:
        prototxt.parse_net(text, "net.prototxt")
    column = text.index("strid: 3") + 1
    assert re.match(rf"net.prototxt:1:{column}: .*'strid'", str(error.value))


def test_one_value_stays_a_number():
    net = prototxt.parse_net("layer { pooling_param { kernel_size: 2 stride: 2 } }")
    assert net == caffe_pb2.NetParameter(layer=[{"pooling_param": {"kernel_size": 2, "stride": 2}}])
