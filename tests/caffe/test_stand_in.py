"""Everything the engine computes on a GPU lies there, and the host hardly ever waits for it.

On a stand-in, so that this is known without a GPU: see stand_in.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import caffe
from caffe import common
from caffe.command import COMMANDS
from caffe.command.arguments import parse
from caffe.proto import caffe_pb2
from tests.caffe.stand_in import (
    META,
    assert_all_lies_there,
    backward,
    computing_on_stand_in,
    forward,
    made,
    waits_of_gpu,
)
from unet.network.geometry import Geometry
from unet.segmentation.segment import segment_image
from unet.segmentation.tiles import Tiling

aten = torch.ops.aten
PRECISIONS = ("fp32", "tf32", "bf16")
SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


# -- the U-Net -------------------------------------------------------------------------------------


class Tiles(caffe.Layer):
    """Feeds pictures, labels and weights as a Python layer does: by writing into its tops."""

    def setup(self, bottom, top):
        self.side = int(self.param_str)

    def reshape(self, bottom, top):
        inner = self.side - 184
        top[0].reshape(1, 1, self.side, self.side)
        top[1].reshape(1, 1, inner, inner)
        top[2].reshape(1, 2, inner, inner)

    def forward(self, bottom, top):
        for blob in top:
            blob.data[...] = 1

    def backward(self, top, propagate_down, bottom):
        pass


def of_unet(repository: Path, name: str, feed: str, side: int) -> caffe_pb2.NetParameter:
    """Return a training net of prototxt/, fed in one of two ways."""
    net = caffe_pb2.NetParameter()
    text_format.Parse((repository / "prototxt" / name / "train_val.prototxt").read_text(), net)
    layers = [layer for layer in net.layer if layer.type != "Python"]
    del net.layer[:]
    tops = ["data", "label", "weight"]
    if feed == "Python":
        layer = net.layer.add(name="tiles", type="Python", top=tops)
        layer.python_param.module, layer.python_param.layer = __name__, "Tiles"
        layer.python_param.param_str = str(side)
    else:
        inner = side - 184
        for top, shape in zip(tops, [(1, side, side), (1, inner, inner), (2, inner, inner)]):
            layer = net.layer.add(name=top, type="Input", top=[top])
            layer.input_param.shape.add(dim=(1, *shape))
    net.layer.extend(layers)
    return net


def solver_of(
    net: caffe_pb2.NetParameter, tmp_path: Path, kind: str = "SGD", **fields
) -> caffe.Solver:
    param = caffe_pb2.SolverParameter(
        net_param=net,
        type=kind,
        base_lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        lr_policy="fixed",
        snapshot_prefix=str(tmp_path / "snap"),
        **{"random_seed": 1, **fields},
    )
    if kind in ("AdaGrad", "RMSProp"):
        param.ClearField("momentum")
    return caffe.get_solver(param)


def feed_and_step(solver: caffe.Solver, feed: str) -> None:
    if feed == "Input":
        for blob in ("data", "label", "weight"):
            solver.net.blobs[blob].data[...] = 1
    solver.step(1)


@pytest.mark.parametrize("feed", ["Python", "Input"])
@pytest.mark.parametrize(("name", "side"), [("unet_slim", 444), ("unet", 572)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_step_of_the_u_net_does_not_wait(
    gpu, repository, tmp_path, name, side, feed, precision
):
    common.set_precision(precision)
    solver = solver_of(of_unet(repository, name, feed, side), tmp_path)
    for _ in range(3):
        with gpu.seen():
            feed_and_step(solver, feed)
    assert not gpu.waits
    # Labels are read out of the weights.
    assert len(gpu.uploads) == 2
    assert_all_lies_there(gpu, solver.net)
    for _ in range(2):
        with gpu.seen():
            assert solver.net.blobs["loss"].data == 0
            feed_and_step(solver, feed)
    assert [place.key for place in gpu.waits] == ["download, synced_memory.py numpy"]
    assert len(gpu.uploads) == 2


class Layouts(TorchDispatchMode):
    """Lays convolutions' results out as cuDNN does, and notes what is copied into another layout.

    Attributes
    ----------
    converted : list of tuple of int
        Shapes of what was pixel by pixel and became plane by plane, or the other way round.
    """

    def __init__(self) -> None:
        super().__init__()
        self.converted: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if "convolution" in func.overloadpacket.__name__:
            return tree_map(self.laid_out, result)
        if func in (aten.clone.default, aten._to_copy.default, aten.copy_.default):
            source = args[1] if func is aten.copy_.default else args[0]
            if self.by_pixel(source) is (not self.by_pixel(result)):
                self.converted.append(tuple(result.shape))
        return result

    @staticmethod
    def by_pixel(tensor: torch.Tensor) -> bool | None:
        """Tell which layout a tensor has; None where both are one."""
        if tensor.dim() != 4 or tensor.shape[1] == 1 or tensor.shape[2:].numel() == 1:
            return None
        return tensor.stride(1) == 1

    @staticmethod
    def laid_out(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None or tensor.dim() != 4:
            return tensor
        return torch.empty_like(tensor, memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["unet_slim", "unet"])
def test_a_training_step_of_the_u_net_keeps_one_layout(gpu, repository, tmp_path, name, precision):
    common.set_precision(precision)
    solver = solver_of(of_unet(repository, name, "Input", 444), tmp_path)
    # Weights are laid out in the first step.
    feed_and_step(solver, "Input")
    with Layouts() as layouts:
        feed_and_step(solver, "Input")
    # The loss works on planes: the scores' gradient alone comes from there.
    assert layouts.converted == [solver.net.blobs["score"].shape]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["unet_slim", "unet"])
def test_a_forward_pass_of_the_u_net_waits_for_the_scores_only(gpu, repository, name, precision):
    common.set_precision(precision)
    net = caffe.Net(str(repository / "prototxt" / name / "deploy.prototxt"), caffe.TEST)
    net.retain_data = False
    for _ in range(2):
        with gpu.seen():
            net.blobs["data"].data[...] = 1
            net.forward()
    assert [place.key for place in gpu.waits] == ["download, synced_memory.py numpy"]
    assert len(gpu.uploads) == 1


@pytest.mark.parametrize("together", [1, 3])
def test_segmentation_waits_for_the_scores_of_each_tile_only(gpu, repository, together):
    net = caffe.Net(str(repository / "prototxt/unet_slim/deploy.prototxt"), caffe.TEST)
    picture = np.ones((1, 300, 300), np.float32)
    tiling = Tiling.over((300, 300), (316, 316), Geometry())
    segment_image(net, picture, tiling)
    passes = 4 * len(tiling.origins)
    with gpu.seen():
        scores = segment_image(net, picture, tiling, "mirror", together=together)
        assert scores.shape == (2, 300, 300)
        assert len(gpu.uploads) == passes == 36
        # The scores, and the net's own output, the probabilities. Of several tiles at once they
        # come while the next one is computed.
        where = "net/batches.py down" if together > 1 else "synced_memory.py numpy"
        assert {place.key for place in gpu.waits} == {f"download, {where}"}
        assert len(gpu.waits) <= 2 * passes


# -- solvers, Python layers, files, net surgery ----------------------------------------------------

SMALL = """
layer { name: "tiles" type: "Python" top: "data" top: "label" top: "weight"
  python_param { module: "MODULE" layer: "Tiles" param_str: "188" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 185 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "drop" type: "Dropout" bottom: "norm" top: "drop" }
layer { name: "own" type: "Python" bottom: "drop" top: "own"
  python_param { module: "MODULE" layer: "Doubled" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "own" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "own" bottom: "label" top: "accuracy"
  include { phase: TEST } }
""".replace("MODULE", __name__)


class Doubled(caffe.Layer):
    """Computes with numpy, and has a parameter."""

    def setup(self, bottom, top):
        self.blobs.add_blob(3)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff
        self.blobs[0].diff[...] += 1


def small_net() -> caffe_pb2.NetParameter:
    return text_format.Parse(SMALL, caffe_pb2.NetParameter())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", SOLVERS)
def test_a_solver_steps_tests_and_keeps_its_state_there(gpu, tmp_path, kind, precision):
    common.set_precision(precision)
    solver = solver_of(
        small_net(), tmp_path, kind, test_iter=[2], test_interval=1, display=1, clip_gradients=1
    )
    solver.step(2)
    assert_all_lies_there(gpu, solver.net)
    assert all(entry.device == META for entry in solver._history)


def test_a_python_layer_with_bottoms_is_all_that_a_step_waits_for(gpu, tmp_path):
    solver = solver_of(small_net(), tmp_path)
    solver.step(2)
    with gpu.seen():
        solver.step(1)
    of_python = {place.key for place in gpu.waits if place.layer}
    assert of_python == {"download, synced_memory.py numpy", "download, late_checks.py settle"}
    # Whether all labels are in order is known since the Python layer's backward pass.
    assert {place.layer for place in gpu.waits} == {"Python"}


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_snapshots_are_written_and_gone_on_from(gpu, tmp_path, form):
    solver = solver_of(small_net(), tmp_path, "Adam", snapshot=2, snapshot_format=form)
    solver.step(2)
    end = ".h5" if form == "HDF5" else ""
    other = solver_of(small_net(), tmp_path, "Adam")
    other.restore(str(tmp_path / f"snap_iter_2.solverstate{end}"))
    other.step(1)
    assert other.iter == 3
    assert_all_lies_there(gpu, other.net)


def test_nets_are_operated_on(gpu, tmp_path):
    net, other = (caffe.Net(small_net(), caffe.TRAIN) for _ in range(2))
    forward(net)
    backward(net)
    net.params["conv"][0].data[...] = 3
    net.params["conv"][0].diff[...] = 4
    net.save(str(tmp_path / "net.caffemodel"))
    net.save_hdf5(str(tmp_path / "net.h5"), True)
    for name in ("net.caffemodel", "net.h5"):
        other.copy_from(str(tmp_path / name))
        forward(other)
        assert_all_lies_there(gpu, other)
    other.share_with(net)
    assert other.params["conv"][0].data_memory is net.params["conv"][0].data_memory
    other.layer_dict["tiles"].side = 234
    other.reshape()
    assert other.blobs["conv"].shape == (1, 2, 50, 50)
    forward(other)
    backward(other)
    assert_all_lies_there(gpu, other)


def test_a_net_made_on_the_cpu_goes_on_on_the_gpu_and_back(monkeypatch):
    net = caffe.Net(small_net(), caffe.TRAIN)
    forward(net)
    backward(net)
    with computing_on_stand_in(monkeypatch) as gpu:
        forward(net)
        backward(net)
        assert_all_lies_there(gpu, net)
        for blob in [*net.blobs.values(), *net.learnable]:
            assert blob.data.dtype == np.float32
            assert blob.diff.shape == blob.shape


def test_an_input_written_on_the_cpu_is_fetched_anew(gpu, monkeypatch):
    net = made('layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 } } }')
    blob = net.blobs["in"]
    blob.data[...] = 1
    assert blob.data_tensor().device == META
    with monkeypatch.context() as patch:
        patch.setattr(common, "current_device", lambda: torch.device("cpu"))
        blob.data[...] = 2
    assert blob.data_tensor().device == META
    with gpu.seen():
        assert blob.data.shape == (2,)
        assert [place.key for place in gpu.waits] == ["download, synced_memory.py numpy"]


# -- data layers and commands ----------------------------------------------------------------------


def test_the_commands_run(gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(SMALL)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 snapshot_prefix: "snap" '
        "display: 1 test_iter: 2 test_interval: 2 debug_info: true"
    )
    for line in (
        "train -solver solver.prototxt",
        "test -model net.prototxt -weights snap_iter_3.caffemodel -iterations 2",
        "time -model net.prototxt -iterations 2",
    ):
        flags, (command,) = parse(line.split())
        COMMANDS[command](flags)


# -- where there is a GPU --------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("feed", ["Python", "Input"])
def test_a_gpu_is_waited_for_by_no_step(real_gpu, repository, tmp_path, feed, repeated):
    caffe.set_graphs(repeated)
    try:
        solver = solver_of(of_unet(repository, "unet_slim", feed, 188), tmp_path)
        loss = solver.net.blobs["loss"]
        for _ in range(5):
            feed_and_step(solver, feed)
            made = loss.data_tensor()
            # It comes, with an event, while the GPU is still at the backward pass.
            came = float(loss.data)
            assert came == made.item() > 0
        assert waits_of_gpu(lambda: feed_and_step(solver, feed)) == 0
        assert waits_of_gpu(lambda: loss.data) == 0
    finally:
        caffe.set_graphs(False)
