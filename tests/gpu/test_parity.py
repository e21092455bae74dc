"""Every case, net and solver of tests/parity on a GPU, in each precision, against the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import pytest
import torch

import caffe
from caffe import device_memory
from caffe.layers.activation import TanH
from caffe.layers.convolution import Convolution, Deconvolution
from tests.gpu.compare import NUDGE, TOLERANCE, Results, Row, compare
from tests.gpu.engine import Here
from tests.gpu.suites import SUITES


@functools.lru_cache(maxsize=2)
def truth(suite: str, part: str) -> Results:
    """Return what the CPU gives in float32; the precisions follow each other."""
    return SUITES[suite].run(Here.on("cpu"), part)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("suite", "part", "mode"),
    [
        pytest.param(suite, part, mode, id=f"{suite}, {part}, {mode}")
        for suite in SUITES
        for part in SUITES[suite].parts
        for mode in SUITES[suite].modes(part)
    ],
)
def test_a_gpu_comes_to_what_the_cpu_comes_to(suite, part, mode, record_property):
    row = compare(
        lambda engine: SUITES[suite].run(engine, part),
        "gpu",
        mode,
        suite,
        part,
        truth(suite, part),
        SUITES[suite].held(part, mode),
    )
    record_property("gpu_parity", dataclasses.asdict(row))
    record_property(f"{suite}, {mode}", row.worst)
    assert not row.mistakes, "\n".join(row.mistakes[:20])
    assert row.arrays


# -- without a GPU ---------------------------------------------------------------------------------

# A part of each suite, the quickest.
REHEARSED = {
    "layers": "Convolution",
    "layers between others": "Pooling",
    "layers of the U-Net": "convolution",
    "nets in new shapes": "in",
    "random nets": "0-9",
    "nets in use": "all",
    "whole nets": "exposed_rnn",
    "whole nets from files": "exposed_lstm",
    "networks": "unet_slim SGD",
    "scripts": "segment",
    "solvers": "Adam",
    "solvers resumed": "SGD",
}


def test_all_suites_are_rehearsed():
    assert {name: part in SUITES[name].parts for name, part in REHEARSED.items()} == dict.fromkeys(
        SUITES, True
    )


def rehearse(suite: str) -> Row:
    part = REHEARSED[suite]
    return compare(lambda engine: SUITES[suite].run(engine, part), "gpu", "fp32", suite, part)


@pytest.mark.parametrize("suite", REHEARSED)
def test_a_pretended_gpu_comes_to_what_the_cpu_comes_to(pretended, suite):
    row = rehearse(suite)
    assert not row.mistakes
    assert row.arrays


def test_what_does_not_come_to_the_gpu_is_found(pretended, monkeypatch):
    def upload(host, target, wait):
        target.zero_()

    monkeypatch.setattr(device_memory, "upload", upload)
    assert rehearse("nets in new shapes").mistakes


def test_what_is_computed_on_the_wrong_device_is_found(pretended, monkeypatch):
    def forward(self, bottom, top):
        top[0].set_data(bottom[0].data_tensor() * torch.ones(bottom[0].shape))

    monkeypatch.setattr(TanH, "forward", forward)
    with pytest.raises(caffe.CaffeError, match="same device"):
        rehearse("solvers")


@contextlib.contextmanager
def planted(monkeypatch: pytest.MonkeyPatch, layer: type, method: str, change) -> Iterator[None]:
    """Change what a layer's method does: `change` gets what it gave, and where it put it."""
    original = getattr(layer, method)

    def wrong(self, *arguments):
        return change(original(self, *arguments), *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layer, method, wrong)
        yield


def _scale_top(given, bottom, top):
    top[0].data[...] *= 1 + 1e-3
    return given


def _scale_weights(given, *arguments):
    bottom, weights, bias = given
    return bottom, weights * (1 + 1e-3), bias


PLANTED = [
    ("layers", "TanH", TanH, "forward", _scale_top, "data out0"),
    (
        "layers of the U-Net",
        "deconvolution",
        Deconvolution,
        "_gradients",
        _scale_weights,
        "layer 0",
    ),
    ("whole nets", "fcn", Convolution, "_gradients", _scale_weights, "gradient convfc6 0"),
    ("solvers resumed", "Nesterov", TanH, "forward", _scale_top, "read here resumed parameter"),
]


@pytest.mark.parametrize(("suite", "part", "layer", "method", "change", "found"), PLANTED)
def test_an_error_of_a_thousandth_is_found(monkeypatch, suite, part, layer, method, change, found):
    def run(engine: Here) -> Results:
        there = engine.precision == "tf32"
        with planted(monkeypatch, layer, method, change) if there else contextlib.nullcontext():
            return SUITES[suite].run(engine, part)

    monkeypatch.setattr("tests.gpu.compare.NUDGES", 2)
    monkeypatch.setitem(TOLERANCE, "tf32", TOLERANCE["fp32"])
    monkeypatch.setitem(NUDGE, "tf32", NUDGE["fp32"])
    row = compare(run, "cpu", "tf32")
    assert any(found in text for text in row.mistakes), row.mistakes
