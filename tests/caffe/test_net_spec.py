"""Networks written in Python, judged by the text that genuine pycaffe makes of the same program."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.net_spec import assign_proto, param_name_dict
from caffe.proto import caffe_pb2

PROGRAMS = {
    "lenet": """
n = caffe.NetSpec()
n.data, n.label = L.DummyData(shape=[dict(dim=[10, 1, 28, 28]), dict(dim=[10, 1, 1, 1])],
                              transform_param=dict(scale=1.0 / 255), ntop=2)
n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type='xavier'))
n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
n.ip1 = L.InnerProduct(n.pool1, num_output=500, weight_filler=dict(type='xavier'))
n.relu1 = L.ReLU(n.ip1, in_place=True)
n.ip2 = L.InnerProduct(n.relu1, num_output=10, weight_filler=dict(type='msra', variance_norm=2))
n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
""",
    "names made up": """
n = caffe.NetSpec()
data, label = L.DummyData(shape=[dict(dim=[10, 1, 28, 28]), dict(dim=[10])], ntop=2)
ip = L.InnerProduct(L.ReLU(L.InnerProduct(data, num_output=3), in_place=True), num_output=2)
n.loss = L.EuclideanLoss(ip, label)
n.other = L.InnerProduct(ip, num_output=2)
""",
    "to_proto of tops": """
data, label = L.Data(batch_size=3, backend=P.Data.LMDB, source='x', ntop=2)
ip = L.InnerProduct(data, num_output=3)
n = lambda: None
n.to_proto = lambda: caffe.to_proto(L.SoftmaxWithLoss(ip, label), L.Accuracy(ip, label))
""",
    "top.to_proto": """
n = L.Softmax(L.Input(shape=dict(dim=[1, 2])))
""",
    "phases and weights": """
n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 8, 8]), include=dict(phase=caffe.TRAIN, stage='isbi'))
n.score = L.Convolution(n.data, name='conv_d0a-b', num_output=2, kernel_size=[3, 5], pad_h=1,
    param=[dict(lr_mult=1, decay_mult=1), dict(name='shared', lr_mult=0.1, decay_mult=0)],
    exclude=[dict(stage=['a', 'b']), dict(min_level=2, not_stage=['c'])])
n.loss = L.SoftmaxWithLoss(n.score, n.data, loss_weight=[0.5], propagate_down=[True, False],
    loss_param=dict(ignore_label=255, normalization=P.Loss.VALID), softmax_param=dict(axis=1))
n.scaled = L.Reduction(n.score, operation=4, coeff=-2, loss_weight=1, phase=caffe.TEST)
""",
    "python and silence": """
n = caffe.NetSpec()
n.data, n.label, n.weight = L.Python(module='unet.layers', layer='TrainingTiles', ntop=3,
                                     param_str='{"file": "a.h5", "tile": [1, 2]}')
n.again = L.Python(n.data, python_param=dict(module='m', layer='l', share_in_parallel=False))
n.silence = L.Silence(n.label, n.weight, ntop=0)
""",
    "silence without a name": """
n = caffe.NetSpec()
n.a = L.Input(shape=[dict(dim=[1])])
n.b = L.Silence(n.a, ntop=0)
n.c = L.Silence(n.a, ntop=0, name='quiet')
""",
    "in place twice": """
n = caffe.NetSpec()
n.data = L.DummyData(shape=dict(dim=[1, 2, 3]), data_filler=dict(type='gaussian', std=0.01))
n.conv = L.Deconvolution(n.data, convolution_param=dict(num_output=2, kernel_size=2, stride=2,
                         bias_term=False, weight_filler=dict(type='bilinear')))
n.bn = L.BatchNorm(n.conv, in_place=True, use_global_stats=True, eps=1e-3)
n.scale = L.Scale(n.bn, bias_term=True, in_place=True)
n.relu = L.ReLU(n.scale, in_place=True, negative_slope=0.1)
n.crop = L.Crop(n.relu, n.data, axis=2, offset=[1, 2])
n.a, n.b = L.Slice(n.crop, slice_point=[1], axis=1, ntop=2)
n.sum = L.Eltwise(n.a, n.b, operation=P.Eltwise.SUM, coeff=[0.1, 1e-8])
n.rest = L.Concat(n.a, n.sum, concat_param=dict(axis=1))
n.drop = L.Dropout(n.rest, dropout_ratio=0.5, in_place=True)
n.log = L.Log(n.drop, base=-1, shift=1e-20)
n.power = L.Power(n.log, power=1 / 3., scale=3e9, shift=16777217)
""",
    "items": """
n = caffe.NetSpec()
n['a/b'] = L.Input(shape=dict(dim=1))
n['c'] = L.ReLU(n['a/b'])
n.d = n['c']
""",
    "same top twice": """
n = caffe.NetSpec()
n.a = L.Input(shape=dict(dim=[1, 2]))
n.b = n.a
n.c = L.Eltwise(n.a, n.b)
""",
    "tops within": """
n = caffe.NetSpec()
data, n.label = L.DummyData(shape=dict(dim=[1, 2]), ntop=2)
n.data = L.ReLU(data)
n.loss = L.HingeLoss(n.data, n.label, norm=P.HingeLoss.L2)
""",
    "empty dictionaries": """
