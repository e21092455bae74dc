"""What computes is right on lesser machines, too: the tests of it are run as on each of these."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest

# Against genuine Caffe, to the tolerance that the project states; against double precision.
ARITHMETIC = [
    "tests/parity/test_layers_of_unet.py::test_equals_genuine_caffe",
    "tests/caffe/layers/winograd/test_convolve.py",
    "tests/caffe/layers/winograd/test_simd.py",
    "tests/caffe/layers/test_convolution.py",
]
# Whole nets, in the precision that the machine has; test_precision.py names lesser ones itself.
NETS = [
    "tests/unet/command/test_segment.py::"
    "test_bf16_gives_nearly_the_same_and_float32_where_it_gains_nothing"
]
PRECISION = ["tests/caffe/test_precision.py", "-k", "not said_so_once"]
# How far oneDNN, PyTorch's own loops (and with them what LLVM compiles), MKL and LLVM alone (see
# lesser_cpu.py) may go; what is run there.
LESSER = {
    "AVX2": (
        {
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        },
        ARITHMETIC + NETS,
    ),
    "SSE4.1": (
        {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_CBWR": "COMPATIBLE",
            "LESSER_CPU": "least",
        },
        ARITHMETIC + NETS,
    ),
    "AVX-512 without bfloat16": ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, NETS),
    "no compiler": ({"LESSER_CPU": "no compiler"}, ARITHMETIC + NETS),
    "more threads than cores": (
        {"OMP_NUM_THREADS": str(2 * (os.cpu_count() or 1))},
        ARITHMETIC + NETS + PRECISION,
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
@pytest.mark.parametrize("machine", LESSER)
def test_computations_are_right_on(machine, repository):
    limits, tests = LESSER[machine]
    plugin = ["-p", "tests.caffe.lesser_cpu"] if "LESSER_CPU" in limits else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, *tests],
        capture_output=True,
        text=True,
        cwd=repository,
        env=os.environ | limits,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed >= (1 if tests is NETS else 11), done.stdout[-5000:]
