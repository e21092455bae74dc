"""What the engine computes on a GPU, its ways and memory there, with values: on a stand-in.

See stand_in.py. What only a GPU can tell, its own arithmetic and timing, is left to tests/gpu.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.caffe.stand_in import ValuedStandIn, computing_on_stand_in, repeating
from tests.caffe.test_scalars import results_of
from tests.gpu.engine import Here
from tests.gpu.suites import SUITES
from tests.parity.harness import assert_close
from tests.parity.layer_cases import CASES, Draw


@pytest.fixture
def gpu(monkeypatch) -> Iterator[ValuedStandIn]:
    with computing_on_stand_in(monkeypatch, ValuedStandIn) as mode:
        repeating(monkeypatch, mode)
        yield mode


@pytest.mark.parametrize("kind", sorted(CASES))
def test_a_layer_comes_to_what_the_cpu_comes_to(monkeypatch, kind):
    for number in range(6):
        case = CASES[kind](Draw(kind, number))
        wanted = results_of(case)
        with computing_on_stand_in(monkeypatch, ValuedStandIn):
            got = results_of(case)
        assert_close(got, wanted, relative=1e-4)


# Recurrent nets are not repeated; these take some seconds.
REPEATING = [("scripts", "surgery"), ("scripts", "data")]
REPEATING += [("solvers", part) for part in SUITES["solvers"].repeating]
LONG = [("scripts", "again"), ("networks", "unet_slim SGD"), ("whole nets", "residual")]


@pytest.mark.parametrize(
    ("suite", "part"),
    [*REPEATING, *(pytest.param(*long, marks=pytest.mark.slow) for long in LONG)],
)
def test_passes_repeated_as_graphs_come_to_what_usual_ones_come_to(gpu, suite, part):
    usual = SUITES[suite].run(Here.on("gpu"), part)
    assert not gpu.graphs
    repeated = SUITES[suite].run(Here.on("gpu", "fp32 graphs"), part)
    assert gpu.graphs
    assert usual.keys() == repeated.keys()
    for case, arrays in usual.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(repeated[case][name], values, err_msg=name)
