"""Nets as pycaffe shows them: building, running, reading and writing blobs and parameters."""

import sys

import h5py
import numpy as np
import pytest

import caffe
from caffe import layers as L
from caffe.layers.pooling import Pooling

TOY = """
name: "toy"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "sum" type: "Reduction" bottom: "pool" top: "sum" loss_weight: 1
  reduction_param { operation: SUMSQ } }
"""


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.prototxt"
    path.write_text(TOY)
    caffe.set_random_seed(1)
    return str(path)


def filled(path, phase=caffe.TEST):
    net = caffe.Net(path, phase)
    net.blobs["data"].data[...] = np.random.RandomState(0).randn(2, 3, 6, 6)
    return net


def test_names_shapes_and_order_are_those_of_the_file(toy):
    net = caffe.Net(toy, caffe.TEST)
    assert list(net.layer_dict) == ["data", "conv", "relu", "pool", "sum"]
    assert list(net.blobs) == ["data", "conv", "pool", "sum"]
    assert net.inputs == ["data"]
    assert net.outputs == ["sum"]
    assert net.blobs["pool"].data.shape == (2, 4, 2, 2)
    assert [blob.shape for blob in net.params["conv"]] == [(4, 3, 3, 3), (4,)]
    assert net.blob_loss_weights["sum"] == 1
    assert net.top_names["relu"] == net.bottom_names["relu"] == ["conv"]


def test_forward_equals_the_formula_and_backward_central_differences(toy):
    net = filled(toy)
    x = net.blobs["data"].data.copy()
    weights, bias = (blob.data for blob in net.params["conv"])

    def loss(x):
        conv = np.zeros((2, 4, 4, 4))
        for i in range(4):
            for j in range(4):
                patch = x[:, None, :, i : i + 3, j : j + 3]
                conv[:, :, i, j] = (patch * weights[None]).sum((2, 3, 4)) + bias
        conv = np.maximum(conv, 0)
        pooled = conv.reshape(2, 4, 2, 2, 2, 2).max((3, 5))
        return (pooled**2).sum()

    assert float(net.forward()["sum"]) == pytest.approx(loss(x.astype(float)), rel=1e-5)
    net.clear_param_diffs()
    net.backward()
    step = 1e-4
    gradient = net.params["conv"][0].diff.copy()
    for place in [(0, 0, 0, 0), (3, 2, 1, 2), (1, 1, 2, 0)]:
        exact = weights[place]
        values = []
        for sign in (1, -1):
            weights[place] = exact + sign * step
            values.append(loss(x.astype(float)))
        weights[place] = exact
        assert gradient[place] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


def test_gradients_of_parameters_add_up_until_they_are_cleared(toy):
    net = filled(toy)
    net.forward()
    net.backward()
    once = net.params["conv"][0].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["conv"][0].diff, 2 * once, rtol=1e-5)
    net.clear_param_diffs()
    assert not net.params["conv"][0].diff.any()


def test_inputs_by_keyword_and_batches_of_any_number(toy):
    net = caffe.Net(toy, caffe.TEST)
    data = np.random.RandomState(1).randn(5, 3, 6, 6).astype(np.float32)
    pooled = net.forward_all(blobs=["pool"], data=data)["pool"]
    assert pooled.shape == (5, 4, 2, 2)
    single = net.forward(blobs=["pool"], data=data[:2])["pool"]
    np.testing.assert_allclose(pooled[:2], single, rtol=1e-6)
    with pytest.raises(caffe.CaffeError, match="do not match"):
        net.forward(image=data)


def test_parts_of_the_net_can_be_run(toy):
    net = filled(toy)
    net.forward(end="conv")
    assert (net.blobs["conv"].data < 0).any()
    out = net.forward(start="relu", end="pool")
    assert list(out) == ["pool"]
    assert (net.blobs["conv"].data >= 0).all()


def test_reshaping_the_input_reshapes_the_net(toy):
    net = filled(toy)
    net.blobs["data"].reshape(1, 3, 10, 8)
    net.reshape()
    assert net.blobs["pool"].data.shape == (1, 4, 4, 3)
    net.forward()


