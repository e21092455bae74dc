"""Words of other Caffes: ceil_mode in poolings."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.proto import caffe_pb2
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


def mode(text: str) -> str:
    (param,) = [layer.pooling_param for layer in prototxt.parse_net(text).layer[1:]]
    return caffe_pb2.PoolingParameter.RoundMode.Name(param.round_mode)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ceil_mode: false", "FLOOR"),
        ("ceil_mode: true", "CEIL"),
        ("ceil_mode:0", "FLOOR"),
        ("ceil_mode\n  # of the maps\n : True", "CEIL"),
        ("round_mode: FLOOR ceil_mode: false", "FLOOR"),
        ("ceil_mode: t round_mode: 0", "CEIL"),
        ("ceil_mode: false, round_mode: FLOOR", "FLOOR"),
        ("", "CEIL"),
    ],
)
def test_ceil_mode_is_round_mode(words, expected):
    assert mode(pooling(words)) == expected
    old = 'layers { name: "p" type: POOLING bottom: "x" top: "p" pooling_param { WORDS } }'
    assert mode(_old(old.replace("WORDS", words))) == expected


def _old(layer: str) -> str:
    return f'input: "x" input_dim: 1 input_dim: 2 input_dim: 6 input_dim: 8 {layer}'


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ceil_mode: false round_mode: CEIL", "3:54: ceil_mode: false is round_mode: FLOOR, and"),
        ("round_mode: 1 ceil_mode: true", "3:68: ceil_mode: true is round_mode: CEIL, and"),
        ("ceil_mode: FLOOR", "3:54: ceil_mode is true or false, not FLOOR"),
        (
            "} ceil_mode: false power_param {",
            "3:56: layer 'p' (Pooling): LayerParameter has no field 'ceil_mode'",
        ),
        (
            "ceil_mode: false\n  kernel_sizes: 3",
            "4:3: layer 'p' (Pooling): PoolingParameter has no field 'kernel_sizes'",
        ),
    ],
)
def test_what_contradicts_or_stands_elsewhere_is_told_with_its_line(tmp_path, words, told):
    path = tmp_path / "net.prototxt"
    path.write_text(pooling(words))
    with pytest.raises(CaffeError) as caught:
        caffe.Net(str(path), caffe.TEST)
    assert str(caught.value).startswith(f"{path}:{told}")


def test_that_genuine_caffe_does_not_know_it_is_said_once(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    path = tmp_path / "net.prototxt"
    path.write_text(pooling("ceil_mode: false"))
    for phase in (caffe.TRAIN, caffe.TEST):
        caffe.Net(str(path), phase)
    warnings = [line for line in capfd.readouterr().err.splitlines() if "ceil_mode" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(
        f"{path}:3:54: 'ceil_mode' is taken for 'round_mode' (true: CEIL, false: FLOOR); genuine "
        "BVLC Caffe refuses this"
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
