"""Numbers and checks that stay on a GPU, rehearsed on the CPU: with none of them on the host."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe import late_checks
from caffe.errors import CaffeError
from caffe.layers import scalars_on_gpu
from caffe.proto import caffe_pb2
from tests.parity.harness import Case, assert_close
from tests.parity.layer_cases import CASES, Draw

# All that compute single numbers or check whole ones.
KINDS = (
    "Accuracy",
    "BatchNorm",
    "BatchReindex",
    "ContrastiveLoss",
    "Embed",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "SoftmaxWithLoss",
)


@pytest.fixture
def far(monkeypatch):
    """Return what makes the layers take all tensors for those of a GPU."""
    return lambda: monkeypatch.setattr(scalars_on_gpu, "on_host", lambda tensor: False)


def net_of(case: Case) -> caffe.Net:
    param = text_format.Parse(case.net, caffe_pb2.NetParameter())
    caffe.set_random_seed(1)
    net = caffe.Net(param, case.phase)
    for name, values in case.inputs.items():
        net.blobs[name].reshape(*values.shape)
        net.blobs[name].data[...] = values
    return net


def results_of(case: Case) -> dict[str, np.ndarray]:
    net = net_of(case)
    net.forward()
    if case.backward:
        for name, values in case.top_diffs.items():
            net.blobs[name].diff[...] = values
        net.backward()
    late_checks.settle()
    found = {f"data {name}": blob.data.copy() for name, blob in net.blobs.items()}
    found.update({f"diff {name}": blob.diff.copy() for name, blob in net.blobs.items()})
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            found[f"{layer} {index}"] = np.stack([blob.data, blob.diff])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_layers_compute_the_same_with_numbers_that_stay_where_they_are(kind, far):
    cases = [CASES[kind](Draw(kind, number)) for number in range(30)]
    wanted = [results_of(case) for case in cases]
    far()
    got = [results_of(case) for case in cases]
    for mine, theirs in zip(got, wanted):
        assert_close(mine, theirs, relative=1e-6)


# Options of layers that take labels.
LABELLED = {
    "SoftmaxWithLoss": "",
    "SoftmaxWithLoss, some ignored": "loss_param { ignore_label: 9 }",
    "MultinomialLogisticLoss": "",
    "HingeLoss": "",
    "Accuracy": "",
    "InfogainLoss": "",
}
LOSS = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 4 dim: 3 }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 4 }} }} }}
{matrix}
layer {{ name: "judge" type: "{kind}" bottom: "data" bottom: "label" {third} top: "out" {options} }}
"""
MATRIX = (
    'layer { name: "H" type: "DummyData" top: "H" '
    "dummy_data_param { shape { dim: 3 dim: 3 } data_filler { value: 1 } } }"
)
NUMBERED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
"""
CHOSEN = {
    "BatchReindex": 'layer { name: "judge" type: "BatchReindex" bottom: "data" bottom: "label" '
    'top: "out" }',
    "Embed": 'layer { name: "judge" type: "Embed" bottom: "label" top: "out" '
    "embed_param { input_dim: 3 num_output: 2 } }",
}


def nets_with_labels() -> dict[str, str]:
    """Return a net for each layer type that takes whole numbers, of 0 to 2."""
    nets = {kind: NUMBERED + layer for kind, layer in CHOSEN.items()}
    for name, options in LABELLED.items():
        kind, infogain = name.split(",")[0], name == "InfogainLoss"
        third, matrix = ('bottom: "H"', MATRIX) if infogain else ("", "")
        nets[name] = LOSS.format(kind=kind, options=options, third=third, matrix=matrix)
    return nets


@pytest.mark.parametrize("wrong", [-1, 3, 200, np.nan])
@pytest.mark.parametrize("name", sorted(nets_with_labels()))
def test_wrong_labels_are_told_of_later_with_the_same_sentence(name, wrong, far):
    net = net_of(Case(nets_with_labels()[name], {"label": np.array([0, 1, 2, wrong])}, phase=0))
    last = len(net.layers) - 1
    with pytest.raises(CaffeError, match=r"must lie in 0\.\.2") as at_once:
        net._forward(0, last)
    far()
    with late_checks.recorded() as checks:
        net.run_pass()
    assert checks
    for check in checks:
        late_checks.add(*check)
    with pytest.raises(CaffeError) as later:
        late_checks.settle()
    assert str(later.value) == str(at_once.value)
    assert later.value.layer == "judge"


def test_right_labels_pass_the_later_check(far):
    far()
    for name, text in nets_with_labels().items():
        net = net_of(Case(text, {"label": np.array([0, 1, 2, 9 if "ignored" in name else 2])}))
        net._forward(0, len(net.layers) - 1)
        late_checks.settle()


TWO = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 2 }} }} }}
layer {{ name: "weight" type: "Input" top: "weight" input_param {{ shape {{ dim: 2 }} }} }}
{layer}
"""
ALL_IGNORED = {
    "SoftmaxWithLoss, ignored": 'type: "SoftmaxWithLoss" loss_param { ignore_label: 0 }',
    "SoftmaxWithLoss, weights of 0": 'type: "SoftmaxWithLoss" bottom: "weight"',
    "Accuracy": 'type: "Accuracy" top: "classes" accuracy_param { ignore_label: 0 }',
}


