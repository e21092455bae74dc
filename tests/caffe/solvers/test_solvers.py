"""Solvers: update rules by their formulas, policies, snapshots, diffs looked at after the fact."""

import math

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2
from caffe.solvers.update_rules import learning_rate

LINEAR = """
name: "linear"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 1 dim: 5 dim: 5 } } }
layer { name: "target" type: "Input" top: "target"
  input_param { shape { dim: 2 dim: 2 dim: 3 dim: 3 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "msra" }
    bias_filler { type: "constant" value: 0.1 } } }
layer { name: "act" type: "TanH" bottom: "conv" top: "act" }
layer { name: "loss" type: "EuclideanLoss" bottom: "act" bottom: "target" top: "loss" }
"""


def solver(tmp_path, kind="SGD", **fields):
    net = tmp_path / "net.prototxt"
    net.write_text(LINEAR)
    param = caffe_pb2.SolverParameter(
        train_net=str(net),
        base_lr=0.1,
        lr_policy="fixed",
        max_iter=100,
        type=kind,
        random_seed=5,
        snapshot_prefix=str(tmp_path / "snap"),
        **fields,
    )
    path = tmp_path / "solver.prototxt"
    path.write_text(str(param))
    made = caffe.get_solver(str(path))
    rng = np.random.RandomState(0)
    made.net.blobs["data"].data[...] = rng.randn(2, 1, 5, 5)
    made.net.blobs["target"].data[...] = rng.randn(2, 2, 3, 3)
    return made


def gradients(made):
    """Gradients at the present parameters, by a pass of its own."""
    net = made.net
    net.clear_param_diffs()
    net.forward()
    net.backward()
    return [blob.diff.astype(float).copy() for blob in net.params["conv"]]


def values(made):
    return [blob.data.astype(float).copy() for blob in made.net.params["conv"]]


def expected_steps(made, kind, steps, momentum=0.9, decay=0.01, rate=0.1):
    """Follow the update rule in float64, by its formula, from the gradients of the net itself."""
    state = [dict(a=0.0, b=0.0) for _ in range(2)]
    for t in range(1, steps + 1):
        grads, old = gradients(made), values(made)
        for k, blob in enumerate(made.net.params["conv"]):
            lr = rate * (1, 2)[k]
            g = grads[k] + decay * (1, 0)[k] * old[k]
            s = state[k]
            if kind == "SGD":
                s["a"] = momentum * s["a"] + lr * g
                update = s["a"]
            elif kind == "Nesterov":
                before = s["a"]
                s["a"] = momentum * s["a"] + lr * g
                update = (1 + momentum) * s["a"] - momentum * before
            elif kind == "AdaGrad":
                s["a"] = s["a"] + g**2
                update = lr * g / (np.sqrt(s["a"]) + 1e-4)
            elif kind == "RMSProp":
                s["a"] = 0.95 * s["a"] + 0.05 * g**2
                update = lr * g / (np.sqrt(s["a"]) + 1e-4)
            elif kind == "AdaDelta":
                s["a"] = momentum * s["a"] + (1 - momentum) * g**2
                step = g * np.sqrt((s["b"] + 1e-4) / (s["a"] + 1e-4))
                s["b"] = momentum * s["b"] + (1 - momentum) * step**2
                update = lr * step
            else:
                s["a"] = momentum * s["a"] + (1 - momentum) * g
                s["b"] = 0.999 * s["b"] + 0.001 * g**2
                correction = math.sqrt(1 - 0.999**t) / (1 - momentum**t)
                update = lr * correction * s["a"] / (np.sqrt(s["b"]) + 1e-4)
            blob.data[...] = old[k] - update
    return values(made)


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_five_steps_follow_the_formula(tmp_path, kind):
    fields = dict(weight_decay=0.01, delta=1e-4)
    if kind not in ("AdaGrad", "RMSProp"):
        fields["momentum"] = 0.9
    if kind == "RMSProp":
        fields["rms_decay"] = 0.95
    made = solver(tmp_path, kind, **fields)
    made.step(5)
    reference = expected_steps(solver(tmp_path, kind, **fields), kind, 5)
    for mine, theirs in zip(values(made), reference):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_clipping_scales_all_gradients_to_the_limit(tmp_path):
    plain, clipped = solver(tmp_path), solver(tmp_path, clip_gradients=0.01)
    start = values(plain)
    raw = gradients(plain)
    norm = math.sqrt(sum((g**2).sum() for g in raw))
    clipped.step(1)
    for k, (before, after) in enumerate(zip(start, values(clipped))):
        expected = before - 0.1 * (1, 2)[k] * raw[k] * 0.01 / norm
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-7)


