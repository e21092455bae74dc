"""3x3 convolution with fewer products: against convolution and gradients in double precision."""

import numpy as np
import pytest
import torch

import caffe
from caffe.layers.winograd import convolve, simd, transforms
from caffe.layers.winograd.products import lines_fetched

pytestmark = pytest.mark.skipif(not simd.available(), reason="llvmlite is not installed")


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
        (1, 16, 16, (6, 6), (0, 0)),
        (1, 16, 32, (8, 12), (0, 0)),
        # The last tiles of a row and of a column repeat pixels of the ones before.
        (2, 32, 16, (9, 13), (0, 1)),
        (1, 16, 16, (7, 5), (2, 1)),
        (3, 16, 16, (6, 31), (1, 0)),
        # Many strips, the last of which has one row that repeats pixels.
        (1, 64, 64, (103, 99), (0, 0)),
        # Several blocks of maps; few strips, so that threads share out the maps.
        (1, 512, 608, (24, 23), (1, 1)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_convolution_in_double_precision(images, channels, maps, size, pad, layout):
    torch.manual_seed(4)
    data = torch.randn(images, channels, *size).contiguous(memory_format=layout)
    weights = torch.randn(maps, channels, 3, 3) / (3 * channels**0.5)
    bias = torch.randn(maps)
    with torch.no_grad():
        output = convolve.forward([data], weights, bias, pad, False)
        rectified = convolve.forward([data], weights, bias, pad, True)
        gradient = torch.randn_like(output)
        found = convolve.backward(gradient, data, weights, pad, (True,) * 3)
    wanted, gradients = exact(data, weights, bias, pad, gradient)
    close(output, wanted, 2e-5)
    close(rectified, wanted.relu(), 2e-5)
    for ours, theirs in zip(found, gradients):
        assert ours.shape == theirs.shape
        close(ours, theirs, 2e-5)


def test_the_number_of_threads_does_not_change_a_bit():
    torch.manual_seed(4)
    data, weights = torch.randn(1, 64, 70, 61), torch.randn(128, 64, 3, 3)
    bias, gradient = torch.randn(128), torch.randn(1, 128, 68, 59)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            output = convolve.forward([data], weights, bias, (0, 0), True)
            back = convolve.backward(gradient, data, weights, (0, 0), (True, True, False))
            results.append([output, *back[:2]])
            # The threads compute with one thread each; this one goes on with all of its own.
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0]))


@pytest.mark.parametrize("near", [0, 2**17])
def test_how_the_work_is_cut_does_not_change_a_bit(monkeypatch, near):
    torch.manual_seed(4)
    data, weights = torch.randn(3, 32, 30, 71), torch.randn(64, 32, 3, 3)
    bias, gradient = torch.randn(64), torch.randn(3, 64, 28, 69)

    def results():
        output = convolve.forward([data], weights, bias, (0, 0), True)
        return output, *convolve.backward(gradient, data, weights, (0, 0), (True, True, False))[:2]

    whole = results()
    # Groups of one piece, of two rows of tiles or of several images; blocks of 16 and 32 maps.
    for tiles, block in ((1, 2**14), (36, 2**15), (300, 2**22)):
        for name, value in (("_CORE_VALUES", near), ("_TILES", tiles)):
            monkeypatch.setattr(convolve, name, value)
        for name in ("_BLOCK_VALUES", "_GRADIENT_VALUES"):
            monkeypatch.setattr(convolve, name, block)
        assert all(torch.equal(a, b) for a, b in zip(results(), whole))
    monkeypatch.setattr(convolve, "_GRADIENT_TILES", 36)
    cut = results()
    assert all(torch.equal(a, b) for a, b in zip(cut[:2], whole))
    close(cut[2], whole[2].double(), 1e-5)


@pytest.mark.parametrize("near", [0, 2**17])
@pytest.mark.parametrize("pad", [(0, 0), (2, 1)])
def test_channels_of_several_tensors_give_what_they_give_in_one(monkeypatch, near, pad):
    monkeypatch.setattr(convolve, "_CORE_VALUES", near)
    torch.manual_seed(4)
    # The middle of a larger image, a tensor in C's order, and a whole one pixel by pixel.
    larger = torch.randn(2, 32, 40, 77).contiguous(memory_format=torch.channels_last)
    parts = [larger[:, :, 4:34, 3:74], torch.randn(2, 16, 30, 71), torch.randn(2, 48, 30, 71)]
    parts[2] = parts[2].contiguous(memory_format=torch.channels_last)
    weights, bias = torch.randn(64, 96, 3, 3), torch.randn(64)
    found = convolve.forward(parts, weights, bias, pad, True)
    assert torch.equal(found, convolve.forward([torch.cat(parts, 1)], weights, bias, pad, True))


@pytest.mark.parametrize(
    ("channels", "share"), [(64, 64), (64, 16), (128, 64), (16, 256), (48, 80)]
)
def test_all_pixels_of_the_next_tiles_are_fetched(channels, share):
    held = simd.accumulators()
    chunk = 5 * held
    # With each of 6 pieces of a run, each vector of the maps and each few tiles.
    times = transforms.INPUT_TILE * (share // simd.LANES) * (chunk // held)
    values = times * lines_fetched(channels, share) * simd.LANES
    run = transforms.OUTPUT_TILE * chunk * channels
    assert run <= values < run + times * simd.LANES


def test_a_value_that_is_not_a_number_is_not_rectified_away():
    data = torch.zeros(1, 16, 6, 6)
    data[0, 3, 2, 2] = torch.nan
    weights = torch.ones(16, 16, 3, 3)
    assert convolve.forward([data], weights, None, (0, 0), True).isnan().any()


@pytest.mark.parametrize("wanted", range(3))
def test_gives_only_the_gradient_that_is_wanted(wanted):
    torch.manual_seed(4)
    data, weights = torch.randn(1, 16, 8, 8), torch.randn(32, 16, 3, 3)
    gradient = torch.randn(1, 32, 6, 6)
    flags = tuple(place == wanted for place in range(3))
    with torch.no_grad():
        found = convolve.backward(gradient, data, weights, (0, 0), flags)
    _, gradients = exact(data, weights, torch.zeros(32), (0, 0), gradient)
    assert [part is not None for part in found] == list(flags)
    close(found[wanted], gradients[wanted], 2e-5)


@pytest.mark.parametrize(
    ("channels", "maps", "output", "expected"),
    [
        (128, 64, (23, 23), True),
        (64, 64, (23, 23), False),
        (256, 16, (100, 100), True),
        (64, 64, (32, 32), True),
        (64, 48, (200, 200), False),
        (64, 64, (31, 32), False),
        (64, 65, (100, 100), False),
        (3, 4096, (100, 100), False),
        (512, 512, (19, 20), False),
        (64, 64, (5, 500), False),
    ],
)
def test_is_faster_for_whole_vectors_enough_filters_and_work(channels, maps, output, expected):
    assert convolve.is_faster(channels, maps, output) == expected


def test_without_a_compiler_convolution_is_direct(monkeypatch):
    monkeypatch.setattr(simd, "llvm", None)
    assert not convolve.is_faster(64, 64, (100, 100))


def test_a_layer_of_many_channels_takes_this_way_and_one_of_few_does_not(tmp_path, monkeypatch):
    taken = []
    real = convolve.forward
    monkeypatch.setattr(
        convolve, "forward", lambda data, *rest: taken.append(data[0].shape[1]) or real(data, *rest)
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
    close(net.blobs["x2"].data, torch.conv2d(data.double(), weights.double()), 2e-5)
