"""Old nets and solvers; what they become, genuine Caffe judges in test_upgrade_programs.py."""

from __future__ import annotations

import pytest

from caffe.errors import CaffeError
from caffe.files.prototxt import parse_net, parse_solver
from caffe.proto import caffe_pb2

INPUT = 'input: "b" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1\n'

_TYPES = """
accuracy bnll concat conv data dropout euclidean_loss flatten hdf5_data hdf5_output im2col
images infogain_loss innerproduct lrn multinomial_logistic_loss pool relu sigmoid softmax
softmax_loss split tanh window_data
"""
V0_TYPES = _TYPES.split()
V0_FIELDS = {
    "num_output": "3",
    "biasterm": "false",
    "weight_filler": '{ type: "xavier" }',
    "bias_filler": "{ }",
    "pad": "1",
    "kernelsize": "3",
    "group": "2",
    "stride": "2",
    "pool": "AVE",
    "dropout_ratio": "0.3",
    "local_size": "3",
    "alpha": "0.1",
    "beta": "0.2",
    "k": "0.3",
    "source": '"s"',
    "scale": "0.5",
    "meanfile": '"m"',
    "batchsize": "7",
    "cropsize": "5",
    "mirror": "true",
    "blobs": "{ num: 1 }",
    "blobs_lr": "2",
    "weight_decay": "3",
    "rand_skip": "4",
    "det_fg_threshold": "0.25",
    "det_bg_threshold": "0.25",
    "det_fg_fraction": "0.5",
    "det_context_pad": "3",
    "det_crop_mode": '"square"',
    "new_num": "1",
    "new_channels": "2",
    "new_height": "3",
    "new_width": "4",
    "shuffle_images": "true",
    "concat_dim": "2",
    "hdf5_output_param": '{ file_name: "f" }',
}
V0_ALL = INPUT + "".join(
    f'layers {{ layer {{ name: "{kind}.{field}" type: "{kind}" {field}: {value} }} '
    'bottom: "b" top: "t" }\n'
    for kind in V0_TYPES
    for field, value in V0_FIELDS.items()
)
V0_PADDING = (
    INPUT
    + """
layers { layer { name: "p" type: "padding" pad: 2 } bottom: "b" top: "t" }
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 } bottom: "t" top: "q" }
layers { layer { name: "c2" type: "conv" num_output: 2 kernelsize: 3 } bottom: "q" top: "r" }
layers { layer { name: "pool" type: "pool" pad: 1 } bottom: "t" top: "r2" }
"""
)
V1_TYPES = "".join(
    f'layers {{ name: "{name}" type: {name} }}\n'
    for name, _ in caffe_pb2.V1LayerParameter.LayerType.items()
    if name != "CROP"  # not BVLC's
)
V1_NET = """
name: "old" force_backward: true debug_info: true state { phase: TRAIN stage: "x" }
layers { name: "d" type: DATA top: "data" top: "label" include { phase: TRAIN stage: "s" }
  data_param { source: "a" batch_size: 2 scale: 2 mean_file: "m" crop_size: 7 backend: LMDB }
  transform_param { scale: 5 mirror: true } }
layers { name: "i" type: IMAGE_DATA image_data_param { mirror: true mean_file: "q" } }
layers { name: "w" type: WINDOW_DATA window_data_param { mirror: false scale: 1 } }
layers { name: "r" type: RELU data_param { scale: 2 } relu_param { negative_slope: 0.1 } }
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2
  weight_decay: 1 param: "w" param: "b" param: "c" blob_share_mode: PERMISSIVE
  blobs { num: 1 channels: 1 height: 1 width: 2 data: 1 data: 2.5 }
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "l" type: SOFTMAX_LOSS bottom: "c" bottom: "label" top: "loss" loss_weight: 2
  exclude { min_level: 2 } loss_param { ignore_label: 3 } }
layers { }
"""
NETS = {
    "v0 all fields": V0_ALL,
    "v0 padding": V0_PADDING,
    "v1 types": V1_TYPES,
    "v1 net": V1_NET,
    "v1 net with input": INPUT + V1_NET,
    "input shapes": 'input: "a" input: "b" input_shape { dim: 2 dim: 3 } input_shape { } '
    'layer { name: "r" type: "ReLU" bottom: "a" top: "r" }',
    "shapes before dims": 'input: "a" input_dim: 1 input_shape { dim: 7 }',
    "input of no shape": 'input: "a" layer { name: "r" type: "ReLU" bottom: "a" top: "r" }',
    "dims of no input": 'input_dim: 3 layer { name: "r" type: "ReLU" }',
    "batch norm": 'layer { type: "BatchNorm" param { lr_mult: 3 } param { } param { name: "x" } } '
    'layer { type: "BatchNorm" param { lr_mult: 3 } } '
    'layer { type: "Bias" param { } param { } param { lr_mult: 3 } }',
    "current": 'layer { name: "d" type: "Data" data_param { scale: 2 crop_size: 3 source: "x" } }',
}
SOLVERS = {
    **{
        name: f'net: "n.prototxt" solver_type: {name}'
        for name, _ in caffe_pb2.SolverParameter.SolverType.items()
    },
    "a number": "solver_type: 2",
    "a name": 'type: "Adam" snapshot_prefix: "x/y"',
    "none": 'net: "n.prototxt"',
}


def test_an_upgraded_net_is_left_as_it_is():
    once = parse_net(INPUT + V1_NET)
    assert parse_net(str(once)) == once


def test_nets_within_a_solver_are_upgraded_too():
    text = f'net_param {{ {INPUT} }} test_net_param {{ layers {{ name: "r" type: RELU }} }}'
    solver = parse_solver(text)
    assert solver.net_param.layer[0].type == "Input"
    assert solver.test_net_param[0].layer[0].type == "ReLU"


def test_a_v0_parameter_that_the_type_lacks_is_left_out_and_said(capsys):
    net = parse_net(INPUT + 'layers { layer { name: "r" type: "relu" group: 2 } }', "old.prototxt")
    assert net.layer[1].type == "ReLU"
    assert "old.prototxt: layer 'r': relu has no parameter group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('layers { type: RELU } layer { type: "ReLU" }', "both 'layers'"),
        (INPUT + 'layers { layer { name: "q" type: "eltwise" } }', "no type 'eltwise'"),
        (INPUT + 'layers { layer { name: "q" type: "relu" } bottom: "x" }', "unknown bottom 'x'"),
        (INPUT + 'layers { layer { type: "relu" } } layers { name: "n" type: RELU }', "'n' is V1"),
        (V0_PADDING.replace('"pool"', '"relu"'), "reads the padding layer 'p'"),
        ('input: "a" input: "b" input_shape { dim: 1 }', "there are 1 input_shape"),
        ('input: "a" input_dim: 1 input_dim: 2 input_dim: 3', "and 3 input_dim"),
    ],
)
def test_a_net_that_contradicts_itself_is_refused(text, told):
    with pytest.raises(CaffeError, match=r"net.prototxt(:\d+:\d+)?: .*" + told):
        parse_net(text, "net.prototxt")


def test_a_solver_of_two_types_is_refused():
    with pytest.raises(CaffeError, match=r"solver_type.*not both"):
        parse_solver('type: "SGD" solver_type: SGD')
