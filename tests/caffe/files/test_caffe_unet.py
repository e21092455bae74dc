"""What the nets of caffe_unet (2019) need beyond BVLC's layers: by formula, and by equal nets."""

from __future__ import annotations

import re

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from tests import caffe_unet
from tests.parity.harness import Case, assert_close, run_cases


def open_net(folder, text: str, phase: int = caffe.TEST) -> caffe.Net:
    path = folder / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase)


def input_of(name: str, *shape: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {size}' for size in shape)} }} }} }}\n"
    )


# -- SoftmaxWithLoss with weights ------------------------------------------------------------------


def loss_text(labels: tuple[int, ...] = (2, 1, 4, 5), further: str = "") -> str:
    return (
        "force_backward: true\n"
        + input_of("score", 2, 3, 4, 5)
        + input_of("label", *labels)
        + input_of("weight", *labels)
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" '
        f'bottom: "weight" top: "loss" {further} }}'
    )


def naive_loss(
    score: np.ndarray, label: np.ndarray, weight: np.ndarray, ignored: int | None
) -> tuple[float, np.ndarray]:
    """Return loss and gradient, pixel by pixel in double precision."""
    total, sum_w, gradient = 0.0, 0.0, np.zeros(score.shape)
    for n, y, x in np.ndindex(score.shape[0], *score.shape[2:]):
        k, w = int(label[n, 0, y, x]), float(weight[n, 0, y, x])
        if k == ignored:
            continue
        powers = np.exp(score[n, :, y, x].astype(np.float64))
        p = powers / powers.sum()
        total -= w * np.log(max(p[k], np.finfo(np.float32).tiny))
        sum_w += w
        gradient[n, :, y, x] = w * (p - np.eye(len(p))[k])
    return total / max(1, int(sum_w)), gradient / (sum_w or 1)


@pytest.mark.parametrize("scale", [1, 0.01, 30], ids=["usual", "less than 1 in all", "large"])
@pytest.mark.parametrize("ignored", [None, 2])
def test_weighted_loss_and_gradient_are_those_of_the_formula(tmp_path, scale, ignored):
    random = np.random.default_rng(1)
    score = random.normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
    label = random.integers(0, 3, (2, 1, 4, 5))
    weight = (scale * random.random((2, 1, 4, 5))).astype(np.float32)
    weight[0, 0, 1] = 0
    further = "" if ignored is None else f"loss_param {{ ignore_label: {ignored} }}"
    net = open_net(tmp_path, loss_text(further=further + " loss_weight: 3"))
    for name, value in (("score", score), ("label", label), ("weight", weight)):
        net.blobs[name].data[...] = value
    net.forward()
    net.backward()
    loss, gradient = naive_loss(score, label, weight, ignored)
    assert net.blobs["loss"].data == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(net.blobs["score"].diff, 3 * gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("param", "loss"),
    [
        # 32 labels of weight 2, each at log 3.
        ("", 1.0986),
        ("normalization: VALID", 1.0986),
        ("normalize: true", 1.0986),
        ("normalization: FULL", 2.1972),
        ("normalization: BATCH_SIZE", 35.156),
        ("normalize: false", 35.156),
        ("normalization: NONE", 70.311),
    ],
)
def test_the_weighted_loss_is_divided_by_what_loss_param_says(tmp_path, param, loss):
    text = loss_text((2, 1, 4, 4), f"loss_param {{ {param} }}")
    net = open_net(
        tmp_path, text.replace(input_of("score", 2, 3, 4, 5), input_of("score", 2, 3, 4, 4))
    )
    net.blobs["weight"].data[...] = 2
    net.forward()
    net.backward()
    assert net.blobs["loss"].data == pytest.approx(loss, rel=1e-4)
    # The gradient is that of VALID in all of them.
    np.testing.assert_allclose(net.blobs["score"].diff[:, 0], -2 / 3 / 32, rtol=1e-5)
    np.testing.assert_allclose(net.blobs["score"].diff[:, 1:], 1 / 3 / 32, rtol=1e-5)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_weighted_losses_of_other_axes_count_labels_that_are_not_ignored(tmp_path, axis):
    random = np.random.default_rng(5)
    shape = np.insert([2, 4, 5], axis % 4, 3)
    one = np.insert([2, 4, 5], axis % 4, 1)
    score, weight = random.normal(0, 2, shape), random.random(one)
    label = random.integers(0, 3, one)
    moved = (np.moveaxis(array, axis, 1) for array in (score, label, weight))
    valid, gradient = naive_loss(*moved, ignored=2)
    kept = weight[label != 2].sum()
    divisors = {"VALID": int(kept), "FULL": 40, "BATCH_SIZE": np.prod(shape[: axis % 4]), "NONE": 1}
    for kind, divisor in divisors.items():
        net = open_net(
            tmp_path,
            "force_backward: true\n"
            + input_of("score", *shape)
            + input_of("label", *one)
            + input_of("weight", *one)
            + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" '
            f'bottom: "weight" top: "loss" softmax_param {{ axis: {axis} }} '
            f"loss_param {{ ignore_label: 2 normalization: {kind} }} }}",
        )
        for name, value in (("score", score), ("label", label), ("weight", weight)):
            net.blobs[name].data[...] = value
        net.forward()
        net.backward()
        assert net.blobs["loss"].data == pytest.approx(valid * int(kept) / divisor, rel=1e-5)
        np.testing.assert_allclose(
            net.blobs["score"].diff, np.moveaxis(gradient, 1, axis), rtol=1e-4, atol=1e-7
        )


