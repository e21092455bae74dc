"""Pooling by chance, which genuine Caffe has on GPUs only: judged by its formula.

References
----------
Zeiler and Fergus, Stochastic Pooling for Regularization of Deep Convolutional Neural Networks,
ICLR 2013.
"""

from __future__ import annotations

import numpy as np
import pytest

import caffe

NET = """
force_backward: true
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "x" top: "y"
  pooling_param {{ pool: STOCHASTIC kernel_size: {kernel} stride: {stride} }} }}
"""


@pytest.fixture
def make(tmp_path):
    """Return what makes a net of one pooling layer, fed with an array."""

    def made(values: np.ndarray, phase: int, kernel: int, stride: int) -> caffe.Net:
        dims = " ".join(f"dim: {size}" for size in values.shape)
        path = tmp_path / "net.prototxt"
        path.write_text(NET.format(dims=dims, kernel=kernel, stride=stride))
        net = caffe.Net(str(path), phase)
        net.blobs["x"].data[...] = values
        return net

    return made


def test_in_testing_the_mean_weighted_by_the_values_is_taken(make):
    # The last column's windows reach over the edge; one window holds zeros only.
    plane = [[1, 3, 0, 0, 5], [0, 4, 0, 0, 1]]
    net = make(np.array([[plane]], np.float32), caffe.TEST, 2, 2)
    wanted = [(1 + 9 + 16) / 8, 0, (25 + 1) / 6]
    np.testing.assert_allclose(net.forward()["y"], [[[wanted]]], rtol=1e-6)
    with pytest.raises(caffe.CaffeError, match=r"layer 'pool' .*a gradient in phase TRAIN only"):
        net.backward()


def test_in_training_values_are_drawn_as_often_as_they_are_large(make):
    caffe.set_random_seed(5)
    draws = 20000
    values = np.tile(np.array([1, 2, 0, 5], np.float32).reshape(2, 2), (draws, 1, 1, 1))
    drawn = make(values, caffe.TRAIN, 2, 2).forward()["y"].ravel()
    assert set(drawn.tolist()) == {1, 2, 5}
    for value in (1, 2, 5):
        probability = value / 8
        off = np.mean(drawn == value) - probability
        # Five standard errors.
        assert abs(off) < 5 * np.sqrt(probability * (1 - probability) / draws), value


def test_the_gradient_is_that_of_central_differences(make):
    random = np.random.default_rng(3)
    values = random.uniform(0.5, 2, (2, 3, 5, 6)).astype(np.float32)
    net = make(values, caffe.TRAIN, 3, 2)
    weights = random.normal(size=net.blobs["y"].data.shape).astype(np.float32)

    def total() -> float:
        # The same numbers are drawn in every pass.
        caffe.set_random_seed(11)
        return float((net.forward()["y"].astype(np.float64) * weights).sum())

    total()
    gradient = net.backward(y=weights)["x"].copy()
    assert np.count_nonzero(gradient) < gradient.size
    # What is drawn must not change on the way.
    step = 1e-3
    differences = np.zeros_like(gradient)
    for place in np.ndindex(*values.shape):
        sums = []
        for sign in (1, -1):
            net.blobs["x"].data[place] = values[place] + sign * step
            sums.append(total())
        net.blobs["x"].data[place] = values[place]
        differences[place] = (sums[0] - sums[1]) / (2 * step)
    off = np.abs(differences - gradient)
    assert np.median(off) < 1e-3
    # Some choices lie so near to a limit that they change with the step: few.
    assert np.mean(off > 1e-2) < 0.02