n = caffe.NetSpec()
n.a = L.Input(input_param=dict())
n.b = L.ReLU(n.a, relu_param=dict(), param=[dict(), dict(lr_mult=2)])
""",
    "unicode": r"""
n = caffe.NetSpec()
n.a = L.Input(name=u'Z\u00fcrich "x"\n', shape=dict(dim=[1]))
""",
    "nested": """
n = caffe.NetSpec()
n.data = L.Input(shape=[dict(dim=[1, 2]), dict(dim=[3])], ntop=1)
n.lstm = L.LSTM(n.data, recurrent_param=dict(num_output=4, weight_filler=dict(type='uniform',
    min=-0.08, max=0.08), bias_filler=dict(type='constant', value=0)))
n.p = L.Parameter(shape=dict(dim=[2, 3]))
n.pool = L.SPP(n.data, pool=P.SPP.AVE, pyramid_height=3)
n.lrn = L.LRN(n.data, local_size=5, alpha=1e-4, beta=.75, norm_region=P.LRN.WITHIN_CHANNEL)
""",
}
HEADER = "import caffe\nfrom caffe import layers as L, params as P\n"


def _net(program: str) -> caffe_pb2.NetParameter:
    names: dict = {}
    exec(HEADER + program, names)
    return names["n"].to_proto()


@pytest.fixture(scope="module")
def expected(genuine) -> dict[str, str]:
    return genuine.python(
        "result = {}\n"
        "for key, program in programs.items():\n"
        "    names = {}\n"
        "    try:\n"
        "        exec(program, names)\n"
        "        result[key] = str(names['n'].to_proto())\n"
        "    except Exception as error:\n"
        "        result[key] = repr(error)",
        programs={key: HEADER + program for key, program in PROGRAMS.items()},
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_text_that_genuine_pycaffe_gives(name, expected):
    # Read once more, since genuine Caffe's protobuf writes 0.01 as 0.009999999776482582.
    theirs = text_format.Parse(expected[name], caffe_pb2.NetParameter())
    assert str(_net(PROGRAMS[name])) == str(theirs)


def test_the_types_with_parameters_are_those_of_genuine_pycaffe(genuine):
    theirs = genuine.python("from caffe import net_spec; result = net_spec.param_name_dict()")
    assert param_name_dict() == theirs


def test_tops_can_be_taken_out_again():
    n = caffe.NetSpec()
    n.a, n.b, n.c = (L.Input(shape=dict(dim=[1])) for _ in range(3))
    del n.a
    del n["b"]
    assert [layer.name for layer in n.to_proto().layer] == ["c"]


def test_a_layer_can_be_changed_by_the_name_of_its_top():
    n = caffe.NetSpec()
    n.a = L.Input(shape=dict(dim=[1]))
    n.update("a", dict(name="renamed"))
    assert n.to_proto().layer[0].name == "renamed"


def test_a_list_fills_a_repeated_field_and_a_dictionary_a_message():
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "top", "single")
    assign_proto(layer, "top", ["a", "b"])
    assign_proto(layer, "param", [dict(lr_mult=2), dict(name="w")])
    assign_proto(layer, "pooling_param", dict(pool="AVE", kernel_size=2))
    assert list(layer.top) == ["single", "a", "b"]
    assert [spec.lr_mult for spec in layer.param] == [2, 1]
    assert layer.pooling_param.pool == P.Pooling.AVE


def test_a_parameter_that_no_layer_of_the_type_has_is_refused():
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1]), paddling=3)
    with pytest.raises(
        (caffe.errors.CaffeError, AttributeError), match=r"^paddling .* Input layer"
    ):
        n.to_proto()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda n: L.ReLU("data"), r"^ReLU input 0 is not a Top \(type is <class 'str'>\)$"),
        (lambda n: L.ReLU(L.Slice(n.data, ntop=2)), r"Top \(type is <class 'tuple'>\): unpack"),
        (lambda n: L.ReLU(n.dta), r"^'dta': the net has no top of this name; did you mean data\?"),
        (lambda n: setattr(n, "x", 3) or n.to_proto(), "^'int' object has no .* top 'x'"),
        (lambda n: setattr(n, "x", (n.data,)) or n.to_proto(), "top 'x' .*: unpack the tops"),
        (lambda n: L.Pooling(n.data, pool="MAXIMUM").to_proto(), "one of MAX, AVE, STOCHASTIC"),
        (lambda n: L.Pooling(n.data, pool=7).to_proto(), "^Unknown enum value: 7; Pooling"),
        (lambda n: P.Pooling.MAXIMUM, "MAXIMUM"),
        (lambda n: P.Pool.MAX, "Pool"),
    ],
)
def test_mistakes_are_told(call, told):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 2]))
    with pytest.raises((TypeError, AttributeError, ValueError), match=told):
        call(n)
    assert not hasattr(n, "dta")


def test_a_number_of_the_wrong_kind_is_refused_with_its_field():
    with pytest.raises((TypeError, ValueError), match="num_output"):
        L.InnerProduct(L.Input(), num_output="many").to_proto()
