"""Run the same passes again and again, with all that may change between them."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import draw_parameters, give, gradients, parameters, text_file

LAYERS = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "norm" type: "BatchNorm" bottom: "a" top: "b" }
layer { name: "bend" type: "TanH" bottom: "b" top: "b" }
layer { name: "pool" type: "Pooling" bottom: "b" top: "c"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "product" type: "InnerProduct" bottom: "c" top: "d"
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "d" bottom: "l" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "d" bottom: "l" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = (
    'base_lr: 0.05 momentum: 0.9 lr_policy: "step" gamma: 0.5 stepsize: 4 type: "%s" '
    f"test_iter: 2 test_interval: 5 net_param {{ {LAYERS} }} %s"
)

RESULTS = {}
RANDOM = np.random.RandomState(1)


def feed(net, size=9):
    """Draw a batch."""
    count = 2
    net.blobs["x"].reshape(count, 3, size, size)
    net.blobs["x"].data[...] = RANDOM.standard_normal((count, 3, size, size))
    net.blobs["l"].data[...] = RANDOM.randint(0, 3, count)


def keep(key, net, diffs=True):
    """Enter all that a net holds."""
    for name, blob in net.blobs.items():
        RESULTS[f"{key} data {name}"] = np.array(blob.data)
        if diffs:
            RESULTS[f"{key} diff {name}"] = np.array(blob.diff)
    if diffs:
        RESULTS.update({f"{key} {name}": values for name, values in gradients(net).items()})
    RESULTS.update({f"{key} {name}": values for name, values in parameters(net).items()})


def trained(rule, options, retain):
    """Take steps; change shapes, parameters, snapshots and what is kept on the way."""
    caffe.set_random_seed(3)
    solver = caffe.get_solver(text_file(SOLVER % (rule, options)))
    net = solver.net
    draw_parameters(net)
    draw_parameters(solver.test_nets[0])
    feed(solver.test_nets[0])
    net.retain_data = retain
    losses = []
    for step in range(16):
        feed(net, 7 if step in (5, 6, 12) else 9)
        if step == 8:
            net.params["conv"][0].data[...] *= 0.5
        if step == 9:
            path = text_file("", ".caffemodel")
            net.save(path)
            net.params["product"][0].data[...] = 0
            net.copy_from(path)
        if step == 10:
            solver.test_nets[0].share_with(net)
            solver.test_nets[0].forward()
        solver.step(1)
        losses.append(float(net.blobs["loss"].data))
    RESULTS[f"{rule} {retain} losses"] = np.array(losses)
    if retain:
        keep(f"{rule} {options}", net)
    else:
        RESULTS.update({f"{rule} {options} {k}": v for k, v in parameters(net).items()})


def passed():
    """Run passes; look at some blobs, write into others, go backward now and then."""
    caffe.set_random_seed(3)
    net = caffe.Net(text_file("force_backward: true\n" + LAYERS), caffe.TRAIN)
    draw_parameters(net)
    for turn in range(14):
        feed(net, 9 if turn % 5 else 6)
        if turn == 6:
            net.params["product"][1].data[1] = 2
        if turn == 7:
            net.blobs["d"].data[...] = 5
        if turn == 8:
            net.forward(start="pool")
        found = net.forward(blobs=["b"] if turn % 2 else None)
        RESULTS.update({f"turn {turn} {name}": np.array(v) for name, v in found.items()})
        if turn % 3 == 2:
            if turn < 9:
                net.clear_param_diffs()
            net.backward()
            keep(f"turn {turn}", net)


for case in (("SGD", "", True), ("SGD", "iter_size: 2", False), ("Adam", "momentum2: 0.99", True)):
    trained(*case)
trained("Nesterov", "clip_gradients: 0.5 weight_decay: 0.01", False)
passed()
give(RESULTS)