def test_iter_size_averages_gradients(tmp_path):
    once, twice = solver(tmp_path), solver(tmp_path, iter_size=2)
    once.step(1)
    twice.step(1)
    for a, b in zip(values(once), values(twice)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (dict(lr_policy="fixed"), 0.5),
        (dict(lr_policy="step", gamma=0.1, stepsize=10), 0.5 * 0.1**2),
        (dict(lr_policy="exp", gamma=0.9), 0.5 * 0.9**25),
        (dict(lr_policy="inv", gamma=0.1, power=0.75), 0.5 * 3.5**-0.75),
        (dict(lr_policy="multistep", gamma=0.1, stepvalue=[10, 25, 40]), 0.5 * 0.1**2),
        (dict(lr_policy="poly", power=2, max_iter=100), 0.5 * 0.75**2),
        (dict(lr_policy="sigmoid", gamma=-0.1, stepsize=20), 0.5 / (1 + math.exp(0.5))),
    ],
)
def test_rate_policies_at_iteration_25(fields, expected):
    param = caffe_pb2.SolverParameter(base_lr=0.5, **fields)
    assert learning_rate(param, 25) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ('lr_policy: "exp" gamma: 3', math.inf),
        ('lr_policy: "step" gamma: 3 stepsize: 2', math.inf),
        ('lr_policy: "inv" gamma: -1 power: 0.5', math.nan),
        ('lr_policy: "sigmoid" gamma: -5 stepsize: 10', 0),
    ],
)
def test_rates_beyond_all_bounds_are_those_of_c(fields, expected):
    param = text_format.Parse(f"base_lr: 1 {fields}", caffe_pb2.SolverParameter())
    assert learning_rate(param, 5000) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("hdf5", [False, True])
def test_a_restored_solver_goes_on_bit_for_bit(tmp_path, hdf5):
    form = caffe_pb2.SolverParameter.HDF5 if hdf5 else caffe_pb2.SolverParameter.BINARYPROTO
    fields = dict(momentum=0.9, weight_decay=0.01, snapshot_format=form)
    straight = solver(tmp_path, **fields)
    straight.step(3)
    straight.snapshot()
    straight.step(3)
    resumed = solver(tmp_path, **fields)
    resumed.restore(str(tmp_path / f"snap_iter_3.solverstate{'.h5' if hdf5 else ''}"))
    assert resumed.iter == 3
    resumed.step(3)
    for a, b in zip(values(straight), values(resumed)):
        np.testing.assert_array_equal(a, b)


def test_the_state_of_another_solver_is_refused(tmp_path):
    solver(tmp_path).snapshot()
    with pytest.raises(caffe.CaffeError, match=r"2 history blobs.*needs 4"):
        solver(tmp_path, "Adam").restore(str(tmp_path / "snap_iter_0.solverstate"))