def test_weights_written_and_read_give_the_same_output(toy, tmp_path):
    net = filled(toy)
    expected = net.forward()["sum"].copy()
    for name, save in (("w.caffemodel", "save"), ("w.caffemodel.h5", "save_hdf5")):
        path = str(tmp_path / name)
        getattr(net, save)(path)
        other = caffe.Net(toy, path, caffe.TEST)
        other.blobs["data"].data[...] = net.blobs["data"].data
        assert other.forward()["sum"] == expected


def test_share_with_shares_memory(toy):
    first, second = caffe.Net(toy, caffe.TEST), caffe.Net(toy, caffe.TEST)
    second.share_with(first)
    first.params["conv"][1].data[...] = 4
    assert (second.params["conv"][1].data == 4).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_output: 4", "num_output: 0"), "layer 'conv' .*num_output 0"),
        (("kernel_size: 3", "kernel_size: 9"), r"layer 'conv' .*\(2, 3, 6, 6\) is too small"),
        (('"ReLU"', '"RelU"'), r"layer 'relu' \(RelU\): unknown layer type; did you mean ReLU\?$"),
        (
            ('bottom: "pool"', 'bottom: "pol"'),
            r"layer 'sum' \(Reduction\) reads blob 'pol' .*makes; did you mean pool\?",
        ),
        (("num_output: 4", "num_outputs: 4"), r"toy.prototxt:6.*num_outputs.*num_output"),
        (('top: "pool"', 'top: "a" top: "b" top: "pool"'), "layer 'pool' .*takes 1 to 2 top"),
    ],
)
def test_mistakes_are_told_by_line_or_layer(toy, tmp_path, change, message):
    path = tmp_path / "toy.prototxt"
    path.write_text(TOY.replace(*change))
    with pytest.raises(caffe.CaffeError, match=message):
        caffe.Net(str(path), caffe.TEST)


TWO = 'layer {{ name: "{0}" type: "{1}" {2} top: "x" {3} }}'
SHAPE = "dummy_data_param { shape { dim: 2 } }"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            TWO.format("a", "DummyData", "", SHAPE),
            TWO.format("b", "DummyData", "", SHAPE),
            r"layer 'b' \(DummyData\): top 'x' is already made by layer 'a' .*: where one "
            r"is for training .* give them include { phase: TRAIN }",
        ),
        (
            "",
            TWO.format("b", "DummyData", 'top: "x"', SHAPE),
            r"top 'x' is already made by the layer itself: its tops need a name each$",
        ),
        (
            TWO.format("a", "DummyData", 'top: "y"', SHAPE),
            TWO.format("b", "Power", 'bottom: "y"', ""),
            r"already made by layer 'a' \(DummyData\): only a layer that works in place",
        ),
        (
            TWO.format("a", "DummyData", "", SHAPE),
            TWO.format("l", "SoftmaxWithLoss", 'bottom: "x" bottom: "label"', ""),
            r"blobs made so far: x; in a net without labels leave the layer out$",
        ),
    ],
)
def test_two_makers_of_a_blob_and_missing_labels_are_told(tmp_path, first, second, told):
    path = tmp_path / "net.prototxt"
    path.write_text(f"{first}\n{second}")
    with pytest.raises(caffe.CaffeError, match=rf"net\.prototxt:2:1: .*{told}"):
        caffe.Net(str(path), caffe.TEST)


FOR_TRAINING = """
layer { name: "train" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } }
  include { phase: TRAIN stage: "own" } include { phase: TRAIN min_level: 2 } }
layer { name: "late" type: "Power" bottom: "y" top: "z" exclude { phase: TEST } }
layer { name: "read" type: "Power" bottom: "x" top: "y" }
"""


