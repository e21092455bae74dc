"""A training in which nothing is learnt is not called trained."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe.proto import caffe_pb2
from tests.unet.small_net import write_training
from unet.errors import InputError
from unet.training.idle import MOST_WITHOUT_LOSS, IdleWatch
from unet.training.train import Training


def write_solver(folder: Path, labels, *, loss_weight=1, lr_mult=1, **solver) -> str:
    """Write a solver of four scores, whose labels say which is right and 255 for none."""
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
        file["label"] = np.asarray(labels, np.float32)
    (folder / "list.txt").write_text(f"{folder / 'data.h5'}\n")
    n = NetSpec()
    n.data, n.label = L.HDF5Data(source=str(folder / "list.txt"), batch_size=1, ntop=2)
    n.score = L.InnerProduct(
        n.data, num_output=4, param=[dict(lr_mult=lr_mult)] * 2, weight_filler=dict(type="xavier")
    )
    n.loss = L.SoftmaxWithLoss(
        n.score, n.label, loss_weight=loss_weight, loss_param=dict(ignore_label=255)
    )
    (folder / "net.prototxt").write_text(str(n.to_proto()))
    fields = dict(base_lr=0.1, lr_policy="fixed", momentum=0.9, weight_decay=0.01, max_iter=3)
    param = caffe_pb2.SolverParameter(
        net=str(folder / "net.prototxt"),
        snapshot_prefix=str(folder / "run" / "net"),
        **{**fields, **solver},
    )
    (folder / "solver.prototxt").write_text(str(param))
    return str(folder / "solver.prototxt")


def train(solver: str) -> int:
    """Train, and return the number of the iteration reached."""
    with Training(caffe, solver) as training:
        training.begin()
        training.run()
        return training.solver.iter


@pytest.mark.parametrize("steps", [3, MOST_WITHOUT_LOSS + 50])
def test_labels_that_are_all_ignored(tmp_path, steps):
    # Weight decay changes the parameters all the same.
    solver = write_solver(tmp_path, [255, 255], max_iter=steps, snapshot=1000)
    first = min(steps, MOST_WITHOUT_LOSS)
    with pytest.raises(InputError, match=rf"solver\.prototxt: .* all of the first {first} iter"):
        train(solver)
    assert not list((tmp_path / "run").glob("*.solverstate"))


def test_a_late_annotated_pixel_is_learnt_from(tmp_path):
    steps = MOST_WITHOUT_LOSS
    labels = [255] * (steps - 1) + [2]
    assert train(write_solver(tmp_path, labels, max_iter=steps + 3)) == steps + 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(loss_weight=0), r"solver\.prototxt: .* has no loss, or a loss_weight of 0"),
        (dict(lr_mult=0), "changed no parameter: every lr_mult is 0"),
        (dict(base_lr=0), "the learning rate was 0 throughout; set base_lr"),
    ],
)
def test_a_solver_that_cannot_learn(tmp_path, change, told):
    with pytest.raises(InputError, match=told):
        train(write_solver(tmp_path, [1, 2], **change))


def test_a_net_without_parameters(tmp_path):
    solver = write_solver(tmp_path, [1, 2])
    net = 'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 } } } '
    net += 'layer { name: "l" type: "Reduction" bottom: "d" top: "l" loss_weight: 1 }'
    (tmp_path / "net.prototxt").write_text(net)
    with pytest.raises(InputError, match="has no parameters"):
        train(solver)


def test_a_rate_that_begins_at_0_may_grow(tmp_path):
    solver = write_solver(tmp_path, [1, 2])
    training = Training(caffe, solver)
    watch = IdleWatch(training.solver.net, solver)
    watch.note(1.5, 0.0)
    training.solver.net.params["score"][1].data[...] += 1
    watch.note(1.5, 0.1)
    watch.finish()


@pytest.mark.parametrize(
    ("name", "slices", "value", "told"),
    [
        ("weights", slice(2), 0, r"data\.h5: in the slices 0 to 1 no pixel is annotated"),
        ("labels", slice(2), 255, r"data\.h5: in the slices 0 to 1 no pixel is annotated"),
        ("labels", slice(2), 1, "slices 0 to 1 all pixels that count are of class 1,"),
        ("labels", 2, 255, "slices 2 to 2 .* nothing to test on"),
    ],
)
def test_tiles_that_teach_nothing_are_refused_before_the_first(tmp_path, name, slices, value, told):
    solver = write_training(tmp_path)
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file[name][slices] = value
    with pytest.raises(InputError, match=told):
        Training(caffe, str(solver))
