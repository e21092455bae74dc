"""Layers in Python: what a class must define, and mistakes in the user's module."""

from __future__ import annotations

import json
import re
import zlib

import pytest

import caffe
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

# Everything that a Python layer's class may lack, and how far a net of it then gets.
LACKING = """
import json, sys, types
import caffe, numpy as np
from exchange import give, text_file

def setup(self, bottom, top):
    self.loss_weights = "the layer's own"
def reshape(self, bottom, top):
    top[0].reshape(*bottom[0].data.shape)
def forward(self, bottom, top):
    top[0].data[...] = bottom[0].data
def backward(self, top, propagate_down, bottom):
    bottom[0].diff[...] = top[0].diff
whole = dict(setup=setup, reshape=reshape, forward=forward, backward=backward)

module = types.ModuleType("lacking")
sys.modules["lacking"] = module
def define(name, **methods):
    setattr(module, name, type(name, (caffe.Layer,), methods))
define("Whole", **whole)
for lacks in whole:
    define("No" + lacks, **{name: method for name, method in whole.items() if name != lacks})
define("Misspelt", backwards=backward, **{n: m for n, m in whole.items() if n != "backward"})
define("Parents", **dict(whole, backward=lambda self, *blobs: caffe.Layer.backward(self, *blobs)))
module.function = lambda param: module.Whole(param)

NET = '''
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "learns" type: "InnerProduct" bottom: "x" top: "w"
  inner_product_param { num_output: 2 } }
layer { name: "p" type: "Python" bottom: "w" top: "y"
  python_param { module: "lacking" layer: "%s" } }
layer { name: "l" type: "Reduction" bottom: "y" top: "l" %s }
'''
told = {}
for name in sorted(vars(module)):
    if name.startswith("__"):
        continue
    for loss in ("loss_weight: 1", ""):
        step = "made"
        try:
            net = caffe.Net(text_file(NET % (name, loss)), caffe.TRAIN)
            step = "forward"
            net.forward()
            step = "backward"
            net.backward()
            told["%s, %s" % (name, loss)] = getattr(net.layers[2], "loss_weights", "none")
        except Exception as error:
            told["%s, %s" % (name, loss)] = [step, type(error).__name__, str(error)]
told["inherits"] = [name for name in whole if hasattr(caffe.Layer, name)]
give({"told": np.array(json.dumps(told))})
"""


@pytest.fixture(scope="module")
def lacking(ours, reference) -> tuple[dict, dict]:
    """Return what both engines tell of classes that lack a method."""
    return tuple(json.loads(str(engine.run(LACKING)["told"])) for engine in (ours, reference))


def test_a_method_that_is_not_there_is_missed_when_it_is_called_as_in_genuine_caffe(lacking):
    got, wanted = lacking
    assert got.keys() == wanted.keys()
    for name, expected in wanted.items():
        if isinstance(expected, list) and expected[:2] == ["made", "RecursionError"]:
            # Genuine Caffe looks for what is inherited until the stack is full.
            method = name.split(",")[0][2:]
            told = f"'No{method}' object has no attribute '{method}'"
            assert got[name][:2] == ["made", "AttributeError"]
            assert got[name][2].startswith(told), name
        elif isinstance(expected, list) and len(expected) == 3 and expected[0] != "made":
            assert got[name][:2] == expected[:2], name
            assert got[name][2].startswith(expected[2]), name
        else:
            assert got[name] == expected, name
    # Where nothing below learns from a loss nothing is missed.
    assert got["Nobackward, "] == "the layer's own"
    assert got["Nobackward, loss_weight: 1"][0] == "backward"


def test_what_is_missing_is_told_with_layer_class_and_what_is_nearest(lacking):
    told = lacking[0]["Misspelt, loss_weight: 1"][2]
    assert "layer 'p' needs def backward(self, top, propagate_down, bottom)" in told
    assert told.endswith("in class Misspelt, which defines 'backwards'")


NET = (
    '# the first line\nlayer {{ name: "p" type: "Python" top: "x" '
    'python_param {{ module: "{module}" layer: "{layer}" }} }}'
)


def fails(folder, module: str, layer: str = "L") -> str:
    """Return what a net of a Python layer raises, without its file and line."""
    path = folder / "net.prototxt"
    path.write_text(NET.format(module=module, layer=layer))
    with pytest.raises(CaffeError) as caught:
        caffe.Net(str(path), caffe.TEST)
    where = f"{path}:2:1: layer 'p' (Python): "
    assert str(caught.value).startswith(where)
    return str(caught.value)[len(where) :]


@pytest.mark.parametrize("module", ["", ".", ".x", "..", "x.", "x..y"])
def test_what_is_not_the_name_of_a_module_is_told(tmp_path, module):
    told = fails(tmp_path, module)
    assert told.startswith("python_param needs the name of a module, as in `import ")
    assert told.endswith(f"not '{module}'")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import caffe\ndef f(a b): pass", "SyntaxError: .*FILE:2"),
        ("\n\nraise KeyError('w0')", "KeyError: 'w0' .FILE:3"),
        ("import caffe\nimport nowhere_at_all", "No module named 'nowhere_at_all' .FILE:2"),
        ("import caffe\nfrom caffe import Layr", "ImportError: .*Layr.* .FILE:2"),
        ("\0", "(SyntaxError|ValueError): source code"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_own_line(
    tmp_path, monkeypatch, source, told
):
    module = f"damaged_{zlib.crc32(source.encode())}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = f"module '{module}' cannot be imported: .*{told}"
    assert re.match(
        expected.replace("FILE", str(tmp_path / f"{module}.py")), fails(tmp_path, module)
    )


MADE = """
import caffe

class NoLayer:
    pass

class NoParent(caffe.Layer):
    def __init__(self, param):
        pass

number = 3

def function(param):
    return number
"""


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("", "module 'made' has no class '' that derives from caffe.Layer"),
        ("Nothing", "module 'made' has no class 'Nothing' that derives from caffe.Layer"),
        ("number", "module 'made' has no class 'number' that derives from caffe.Layer"),
        ("NoLayer", "class 'NoLayer' of module 'made' does not derive from caffe.Layer"),
        ("function", "'function' of module 'made' makes a value of type int, not a caffe.Layer"),
        ("NoParent", "class 'NoParent' has an __init__ that does not call caffe.Layer's"),
    ],
)
def test_what_makes_no_layer_is_told(tmp_path, monkeypatch, layer, told):
    (tmp_path / "made.py").write_text(MADE)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fails(tmp_path, "made", layer).startswith(told)


class Feeds(caffe.Layer):
    """Writes into its top, which it is given without values."""

    def setup(self, bottom, top):
        self.passes = 0

    def reshape(self, bottom, top):
        top[0].reshape(2)

    def forward(self, bottom, top):
        self.passes += 1
        top[0].data[...] = self.passes


def test_a_layer_feeds_a_net_that_gives_blobs_back_pass_after_pass():
    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="feed", type="Python", top=["in"])
    layer.python_param.module, layer.python_param.layer = __name__, "Feeds"
    net.layer.add(name="out", type="Power", bottom=["in"], top=["out"])
    made = caffe.Net(net, caffe.TEST)
    made.retain_data = False
    for wanted in (1, 2):
        assert made.forward()["out"].tolist() == [wanted, wanted]