def test_a_hopeless_score_costs_what_the_smallest_float_costs(tmp_path):
    net = open_net(tmp_path, loss_text())
    net.blobs["score"].data[:, 1] = 500
    net.blobs["weight"].data[0, 0, 0, 0] = 2
    net.forward()
    expected = -np.log(float(np.finfo(np.float32).tiny))
    assert net.blobs["loss"].data == pytest.approx(expected, rel=1e-6)


def test_without_any_weight_nothing_is_learnt(tmp_path):
    net = open_net(tmp_path, loss_text())
    net.blobs["score"].diff[...] = 7
    net.forward()
    net.backward()
    assert net.blobs["loss"].data == 0
    assert not net.blobs["score"].diff.any()


def test_equal_weights_of_1_are_the_loss_of_genuine_caffe(ours, reference):
    random = np.random.default_rng(2)
    inputs = {
        "score": random.normal(0, 2, (2, 3, 4, 5)),
        "label": random.integers(0, 3, (2, 1, 4, 5)),
    }
    plain = loss_text().replace('bottom: "weight"', "").replace(input_of("weight", 2, 1, 4, 5), "")
    theirs = run_cases(reference, {"loss": Case(plain, inputs)})["loss"]
    weighted = Case(loss_text(), {**inputs, "weight": np.ones((2, 1, 4, 5))})
    got = run_cases(ours, {"loss": weighted})["loss"]
    assert_close({name: got[name] for name in theirs}, theirs)


def test_weights_must_be_as_many_as_labels(tmp_path):
    text = loss_text().replace(input_of("weight", 2, 1, 4, 5), input_of("weight", 2, 1, 4, 4))
    with pytest.raises(CaffeError, match=r"'loss'.*one weight per label.*\(2, 1, 4, 4\)"):
        open_net(tmp_path, text)


# -- Concat that crops -----------------------------------------------------------------------------