@pytest.mark.parametrize(
    ("phase", "told"),
    [
        (
            caffe.TEST,
            r":5:1: layer 'read' \(Power\) reads blob 'x' \(bottom 0\), which no layer before it "
            r"makes: layer 'train' \(DummyData\) makes it, which is only in the net in phase TRAIN "
            r"and stage 'own' or phase TRAIN and level 2 or more \(include\), and this is .* TEST$",
        ),
        (caffe.TRAIN, r":4:1: layer 'late' .*: layer 'read' \(Power\) makes it, .* move it up"),
    ],
)
def test_a_blob_whose_maker_is_left_out_or_stands_below_is_told_with_it(tmp_path, phase, told):
    path = tmp_path / "net.prototxt"
    path.write_text(FOR_TRAINING)
    with pytest.raises(caffe.CaffeError, match=told):
        caffe.Net(str(path), phase)
    if phase == caffe.TRAIN:
        path.write_text(FOR_TRAINING.replace('bottom: "y"', 'bottom: "x"'))
        caffe.Net(str(path), phase, stages=["own"])


@pytest.mark.parametrize("kind", ["Interp", "BN", "ConvolutionDepthwise", "PriorBox", "ReLU6"])
def test_layers_of_other_caffes_are_told_with_whose_they_are(tmp_path, kind):
    path = tmp_path / "net.prototxt"
    path.write_text(f'layer {{ name: "x" type: "{kind}" top: "x" }}')
    told = rf"net\.prototxt:1:1: layer 'x' \({kind}\): the type belongs to .*not to BVLC Caffe: "
    with pytest.raises(caffe.CaffeError, match=told) as caught:
        caffe.Net(str(path), caffe.TEST)
    assert "did you mean" not in str(caught.value)


def test_a_net_or_weights_that_are_not_there_are_told_with_the_folder(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = f"Could not open file none: no such file in the working folder {tmp_path}$"
    for make in (lambda: caffe.Net("none", 1), lambda: caffe.Net(toy, 1, weights="none")):
        with pytest.raises(caffe.CaffeError, match=told):
            make()
    with pytest.raises(TypeError, match=r"caffe\.TRAIN or caffe\.TEST, not the text 'TEST'"):
        caffe.Net(toy, "TEST")
    with pytest.raises(TypeError, match=r"not left out after the weights 'w\.caffemodel'"):
        caffe.Net(toy, "w.caffemodel")


def test_a_model_definition_is_not_taken_for_weights(toy, tmp_path):
    with h5py.File(tmp_path / "n.modeldef.h5", "w") as file:
        file["model_prototxt"] = "layer { }"
    with pytest.raises(caffe.CaffeError, match=r"not weights: these are in n\.caffemodel\.h5"):
        caffe.Net(toy, caffe.TEST).copy_from(str(tmp_path / "n.modeldef.h5"))


def test_weights_of_another_shape_are_refused_and_change_nothing(toy, tmp_path):
    other = tmp_path / "other.prototxt"
    other.write_text(TOY.replace("num_output: 4", "num_output: 5"))
    weights = str(tmp_path / "w.caffemodel")
    caffe.Net(str(other), caffe.TEST).save(weights)
    net = caffe.Net(toy, caffe.TEST)
    before = net.params["conv"][0].data.copy()
    with pytest.raises(caffe.CaffeError, match=r"'conv'.*\(5, .*\(4, 3.*anew rename it in the net"):
        net.copy_from(weights)
    np.testing.assert_array_equal(net.params["conv"][0].data, before)


BROKEN = """
import caffe

class Broken(caffe.Layer):
    def fail_in(self, step):
        if step in self.param_str:
            raise NotImplementedError("not today: " + self.param_str)
    def setup(self, bottom, top):
        self.fail_in("setup")
    def reshape(self, bottom, top):
        self.fail_in("reshape")
        top[0].reshape(1)
    def forward(self, bottom, top):
        self.fail_in("forward")
    def backward(self, top, propagate_down, bottom):
        self.fail_in("backward")
"""


@pytest.mark.parametrize("step", ["setup", "reshape", "forward", "backward"])
def test_an_error_in_a_python_layer_reaches_the_caller(tmp_path, monkeypatch, capfd, step):
    (tmp_path / "broken_layer.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "net.prototxt"
    path.write_text(
        'force_backward: true layer { name: "x" type: "Input" top: "x" '
        "input_param { shape { dim: 1 } } } "
        'layer { name: "p" type: "Python" bottom: "x" top: "y" loss_weight: 1 '
        f'python_param {{ module: "broken_layer" layer: "Broken" param_str: "{step}" }} }}'
    )
    with pytest.raises(NotImplementedError) as caught:
        net = caffe.Net(str(path), caffe.TRAIN)
        net.forward()
        net.backward()
    assert str(caught.value) == f"not today: {step}"
    note = f"in {step} of layer 'p' (Python)"
    assert caught.value.__notes__ == [note]
    # Newer Pythons print the note themselves.
    assert (note in capfd.readouterr().err) == (sys.version_info < (3, 11))


def test_a_python_layer_of_no_module_is_refused(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "p" type: "Python" top: "x" python_param { module: "nowhere" layer: "B" } }'
    )
    with pytest.raises(caffe.CaffeError, match="no module 'nowhere'"):
        caffe.Net(str(path), caffe.TEST)


def kept_or_not(retain: bool) -> caffe.Net:
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 2, 6, 6]))
    n.a = L.Convolution(n.data, num_output=3, kernel_size=3, weight_filler=dict(type="msra"))
    n.b = L.ReLU(n.a, in_place=True)
    n.c = L.Pooling(n.a, kernel_size=2, stride=2)
    n.d = L.Eltwise(n.c, n.c)
    n.e = L.Concat(n.c, n.d)
    n.f = L.Power(n.e, scale=2)
    n.side = L.Reduction(n.a)
    caffe.set_random_seed(2)
    made = caffe.Net(n.to_proto(), caffe.TEST)
    made.retain_data = retain
    made.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(1, 2, 6, 6))
    return made


