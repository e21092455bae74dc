"""The graphs of caffe.draw, recorded by a stand-in for pydot on both engines."""

from __future__ import annotations

import json

SCRIPT = '''
import json
import sys
import types

record = []


def known(value):
    return value.number if isinstance(value, Recorded) else value


class Recorded:
    """Notes how it is made and what is called of it."""

    def __init__(self, *words, **options):
        self.number = len(record)
        record.append([type(self).__name__, [known(word) for word in words], options])

    def __getattr__(self, name):
        def called(*words, **options):
            record.append([self.number, name, [known(word) for word in words], options])
            return b"a picture"

        return called


pydot = types.ModuleType("pydot")
for name in ("Dot", "Node", "Edge"):
    setattr(pydot, name, type(name, (Recorded,), {}))
sys.modules["pydot"] = pydot

import numpy as np
from google.protobuf import text_format

import caffe.draw
from caffe.proto import caffe_pb2
from exchange import give, given

cases = json.loads(str(given()["cases"]))
told = {}


def attempt(key, function, *words, **options):
    del record[:]
    try:
        result = function(*words, **options)
    except ValueError as error:
        result = "ValueError: %s" % error
    if isinstance(result, Recorded):
        result = "recorded"
    if isinstance(result, bytes):
        result = result.decode()
    told[key] = [result, list(record)]


attempt("pooling", caffe.draw.get_pooling_types_dict)
for name in ("LAYER_STYLE_DEFAULT", "NEURON_LAYER_STYLE", "BLOB_STYLE"):
    told[name] = getattr(caffe.draw, name)
for text in cases["layers"]:
    layer = text_format.Merge(text, caffe_pb2.LayerParameter())
    attempt("edge " + text, caffe.draw.get_edge_label, layer)
    attempt("rate " + text, caffe.draw.get_layer_lr_mult, layer)
    attempt("color " + text, caffe.draw.choose_color_by_layertype, layer.type)
    for rankdir in ("LR", "RL", "TB", "BT"):
        for rates in (False, True):
            key = "label %s %s %s" % (rankdir, rates, text)
            attempt(key, caffe.draw.get_layer_label, layer, rankdir, rates)
for name, text in cases["nets"].items():
    net = text_format.Merge(text, caffe_pb2.NetParameter())
    attempt("net " + name, caffe.draw.get_pydot_graph, net, "LR")
    attempt("no labels " + name, caffe.draw.get_pydot_graph, net, "LR", label_edges=False)
    for phase in (caffe_pb2.TRAIN, caffe_pb2.TEST):
        key = "phase %d %s" % (phase, name)
        attempt(key, caffe.draw.get_pydot_graph, net, "TB", True, phase, True)
    attempt("bytes " + name, caffe.draw.draw_net, net, "BT", "pdf", caffe_pb2.TEST, True)
    for suffix in (".png", ".tar.svg"):
        path = sys.argv[2] + suffix
        attempt("file %s %s" % (suffix, name), caffe.draw.draw_net_to_file, net, path)
        with open(path) as file:
            told["written %s %s" % (suffix, name)] = file.read()
give({"told": np.array(json.dumps(told))})
'''

LAYERS = [
    'name: "c" type: "Convolution"',
    'name: "c" type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
    'name: "c" type: "Convolution" convolution_param { num_output: 4 kernel_size: [3, 5] '
    "stride: [2, 3] pad: [1, 2] dilation: 2 group: 2 }",
    'name: "c" type: "Convolution" convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 '
    "stride_h: 2 stride_w: 1 pad_h: 3 pad_w: 4 }",
    'name: "c" type: "Convolution" param { } param { name: "b" lr_mult: 0 }',
    'name: "c" type: "Convolution" param { lr_mult: 0.25 } param { lr_mult: 1e6 }',
    'name: "c" type: "Convolution" param { } param { } param { }',
    'name: "c" type: "Convolution" param { lr_mult: 2 } convolution_param { bias_term: false }',
    'name: "u" type: "Deconvolution" param { lr_mult: 0.35 } '
    "convolution_param { num_output: 4 kernel_size: 2 stride: 2 pad: 1 }",
    'name: "i" type: "InnerProduct" param { lr_mult: 3 } inner_product_param { num_output: 9 }',
    'name: "p" type: "Pooling" param { lr_mult: 3 }',
    'name: "p" type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 3 pad: 1 }',
    'name: "p" type: "Pooling" pooling_param { pool: STOCHASTIC kernel_h: 2 kernel_w: 3 pad_h: 2 }',
    'name: "d" type: "Data" data_param { batch_size: 64 source: "x" }',
    'name: "d" type: "ImageData" image_data_param { batch_size: 64 }',
    'name: "r" type: "ReLU"',
    'name: "s" type: "Scale" param { lr_mult: 3 }',
    'name: "d" type: "Dropout" dropout_param { dropout_ratio: 0.3 }',
    'type: "Embed" embed_param { num_output: 3 }',
    'name: "a/b <c> {d} |"',
]

CLASSIFIER = """
name: "classifier"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { batch_size: 4 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { batch_size: 8 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 }
  convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" exclude { phase: TEST } }
layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up"
  convolution_param { num_output: 3 kernel_size: 2 stride: 2 } }
layer { name: "both" type: "Concat" bottom: "up" bottom: "conv" top: "both" }
layer { name: "fc" type: "InnerProduct" bottom: "both" top: "fc"
  inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss"
  exclude { phase: TEST stage: "x" } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include { phase: TEST stage: "y" } include { phase: TRAIN not_stage: "z" } }
layer { name: "last" type: "Silence" bottom: "label" include { stage: "y" } }
layer { name: "deep" type: "Silence" bottom: "label" exclude { min_level: 2 } }
"""
NETS = {
    "empty": "",
    "classifier": CLASSIFIER,
    "in place": """
layer { name: "in" type: "Input" top: "a" top: "b" }
layer { name: "slice" type: "Slice" bottom: "a" bottom: "b" top: "a" top: "q" top: "b" }
layer { name: "twice" type: "ReLU" bottom: "a" top: "a" }
layer { name: "twice" type: "PReLU" bottom: "a" top: "z" }
layer { name: "two" type: "ReLU" bottom: "a" bottom: "b" top: "a" top: "b" }
layer { name: "conv" type: "Convolution" bottom: "a" top: "a" }
layer { name: "none" type: "ReLU" }
layer { name: "same" type: "Eltwise" bottom: "a" bottom: "a" top: "w" top: "w" }
""",
    "names": 'name: "a b" layer { name: "l/1:x" type: "ReLU" bottom: "b-1/x" top: "t 1" }',
    "old": 'name: "o" layers { name: "c" type: CONVOLUTION bottom: "a" top: "b" }',
    "both rules": 'layer { name: "r" type: "ReLU" bottom: "a" top: "b" '
    'include { phase: TRAIN } exclude { stage: "s" } }',
}


def test_graphs_and_labels_are_those_of_genuine_caffe(ours, reference):
    cases = {"cases": json.dumps({"layers": LAYERS, "nets": NETS})}
    got, wanted = (
        json.loads(str(engine.run(SCRIPT, cases)["told"])) for engine in (ours, reference)
    )
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        assert got[key] == value, key
    nodes = [call for call in wanted["net classifier"][1] if call[0] == "Node"]
    assert len(nodes) > 20
    assert "both include and exclude" in wanted["phase 0 both rules"][0]
    assert all(wanted[f"written .png {name}"] == "a picture" for name in NETS)