def concat_text(crop: bool) -> str:
    """Return a net that joins maps of 5 x 4, 9 x 4 and 7 x 8; with Crop layers, or by Concat."""
    text = "force_backward: true\n"
    for name, shape in (("a", (2, 2, 5, 4)), ("b", (2, 3, 9, 4)), ("c", (2, 1, 7, 8))):
        text += input_of(f"in_{name}", *shape)
        text += (
            f'layer {{ name: "{name}" type: "Power" bottom: "in_{name}" top: "{name}" '
            "power_param { power: 2 } }\n"
        )
    joined = ["a", "b", "c"]
    if crop:
        joined = ["a", "b_cut", "c_cut"]
        for name, offsets in (("b", (2, 0)), ("c", (1, 2))):
            text += (
                f'layer {{ name: "{name}_cut" type: "Crop" bottom: "{name}" bottom: "a" '
                f'top: "{name}_cut" crop_param {{ axis: 2 offset: {offsets[0]} '
                f"offset: {offsets[1]} }} }}\n"
            )
    bottoms = "".join(f' bottom: "{name}"' for name in joined)
    return text + f'layer {{ name: "joined" type: "Concat"{bottoms} top: "joined" }}\n'


def test_concat_cuts_in_the_middle_as_crop_layers_of_genuine_caffe_do(ours, reference):
    random = np.random.default_rng(3)
    inputs = {
        f"in_{name}": random.normal(size=shape)
        for name, shape in (("a", (2, 2, 5, 4)), ("b", (2, 3, 9, 4)), ("c", (2, 1, 7, 8)))
    }
    diffs = {"joined": random.normal(size=(2, 6, 5, 4)).astype(np.float32)}
    theirs = run_cases(reference, {"": Case(concat_text(True), inputs, diffs)})[""]
    got = run_cases(ours, {"": Case(concat_text(False), inputs, diffs)})[""]
    names = [*(f"diff {name}" for name in inputs), "data joined"]
    assert_close({name: got[name] for name in names}, {name: theirs[name] for name in names})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            concat_text(False),
            r":8:1: layer 'joined' \(Concat\): cuts bottom 1 to .* in the middle, as caffe_unet",
        ),
        (
            loss_text(),
            r":5:1: layer 'loss' \(SoftmaxWithLoss\): takes the labels' weights as a third",
        ),
    ],
)
def test_what_genuine_caffe_refuses_is_said_once_of_each_net(
    tmp_path, capfd, monkeypatch, text, told
):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    paths = [tmp_path / f"{number}.prototxt" for number in range(2)]
    for path in paths:
        path.write_text(text)
        caffe.Net(str(path), caffe.TEST)
        caffe.Net(str(path), caffe.TRAIN)
    solver = caffe_pb2.SolverParameter(net=str(paths[0]), base_lr=1, lr_policy="fixed")
    caffe.SGDSolver(solver)
    log = capfd.readouterr().err
    for path in paths:
        (warning,) = re.findall(rf"^W.*{path}{told}.*", log, re.MULTILINE)
        assert warning.endswith("; genuine BVLC Caffe refuses this")


def test_weights_that_are_none_are_no_extension(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    plain = loss_text().replace('bottom: "weight"', "").replace(input_of("weight", 2, 1, 4, 5), "")
    open_net(tmp_path, plain)
    assert "BVLC" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        *((shape, "bottom 1.*is odd") for shape in ((2, 2, 6, 4), (2, 2, 5, 7), (2, 2, 7, 7))),
        *((shape, "bottom 0 is") for shape in ((2, 2, 5, 3), (1, 2, 5, 4), (3, 2, 5, 4))),
        ((2, 2, 5), "bottom 0 is"),
    ],
)
def test_odd_differences_smaller_bottoms_and_other_batches_are_refused(tmp_path, shape, told):
    text = input_of("a", 2, 2, 5, 4) + input_of("b", *shape)
    text += 'layer { name: "joined" type: "Concat" bottom: "a" bottom: "b" top: "joined" }'
    with pytest.raises(CaffeError, match=rf"net.prototxt:3:1: layer 'joined'.*{told}"):
        open_net(tmp_path, text)


# -- a whole net -----------------------------------------------------------------------------------


def test_a_net_of_caffe_unet_opens_in_phase_test(tmp_path):
    net = open_net(tmp_path, caffe_unet.test_text((188, 204), width=2))
    net.blobs["data"].data[...] = np.random.default_rng(4).random((188, 204))
    assert net.forward()["score"].shape == (1, 2, 4, 20)
    # Leaky: some values stay below 0.
    assert net.blobs["u0d"].data.min() < 0