def test_diffs_that_a_step_gave_back_are_made_again_when_looked_at(tmp_path):
    looked, kept = solver(tmp_path, momentum=0.9), solver(tmp_path, momentum=0.9)
    kept.net.retain_diffs = True
    looked.step(2)
    kept.step(2)
    before = values(looked)
    for name in ("act", "conv"):
        np.testing.assert_allclose(
            looked.net.blobs[name].diff, kept.net.blobs[name].diff, rtol=1e-4, atol=1e-7
        )
    for a, b in zip(before, values(looked)):
        np.testing.assert_array_equal(a, b)
    looked.step(1)
    kept.step(1)
    for a, b in zip(values(looked), values(kept)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("iter_size", [1, 3])
def test_blobs_that_nobody_reads_are_given_back_in_the_pass_backward(tmp_path, iter_size):
    whole = solver(tmp_path, momentum=0.9, iter_size=iter_size)
    spare = solver(tmp_path, momentum=0.9, iter_size=iter_size)
    spare.net.retain_data = False
    for _ in range(2):
        whole.step(2)
        spare.step(2)
        for a, b in zip(values(whole), values(spare)):
            np.testing.assert_array_equal(a, b)
        # What the net was fed with, and what it gives, are there still.
        for name in ("data", "target", "loss"):
            np.testing.assert_array_equal(spare.net.blobs[name].data, whole.net.blobs[name].data)
        for name in ("conv", "act"):
            with pytest.raises(caffe.CaffeError, match=f"blob '{name}' was not kept"):
                _ = spare.net.blobs[name].data
    spare.net.retain_data = True
    whole.step(1)
    spare.step(1)
    np.testing.assert_array_equal(spare.net.blobs["act"].data, whole.net.blobs["act"].data)


def test_what_somebody_holds_is_kept_in_the_pass_backward(tmp_path):
    whole, spare = solver(tmp_path), solver(tmp_path)
    spare.net.retain_data = False
    held = spare.net.blobs["act"].data
    whole.step(1)
    spare.step(1)
    np.testing.assert_array_equal(held, whole.net.blobs["act"].data)


def test_after_a_step_the_diff_of_a_parameter_is_its_update(tmp_path):
    made = solver(tmp_path, momentum=0.9)
    before = values(made)
    made.step(1)
    for old, new, blob in zip(before, values(made), made.net.params["conv"]):
        np.testing.assert_allclose(blob.diff, old - new, rtol=1e-3, atol=1e-6)


def test_callbacks_come_before_the_pass_and_when_gradients_are_ready(tmp_path):
    made = solver(tmp_path)
    calls = []
    made.add_callback(
        lambda: calls.append(("start", made.iter)), lambda: calls.append(("ready", made.iter))
    )
    made.step(2)
    assert calls == [("start", 0), ("ready", 0), ("start", 1), ("ready", 1)]


def test_a_solver_without_a_rate_is_warned_of(tmp_path, capsys):
    (tmp_path / "net.prototxt").write_text(LINEAR)
    path = tmp_path / "solver.prototxt"
    for rate, warned in (("", True), ("base_lr: 0", False)):
        path.write_text(f'net: "{tmp_path}/net.prototxt" lr_policy: "fixed" {rate}')
        caffe.SGDSolver(str(path))
        assert ("solver.prototxt: base_lr is missing: with" in capsys.readouterr().err) == warned


def test_files_that_a_solver_names_and_that_are_not_there_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    path = own / "solver.prototxt"
    path.write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    told = rf"solver\.prototxt: net: net\.prototxt: no such file in the working folder {tmp_path}; "
    with pytest.raises(
        caffe.CaffeError, match=rf"{told}relative .*, not from the solver's folder$"
    ):
        caffe.SGDSolver(str(path))
    (own / "net.prototxt").write_text(LINEAR)
    with pytest.raises(caffe.CaffeError, match=rf"{told}.*folder, where it is: start from {own}"):
        caffe.SGDSolver(str(path))
    monkeypatch.chdir(own)
    path.write_text(path.read_text() + ' weights: "w.caffemodel"')
    with pytest.raises(
        caffe.CaffeError, match=r"solver\.prototxt: weights: w\.caffemodel: no such"
    ):
        caffe.SGDSolver(str(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(lr_policy="cosine"), "lr_policy 'cosine' is unknown"),
        (dict(lr_policy="plateau"), "lr_policy 'plateau' belongs to SSD"),
        (dict(lr_policy=""), "lr_policy is missing; there are exp, fixed"),
        (dict(type="Adamw"), "unknown solver type 'Adamw'"),
        (dict(iter_size=0), "iter_size 0"),
        (dict(lr_policy="step", stepsize=0), "positive stepsize"),
        (dict(test_iter=[1], test_net=["a.prototxt"]), "positive test_interval"),
    ],
)
def test_mistakes_in_a_solver_are_told(tmp_path, fields, message):
    net = tmp_path / "net.prototxt"
    net.write_text(LINEAR)
    fields = {"train_net": str(net), "base_lr": 0.1, "lr_policy": "fixed", "max_iter": 1, **fields}
    path = tmp_path / "solver.prototxt"
    path.write_text(str(caffe_pb2.SolverParameter(**fields)))
    with pytest.raises(caffe.CaffeError, match=message):
        caffe.get_solver(str(path))


