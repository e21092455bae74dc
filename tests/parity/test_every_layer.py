"""Every layer type in random cases, held against genuine Caffe; a table of the differences."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.parity.harness import Case, Engine, at_once, run_cases
from tests.parity.layer_cases import CASES, Draw

# Types, and how many are run by one process.
KINDS, TOGETHER = sorted(CASES), 8
# Cases of each type; types of many parameters get more.
COUNT = 30
MORE = {"Convolution": 90, "Deconvolution": 60, "Pooling": 80, "Reshape": 50, "Scale": 50}


def cases_of(kind: str) -> dict[str, Case]:
    """Return the cases of a type, by type and number."""
    count = MORE.get(kind, COUNT)
    return {f"{kind} {number}": CASES[kind](Draw(kind, number)) for number in range(count)}


def largest_difference(got: dict, wanted: dict) -> float:
    """Return the largest difference of any array, relative to its largest value."""
    assert got.keys() == wanted.keys()
    worst = 0.0
    for name, expected in wanted.items():
        assert got[name].shape == expected.shape, name
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(got[name]), finite, err_msg=name)
        if finite.any():
            scale = max(float(np.abs(expected[finite]).max()), 1e-3)
            worst = max(worst, float(np.abs(got[name] - expected)[finite].max()) / scale)
    return worst


@functools.lru_cache(maxsize=1)
def results(ours: Engine, reference: Engine, group: int) -> tuple[dict, dict]:
    """Return what both engines give for some types: starting them takes longer than most types."""
    kinds = KINDS[group * TOGETHER : (group + 1) * TOGETHER]
    cases = {name: case for kind in kinds for name, case in cases_of(kind).items()}
    return at_once(lambda engine: run_cases(engine, cases), ours, reference)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_genuine_caffe(ours: Engine, reference: Engine, kind, record_parity):
    cases = cases_of(kind)
    got, wanted = results(ours, reference, KINDS.index(kind) // TOGETHER)
    differences = {}
    for name, case in cases.items():
        try:
            differences[name] = largest_difference(got[name], wanted[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{case.net}") from error
    worst = max(differences, key=differences.get)
    record_parity(kind, len(cases), differences[worst])
    assert differences[worst] <= 1e-4, f"{worst}: {differences[worst]:.2e}\n{cases[worst].net}"
