"""bf16: convolutions compute with 7 bits of mantissa; parameters and solver stay float32."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe import common
from caffe import layers as L

# bfloat16 keeps 8 bits: rounding is off by 2^-9 of the value at most.
HALF_BIT = 2.0**-9


@pytest.fixture
def bf16():
    caffe.set_precision("bf16")
    computed = caffe.get_precision()
    if computed == "bf16":
        yield
    caffe.set_precision("fp32")
    if computed != "bf16":
        pytest.skip("this CPU has no instructions for bfloat16")


def net(make, shape, phase=caffe.TRAIN):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=list(shape)))
    make(n)
    param = n.to_proto()
    param.force_backward = True
    caffe.set_random_seed(7)
    made = caffe.Net(param, phase)
    made.blobs["data"].data[...] = np.random.default_rng(0).normal(size=shape)
    return made


def rounded(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).to(torch.bfloat16).double().numpy()


MSRA = dict(type="msra")
LAYERS = {
    "Convolution": (
        lambda n: L.Convolution(n.data, num_output=5, kernel_size=3, weight_filler=MSRA),
        (2, 4, 9, 8),
    ),
    "Convolution of one channel": (
        lambda n: L.Convolution(n.data, num_output=5, kernel_size=3, weight_filler=MSRA),
        (1, 1, 9, 8),
    ),
    "Convolution of many channels": (
        lambda n: L.Convolution(n.data, num_output=128, kernel_size=3, weight_filler=MSRA),
        (1, 128, 26, 26),
    ),
    "Deconvolution": (
        lambda n: L.Deconvolution(
            n.data,
            convolution_param=dict(num_output=3, kernel_size=2, stride=2, weight_filler=MSRA),
        ),
        (1, 6, 5, 4),
    ),
    "InnerProduct": (
        lambda n: L.InnerProduct(n.data, num_output=7, weight_filler=MSRA),
        (3, 4, 5),
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_products_are_those_of_rounded_values(bf16, kind):
    make, shape = LAYERS[kind]

    def add(n):
        n.out = make(n)

    reduced = net(add, shape)
    assert reduced.forward()["out"].dtype == np.float32
    out = reduced.blobs["out"].data.copy()
    gradient = np.random.default_rng(1).normal(size=out.shape).astype(np.float32)
    reduced.blobs["out"].diff[...] = gradient
    reduced.backward()
    # The same layer in float32, given the rounded values: exact but for summation.
    caffe.set_precision("fp32")
    exact = net(add, shape)
    exact.blobs["data"].data[...] = rounded(reduced.blobs["data"].data)
    for mine, theirs in zip(exact.params["out"], reduced.params["out"]):
        mine.data[...] = rounded(theirs.data)
    exact.forward()
    exact.blobs["out"].diff[...] = rounded(gradient)
    exact.backward()
    pairs = [(out, exact.blobs["out"].data)]
    pairs += [(reduced.blobs["data"].diff, exact.blobs["data"].diff)]
    pairs += [(a.diff, b.diff) for a, b in zip(reduced.params["out"], exact.params["out"])]
    for given, expected in pairs:
        np.testing.assert_allclose(
            given, expected, rtol=2 * HALF_BIT, atol=HALF_BIT * np.abs(expected).max()
        )
    # And it was bf16 indeed.
    assert np.abs(out - exact.blobs["out"].data).max() > 1e-5


IN_PADDING = {
    "Convolution": (dict(kernel_size=2, stride=3, pad=1), (2, 3, 2, 2)),
    "Deconvolution": (dict(kernel_size=[2, 3], stride=[2, 3], pad=[0, 2]), (2, 3, 1, 2)),
}


@pytest.mark.parametrize("kind", IN_PADDING)
def test_weights_that_meet_nothing_but_padding_have_no_gradient(bf16, kind):
    options, shape = IN_PADDING[kind]

    def add(n):
        n.out = getattr(L, kind)(n.data, convolution_param=dict(num_output=2, **options))

    made = net(add, shape)
    made.forward()
    for _ in range(50):
        # What lies in memory that is given back.
        for size in (12, 36, 72, 144, 288, 1024, 4096):
            del [torch.full((size,), 3e38) for _ in range(9)][:]
        made.clear_param_diffs()
        made.blobs["out"].diff[...] = 1
        made.backward()
        assert np.abs(made.params["out"][0].diff).max() < 100


def u_like(n):
    """Every layer type that passes reduced values on, and a loss that must not."""
    n.a = L.Convolution(n.data, num_output=8, kernel_size=3, weight_filler=MSRA)
    n.r = L.ReLU(n.a, in_place=True)
    n.d = L.Dropout(n.r, in_place=True, dropout_ratio=0.5)
    n.p = L.Pooling(n.d, kernel_size=2, stride=2)
    n.b = L.Convolution(n.p, num_output=8, kernel_size=3, pad=1, weight_filler=MSRA)
    n.s = L.ReLU(n.b, negative_slope=0.1)
    n.u = L.Deconvolution(
        n.s, convolution_param=dict(num_output=8, kernel_size=2, stride=2, weight_filler=MSRA)
    )
    n.c = L.Crop(n.d, n.u, axis=2)
    n.j = L.Concat(n.u, n.c)
    n.q = L.Pooling(n.j, kernel_size=3, stride=2, pool=caffe.params.Pooling.AVE)
    n.score = L.Convolution(n.q, num_output=2, kernel_size=1, weight_filler=MSRA)
    n.label = L.DummyData(shape=dict(dim=[1, 1, 5, 5]), data_filler=dict(type="constant", value=1))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)


def passed(made):
    caffe.set_random_seed(3)
    loss = float(made.forward()["loss"])
    made.backward()
    grads = [blob.diff.copy() for blobs in made.params.values() for blob in blobs]
    return loss, grads


def test_a_net_comes_near_float32_and_back_to_it(bf16):
    made = net(u_like, (1, 1, 12, 12))
    made_again = net(u_like, (1, 1, 12, 12))
    made_again.share_with(made)
    reduced_loss, reduced = passed(made_again)
    assert all(blob.data.dtype == np.float32 for blob in made_again.blobs.values())
    caffe.set_precision("fp32")
    loss, grads = passed(made)
    assert reduced_loss != loss
    assert reduced_loss == pytest.approx(loss, rel=0.02)
    for given, expected in zip(reduced, grads):
        # As a whole: where a sum is near zero, rounding switches a ReLU and its gradient.
        assert np.linalg.norm(given - expected) < 0.05 * np.linalg.norm(expected)
    third = net(u_like, (1, 1, 12, 12))
    third.share_with(made)
    assert passed(third)[0] == loss


def solver(tmp_path, rule):
    (tmp_path / "net.prototxt").write_text(str(net(u_like, (1, 1, 12, 12)).param))
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" type: "{rule}" base_lr: 1e-7 lr_policy: "fixed" '
        "momentum: 0.9 random_seed: 4"
    )
    made = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    made.net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(1, 1, 12, 12))
    return made


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_steps_below_the_precision_add_up(bf16, tmp_path, rule):
    # 1e-7 of a weight is lost in bfloat16, and would be lost at each step.
    made = solver(tmp_path, rule)
    before = made.net.params["score"][0].data.copy()
    made.step(1)
    one = made.net.params["score"][0].data - before
    made.step(9)
    ten = made.net.params["score"][0].data - before
    assert np.abs(one).max() > 0
    assert np.abs(ten).max() > 4 * np.abs(one).max()
    for blob in made.net.learnable:
        assert blob.data_tensor().dtype == torch.float32
        assert blob.diff_memory.native().dtype == torch.float32


def test_activations_take_half_the_memory(bf16):
    made = net(u_like, (1, 1, 12, 12))
    made.forward()
    for name in ("a", "p", "b", "s", "u", "c", "j", "q", "score"):
        memory = made.blobs[name].data_memory
        wanted = torch.float32 if name == "score" else torch.bfloat16
        assert memory.native().dtype == wanted, name


def test_unknown_precision():
    with pytest.raises(caffe.CaffeError, match=r"unknown precision 'fp8'; there are fp32, tf32, b"):
        caffe.set_precision("fp8")


def on_cpu_up_to(isa: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run this file in a process for which the CPU has no more than these instructions."""
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "GLOG_minloglevel": "1"},
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE"])
def test_where_it_would_be_slower_float32_is_computed_and_said_so_once(isa):
    done = on_cpu_up_to(isa)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["precision"] == "fp32"
    assert told["loss of bf16"] == told["loss of fp32"]
    assert told["types"] == ["torch.float32"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("W")
    assert line.endswith(
        "] bf16 would be slower than float32, which is computed instead: oneDNN finds neither "
        "AVX512_BF16 nor AMX_BF16 in this CPU"
    )


def test_a_cpu_with_instructions_for_it_computes_in_it():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not {"avx512_bf16", "amx_bf16"} & set(flags.split()):
        pytest.skip("this CPU has no instructions for bfloat16")
    done = on_cpu_up_to("DEFAULT")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["precision"] == "bf16"
    assert told["loss of bf16"] != told["loss of fp32"]
    assert told["types"] == ["torch.bfloat16"]


@pytest.mark.parametrize(
    ("capability", "computed", "said"),
    [((9, 0), "bf16", ""), ((8, 0), "bf16", ""), ((7, 5), "fp32", "GPU 3 is of compute cap")],
)
def test_gpus_have_it_from_compute_capability_8_0_on(
    monkeypatch, capsys, capability, computed, said
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
    monkeypatch.setattr(common, "_mode", "gpu")
    monkeypatch.setattr(common, "_device_id", 3)
    common._gains_by_bf16.cache_clear()
    try:
        for _ in range(2):
            caffe.set_precision("bf16")
            assert caffe.get_precision() == computed
        errors = capsys.readouterr().err
        assert errors.count("\n") == bool(said)
        assert said in errors
    finally:
        caffe.set_precision("fp32")
        common._gains_by_bf16.cache_clear()


def wide(n):
    n.out = L.Convolution(n.data, num_output=64, kernel_size=3, weight_filler=MSRA)


@pytest.mark.gpu
def test_tf32_is_used_only_if_asked_for():
    caffe.set_mode_gpu()
    try:
        made = net(wide, (1, 64, 34, 34))
        exact = made.forward()["out"].copy()
        caffe.set_precision("tf32")
        reduced = made.forward()["out"].copy()
    finally:
        caffe.set_precision("fp32")
        caffe.set_mode_cpu()
    on_cpu = made.forward()["out"]
    scale = np.abs(on_cpu).max()
    assert np.abs(exact - on_cpu).max() < 1e-5 * scale
    assert 1e-5 * scale < np.abs(reduced - on_cpu).max() < 1e-2 * scale


def main() -> None:
    """Tell what a net computes in float32 and when asked for bf16."""
    told = {}
    made = net(u_like, (1, 1, 12, 12))
    for precision in ("fp32", "bf16"):
        caffe.set_precision(precision)
        told[f"loss of {precision}"] = passed(made)[0]
    inner = [made.blobs[name].data_memory.native().dtype for name in ("a", "b", "s", "u")]
    told |= {"precision": caffe.get_precision(), "types": sorted({str(kind) for kind in inner})}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
