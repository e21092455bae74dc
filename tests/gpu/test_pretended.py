"""What the engine does on a GPU, its ways and memory there, on a pretended one.

What only a GPU can tell, its own arithmetic and streams, is left to the tests that need one.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.engine import Here
from tests.gpu.pretended import Moment
from tests.gpu.suites import SUITES
from tests.parity.harness import assert_close, run_cases
from tests.parity.layer_cases import CASES, Draw


@pytest.mark.parametrize("kind", sorted(CASES))
def test_a_layer_comes_to_what_the_cpu_comes_to(pretended, kind):
    cases = {str(number): CASES[kind](Draw(kind, number)) for number in range(6)}
    wanted, got = (run_cases(Here.on(where), cases) for where in ("cpu", "gpu"))
    for case, arrays in wanted.items():
        assert_close(got[case], arrays, relative=1e-4)


# What is repeated often enough for graphs; the last ones take long.
REPEATED = [("scripts", "surgery", "fp32"), ("scripts", "surgery", "bf16")]
REPEATED += [("scripts", "data", "fp32")]
REPEATED += [("solvers", part, "fp32") for part in SUITES["solvers"].repeating]
LONG = [
    ("scripts", "again", "fp32"),
    ("networks", "unet_slim SGD", "fp32"),
    ("networks", "unet_slim SGD", "bf16"),
    ("whole nets", "residual", "fp32"),
]


@pytest.mark.parametrize(
    ("suite", "part", "precision"),
    [*REPEATED, *(pytest.param(*long, marks=pytest.mark.slow) for long in LONG)],
)
def test_passes_repeated_as_graphs_come_to_what_usual_ones_come_to(
    pretended, monkeypatch, suite, part, precision
):
    # Of several ways to compute the same always the first.
    monkeypatch.setattr(Moment, "elapsed_time", lambda self, other: 0.0)
    usual = SUITES[suite].run(Here.on("gpu", precision), part)
    assert not pretended
    repeated = SUITES[suite].run(Here.on("gpu", f"{precision} graphs"), part)
    assert pretended
    assert usual.keys() == repeated.keys()
    for case, arrays in usual.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(repeated[case][name], values, err_msg=name)
