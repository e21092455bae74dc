"""What has no counterpart on the CPU: draws of the GPU's own, late checks, full memory, graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.layers.activation import TanH
from caffe.solvers.update_rules import RULES
from tests.gpu.engine import Here, computing
from tests.parity.layer_cases import CASES, Draw
from tests.parity.test_layers_of_unet import DROPOUT


@pytest.fixture
def net(tmp_path):
    """Return what makes a net of prototxt."""

    def make(text: str, phase: int = caffe.TRAIN) -> caffe.Net:
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return caffe.Net(str(path), phase)

    return make


# -- what is drawn ---------------------------------------------------------------------------------


def test_dropout_scales_what_it_keeps_and_goes_back_by_the_same_mask(gpu):
    result = Here.on(gpu).run(DROPOUT)
    np.testing.assert_allclose(result["levels"], [0, 2 / 0.7], rtol=1e-6)
    np.testing.assert_allclose(result["gradient"], [0, 5 / 0.7], rtol=1e-6)
    assert result["follows"]
    # 300,000 draws: standard deviation 0.0008.
    assert abs(result["dropped"] - 0.3) < 0.005
    assert abs(result["differs"] - 2 * 0.3 * 0.7) < 0.005


def test_one_seed_gives_one_drop_out(gpu, net):
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 9 dim: 99 } } }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "y" }
    """
    with computing(gpu):
        made = net(text)
        made.blobs["x"].data[...] = 1
        found = []
        for seed in (1, 2, 1):
            caffe.set_random_seed(seed)
            found.append(made.forward()["y"].copy())
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


def test_stochastic_pooling_draws_by_size_and_goes_back_to_what_it_drew(gpu, net):
    draws = 20000
    text = f"""
    force_backward: true
    layer {{ name: "x" type: "Input" top: "x"
      input_param {{ shape {{ dim: {draws} dim: 1 dim: 2 dim: 2 }} }} }}
    layer {{ name: "pool" type: "Pooling" bottom: "x" top: "y"
      pooling_param {{ pool: STOCHASTIC kernel_size: 2 }} }}
    """
    with computing(gpu):
        caffe.set_random_seed(5)
        made = net(text)
        made.blobs["x"].data[...] = np.array([[1, 2], [0, 5]])
        drawn = made.forward()["y"].copy()
        gradient = made.backward(y=np.full_like(drawn, 3))["x"].copy()
    for value in (1, 2, 5):
        probability = value / 8
        off = np.mean(drawn == value) - probability
        # Five standard errors.
        assert abs(off) < 5 * np.sqrt(probability * (1 - probability) / draws), value
    wanted = 3 * (np.array([[1, 2], [0, 5]], np.float32) == drawn)
    np.testing.assert_array_equal(gradient, wanted)


# -- where ----------------------------------------------------------------------------------------


def test_a_net_goes_on_where_the_mode_says(gpu, net):
    text = """
    force_backward: true
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param {
      num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "bend" type: "TanH" bottom: "y" top: "z" }
    """
    made = net(text)
    made.blobs["x"].data[...] = np.random.default_rng(0).normal(size=(2, 3, 6, 6))
    wanted = made.forward()["z"].copy()
    with computing(gpu):
        np.testing.assert_allclose(made.blobs["z"].data, wanted)
        made.params["conv"][0].data[...] *= 2
        there = made.forward()["z"].copy()
        made.blobs["z"].diff[...] = 1
        made.backward()
        halved = made.params["conv"][0].data * 0.5
    made.params["conv"][0].data[...] = halved
    np.testing.assert_allclose(made.blobs["z"].data, there)
    gradient = made.params["conv"][0].diff.copy()
    np.testing.assert_allclose(made.forward()["z"], wanted, rtol=1e-5, atol=1e-6)
    made.params["conv"][0].data[...] *= 2
    np.testing.assert_allclose(made.forward()["z"], there, rtol=1e-5, atol=1e-6)
    made.clear_param_diffs()
    made.blobs["z"].diff[...] = 1
    made.backward()
    np.testing.assert_allclose(made.params["conv"][0].diff, gradient, rtol=1e-4, atol=1e-5)


# -- mistakes --------------------------------------------------------------------------------------

