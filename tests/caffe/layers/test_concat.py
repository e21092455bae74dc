"""Concat leaves its bottoms where they lie for a convolution; whoever looks sees them joined."""

import numpy as np
import pytest

import caffe
from caffe import layers as L
from caffe.layers.shape import Concat
from caffe.layers.winograd import convolve, simd

pytestmark = pytest.mark.skipif(not simd.available(), reason="llvmlite is not installed")
NAMES = ("left", "right", "top", "mixed", "end")


def up_side(n, readers=1, later=None):
    """Add what joins a crop and another blob, and convolves it as the up-side of a U does."""
    filler = dict(type="gaussian", std=0.1)
    few = dict(kernel_size=1, weight_filler=filler)
    n.larger = L.Convolution(n.data, num_output=64, **few)
    n.right = L.Convolution(n.small, num_output=64, **few)
    n.left = L.Crop(n.larger, n.right, axis=2, offset=2)
    n.top = L.Concat(n.left, n.right)
    if later == "top":
        n.act = L.ReLU(n.top, in_place=True)
    if later == "bottom":
        # Flatten's top has the data of its bottom.
        n.flat = L.Flatten(n.right)
        n.act = L.ReLU(n.flat, in_place=True)
    mix = dict(num_output=64, kernel_size=3, weight_filler=filler)
    n.mixed = L.Convolution(n.top, **mix)
    n.rectified = L.ReLU(n.mixed, in_place=True)
    n.end = L.Convolution(n.mixed, num_output=2, **few)
    if readers == 2:
        n.second = L.Convolution(n.top, **mix)


def net_of(**kinds):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, 36, 38]))
    n.small = L.Input(shape=dict(dim=[1, 1, 32, 34]))
    up_side(n, **kinds)
    caffe.set_random_seed(3)
    net = caffe.Net(n.to_proto(), caffe.TEST)
    rng = np.random.default_rng(0)
    for name in ("data", "small"):
        net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)
    return net


def values(net, names=NAMES):
    return {name: net.blobs[name].data.copy() for name in names}


@pytest.fixture
def joined_at_once(monkeypatch):
    """Have Concat join its bottoms when it runs, and return what a net's blobs then hold."""

    def run(**kinds):
        with monkeypatch.context() as patch:
            patch.setattr(Concat, "_stay", lambda *_: False)
            net = net_of(**kinds)
            net.forward()
            return values(net, net.blobs)

    return run


@pytest.mark.parametrize("kinds", [{}, {"readers": 2}, {"later": "top"}, {"later": "bottom"}])
@pytest.mark.parametrize("retain", [True, False])
def test_gives_the_same_to_the_bit(joined_at_once, kinds, retain):
    wanted, net = joined_at_once(**kinds), net_of(**kinds)
    net.retain_data = retain
    net.forward(NAMES)
    for name, found in values(net).items():
        np.testing.assert_array_equal(found, wanted[name])


def test_a_convolution_is_given_the_parts_and_nobody_joins_them(monkeypatch):
    given = []
    real = convolve.forward
    monkeypatch.setattr(
        convolve,
        "forward",
        lambda data, *rest: given.append([part.shape[1] for part in data]) or real(data, *rest),
    )
    net = net_of()
    net.forward()
    assert given == [[64, 64]]
    assert net.blobs["top"].data_memory.is_lazy


def test_who_is_called_back_sees_them_joined(joined_at_once):
    wanted, net, seen = joined_at_once(), net_of(), {}
    names = list(net._layer_names)
    net.after_forward(
        lambda index: seen.update(
            {name: net.blobs[name].data.copy() for name in net.top_names[names[index]]}
        )
    )
    net.forward()
    np.testing.assert_array_equal(seen["top"], wanted["top"])
    np.testing.assert_array_equal(seen["end"], wanted["end"])


@pytest.mark.parametrize("start", ["top", "mixed"])
def test_a_pass_may_begin_and_end_between(joined_at_once, start):
    wanted, net = joined_at_once(), net_of()
    net.forward(end="top" if start == "mixed" else "right")
    if start == "top":
        net.forward(start="left", end="left")
    # What a user writes into the bottom of a Concat that has run does not reach its top.
    elif start == "mixed":
        net.blobs["right"].data[...] = 7
    net.forward(start=start)
    for name in ("top", "mixed", "end"):
        np.testing.assert_array_equal(net.blobs[name].data, wanted[name])


def test_another_shape_leaves_values_in_their_order(joined_at_once):
    wanted, net = joined_at_once(), net_of()
    net.forward()
    net.blobs["top"].reshape(2, 64, 32, 34)
    np.testing.assert_array_equal(net.blobs["top"].data.ravel(), wanted["top"].ravel())


def test_gradients_in_phase_test_are_those_of_joined_values():
    found = []
    for look in (False, True):
        net = net_of()
        net.forward()
        if look:
            assert net.blobs["top"].data.any()
        net.blobs["end"].diff[...] = 1
        net.backward()
        found.append([blob.diff.copy() for blob in net.params["mixed"]])
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)
