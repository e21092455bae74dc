"""Every layer type between others: what works in place beside it changes neither engine's results.

Layers may keep, share or reuse memory only as far as no neighbour can tell. Each case of
`layer_cases` is run with layers in place above its tops, other readers of its bottoms and tops, and
blobs that are no inputs or outputs of the net.
"""

from __future__ import annotations

import dataclasses
import re

import pytest

from tests.parity.harness import Case, Engine, at_once, run_cases
from tests.parity.layer_cases import CASES, Draw
from tests.parity.test_every_layer import largest_difference

COUNT = 12
# What a neighbour spoils is off by much more; sums that cancel, by 1e-4.
TOLERANCE = 1e-3
# Filter's tops have the sizes that its values give; in genuine Caffe, what works in place on a
# Parameter's top changes the parameter.
ALONE = {"Filter", "Parameter"}
# Tops that genuine Caffe reads in backward, and this engine does not: what works in place on them
# spoils its gradients.
READ_AGAIN = {
    "LRN": "out",
    "LSTM": "out",
    "LSTMUnit": "out",
    "Pooling": "out1",
    "Power": "out",
    "RNN": "out",
}
KINDS = sorted(set(CASES) - ALONE)
IN_PLACE = (
    'type: "ReLU" relu_param { negative_slope: 0.25 }',
    'type: "TanH"',
    'type: "Scale" scale_param { axis: 0 bias_term: true }',
)


def surrounded(case: Case, draw: Draw) -> Case:
    """Put layers below, above and beside the layer of a case."""
    lines = case.net.splitlines()
    layer = lines.pop()
    below, above = [], []
    for name in dict.fromkeys(re.findall(r'bottom: "(in\d+)"', layer)):
        own = f"below_{name}"
        below.append(f'layer {{ name: "{own}" type: "Power" bottom: "{name}" top: "{own}" }}')
        layer = layer.replace(f'bottom: "{name}"', f'bottom: "{own}"')
        above.append(
            f'layer {{ name: "beside_{name}" type: "Power" bottom: "{own}" top: "beside_{name}" }}'
        )
    weighted = " loss_weight: 1" if "loss_weight" in layer else ""
    layer = re.sub(r" loss_weight: \S+", "", layer)
    diffs = dict(case.top_diffs)
    for name, values in case.top_diffs.items():
        if not name.startswith(READ_AGAIN.get(draw.kind, "in")):
            # The last takes an axis.
            kind = IN_PLACE[draw.whole(0, len(IN_PLACE) - (1 if values.ndim else 2))]
            above.append(
                f'layer {{ name: "in_place_{name}" bottom: "{name}" top: "{name}" {kind} }}'
            )
        for side in ("first", "second"):
            end = f"{side}_{name}"
            above.append(
                f'layer {{ name: "{end}" type: "Power" bottom: "{name}" top: "{end}" '
                f"power_param {{ scale: 1.5 }}{weighted} }}"
            )
            diffs[end] = values
        del diffs[name]
    return dataclasses.replace(
        case, net="\n".join([*lines, *below, layer, *above]), top_diffs=diffs
    )


def cases_of(kind: str) -> dict[str, Case]:
    """Return the cases of a type, by type and number."""
    found = {}
    for number in range(COUNT):
        draw = Draw(kind, number)
        found[f"{kind} {number}"] = surrounded(CASES[kind](draw), draw)
    return found


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """Return all cases, by type and number."""
    return {name: case for kind in KINDS for name, case in cases_of(kind).items()}


@pytest.fixture(scope="module")
def results(ours: Engine, reference: Engine, cases: dict[str, Case]) -> tuple[dict, dict]:
    """Return what this engine and genuine Caffe make of them, each in one process."""
    return at_once(lambda engine: run_cases(engine, cases), ours, reference)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_notice_nothing(results, cases, kind):
    got, wanted = results
    for name in (f"{kind} {number}" for number in range(COUNT)):
        try:
            difference = largest_difference(got[name], wanted[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{cases[name].net}") from error
        assert difference <= TOLERANCE, f"{name}: {difference:.2e}\n{cases[name].net}"
