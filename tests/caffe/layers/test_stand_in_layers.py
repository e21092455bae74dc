"""Every layer computes where its bottoms lie on a GPU, and hardly ever has the host wait.

On a stand-in, so that this is known without a GPU: see stand_in.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

import caffe
from caffe import common, late_checks
from caffe.layers.activation import Dropout
from tests.caffe.stand_in import (
    META,
    StandIn,
    WrongDeviceError,
    assert_all_lies_there,
    backward,
    forward,
    made,
    waits_of_gpu,
)
from tests.parity.harness import Case
from tests.parity.layer_cases import CASES, Draw

# Layer type -> where it makes the host wait; all others do not.
LAYERS_THAT_WAIT = {"Filter": {"nonzero, layers/argmax_filter.py reshape"}}


def fed(case: Case) -> caffe.Net:
    """Return a case's net with its inputs."""
    net = made(case.net, case.phase)
    for name, values in case.inputs.items():
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].data[...] = values
        # Some layers only look at its shape.
        net.blobs[name].data_tensor()
    return net


def run_case(gpu: StandIn, case: Case) -> None:
    """Run a case twice, and look at the second time."""
    net = fed(case)
    forward(net)
    for name, values in case.top_diffs.items():
        if net.blobs[name].shape == values.shape:
            net.blobs[name].diff[...] = values
            net.blobs[name].diff_tensor()
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
    common.set_precision(precision)
    for number in range(12):
        case = CASES[kind](Draw(kind, number))
        try:
            run_case(gpu, case)
        except Exception as error:
            raise AssertionError(f"{kind} {number}: {error}\n{case.net}") from error


def test_a_matrix_of_a_file_goes_to_the_gpu_once(gpu, tmp_path):
    matrix = caffe.io.array_to_blobproto(np.ones((1, 1, 3, 3)))
    (tmp_path / "H").write_bytes(matrix.SerializeToString())
    run_case(
        gpu,
        Case(
            'layer { name: "in" type: "Input" top: "x" top: "y" input_param { '
            "shape { dim: 2 dim: 3 } shape { dim: 2 } } }"
            'layer { name: "layer" type: "InfogainLoss" bottom: "x" bottom: "y" top: "loss" '
            f'infogain_loss_param {{ source: "{tmp_path}/H" }} }}',
            {"x": np.ones((2, 3)), "y": np.ones(2)},
            phase=0,
            backward=False,
        ),
    )


# -- what the stand-in finds -----------------------------------------------------------------------


def on_the_cpu(data: torch.Tensor) -> torch.Tensor:
    return data * torch.empty(data.shape).bernoulli_(0.5)


def one_number_on_the_cpu(data: torch.Tensor) -> torch.Tensor:
    """Multiply by what CUDA would allow."""
    return data * torch.tensor(2.0)


def foreign_numbers(data: torch.Tensor) -> torch.Tensor:
    generator = common.generator(torch.device("cpu"))
    return torch.empty_like(data).bernoulli_(0.5, generator=generator)


def top_on_the_cpu(data: torch.Tensor) -> torch.Tensor:
    """Return what the blob would copy for every reader."""
    return torch.ones(data.shape)


def reads(data: torch.Tensor) -> torch.Tensor:
    return data * 2 if data.sum() > 0 else data.clone()


def masks(data: torch.Tensor) -> torch.Tensor:
    """Choose by a mask: as many values as it holds."""
    data = data.clone()
    data[data > 0] = 1
    return data


PLANTED = """
layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "layer" type: "Dropout" bottom: "in" top: "out" }
layer { name: "loss" type: "Reduction" bottom: "out" top: "loss" loss_weight: 1 }
"""


def planted(monkeypatch, change: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    def forward(self: caffe.Layer, bottom: list, top: list) -> None:
        top[0].set_data(change(bottom[0].data_tensor()))

    monkeypatch.setattr(Dropout, "forward", forward)
    return Case(PLANTED, {"in": np.ones((2, 3))}, phase=0, backward=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (on_the_cpu, r"mul of tensors on two devices: \(2, 3\) on meta, \(2, 3\) on cpu"),
        (one_number_on_the_cpu, r"mul of tensors on two devices: \(2, 3\) on meta, \(\) on cpu"),
        (foreign_numbers, "bernoulli_ on the GPU with the random numbers of the CPU"),
    ],
)
def test_tensors_of_the_cpu_are_found(gpu, monkeypatch, change, told):
    with pytest.raises(WrongDeviceError, match=told):
        run_case(gpu, planted(monkeypatch, change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (top_on_the_cpu, r"what='upload'.*function='native'"),
        (reads, r"_local_scalar_dense, test_stand_in_layers.py forward"),
        (masks, r"index_put_, test_stand_in_layers.py forward"),
    ],
)
def test_uploads_and_waits_are_found(gpu, monkeypatch, change, told):
    with pytest.raises(AssertionError, match=told):
        run_case(gpu, planted(monkeypatch, change))


READERS = {
    "MemoryData": "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }",
    "HDF5Data": 'hdf5_data_param { source: "list.txt" batch_size: 2 }',
    "ImageData": 'image_data_param { source: "images.txt" batch_size: 2 }',
    "DummyData": "dummy_data_param { shape { dim: 2 } shape { dim: 2 } "
    'data_filler { type: "uniform" } data_filler { type: "gaussian" } }',
}


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """Work in a folder with what data layers read."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("rows.h5", "w") as file:
        file["x"] = np.ones((3, 4), np.float32)
        file["y"] = np.ones(3, np.float32)
    Path("list.txt").write_text("rows.h5\n")
    cv2.imwrite("a.png", np.zeros((6, 7, 3), np.uint8))
    Path("images.txt").write_text("a.png 1\n")
    return tmp_path


@pytest.mark.parametrize("kind", READERS)
def test_a_data_layer_gives_what_it_reads_to_the_gpu_and_waits_for_nothing(gpu, files, kind):
    net = made(
        f'layer {{ name: "d" type: "{kind}" top: "x" top: "y" {READERS[kind]} }}'
        'layer { name: "a" type: "Power" bottom: "x" top: "a" }'
        'layer { name: "b" type: "Power" bottom: "y" top: "b" }'
    )
    if kind == "MemoryData":
        net.set_input_arrays(np.ones((4, 3, 4, 5), np.float32), np.ones(4, np.float32))
    for _ in range(3):
        with gpu.seen():
            forward(net)
    assert len(gpu.uploads) == 2
    assert not gpu.waits
    for name in "ab":
        assert net.blobs[name].data_memory.native().device == META


def test_output_files_are_written(gpu, files):
    net = made(
        'layer { name: "d" type: "HDF5Data" top: "x" top: "y" '
        f"{READERS['HDF5Data']} }}"
        'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y" '
        'hdf5_output_param { file_name: "out.h5" } }'
    )
    with gpu.seen():
        forward(net)
    assert {place.key for place in gpu.waits} == {"download, layers/hdf5_data.py forward"}
    with h5py.File("out.h5") as file:
        assert file["data"].shape == (2, 4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", sorted(CASES))
def test_a_layer_keeps_a_gpu_waiting_only_as_listed(real_gpu, kind):
    for number in range(4):
        case = CASES[kind](Draw(kind, number))
        net = fed(case)

        def run(net: caffe.Net = net, both: bool = case.backward) -> None:
            net.run_pass()
            if both:
                backward(net)

        run()
        for name in case.top_diffs:
            net.blobs[name].diff_tensor()
        assert (waits_of_gpu(run) > 0) == (kind in LAYERS_THAT_WAIT), case.net
        late_checks.settle()
