"""What `tools/benchmark.py onnx` prints: seconds of both, and how far their values lie apart."""

from __future__ import annotations

import argparse
import re

import pytest

pytest.importorskip("onnxruntime", reason="needs pip install onnx onnxruntime (Python 3.11)")

from tests.unet.model.test_adapt import write_model
from time_export import onnx


def test_seconds_and_the_largest_difference(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = write_model(tmp_path / "m")
    onnx(argparse.Namespace(model=str(folder), tile=92, threads=1, rounds=2))
    said = capsys.readouterr().out
    assert "a tile of 92x92, 1 threads" in said
    assert re.search(r"this engine +[\d.]+ s best", said)
    assert re.search(r"ONNX Runtime +[\d.]+ s best", said)
    assert float(re.search(r"prob: largest difference ([\de.-]+)", said)[1]) < 1e-5
