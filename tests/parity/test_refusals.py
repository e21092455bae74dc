"""Nets that genuine Caffe refuses: refused here, too, or taken with a word in the log."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError

REFUSING = """
import json, os, tempfile
import caffe, numpy as np
from exchange import give, given, text_file

# Genuine Caffe ends the process: each net has one of its own.
taken = []
for text in json.loads(str(given()["nets"])):
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            net = caffe.Net(text_file(text), caffe.TRAIN)
            net.forward()
            net.backward()
        except Exception:
            os._exit(1)
        os._exit(0)
    taken.append(os.waitpid(child, 0)[1] == 0)
give({"taken": np.array(taken)})
"""


def net(kind: str, options: str = "", shapes: tuple = ((2, 4, 6, 6),), tops: int = 1) -> str:
    """Return a net of one layer."""
    # Not so where a matrix would need a gradient.
    text = "\n" if kind == "InfogainLoss" else "force_backward: true\n"
    for number, shape in enumerate(shapes):
        dims = " ".join(f"dim: {size}" for size in shape)
        text += (
            f'layer {{ name: "in{number}" type: "Input" top: "in{number}" input_param {{ '
            f"shape {{ {dims} }} }} }}\n"
        )
    bottoms = " ".join(f'bottom: "in{number}"' for number in range(len(shapes)))
    named = " ".join(f'top: "out{number}"' for number in range(tops))
    return f'{text}layer {{ name: "layer" type: "{kind}" {bottoms} {named} {options} }}\n'


def pooling(words: str) -> str:
    return net("Pooling", f"pooling_param {{ {words} }}")


def after(first: str, second: str) -> str:
    """Return a net of two layers that read the same input, or the second what the first makes."""
    return f"{INPUT}layer {{ name: 'first' {first} }}\nlayer {{ name: 'layer' {second} }}\n"


def products(first: str, second: str, maps: int = 4) -> str:
    """Return a net of two products, which may share their weights."""
    product = "type: 'InnerProduct' bottom: '%s' top: '%s' %s inner_product_param {num_output: %d}"
    return after(product % ("in0", "y", first, 4), product % ("y", "z", second, maps))


INPUT = net("TanH", shapes=((3, 4),)).rsplit("layer {", 1)[0]
TANH = "type: 'TanH' bottom: 'in0' top: '%s'"
SHARED = "param { name: 'w' %s }"
LABELLED = ((2, 4, 6, 6), (2, 1, 6, 6))
SECOND_TOP = "loss_weight: 1 loss_weight: 0"

# Which of them genuine Caffe takes decides genuine Caffe.
NETS = {
    **{
        f"Pooling {words}": pooling(words)
        for words in (
            *("kernel_size: 2", "kernel_h: 2 kernel_w: 3", "kernel_h: 2", "kernel_w: 2", ""),
            *("kernel_size: 2 kernel_h: 2", "kernel_size: 2 kernel_h: 2 kernel_w: 2"),
            *("kernel_size: 0", "kernel_h: 2 kernel_w: 0", "kernel_size: 2 stride: 0"),
            *("kernel_size: 2 stride_h: 2", "kernel_size: 2 stride_h: 2 stride_w: 1"),
            *("kernel_size: 2 stride: 2 stride_h: 2 stride_w: 2", "kernel_size: 2 pad_h: 1"),
            *("kernel_size: 3 pad_h: 1 pad_w: 0", "kernel_size: 3 pad: 1 pad_h: 1 pad_w: 1"),
            *("kernel_size: 2 pad: 2", "kernel_size: 3 pad: 1 pool: STOCHASTIC"),
            *("global_pooling: true", "global_pooling: true kernel_size: 2"),
            *("global_pooling: true kernel_h: 2 kernel_w: 2", "global_pooling: true pad: 1"),
            *("global_pooling: true stride: 2", "global_pooling: true stride: 1"),
            "global_pooling: false kernel_size: 2",
        )
    },
    **{
        f"{kind} {words}": net(kind, f"convolution_param {{ num_output: 4 {words} }}")
        for kind in ("Convolution", "Deconvolution", "Im2col")
        for words in (
            *("kernel_size: 2", "kernel_h: 2 kernel_w: 1", "kernel_h: 2", "kernel_size: 2 pad: 1"),
            *("kernel_size: 2 kernel_h: 2 kernel_w: 2", "kernel_size: 2 kernel_h: 0 kernel_w: 0"),
            *("kernel_size: 2 pad_h: 0 pad_w: 0 pad: 3", "kernel_size: 2 pad_h: 1"),
            *("kernel_size: 2 stride_h: 0 stride_w: 0", "kernel_size: 2 stride_h: 2 stride: 1"),
            *("kernel_size: 2 stride_h: 2 stride_w: 1", "kernel_size: 2 stride_h: 2"),
            *("kernel_size: 2 kernel_size: 3", "kernel_size: 2 kernel_size: 3 kernel_size: 1"),
        )
    },
    **{
        f"shared: {first or 1}, {second or 1}, {maps}": products(
            SHARED % first, SHARED % second, maps
        )
        for first, second, maps in (
            *(("", "", 4), ("", "lr_mult: 2", 4), ("lr_mult: 1", "lr_mult: 2", 4)),
            *(("lr_mult: 2", "lr_mult: 2", 4), ("decay_mult: 1", "decay_mult: 0", 4)),
            *(("", "", 5), ("", "share_mode: STRICT", 5), ("", "share_mode: PERMISSIVE", 5)),
        )
    },
    "too many params": net("InnerProduct", "param {} param {} param {} inner_product_param {}"),
    "too few loss weights": net("Slice", "loss_weight: 1", tops=2),
    "too few to propagate": net("Eltwise", "propagate_down: true", ((3, 4), (3, 4))),
    "labels propagated": net(
        "SoftmaxWithLoss", "propagate_down: true propagate_down: true", ((3, 4), (3,))
    ),
    "unknown bottom": net("TanH").replace('bottom: "in0"', 'bottom: "w"'),
    "two bottoms": net("TanH", shapes=((3, 4), (3, 4))),
    "unknown type": net("Tanh"),
    "rules of both kinds": net("TanH", "include { phase: TRAIN } exclude { phase: TEST }"),
    "top twice": after(TANH % "y", TANH % "y"),
    "in place after a reader": after(TANH % "y", TANH % "in0"),
    "same names": after(TANH % "y", TANH % "z").replace("'first'", "'layer'"),
    "Concat": net("Concat", "concat_param { axis: 1 }", ((2, 3), (2, 4))),
    "Concat of both": net("Concat", "concat_param { axis: 1 concat_dim: 1 }", ((2, 3), (2, 4))),
    "Slice of both": net("Slice", "slice_param { axis: 1 slice_dim: 1 }", tops=2),
    "Slice": net("Slice", "slice_param { slice_dim: 1 }", tops=2),
    "DummyData of both": (
        'layer { name: "layer" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } '
        "num: 2 channels: 3 height: 1 width: 1 } }"
    ),
    "AbsVal in place": net("AbsVal").replace('top: "out0"', 'top: "in0"'),
    "Scale by a number": net("Scale", "scale_param { axis: 9 }", ((2,), ())),
    "Bias by a number": net("Bias", "bias_param { axis: 1 }", ((2,), ())),
    "Scale beyond the axes": net("Scale", "scale_param { axis: 9 }", ((2,), (2,))),
}

# Taken here alone, with a word in the log.
BEYOND = {
    "a third bottom": net("SoftmaxWithLoss", "", (*LABELLED, LABELLED[1])),
    "a second top": net("SoftmaxWithLoss", SECOND_TOP, LABELLED, 2),
    "a second top without weights": net("InfogainLoss", "", (*LABELLED, (1, 1, 4, 4)), 2),
    "sizes that differ": net("Concat", "", ((2, 3, 4, 4), (2, 3, 6, 4))),
    "a gradient of accuracy": net("Accuracy", "", LABELLED),
    **{
        f"{kind} of five axes": net(kind, "", ((2, 3, 4, 1, 2), *others))
        for kind, others in {
            "MVN": (),
            "PReLU": (),
            "EuclideanLoss": ((2, 3, 4, 1, 2),),
            "HingeLoss": ((2,),),
            "MultinomialLogisticLoss": ((2,),),
        }.items()
    },
    "ContrastiveLoss of five axes": net(
        "ContrastiveLoss", "", ((2, 3, 1, 1, 1), (2, 3, 1, 1, 1), (2, 1))
    ),
}
NO_MORE = {
    "a second top": net("InfogainLoss", SECOND_TOP, (*LABELLED, (1, 1, 4, 4)), 2),
    "sizes": net("Concat", "", ((2, 3, 4, 4), (2, 1, 4, 4))),
    "four axes": net("MVN"),
    "five axes": net("Sigmoid", "", ((2, 3, 4, 1, 2),)),
}


@pytest.fixture(scope="module")
def taken(reference) -> dict[str, bool]:
    """Return which nets genuine Caffe takes."""
    nets = [*NETS.values(), *BEYOND.values(), *NO_MORE.values()]
    result = reference.run(REFUSING, {"nets": json.dumps(nets)})["taken"]
    return dict(zip(nets, result.tolist()))


def runs(text: str, folder) -> bool:
    """Tell whether a net can be made and run here."""
    path = folder / "net.prototxt"
    path.write_text(text)
    try:
        made = caffe.Net(str(path), caffe.TRAIN)
        made.forward()
        made.backward()
    except CaffeError as error:
        assert "layer 'layer'" in str(error)
        return False
    return True


@pytest.mark.parametrize("name", NETS)
def test_what_genuine_caffe_refuses_is_refused(taken, tmp_path, name):
    assert runs(NETS[name], tmp_path) == taken[NETS[name]]


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_taken_all_the_same_is_told(taken, tmp_path, capfd, monkeypatch, name):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    assert not taken[BEYOND[name]]
    assert runs(BEYOND[name], tmp_path)
    log = capfd.readouterr().err
    (line,) = [line for line in log.splitlines() if "genuine BVLC Caffe refuses this" in line]
    assert f"{tmp_path}/net.prototxt:{BEYOND[name].count(chr(10))}:1: layer 'layer' (" in line


@pytest.mark.parametrize("name", NO_MORE)
def test_what_genuine_caffe_takes_is_not_told(taken, tmp_path, capfd, monkeypatch, name):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    assert taken[NO_MORE[name]]
    assert runs(NO_MORE[name], tmp_path)
    assert "genuine BVLC Caffe refuses" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        net("Pooling", "pooling_param { kernel_size: 2 stride: 2 }"),
        net("Deconvolution", "convolution_param { num_output: 4 kernel_size: 2 stride: 2 }"),
        net("InnerProduct", "inner_product_param { num_output: 7 }"),
        net("Reduction"),
        net("Slice", "", ((2, 4, 6, 6),), 2),
        net("HingeLoss", "", ((2, 3), (2,))),
        net("Filter", "", ((2, 3), (2,))),
        net("Im2col", "convolution_param { kernel_size: 2 }"),
    ],
    ids=lambda text: text.split('type: "')[-1].split('"')[0],
)
def test_a_layer_that_changes_the_size_cannot_work_in_place(tmp_path, text):
    # Genuine Caffe reads and writes the same memory, as two sizes.
    path = tmp_path / "net.prototxt"
    path.write_text(text.replace('top: "out0"', 'top: "in0"'))
    with pytest.raises(CaffeError, match=r"net.prototxt:\d:1: layer 'layer' .* work in place"):
        caffe.Net(str(path), caffe.TRAIN)


@pytest.mark.parametrize(
    "text", [net("Power", "power_param { power: 2 }"), net("LRN")], ids=["Power", "LRN"]
)
def test_gradients_that_need_what_was_overwritten_are_refused(tmp_path, text):
    # Genuine Caffe takes the new values for the old ones.
    path = tmp_path / "net.prototxt"
    copied = text.replace('bottom: "in0"', 'bottom: "x"').replace('top: "out0"', 'top: "x"')
    copy = 'layer { name: "copy" type: "Power" bottom: "in0" top: "x" }\nlayer { name: "layer"'
    path.write_text(copied.replace('layer { name: "layer"', copy))
    made = caffe.Net(str(path), caffe.TEST)
    made.blobs["in0"].data[...] = 3
    value = float(made.forward()["x"].flat[0])
    # 3^2, and 3 among three channels of the window of five.
    expected = 9 if "power: 2" in text else 3 / (1 + 27 / 5) ** 0.75
    assert value == pytest.approx(expected, rel=1e-5)
    with pytest.raises(CaffeError, match=r"layer 'layer' .* no gradient where it works in place"):
        made.backward()


def test_a_clip_of_crossed_limits_is_the_lower_one_as_in_genuine_caffe(ours, reference):
    text = net("Clip", "clip_param { min: 2 max: 1 }", ((5,),))
    script = (
        "import caffe, numpy as np\nfrom exchange import give, text_file\n"
        f"net = caffe.Net(text_file('''{text}'''), caffe.TRAIN)\n"
        "net.blobs['in0'].data[...] = [0, 1, 1.5, 2, 3]\n"
        "net.blobs['out0'].diff[...] = 1\n"
        "net.forward(); net.backward()\n"
        "give({'y': net.blobs['out0'].data, 'g': net.blobs['in0'].diff})"
    )
    got, wanted = ours.run(script), reference.run(script)
    np.testing.assert_array_equal(wanted["y"], 2)
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])
