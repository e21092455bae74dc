"""Batches that go to and come from a GPU while it computes, as a CPU runs them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.net import batches
from caffe.proto import caffe_pb2

NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "sum" type: "Reduction" bottom: "conv" top: "sum" reduction_param { axis: 1 } }
"""


@pytest.fixture
def net():
    caffe.set_random_seed(1)
    return caffe.Net(text_format.Parse(NET, caffe_pb2.NetParameter()), caffe.TEST)


def overlapped(net, blobs, data):
    inputs = [dict(data=data[first : first + 2]) for first in range(0, len(data), 2)]
    run = partial(net.run_pass, blobs)
    return list(batches.forward_overlapped(inputs, net.blobs, blobs, net._write, run))


def test_every_batch_gets_what_forward_gives_it(net):
    data = np.random.default_rng(0).normal(size=(6, 3, 6, 6)).astype(np.float32)
    found = overlapped(net, ["conv", "sum"], data)
    assert len(found) == 3
    for first, outputs in zip(range(0, 6, 2), found):
        wanted = net.forward(["conv"], data=data[first : first + 2])
        for name in ("conv", "sum"):
            np.testing.assert_array_equal(outputs[name], wanted[name])


def test_the_next_batch_is_fetched_before_the_last_one_is_waited_for(net, monkeypatch):
    told = []
    write, read = net._write, batches._read
    monkeypatch.setattr(net, "_write", lambda *a: (told.append("fetch"), write(*a)), raising=False)
    monkeypatch.setattr(batches, "_read", lambda *a: (told.append("wait"), read(*a))[1])
    overlapped(net, ["sum"], np.zeros((6, 3, 6, 6), np.float32))
    assert told == ["fetch", "fetch", "fetch", "wait", "wait", "wait"]


def test_values_that_do_not_fit_name_the_blob(net):
    with pytest.raises(ValueError, match=r"'data' is of the latter shape"):
        overlapped(net, ["sum"], np.zeros((2, 3, 5, 6), np.float32))
