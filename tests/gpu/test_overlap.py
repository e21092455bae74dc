"""What a GPU fetches and gives back while it computes is what it would be otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2
from tests.gpu.engine import computing

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]

NET = """
layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: 2 dim: {maps} dim: {side} dim: {side} }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "mean" type: "Reduction" bottom: "conv" top: "mean"
  reduction_param {{ operation: MEAN axis: 1 }} }}
"""


def net(maps: int, side: int) -> caffe.Net:
    caffe.set_random_seed(1)
    text = NET.format(maps=maps, side=side)
    return caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TEST)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_items_in_batches_give_what_they_give_alone(device, graphs):
    items = np.random.default_rng(0).normal(size=(11, 3, 40, 40)).astype(np.float32)
    with computing(device, graphs=graphs):
        made = net(3, 40)
        together = made.forward_all(["conv"], data=items)
        for first in range(0, 10, 2):
            alone = made.forward(["conv"], data=items[first : first + 2])
            for name in ("conv", "mean"):
                np.testing.assert_allclose(
                    together[name][first : first + 2], alone[name], rtol=1e-5, atol=1e-6
                )
        assert len(together["conv"]) == 11
        assert made.blobs["data"].data.shape == (2, 3, 40, 40)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_a_blob_may_be_written_again_while_a_pass_is_under_way(device, graphs):
    # 8 MB, whose way to a GPU takes longer than the host needs to write them.
    with computing(device, graphs=graphs):
        made = net(1, 1000)
        made.params["conv"][0].data[...] = 1
        found = []
        for number in range(1, 9):
            made.blobs["data"].data[...] = number
            # Nobody looks at what comes out: the host does not wait.
            made.run_pass()
            found.append(made.blobs["mean"].data_tensor().clone())
        found = [tensor.cpu().numpy() for tensor in found]
    np.testing.assert_allclose(found, [[9 * number] * 2 for number in range(1, 9)], rtol=1e-4)
