"""What computes is right on lesser machines, too: the tests of it are run as on each of these."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest

TESTS = [
    "tests/caffe/test_precision.py",
    "tests/caffe/test_winograd.py",
    "tests/caffe/test_simd.py",
    "tests/caffe/test_up_convolution.py",
    "tests/tools/test_segment.py::test_bf16_gives_nearly_the_same_and_float32_where_it_gains_nothing",
]
# How far oneDNN, PyTorch's own loops, MKL and LLVM (see lesser_cpu.py) may go.
LESSER = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE4.1": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "LESSER_CPU": "least",
    },
    "AVX-512 without bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "no compiler": {"LESSER_CPU": "no compiler"},
    "more threads than cores": {"OMP_NUM_THREADS": str(2 * (os.cpu_count() or 1))},
}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
@pytest.mark.parametrize("machine", LESSER)
def test_computations_are_right_on(machine, repository):
    plugin = ["-p", "tests.caffe.lesser_cpu"] if "LESSER_CPU" in LESSER[machine] else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *TESTS],
        capture_output=True,
        text=True,
        cwd=repository,
        env=os.environ | LESSER[machine],
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed > 10, done.stdout[-5000:]
