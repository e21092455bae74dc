"""The engine is opened on a device and in a precision, and says what it does not have."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import caffe
from caffe import common
from unet.errors import InputError
from unet.machine.engine import PRECISIONS, open_engine, tiles_together


@pytest.fixture(autouse=True)
def back():
    yield
    open_engine()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_set(monkeypatch, precision):
    given = []
    monkeypatch.setattr(caffe, "set_precision", given.append)
    assert open_engine("cpu", precision) is caffe
    assert given == [precision]


@pytest.mark.parametrize("graphs", [False, True])
def test_graphs_are_as_asked_for(monkeypatch, graphs):
    given = []
    monkeypatch.setattr(caffe, "set_graphs", given.append)
    open_engine("cpu", graphs=graphs)
    assert given == [graphs]


def test_precisions_are_the_engines():
    assert PRECISIONS == common.PRECISIONS


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("tpu", "fp32", "device 'tpu' is neither auto, cpu nor"),
        ("cpu", "fp8", "precision 'fp8' is none of fp32, tf32, bf16"),
    ],
)
def test_what_there_is_not_is_refused(device, precision, message):
    with pytest.raises(InputError, match=message):
        open_engine(device, precision)


def test_genuine_caffe_has_one_precision(monkeypatch):
    genuine = ModuleType("caffe")
    genuine.set_mode_cpu = lambda: None
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "caffe", genuine)
        assert open_engine("cpu") is genuine
        with pytest.raises(InputError, match="genuine Caffe computes in fp32 only"):
            open_engine("cpu", "bf16")


def test_tiles_go_together_where_a_gpu_computes(monkeypatch):
    assert tiles_together(caffe) == 1
    monkeypatch.setattr(common, "_mode", "gpu")
    assert tiles_together(caffe) == 8
    # Genuine Caffe does not tell.
    assert tiles_together(ModuleType("caffe")) == 1