SHARING = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 3 dim: 3 } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 dim: 4 dim: 3 dim: 3 } } }
layer { name: "first" type: "Convolution" bottom: "x" top: "a" param { name: "w" }
  param { name: "b" lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "bend" type: "TanH" bottom: "a" top: "c" }
layer { name: "fixed" type: "Convolution" bottom: "c" top: "d" param { lr_mult: 0 }
  param { lr_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "second" type: "Convolution" bottom: "d" top: "e" param { name: "w" }
  param { name: "b" lr_mult: 2 } convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "e" bottom: "y" top: "loss" }
"""


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdaDelta"])
def test_updates_layer_by_layer_equal_those_made_all_together(tmp_path, monkeypatch, kind):
    updated, found = [], []
    real = caffe.solvers.solver.Solver._update

    def update(self, places, rate):
        updated.extend(places)
        groups.append(len(places))
        real(self, places, rate)

    groups = []
    monkeypatch.setattr(caffe.solvers.solver.Solver, "_update", update)
    for together, small in ((False, 0), (True, 0), (False, 2**14)):
        monkeypatch.setattr(caffe.solvers.solver, "_SMALL", small)
        param = caffe_pb2.SolverParameter(
            base_lr=0.01,
            lr_policy="fixed",
            momentum=0.9,
            weight_decay=0.01,
            max_iter=10,
            type=kind,
            random_seed=3,
        )
        text_format.Parse(SHARING, param.net_param)
        path = tmp_path / "solver.prototxt"
        path.write_text(str(param))
        made = caffe.get_solver(str(path))
        made.net.blobs["x"].data[...] = np.random.default_rng(0).normal(size=(2, 4, 3, 3))
        if together:
            made.add_callback(lambda: None, lambda: None)
        updated.clear()
        groups.clear()
        made.step(4)
        assert max(groups) == (2 if small else 1)
        # Each parameter once a step, those that learn nothing as well.
        assert sorted(updated) == sorted(4 * [0, 1, 2, 3])
        blobs = [blob for blobs in made.net.params.values() for blob in blobs]
        found.append([array.copy() for blob in blobs for array in (blob.data, blob.diff)])
    for alone, all_together, in_groups in zip(*found):
        np.testing.assert_array_equal(alone, all_together)
        np.testing.assert_array_equal(alone, in_groups)


def test_gradients_that_somebody_holds_are_the_updates_after_a_step(tmp_path):
    made = solver(tmp_path)
    held = made.net.params["conv"][0].diff
    wanted = 0.1 * gradients(made)[0]
    made.step(1)
    np.testing.assert_allclose(held, wanted, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adam_in_one_launch_comes_to_what_it_comes_to_in_many(tmp_path, monkeypatch, decay):
    found = []
    for in_one in (False, True):
        made = solver(tmp_path, "Adam", weight_decay=decay, momentum=0.9, delta=1e-3)
        if in_one:
            monkeypatch.setattr(made, "_goes_in_one", lambda decay: True)
        values = []
        for _ in range(4):
            made.step(1)
            blobs = [blob for blobs in made.net.params.values() for blob in blobs]
            values += [array.copy() for blob in blobs for array in (blob.data, blob.diff)]
        found.append([*values, *(entry.numpy().copy() for entry in made._history)])
    for many, one in zip(*found):
        np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-7)


def test_adam_goes_in_one_launch_only_where_that_means_the_same():
    param = caffe_pb2.SolverParameter(momentum=0.9, momentum2=0.999, regularization_type="L1")
    assert caffe.solvers.update_rules.goes_in_one("Adam", param, 0)
    assert not caffe.solvers.update_rules.goes_in_one("Adam", param, 0.1)
    assert not caffe.solvers.update_rules.goes_in_one("SGD", param, 0)
    param.momentum2 = 1
    assert not caffe.solvers.update_rules.goes_in_one("Adam", param, 0)
