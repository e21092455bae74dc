"""Change parameters and blobs between passes, as scripts do."""

from __future__ import annotations

import os

import numpy as np

import caffe
from exchange import draw_parameters, give, gradients, parameters, text_file

LAYERS = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "bend" type: "TanH" bottom: "a" top: "a" }
layer { name: "pool" type: "Pooling" bottom: "a" top: "b"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "product" type: "InnerProduct" bottom: "b" top: "c"
  inner_product_param { num_output: 4 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "y" top: "loss" }
"""
SOLVER = (
    'type: "Adam" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 momentum2: 0.99 delta: 1e-4 '
    f"iter_size: 2 clip_gradients: 3 train_net_param {{ {LAYERS} }}"
)

RESULTS = {}


def keep(key, net):
    """Enter all that a net holds."""
    RESULTS.update({f"{key} data {name}": np.array(b.data) for name, b in net.blobs.items()})
    RESULTS.update({f"{key} diff {name}": np.array(b.diff) for name, b in net.blobs.items()})
    RESULTS.update({f"{key} {name}": values for name, values in gradients(net).items()})
    RESULTS.update({f"{key} {name}": values for name, values in parameters(net).items()})


def make(seed, phase=caffe.TEST):
    """Make a net with drawn parameters and inputs."""
    net = caffe.Net(text_file("force_backward: true\n" + LAYERS), phase)
    draw_parameters(net)
    feed(net, seed)
    return net


def feed(net, seed):
    """Draw inputs."""
    random = np.random.RandomState(seed)
    for name in ("x", "y"):
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].data.shape)


def parts():
    """Write into blobs between parts of passes."""
    net = make(1)
    net.forward()
    net.blobs["a"].data[...] *= 2
    net.forward(start="pool")
    keep("blob doubled", net)
    net.blobs["b"].data[0] = 0.25
    net.blobs["b"].data[1, :, 1:] += 1
    net.forward(start="product")
    net.clear_param_diffs()
    net.backward(end="product")
    net.blobs["b"].diff[...] *= 0.5
    net.backward(start="pool")
    keep("diff halved", net)
    net.backward()
    keep("added up", net)


def surgery():
    """Put one net's parameters, changed, into another; share; copy from files."""
    net, other = make(2), make(3)
    net.params["conv"][0].data[1:3] = other.params["conv"][0].data[:2] * -0.5
    net.params["product"][0].data.flat = other.params["product"][0].data.flat
    net.params["product"][1].data[...] += 0.125
    net.forward()
    net.clear_param_diffs()
    net.backward()
    keep("operated on", net)
    path = text_file("", ".caffemodel")
    net.save(path)
    other.copy_from(path)
    other.forward()
    keep("copied", other)
    os.remove(path)
    net.save_hdf5(path + ".h5")
    other.params["conv"][0].data[...] = 0
    other.copy_from(path + ".h5")
    other.forward()
    keep("copied from HDF5", other)
    third = make(4)
    third.share_with(net)
    net.params["conv"][1].data[...] = 0.5
    third.forward()
    keep("shared", third)


def by_hand():
    """Train with passes and updates of one's own, gradients changed in between."""
    solver = caffe.get_solver(text_file(SOLVER))
    draw_parameters(solver.net)
    for step in range(3):
        solver.net.clear_param_diffs()
        for part in range(2):
            feed(solver.net, 10 * step + part)
            solver.net.forward()
            solver.net.backward()
        solver.net.params["product"][0].diff[0] = 0
        solver.net.params["conv"][0].diff[...] *= 0.5
        solver.apply_update()
        keep(f"step {step} by hand", solver.net)
        feed(solver.net, step)
        solver.step(1)
        solver.net.params["product"][1].data[...] *= 0.5
        keep(f"step {step}", solver.net)


def batches():
    """Run more items than a batch holds, from arrays, and inputs by name."""
    net = make(5)
    random = np.random.RandomState(6)
    items = {"x": random.standard_normal((5, 3, 8, 8)), "y": random.standard_normal((5, 4))}
    for name, values in net.forward_all(blobs=["a"], **items).items():
        RESULTS[f"all {name}"] = values
    found = net.forward(blobs=["b"], x=items["x"][:2], y=items["y"][1:3])
    RESULTS.update({f"by name {name}": np.array(values) for name, values in found.items()})
    net.blobs["x"].reshape(3, 3, 10, 9)
    net.blobs["y"].reshape(3, 4)
    try:
        net.reshape()
    except caffe.CaffeError as error:
        RESULTS["refused"] = np.array(str(error))
    for size in (1, 5, 2):
        net.blobs["x"].reshape(size, 3, 8, 8)
        net.blobs["y"].reshape(size, 4)
        net.reshape()
        net.forward(x=items["x"][:size], y=items["y"][:size])
        net.clear_param_diffs()
        net.backward()
        keep(f"{size} items", net)


for part in (parts, surgery, by_hand, batches):
    part()
give(RESULTS)