@pytest.mark.parametrize("name", ALL_IGNORED)
def test_nothing_that_counts_is_no_division_by_zero(name, far):
    layer = f'layer {{ name: "x" bottom: "data" bottom: "label" top: "x" {ALL_IGNORED[name]} }}'
    text = "force_backward: true" + TWO.format(layer=layer)
    backward = "Softmax" in name
    values = np.arange(6).reshape(2, 3)
    results = results_of(Case(text, {"data": values}, phase=0, backward=backward))
    far()
    assert_close(results_of(Case(text, {"data": values}, phase=0, backward=backward)), results)
    assert results["data x"] == 0


def test_kept_statistics_that_nothing_was_summed_in_are_zeros(far):
    text = (
        'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "norm" type: "BatchNorm" bottom: "in" top: "out" }'
    )
    case = Case(text, {"in": np.arange(6).reshape(2, 3)}, backward=False)
    wanted = results_of(case)
    far()
    assert_close(results_of(case), wanted)
    assert np.isfinite(wanted["data out"]).all()


def test_weights_that_add_up_to_no_whole_number_count_as_on_the_cpu(far):
    layer = 'layer { name: "x" bottom: "data" bottom: "label" bottom: "weight" top: "x" '
    text = "force_backward: true" + TWO.format(layer=layer + 'type: "SoftmaxWithLoss" }')
    values = {"data": np.arange(6).reshape(2, 3), "weight": np.array([0.7, 2.2])}
    case = Case(text, values, phase=0)
    wanted = results_of(case)
    far()
    assert_close(results_of(case), wanted, relative=1e-6)


def test_no_snapshot_is_written_of_what_was_learnt_from_wrong_labels(far, tmp_path):
    far()
    param = text_format.Parse(
        f"""
        base_lr: 0.1 lr_policy: "fixed" snapshot: 1 snapshot_prefix: "{tmp_path}/snap"
        net_param {{
          layer {{ name: "x" type: "Input" top: "x" top: "label" input_param {{
            shape {{ dim: 2 dim: 3 }} shape {{ dim: 2 }} }} }}
          layer {{ name: "product" type: "InnerProduct" bottom: "x" top: "y"
            inner_product_param {{ num_output: 3 }} }}
          layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }}
        }}""",
        caffe_pb2.SolverParameter(),
    )
    solver = caffe.get_solver(param)
    solver.net.blobs["label"].data[...] = 7
    with pytest.raises(CaffeError, match="found 7 to 7"):
        solver.step(1)
    assert not list(tmp_path.iterdir())
