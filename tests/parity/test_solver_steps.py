"""The networks of prototxt/ held against genuine Caffe: passes, training, caffemodels."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from caffe.proto import caffe_pb2
from tests.parity.harness import REPOSITORY, SCRIPTS, Engine, assert_close

BORDER = 92
STEPS = 5


def training_net(name: str, tile: int) -> str:
    """Return prototxt/<name>/train.prototxt fed by Input layers, its drop-out off."""
    net = caffe_pb2.NetParameter()
    text_format.Parse((REPOSITORY / "prototxt" / name / "train.prototxt").read_text(), net)
    inner = tile - 2 * BORDER
    layers = [layer for layer in net.layer if layer.type != "Python"]
    assert len(net.layer) > len(layers)
    del net.layer[:]
    shapes = {"data": (1, 1, tile, tile), "label": (1, 1, inner, inner)}
    shapes["weight"] = (1, 2, inner, inner)
    for top, shape in shapes.items():
        layer = net.layer.add(name=top, type="Input", top=[top])
        layer.input_param.shape.add(dim=shape)
    net.layer.extend(layers)
    for layer in net.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
    return text_format.MessageToString(net)


def solver(name: str, net: str) -> str:
    """Return prototxt/<name>/solver_isbi.prototxt with the net written into it."""
    param = caffe_pb2.SolverParameter()
    text_format.Parse((REPOSITORY / "prototxt" / name / "solver_isbi.prototxt").read_text(), param)
    assert param.momentum > 0.9
    assert param.weight_decay > 0
    param.ClearField("train_net")
    text_format.Parse(net, param.net_param)
    param.ClearField("train_state")
    param.display = 0
    param.snapshot = 0
    param.snapshot_after_train = False
    return text_format.MessageToString(param)


def batches(tile: int) -> dict[str, np.ndarray]:
    """Draw tiles with labels and weights, some pixels without an annotation."""
    random = np.random.default_rng(3)
    inner = tile - 2 * BORDER
    label = random.integers(0, 2, (STEPS, 1, 1, inner, inner))
    weight = np.zeros((STEPS, 1, 2, inner, inner), np.float32)
    for k in (0, 1):
        weight[:, :, k] = (label[:, :, 0] == k) * random.uniform(0.5, 10, label[:, :, 0].shape)
    ignored = random.random(label.shape) < 0.1
    weight *= ~ignored
    return {
        "data": random.random((STEPS, 1, 1, tile, tile), np.float32),
        "label": np.where(ignored, 255, label).astype(np.float32),
        "weight": weight,
    }


def check_training(ours: Engine, reference: Engine, name: str, tile: int) -> None:
    arrays = {"solver": solver(name, training_net(name, tile)), "steps": STEPS, **batches(tile)}
    got = ours.run(SCRIPTS / "run_solver.py", arrays)
    wanted = reference.run(SCRIPTS / "run_solver.py", arrays)
    for what in ("data ", "gradient ", "loss ", "change of "):
        assert_close(got, wanted, relative=1e-4, only=[what])


@pytest.mark.parametrize("tile", [188, 236])
def test_slim_net_trains_as_in_genuine_caffe(ours, reference, tile):
    check_training(ours, reference, "unet_slim", tile)


@pytest.mark.slow
def test_full_width_net_trains_as_in_genuine_caffe(ours, reference):
    check_training(ours, reference, "unet", 188)