NUMBERED = {
    "SoftmaxWithLoss": "in1",
    "InfogainLoss": "in1",
    "MultinomialLogisticLoss": "in1",
    "HingeLoss": "in1",
    "Accuracy": "in1",
    "Embed": "in0",
    "BatchReindex": "in1",
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_numbers_outside_their_range_are_refused_in_the_same_words(gpu, kind, net):
    case = CASES[kind](Draw(kind, 3))

    def run(where: str) -> tuple[str, dict[str, np.ndarray]]:
        with computing(where):
            caffe.set_random_seed(1)
            made = net(case.net, caffe.TEST)
            for name, values in case.inputs.items():
                made.blobs[name].data[...] = values
            numbers = made.blobs[NUMBERED[kind]]
            numbers.data.flat[0] = 77
            with pytest.raises(caffe.CaffeError) as refused:
                made.forward()
            numbers.data[...] = case.inputs[NUMBERED[kind]]
            return str(refused.value), {k: v.copy() for k, v in made.forward().items()}

    told, outputs = run(gpu)
    wanted, outputs_wanted = run("cpu")
    assert told == wanted
    assert "77" in told
    for name, values in outputs_wanted.items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-4, atol=1e-6)


TRAINED = """
base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 type: "SGD" train_net_param {
  layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 6 dim: 4 } } }
  layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 6 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "l" top: "loss" } }
"""


@pytest.fixture
def solver(tmp_path):
    """Return what makes a solver whose net learns from drawn rows."""

    def make() -> caffe.SGDSolver:
        path = tmp_path / "solver.prototxt"
        path.write_text(TRAINED)
        caffe.set_random_seed(1)
        made = caffe.get_solver(str(path))
        random = np.random.default_rng(0)
        made.net.blobs["x"].data[...] = random.normal(size=(6, 4))
        made.net.blobs["l"].data[...] = random.integers(0, 3, 6)
        return made

    return make


@pytest.mark.parametrize("repeated", [False, True], ids=["as usual", "as graphs"])
def test_training_tells_of_a_wrong_label_and_goes_on_with_right_ones(gpu, repeated, solver):
    def run(where: str) -> tuple[str, np.ndarray]:
        with computing(where, graphs=repeated):
            made = solver()
            made.step(5)
            made.net.blobs["l"].data[2] = 3
            with pytest.raises(caffe.CaffeError) as refused:
                made.step(2)
            # What a GPU has learnt by then is not what the CPU has.
            made.net.params["ip"][0].data[...] = 0.5
            made.net.params["ip"][1].data[...] = 0
            made.net.blobs["l"].data[2] = 1
            made.step(1)
            return str(refused.value), made.net.blobs["loss"].data.copy()

    told, loss = run(gpu)
    wanted, loss_wanted = run("cpu")
    assert told == wanted
    assert "labels must lie in 0..2, found 0 to 3" in told
    np.testing.assert_allclose(loss, loss_wanted, rtol=1e-3)


def too_large(size: int) -> str:
    return f"""
    layer {{ name: "x" type: "Input" top: "x"
      input_param {{ shape {{ dim: 1 dim: 1 dim: {size} dim: {size} }} }} }}
    layer {{ name: "wide" type: "Convolution" bottom: "x" top: "y" convolution_param {{
      num_output: 64 kernel_size: 3 weight_filler {{ type: "constant" value: 1 }} }} }}
    """


@pytest.mark.gpu
def test_a_net_too_large_for_the_gpu_is_told_and_a_smaller_one_works(net):
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**29) / total)
    try:
        with computing("gpu"):
            made = net(too_large(4096), caffe.TEST)
            with pytest.raises(caffe.CaffeError, match=r"layer 'wide'.*memory.*smaller"):
                made.forward()
            del made
            made = net(too_large(64), caffe.TEST)
            made.blobs["x"].data[...] = 2
            assert np.unique(made.forward()["y"]).tolist() == [18]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


SAID = (
    "CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of 8.00 GiB of "
    "which 3.00 GiB is free. Including non-PyTorch memory, this process has 1.00 GiB in use."
)
TOLD = (
    "the GPU's memory is full: CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total "
    "capacity of 8.00 GiB of which 3.00 GiB is free; take a smaller batch or smaller pictures"
)


def full(*arguments) -> None:
    raise torch.cuda.OutOfMemoryError(SAID)


def test_what_pytorch_says_of_a_full_gpu_is_one_sentence_with_a_remedy(net, monkeypatch):
    monkeypatch.setattr(TanH, "forward", full)
    made = net("""
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "bend" type: "TanH" bottom: "x" top: "y" }
    """)
    with pytest.raises(caffe.CaffeError) as told:
        made.forward()
    assert str(told.value) == f"layer 'bend' (TanH): {TOLD} (bottoms: (2, 3))"


def test_an_update_for_which_the_gpu_has_no_memory_is_told_alike(solver, monkeypatch):
    made = solver()
    monkeypatch.setitem(RULES, "SGD", (full, *RULES["SGD"][1:]))
    with pytest.raises(caffe.CaffeError) as told:
        # Several passes an update: all parameters are updated together.
        made.param.iter_size = 2
        made.step(1)
    assert str(told.value) == f"{made.source}: {TOLD}"
