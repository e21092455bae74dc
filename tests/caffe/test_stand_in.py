"""Everything the engine computes on a GPU lies there, and the host hardly ever waits for it.

On a stand-in, so that this is known without a GPU: see stand_in.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe import device
from caffe.proto import caffe_pb2
from tests.caffe.stand_in import META, StandIn, computing_on_stand_in
from tests.parity.harness import Case
from tests.parity.layer_cases import CASES, Draw

PRECISIONS = ("fp32", "tf32", "bf16")
SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")

# Layer type -> where it makes the host wait; all others do not.
LAYERS_THAT_WAIT = {"Filter": {"nonzero, layers/select.py reshape"}}


@pytest.fixture
def gpu(monkeypatch) -> Iterator[StandIn]:
    with computing_on_stand_in(monkeypatch) as mode:
        yield mode
    device.set_precision("fp32")


def made(text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    return caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), phase)


def forward(net: caffe.Net) -> float:
    return net._forward(0, len(net.layers) - 1)


def backward(net: caffe.Net) -> None:
    net.clear_param_diffs()
    net._backward(len(net.layers) - 1, 0)


def assert_all_lies_there(gpu: StandIn, net: caffe.Net) -> None:
    """Check devices, shapes and types of all blobs and parameters, and of what comes later."""
    blobs = [*net.blobs.values(), *net.learnable]
    with gpu.seen():
        for blob in blobs:
            for side in (blob.data_side, blob.diff_side):
                values = side.activation()
                assert values.device == META
                assert values.shape == blob.shape
                assert values.dtype in (torch.float32, device.compute_dtype())
        assert not gpu.uploads
    for blob in net.learnable:
        assert blob.data_side.activation().dtype == torch.float32
        assert blob.diff_side.activation().dtype == torch.float32


# -- layers ----------------------------------------------------------------------------------------


def run_case(gpu: StandIn, case: Case) -> None:
    """Run a case twice, and look at the second time."""
    net = made(case.net, case.phase)
    for name, values in case.inputs.items():
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].data[...] = values
        # Some layers only look at its shape.
        net.blobs[name].data_side.tensor()
    forward(net)
    for name, values in case.top_diffs.items():
        if net.blobs[name].shape == values.shape:
            net.blobs[name].diff[...] = values
            net.blobs[name].diff_side.tensor()
    with gpu.seen():
        forward(net)
        if case.backward:
            backward(net)
        of_net = [place for place in gpu.waits if not place.layer]
        assert len(of_net) <= bool(sum(net.blob_loss_weights.values()))
        of_layers = [place for place in gpu.waits if place.layer]
        assert {place.key for place in of_layers} == LAYERS_THAT_WAIT.get(kind_of(net), set())
        assert not gpu.uploads
    if case.backward:
        assert_all_lies_there(gpu, net)


def kind_of(net: caffe.Net) -> str:
    return net.layer_dict["layer"].type


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", sorted(CASES))
def test_a_layer_computes_where_its_bottoms_lie_and_keeps_the_host_waiting_only_as_listed(
    gpu, kind, precision
):
    device.set_precision(precision)
    for number in range(12):
        case = CASES[kind](Draw(kind, number))
        try:
            run_case(gpu, case)
        except Exception as error:
            raise AssertionError(f"{kind} {number}: {error}\n{case.net}") from error
