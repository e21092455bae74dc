"""ceil_mode, the word of other Caffes for a pooling's round_mode."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from tests.parity.harness import Case, assert_close, run_cases

INPUT = (
    'layer { name: "x" type: "Input" top: "x" '
    "input_param { shape { dim: 1 dim: 2 dim: 6 dim: 8 } } }\n"
)


def pooling(words: str) -> str:
    return (
        INPUT + 'layer { name: "p" type: "Pooling" bottom: "x" top: "p"\n'
        f"  pooling_param {{ pool: AVE kernel_size: 3 stride: 2 {words} }} }}"
    )


def net(tmp_path, text: str) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), caffe.TEST)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("ceil_mode: false", (2, 3)),
        ("ceil_mode: true", (3, 4)),
        ("ceil_mode:0", (2, 3)),
        ("round_mode: FLOOR ceil_mode: false", (2, 3)),
        ("ceil_mode: t round_mode: 0", (3, 4)),
        ("", (3, 4)),
    ],
)
def test_ceil_mode_is_round_mode(tmp_path, words, size):
    assert net(tmp_path, pooling(words)).blobs["p"].shape[2:] == size
    shape = "input_dim: 1 input_dim: 2 input_dim: 6 input_dim: 8"
    options = f"pooling_param {{ kernel_size: 3 stride: 2 {words} }}"
    old = f'input: "x" {shape} layers {{ name: "p" type: POOLING bottom: "x" top: "p" {options} }}'
    assert net(tmp_path, old).blobs["p"].shape[2:] == size


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "ceil_mode: false round_mode: CEIL",
            "2:1: layer 'p' (Pooling): ceil_mode: false is round_mode: FLOOR, and",
        ),
        (
            "round_mode: 1 ceil_mode: true",
            "2:1: layer 'p' (Pooling): ceil_mode: true is round_mode: CEIL, and",
        ),
        ("ceil_mode: FLOOR", "3:65: layer 'p' (Pooling): expected"),
        (
            "} ceil_mode: false power_param {",
            "3:56: layer 'p' (Pooling): 'ceil_mode' stands in pooling_param { ... }",
        ),
    ],
)
def test_what_contradicts_or_stands_elsewhere_is_told_with_its_line(tmp_path, words, told):
    with pytest.raises(CaffeError) as caught:
        net(tmp_path, pooling(words))
    assert str(caught.value).startswith(f"{tmp_path}/net.prototxt:{told}")


def test_that_genuine_caffe_does_not_know_it_is_said_once(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    for _ in range(2):
        net(tmp_path, pooling("ceil_mode: false"))
    warnings = [line for line in capfd.readouterr().err.splitlines() if "is taken for" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(
        "net.prototxt:2:1: layer 'p' (Pooling): 'ceil_mode' is taken for 'round_mode' (true: CEIL, "
        "false: FLOOR); genuine BVLC Caffe refuses this"
    )


@pytest.mark.parametrize(("words", "named"), [("false", "FLOOR"), ("true", "CEIL")])
def test_such_a_net_computes_what_genuine_caffe_computes_with_round_mode(
    ours, reference, words, named
):
    random = np.random.default_rng(0)
    inputs = {"x": random.normal(size=(1, 2, 6, 8)).astype(np.float32)}
    got = run_cases(ours, {"": Case(pooling(f"ceil_mode: {words}"), inputs)})[""]
    wanted = run_cases(reference, {"": Case(pooling(f"round_mode: {named}"), inputs)})[""]
    assert_close(got, wanted)