def test_blobs_that_nobody_reads_any_more_are_given_back_if_that_is_wanted():
    whole, spare = kept_or_not(True), kept_or_not(False)
    for _ in range(2):
        expected = {name: values.copy() for name, values in whole.forward().items()}
        given = spare.forward()
        assert set(given) == set(expected) == {"f", "side"}
        for name, values in expected.items():
            np.testing.assert_array_equal(given[name], values)
    np.testing.assert_array_equal(spare.blobs["data"].data, whole.blobs["data"].data)
    for name in ("a", "c", "d", "e"):
        for _ in range(2):
            with pytest.raises(caffe.CaffeError, match=f"blob '{name}' was not kept: name it to"):
                _ = spare.blobs[name].data
    given = spare.forward(["d"])
    np.testing.assert_array_equal(given["d"], whole.blobs["d"].data)
    np.testing.assert_array_equal(spare.blobs["d"].data, whole.blobs["d"].data)
    spare.retain_data = True
    spare.forward()
    np.testing.assert_array_equal(spare.blobs["e"].data, whole.blobs["e"].data)


def test_an_array_that_somebody_holds_is_kept():
    whole, spare = kept_or_not(True), kept_or_not(False)
    held = spare.blobs["c"].data
    spare.forward()
    whole.forward()
    np.testing.assert_array_equal(held, whole.blobs["c"].data)
    np.testing.assert_array_equal(spare.blobs["c"].data, held)


def test_a_pass_without_enough_memory_gives_back_what_it_has_computed(toy, monkeypatch):
    net = filled(toy)
    expected = net.forward(["pool"])["pool"].copy()
    failed = Pooling.forward

    def forward(layer, bottom, top):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(Pooling, "forward", forward)
    with pytest.raises(caffe.CaffeError, match="can't allocate memory"):
        net.forward()
    assert all(net.blobs[name].data_memory.is_clear for name in ("conv", "pool", "sum"))
    monkeypatch.setattr(Pooling, "forward", failed)
    np.testing.assert_array_equal(net.forward(["pool"])["pool"], expected)
