"""The weighted soft-max loss of standard layers, held against its formula on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from caffe import NetSpec
from caffe import layers as L
from tests.parity.harness import Case, run_cases
from unet.network.u_net import weighted_softmax_loss

HEIGHT, WIDTH = 7, 5
NOT_ANNOTATED = (2, 3)


def loss_net(classes: int) -> str:
    """Return a net whose scores are learnt from the blob `raw`, so that they get a gradient."""
    n = NetSpec()
    n["raw"] = L.Input(shape=dict(dim=[1, classes, HEIGHT, WIDTH]))
    n["weight"] = L.Input(shape=dict(dim=[1, classes, HEIGHT, WIDTH]))
    n["score"] = L.Convolution(n["raw"], num_output=classes, kernel_size=1)
    weighted_softmax_loss(n, "score", "weight", classes)
    return str(n.to_proto())


def formula(score: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Return E = 1/N sum w * -log softmax and dE/dscore, in double precision (Sec. 3, Eq. 1)."""
    score, weight = score.astype(np.float64), weight.astype(np.float64)
    pixels = score[0, 0].size
    shifted = score - score.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    energy = float((weight * (np.log(total) - shifted)).sum() / pixels)
    softmax = np.exp(shifted) / total
    return energy, (weight.sum(axis=1, keepdims=True) * softmax - weight) / pixels


def weights(classes: int) -> np.ndarray:
    """Draw w(x) in the channel of the true class, as the data layer delivers it."""
    random = np.random.default_rng(classes)
    truth = random.integers(0, classes, (HEIGHT, WIDTH))
    weight = random.uniform(0.5, 12, (HEIGHT, WIDTH)) * (truth == np.arange(classes)[:, None, None])
    weight[:, NOT_ANNOTATED[0], NOT_ANNOTATED[1]] = 0
    return weight[None].astype(np.float32)


@pytest.mark.parametrize("engine", ["ours", pytest.param("reference", marks=pytest.mark.reference)])
def test_loss_and_gradient_are_exact_for_any_gap_of_the_scores(engine, request):
    random = np.random.default_rng(0)
    cases = {
        f"{classes} classes, scores of {size:g}": Case(
            loss_net(classes),
            {
                "raw": random.normal(0, size, (1, classes, HEIGHT, WIDTH)),
                "weight": weights(classes),
            },
            phase=0,
        )
        for classes in (2, 3, 5)
        for size in (0, 1, 30, 3e5)
    }
    results = run_cases(request.getfixturevalue(engine), cases)
    gaps = []
    for name, case in cases.items():
        got = results[name]
        score, weight = got["data score"], case.inputs["weight"]
        energy, gradient = formula(score, weight)
        gaps.append(np.ptp(score, axis=1).max())
        assert got["data loss"] == pytest.approx(energy, rel=1e-6), name
        np.testing.assert_allclose(
            got["diff score"], gradient, rtol=1e-5, atol=1e-6 * np.abs(gradient).max(), err_msg=name
        )
        # Where nothing is annotated nothing is learnt, but the pixel counts in N.
        assert not got["diff score"][:, :, NOT_ANNOTATED[0], NOT_ANNOTATED[1]].any()
    assert max(gaps) > 1e4
    assert sum(gap > 87 for gap in gaps) >= 3


def test_equal_scores_cost_the_logarithm_of_the_number_of_classes(ours):
    weight = np.zeros((1, 3, HEIGHT, WIDTH))
    weight[:, 1] = 2
    inputs = {"raw": np.zeros((1, 3, HEIGHT, WIDTH)), "weight": weight}
    net = loss_net(3).replace("num_output: 3", "num_output: 3 bias_term: false")
    result = run_cases(ours, {"equal": Case(net, inputs, phase=0)})["equal"]
    assert result["data loss"] == pytest.approx(2 * np.log(3))
    pushed = result["diff score"][0, :, 0, 0] * HEIGHT * WIDTH
    assert pushed == pytest.approx([2 / 3, -4 / 3, 2 / 3])


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        weighted_softmax_loss(NetSpec(), "score", "weight", 1)
