"""Passes that are repeated as CUDA graphs, on a pretended GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.layers.convolution import Convolution
from caffe.net import cuda_graphs
from caffe.proto import caffe_pb2
from tests.gpu.pretended import Moment, Repeats, pretended_gpu

# Drop-out, a pooling whose maxima are found again, a crop, a concatenation, two losses.
NET = """
layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "MODULE" layer: "Batches" } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { lr_mult: 1 }
  param { lr_mult: 2 } convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "msra" } } }
layer { name: "bend" type: "ReLU" bottom: "a" top: "a" }
layer { name: "drop" type: "Dropout" bottom: "a" top: "a" }
layer { name: "pool" type: "Pooling" bottom: "a" top: "p"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "b" type: "Convolution" bottom: "p" top: "b" convolution_param { num_output: 4
  kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "up" type: "Deconvolution" bottom: "b" top: "u" convolution_param { num_output: 3
  kernel_size: 2 stride: 2 weight_filler { type: "msra" } } }
layer { name: "crop" type: "Crop" bottom: "a" bottom: "u" top: "c" crop_param { axis: 2 } }
layer { name: "join" type: "Concat" bottom: "u" bottom: "c" top: "j" }
layer { name: "score" type: "Convolution" bottom: "j" top: "score" convolution_param {
  num_output: 2 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
layer { name: "size" type: "Reduction" bottom: "b" top: "size" loss_weight: 0.01
  reduction_param { operation: SUMSQ } }
""".replace("MODULE", __name__)


class Batches(caffe.Layer):
    """Another batch in each pass."""

    size, least = 10, 0

    def setup(self, bottom, top):
        self.rng = np.random.default_rng(0)

    def reshape(self, bottom, top):
        top[0].reshape(2, 1, self.size, self.size)
        top[1].reshape(2, 1, self.size - 2, self.size - 2)

    def forward(self, bottom, top):
        top[0].data[...] = self.rng.normal(size=top[0].data.shape)
        top[1].data[...] = self.least + self.rng.integers(2, size=top[1].data.shape)

    def backward(self, top, propagate_down, bottom):
        pass


@pytest.fixture
def recorded(monkeypatch) -> Iterator[list[Repeats]]:
    """Have passes recorded and repeated on a pretended GPU; the list tells of which."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu repeats passes there")
    # Of several ways to compute the same always the first.
    monkeypatch.setattr(Moment, "elapsed_time", lambda self, other: 0.0)
    with pretended_gpu(monkeypatch) as repeats:
        caffe.set_mode_gpu()
        caffe.set_graphs(True)
        yield repeats
        caffe.set_graphs(False)
        caffe.set_mode_cpu()


def solver(tmp_path, net=NET, **others):
    param = caffe_pb2.SolverParameter(
        base_lr=0.05,
        lr_policy="poly",
        power=1,
        momentum=0.9,
        weight_decay=0.01,
        max_iter=50,
        type="Adam",
        random_seed=3,
        **others,
    )
    text_format.Parse(net, param.net_param)
    path = tmp_path / "solver.prototxt"
    path.write_text(str(param))
    return caffe.get_solver(str(path))


def parameters(made) -> list[np.ndarray]:
    return [blob.data.copy() for blobs in made.net.params.values() for blob in blobs]


def both_ways(monkeypatch, train) -> list:
    """Return what `train` finds with passes repeated, and without."""
    found = [train()]
    caffe.set_graphs(False)
    return [*found, train()]


def assert_same(repeated, usual) -> None:
    assert len(repeated) == len(usual) > 0
    for one, other in zip(repeated, usual):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("iter_size", [1, 2])
@pytest.mark.parametrize("retain_data", [False, True])
def test_steps_repeated_equal_steps_run_as_usual(
    tmp_path, monkeypatch, recorded, iter_size, retain_data
):
    def train():
        made = solver(tmp_path, iter_size=iter_size)
        made.net.retain_data = retain_data
        found = []
        for seed in range(7):
            caffe.set_random_seed(seed)
            made.step(1)
            found += [made._smoothed_loss(), made.net.blobs["loss"].data.copy()]
        return found + parameters(made)

    assert_same(*both_ways(monkeypatch, train))
    assert len(recorded) == 1


def test_who_looks_and_writes_between_steps_sees_and_changes_the_same(
    tmp_path, monkeypatch, recorded
):
    def train():
        made = solver(tmp_path)
        found = []
        for step in range(9):
            made.step(1)
            blobs = made.net.blobs
            found += [blob.data.copy() for blob in blobs.values()]
            if step == 5:
                made.net.params["b"][0].data[...] *= 0.5
            if step == 6:
                made.net.save(str(tmp_path / "kept.caffemodel"))
            if step == 7:
                made.net.copy_from(str(tmp_path / "kept.caffemodel"))
                blobs["size"].diff[...] = 0.02
        made.net.backward()
        # Diffs of blobs in between were given back, and are made again.
        found += [blob.diff.copy() for blob in made.net.blobs.values()]
        made.net.forward()
        made.step(2)
        return found + parameters(made)

    assert_same(*both_ways(monkeypatch, train))
    assert recorded


def test_another_shape_is_recorded_anew(tmp_path, monkeypatch, recorded):
    def train():
        found = []
        made = solver(tmp_path)
        for size in (10, 12, 10):
            monkeypatch.setattr(Batches, "size", size)
            made.step(4)
            found += [blob.data.copy() for blob in made.net.blobs.values()]
            found += [np.array(blob.shape) for blob in made.net.blobs.values()]
            found += [blob.diff.copy() for blob in made.net.blobs.values()]
            made.net.retain_diffs = False
        return found + parameters(made)

    assert_same(*both_ways(monkeypatch, train))
    assert len(recorded) == 2


def test_passes_forward_are_repeated_and_give_what_is_asked_for(monkeypatch, recorded):
    def score():
        caffe.set_random_seed(1)
        net = caffe.Net(text_format.Parse(NET, caffe_pb2.NetParameter()), caffe.TEST)
        net.retain_data = False
        found = []
        for _ in range(5):
            outputs = net.forward(["j"])
            found += [outputs[name].copy() for name in ("j", "loss", "size")]
        with pytest.raises(caffe.CaffeError, match="'b' was not kept"):
            _ = net.blobs["b"].data
        return found

    assert_same(*both_ways(monkeypatch, score))
    assert len(recorded) == 1


def test_labels_are_checked_in_repeated_passes_too(tmp_path, monkeypatch, recorded):
    made = solver(tmp_path)
    made.step(5)
    assert len(recorded) == 1
    monkeypatch.setattr(Batches, "least", 5)
    with pytest.raises(
        caffe.CaffeError, match=r"layer .loss. .*labels must lie in 0\.\.1, found 5"
    ):
        made.step(1)


def test_a_net_with_a_python_layer_in_the_middle_runs_as_usual_and_says_why(
    tmp_path, recorded, capfd
):
    middle = NET.replace(
        'layer { name: "bend" type: "ReLU"',
        'layer { name: "bend" type: "Python" '
        f'python_param {{ module: "{__name__}" layer: "Nothing" }}',
    )
    made = solver(tmp_path, middle)
    made.step(5)
    assert not recorded
    told = "passes are not repeated as CUDA graphs: layer 'bend' (Python) may do something else"
    assert capfd.readouterr().err.count(told) == 1


def test_a_pass_that_cannot_be_recorded_runs_as_usual(tmp_path, monkeypatch, recorded, capfd):
    def captured(parts):
        for part in parts:
            part()
        raise RuntimeError("operation not permitted when stream is capturing")

    # Without drop-out: this stand-in has drawn before it fails.
    smooth = NET.replace("Dropout", "TanH")

    def train():
        made = solver(tmp_path, smooth, iter_size=2)
        made.step(5)
        return parameters(made)

    monkeypatch.setattr(cuda_graphs, "_captured", captured)
    assert_same(*both_ways(monkeypatch, train))
    assert "CUDA graphs: operation not permitted" in capfd.readouterr().err


def test_a_pass_that_does_not_fit_beside_what_is_recorded_gets_that_memory(monkeypatch, recorded):
    fed = text_format.Parse(NET, caffe_pb2.NetParameter())
    data = fed.layer.add(name="data", type="Input", top=["data"])
    data.input_param.shape.add(dim=[1, 1, 10, 10])
    # Without the layer that feeds, and the loss.
    kept = [layer for layer in fed.layer if layer.type not in ("Python", "SoftmaxWithLoss")]
    net_param = caffe_pb2.NetParameter(layer=[kept[-1], *kept[:-1]])
    caffe.set_random_seed(1)
    net = caffe.Net(net_param, caffe.TEST)
    net.retain_data = False
    rng = np.random.default_rng(0)

    def pass_of(size):
        net.blobs["data"].reshape(1, 1, size, size)
        net.blobs["data"].data[...] = rng.normal(size=(1, 1, size, size))
        return net.forward(["score"])["score"].copy()

    for _ in range(4):
        pass_of(10)
    assert len(recorded) == 1
    computed, failures = Convolution.forward, []
    known = [weakref.ref(one) for one in net._graphs._known.values()]

    def forward(layer, bottom, top):
        if any(one() is not None for one in known):
            failures.append(layer)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        computed(layer, bottom, top)

    monkeypatch.setattr(Convolution, "forward", forward)
    found = pass_of(14)
    assert len(failures) == 1
    given = net.blobs["data"].data.copy()
    caffe.set_graphs(False)
    np.testing.assert_array_equal(found, net.forward(["score"], data=given)["score"])


class Nothing(caffe.Layer):
    """Hands on what it is given."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff
