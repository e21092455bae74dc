"""Use every name of pycaffe once, as scripts do; see tests/parity/test_checklist.py.

Results: names OBJECT, the names that an object has; ENTRY, what the use of names comes to.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import types
from collections import OrderedDict
from numbers import Number

import numpy as np

if importlib.util.find_spec("pydot") is None:
    # Only names are looked at; tests/parity/test_draw.py draws.
    sys.modules["pydot"] = types.ModuleType("pydot")

import caffe
import caffe.coord_map
import caffe.draw
import caffe.net_spec
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2
from exchange import draw_parameters, give, text_file

RESULTS = {}
FOLDER = os.path.dirname(sys.argv[2])

NET = """
name: "toy"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 4 kernel_size: 2 } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y"
  inner_product_param { num_output: 3 } }
layer { name: "side" type: "Power" bottom: "a" top: "side" power_param { scale: 2 }
  include { stage: "look" min_level: 1 } }
layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 0.5
  reduction_param { operation: SUMSQ } include { phase: TRAIN } }
"""
SOLVER = """
base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 2 max_iter: 5 display: 0 random_seed: 3
snapshot_prefix: "%s" net: "%s" test_iter: 1 test_interval: 100 test_initialization: false
"""
PYTHON_LAYERS = """
import numpy as np
import caffe


class Count(caffe.Layer):
    def setup(self, bottom, top):
        self.told = self.param_str
        self.passes = []
        self.blobs.add_blob(2, 3)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
        top[1].reshape(1)

    def forward(self, bottom, top):
        self.passes.append(int(self.phase))
        top[0].data[...] = bottom[0].data * self.blobs[0].data
        top[1].data[...] = len(self.passes)

    def backward(self, top, propagate_down, bottom):
        self.down = [bool(down) for down in propagate_down]
        self.blobs[0].diff[...] += top[0].diff * bottom[0].data
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data

    def ask(self, number):
        return number + len(self.passes)


class MeanLoss(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 1:
            raise Exception("needs one bottom")

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = np.mean(bottom[0].data)

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff[0] / bottom[0].count


class Broken(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        raise ValueError("no %s today" % self.param_str)

    def backward(self, top, propagate_down, bottom):
        pass
"""


def keep(key, value):
    """Enter a result: numbers as an array, anything else as text."""
    if isinstance(value, str) or (
        isinstance(value, list) and not all(isinstance(item, Number) for item in value)
    ):
        value = json.dumps(value)
    RESULTS[key] = np.array(value)


def names(key, thing):
    """Enter the names that a thing has."""
    RESULTS[f"names {key}"] = np.array(sorted(name for name in dir(thing) if name[:2] != "__"))


def fill(net, seed=0):
    """Draw the inputs."""
    random = np.random.RandomState(seed)
    for name in net.inputs:
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].data.shape)
    return net


def error(function, *words, **options):
    """Return the class of what a call raises."""
    try:
        function(*words, **options)
    except Exception as caught:
        return type(caught).__name__
    return "nothing"


def module():
    """Use what is in the module itself."""
    for key, thing in {
        "caffe": caffe,
        "caffe.io": caffe.io,
        "caffe.net_spec": caffe.net_spec,
        "caffe.coord_map": caffe.coord_map,
        "caffe.draw": caffe.draw,
        "Net": caffe.Net,
        "Layer": caffe.Layer,
        "Classifier": caffe.Classifier,
        "Detector": caffe.Detector,
        "Timer": caffe.Timer,
        "NetSpec": caffe.NetSpec,
        "Transformer": caffe.io.Transformer,
    }.items():
        names(key, thing)
    for kind in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"):
        names(f"{kind}Solver", getattr(caffe, f"{kind}Solver"))
    names("caffe_pb2", caffe_pb2)
    keep("module version", caffe.__version__)
    keep("module phases", [int(caffe.TRAIN), int(caffe.TEST)])
    RESULTS["types of layers"] = np.array(sorted(caffe.layer_type_list()))
    keep("module returns", [
        caffe.set_mode_cpu(), caffe.set_random_seed(3), caffe.log("said"), caffe.init_log(3, False),
        caffe.set_solver_count(2), caffe.set_solver_rank(1), caffe.set_multiprocess(True),
    ])  # fmt: skip
    keep("module solvers", [caffe.solver_count(), caffe.solver_rank()])
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(False)
    keep("module has_nccl", [isinstance(caffe.has_nccl(), bool), isinstance(caffe.NCCL, type)])
    keep("module bases", [
        issubclass(caffe.Classifier, caffe.Net), issubclass(caffe.Detector, caffe.Net),
        caffe.proto.caffe_pb2 is caffe_pb2, caffe.net_spec.layers is L, caffe.params is P,
    ])  # fmt: skip


def making():
    """Make nets in every way there is."""
    path, weights = text_file(NET), os.path.join(FOLDER, "toy.caffemodel")
    first = caffe.Net(path, caffe.TRAIN)
    draw_parameters(first)
    first.save(weights)
    made = {
        "positional": caffe.Net(path, caffe.TEST),
        "named": caffe.Net(network_file=path, phase=caffe.TEST),
        "level": caffe.Net(path, caffe.TRAIN, level=1, stages=["look"]),
        "all positional": caffe.Net(path, caffe.TRAIN, 2, ["look", "other"]),
        "level too low": caffe.Net(path, caffe.TRAIN, stages=["look"]),
        "weights": caffe.Net(path, caffe.TEST, weights=weights),
        "legacy": caffe.Net(path, weights, caffe.TEST),
    }
    for key, net in made.items():
        keep(f"making {key} layers", list(net._layer_names))
        keep(f"making {key} outputs", list(net.outputs))
        if key in ("weights", "legacy"):
            keep(f"making {key} parameters", [blob.data.sum() for blob in net.params["conv"]])


def nets():
    """Use what a net has."""
    net = fill(caffe.Net(text_file(NET), caffe.TRAIN))
    draw_parameters(net)
    names("net", net)
    for name in ("blobs", "params", "layer_dict", "blob_loss_weights", "top_names", "bottom_names"):
        found = getattr(net, name)
        keep(f"net {name}", [isinstance(found, OrderedDict), *found])
    keep("net lists", [
        [layer.type for layer in net.layers], list(net.inputs), list(net.outputs),
        [list(net.top_names[name]) for name in net.top_names],
        [list(net.bottom_names[name]) for name in net.bottom_names],
    ])  # fmt: skip
    keep("net weights", [float(weight) for weight in net.blob_loss_weights.values()])
    # Members with an underscore, of which clients make use.
    keep("net ids", [
        list(net._inputs), list(net._outputs), [list(net._top_ids(i)) for i in range(5)],
        [list(net._bottom_ids(i)) for i in range(5)], list(net._blob_names), list(net._layer_names),
    ])  # fmt: skip
    keep("net _blob_loss_weights", list(net._blob_loss_weights))
    keep("net _blobs", [blob.count for blob in net._blobs])
    keep("net _forward", net._forward(0, 4))
    keep("net _forward in part", net._forward(0, 3))
    net.clear_param_diffs()
    net._backward(4, 0)
    keep("net _backward", net.params["conv"][0].diff)
    batches = list(net._batch({"x": np.ones((3, 3, 5, 4))}))
    keep("net _batch", [batch["x"].sum() for batch in batches])
    # Passes.
    keep("net forward", net.forward()["loss"])
    keep("net forward keys", sorted(net.forward(blobs=["a", "y"], end="ip")))
    keep("net forward start", sorted(net.forward(start="ip", end="ip")))
    other = np.random.RandomState(8).standard_normal((2, 3, 5, 4))
    keep("net forward inputs", net.forward(x=other)["loss"])
    keep("net backward", net.backward(diffs=["a"])["a"])
    keep("net backward in part", sorted(net.backward(start="loss", end="ip")))
    keep("net forward errors", [
        error(net.forward, z=other) != "nothing", error(net.forward, x=other[:1]) != "nothing",
    ])  # fmt: skip
    many = np.random.RandomState(9).standard_normal((5, 3, 5, 4))
    test = caffe.Net(text_file(NET), caffe.TEST)
    draw_parameters(test)
    test.forward(x=other)
    keep("net backward diffs", test.backward(diffs=["a"], y=np.ones((2, 3)))["a"])
    for key, values in test.forward_all(blobs=["a"], x=many).items():
        keep(f"net forward_all {key}", values)
    outputs, gradients = test.forward_backward_all(
        blobs=["a"], diffs=["a"], x=many, y=np.ones((5, 3))
    )
    for key, values in list(outputs.items()) + list(gradients.items()):
        keep(f"net forward_backward_all {key} {key in gradients}", values)
    # Reshaping.
    net.blobs["x"].reshape(1, 3, 5, 4)
    net.reshape()
    keep("net reshape", [list(blob.shape) for blob in net.blobs.values() if len(blob.shape)])
    # Parameters and files.
    third = caffe.Net(text_file(NET), caffe.TEST)
    third.share_with(net)
    net.params["ip"][1].data[...] = 7
    keep("net share_with", third.params["ip"][1].data)
    for name, write, read in (
        ("toy2.caffemodel", "save", "copy_from"),
        ("toy2.h5", "save_hdf5", "load_hdf5"),
        ("toy3.h5", "save_hdf5", "copy_from"),
    ):
        path = os.path.join(FOLDER, name)
        getattr(net, write)(path)
        fourth = caffe.Net(text_file(NET), caffe.TEST)
        getattr(fourth, read)(path)
        keep(f"net {write} {read}", fourth.params["ip"][0].data)
    net.clear_param_diffs()
    keep("net clear_param_diffs", [blob.diff.sum() for blob in net.params["ip"]])
    order = []
    for kind in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, kind)(lambda layer, kind=kind: order.append(f"{kind} {layer}"))
    net.forward(end="conv")
    net.backward(start="loss", end="loss")
    keep("net callbacks", order)
    memory = caffe.Net(
        text_file(
            'layer { name: "data" type: "MemoryData" top: "x" top: "y" '
            "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"
        ),
        caffe.TEST,
    )
    pictures = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    memory.set_input_arrays(pictures, np.arange(4, dtype=np.float32))
    for step in range(3):
        memory.forward()
        keep(f"net set_input_arrays {step}", memory.blobs["x"].data)
        keep(f"net set_input_arrays labels {step}", memory.blobs["y"].data)


def blobs():
    """Use what a blob has."""
    net = fill(caffe.Net(text_file(NET), caffe.TRAIN))
    draw_parameters(net)
    blob = net.blobs["x"]
    names("blob", blob)
    names("layer", net.layers[1])
    names("parameters", net.params["conv"])
    keep("blob sizes", [
        blob.num, blob.channels, blob.height, blob.width, blob.count, len(blob.shape),
        blob.shape[1], blob.shape[-1], *blob.shape,
    ])  # fmt: skip
    keep("blob arrays", [
        str(array.dtype) + str(array.flags.c_contiguous) + str(array.flags.writeable)
        for array in (blob.data, blob.diff)
    ])  # fmt: skip
    keep("blob axes", [net.blobs["loss"].data.ndim, net.blobs["loss"].count, len(net.params["ip"])])
    keep("blob read-only", [error(setattr, blob, name, 1) for name in ("data", "diff", "shape")])
    blob.reshape(2, 30)
    keep("blob reshape", [*blob.data.shape, blob.num, blob.channels, blob.height, blob.width])
    blob.reshape(2, 3, 5, 4)
    # Arrays are live, whichever way one comes to the blob.
    blob.data[...] = np.arange(120).reshape(2, 3, 5, 4) / 100
    net.params["conv"][1].data[:] = 0.5
    net.layers[1].blobs[0].data[0] *= 3
    net.layer_dict["ip"].blobs[1].data[...] = -0.25
    keep("blob written", net.forward()["loss"])
    keep("blob seen", [net._blobs[0].data.sum(), net.params["conv"][0].data.sum()])
    net.blobs["loss"].diff[...] = 2
    net.clear_param_diffs()
    net.backward()
    keep("blob loss diff", net.params["ip"][1].diff)
    net.params["ip"][0].diff[...] = 1
    net.backward()
    keep("blob diffs add up", net.params["ip"][0].diff)
    # They outlive the net.
    data, weight, gradient = blob.data, net.params["conv"][0].data, net.params["ip"][0].diff
    wanted = [data.copy(), weight.copy(), gradient.copy()]
    kept = net.params["ip"]
    del net, blob
    gc.collect()
    keep("blob outlives", [np.array_equal(a, b) for a, b in zip((data, weight, gradient), wanted)])
    keep("blob of a net that is gone", kept[1].data)


def layers():
    """Use layers that are written in Python."""
    with open(os.path.join(FOLDER, "own_layers.py"), "w") as file:
        file.write(PYTHON_LAYERS)
    sys.path.insert(0, FOLDER)
    text = """
    force_backward: true
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "count" type: "Python" bottom: "x" top: "y" top: "passes"
      python_param { module: "own_layers" layer: "Count" param_str: "{'a': 1}" } %s }
    layer { name: "mean" type: "Python" bottom: "y" top: "mean" loss_weight: 3
      python_param { module: "own_layers" layer: "MeanLoss" } }
    """
    net = fill(caffe.Net(text_file(text % ""), caffe.TRAIN))
    layer = net.layers[1]
    keep("layer type", [net.layers[i].type for i in range(3)])
    keep("layer param_str", layer.told)
    for _ in range(2):
        found = net.forward()
    keep("layer outputs", sorted(found))
    keep("layer mean", found["mean"])
    net.clear_param_diffs()
    net.backward()
    keep("layer own", [layer.ask(10), *layer.passes, *layer.down])
    keep("layer gradient", net.params["count"][0].diff)
    keep("layer bottom", net.blobs["x"].diff)
    keep("layer parameters", [list(blob.shape) for blob in net.params["count"]])
    layer.blobs[0].data[...] = 5
    keep("layer written", net.forward()["mean"])
    net.blobs["x"].data[...] = 1
    layer.forward([net.blobs["x"]], [net.blobs["y"], net.blobs["passes"]])
    keep("layer called", net.blobs["y"].data)
    weights = os.path.join(FOLDER, "own.caffemodel")
    net.save(weights)
    again = caffe.Net(text_file(text % ""), weights, caffe.TEST)
    keep("layer loaded", again.params["count"][0].data)
    again.forward()
    keep("layer phase", again.layers[1].passes)
    broken = """layer { name: "broken" type: "Python" top: "y"
      python_param { module: "own_layers" layer: "Broken" param_str: "milk" } }"""
    net = caffe.Net(text_file(broken), caffe.TEST)
    try:
        net.forward()
    except Exception as caught:
        keep("layer error", [type(caught).__name__, str(caught)])
    refused = text.replace('bottom: "y" top: "mean"', 'bottom: "y" bottom: "x" top: "mean"')
    try:
        caffe.Net(text_file(refused % ""), caffe.TEST)
    except Exception as caught:
        keep("layer setup error", [type(caught).__name__, str(caught)])


def solvers():
    """Use what a solver has."""
    path = text_file(SOLVER % (os.path.join(FOLDER, "shot"), text_file(NET)))
    solver = caffe.get_solver(path)
    names("solver", solver)
    keep("solver type", type(solver).__name__)
    for net in [solver.net, *solver.test_nets]:
        fill(net)
    draw_parameters(solver.net)
    keep("solver nets", [len(solver.test_nets), solver.iter, len(solver.net.layers)])
    param = solver.param
    keep("solver param", [param.max_iter, param.display, param.layer_wise_reduce])
    rates, order = [solver.lr], []
    solver.add_callback(lambda: order.append("start"), lambda: order.append("ready"))
    solver.step(1)
    solver.step(2)
    rates.append(solver.lr)
    keep("solver callbacks", order)
    solver.snapshot()
    keep("solver files", sorted(name for name in os.listdir(FOLDER) if name.startswith("shot")))
    solver.test_nets[0].share_with(solver.net)
    keep("solver test net", solver.test_nets[0].forward()["y"])
    loose = caffe.Net(text_file(NET), caffe.TEST)
    solver.share_weights(loose)
    keep("solver share_weights", loose.params["conv"][0].data)
    solver.net.clear_param_diffs()
    solver.net.params["conv"][0].diff[...] = 1
    solver.apply_update()
    keep("solver apply_update", loose.params["conv"][0].data)
    keep("solver apply_update iter", solver.iter)
    solver.solve()
    keep("solver solved", solver.net.params["conv"][0].data)
    keep("solver end", [solver.iter, *rates, solver.lr])
    state = os.path.join(FOLDER, "shot_iter_3.solverstate")
    solver.restore(state)
    keep("solver restored", solver.net.params["conv"][0].data)
    keep("solver restored iter", solver.iter)
    second = caffe.SGDSolver(path)
    fill(second.net)
    second.solve(state)
    keep("solver solve(state)", second.net.params["conv"][0].data)
    # A training by hand, with a rule to which the number of the iteration matters.
    path = text_file(SOLVER % (os.path.join(FOLDER, "hand"), text_file(NET)))
    third = caffe.AdamSolver(path)
    fill(third.net)
    draw_parameters(third.net)
    for _ in range(4):
        third.net.clear_param_diffs()
        third.net.forward()
        third.net.backward()
        third.apply_update()
    keep("solver by hand", third.net.params["conv"][0].data)


def kind(thing):
    """Return what a thing is: Boost's vectors stand for lists, its functions for Python's."""
    if isinstance(thing, type):
        return "class"
    if callable(thing):
        return "function"
    name = type(thing).__name__
    if name in ("list", "tuple") or name.endswith("Vec"):
        return "list of " + ", ".join(sorted({type(item).__name__ for item in thing}))
    return name


def kinds():
    """Enter the kind of every member, and of what every function returns."""
    net = fill(caffe.Net(text_file(NET), caffe.TRAIN))
    solver = caffe.SGDSolver(text_file(SOLVER % (os.path.join(FOLDER, "kinds"), text_file(NET))))
    spec = caffe.NetSpec()
    spec.x = L.DummyData(shape=dict(dim=[1, 2]))
    timer = caffe.Timer()
    picture = np.zeros((3, 4, 5), np.uint8)
    for key, thing in {
        "caffe": caffe, "net": net, "blob": net.blobs["x"], "solver": solver, "timer": timer,
        "top": spec.x, "function": spec.x.fn, "parameters": net.params["conv"],
        "layer": net.layers[2], "Transformer": caffe.io.Transformer({"x": (1, 3, 5, 4)}),
    }.items():  # fmt: skip
        for name in dir(thing):
            # The nets' layers are of one class in genuine Caffe.
            if name[:2] != "__" and name not in ("layers", "NCCL"):
                keep(f"kind {key}.{name}", kind(getattr(thing, name)))
    weights = os.path.join(FOLDER, "kinds.caffemodel")
    for key, result in {
        "has_nccl": caffe.has_nccl(), "layer_type_list": caffe.layer_type_list(),
        "solver_count": caffe.solver_count(), "solver_rank": caffe.solver_rank(),
        "TRAIN": caffe.TRAIN, "forward": net.forward(), "output": net.forward()["loss"],
        "backward": net.backward(), "input diff": net.backward()["x"],
        "_forward": net._forward(0, 2), "_backward": net._backward(2, 0),
        "reshape": net.reshape(), "clear_param_diffs": net.clear_param_diffs(),
        "_top_ids": net._top_ids(0), "_bottom_ids": net._bottom_ids(1),
        "weight": net.blob_loss_weights["loss"], "name of top": net.top_names["x"],
        "params": net.params["conv"], "layer_dict": net.layer_dict,
        "save": net.save(weights), "copy_from": net.copy_from(weights),
        "save_hdf5": net.save_hdf5(weights + ".h5"), "load_hdf5": net.load_hdf5(weights + ".h5"),
        "share_with": net.share_with(net), "Blob.reshape": net.blobs["x"].reshape(2, 3, 5, 4),
        "after_forward": net.after_forward(lambda layer: None),
        "before_forward": net.before_forward(lambda layer: None),
        "after_backward": net.after_backward(lambda layer: None),
        "before_backward": net.before_backward(lambda layer: None),
        "add_callback": solver.add_callback(lambda: None, lambda: None),
        "step": solver.step(1), "apply_update": solver.apply_update(), "lr": solver.lr,
        "snapshot": solver.snapshot(), "solve": solver.solve(), "iter": solver.iter,
        "restore": solver.restore(os.path.join(FOLDER, "kinds_iter_2.solverstate")),
        "share_weights": solver.share_weights(net), "start": timer.start(), "stop": timer.stop(),
        "ms": timer.ms, "P": P.Pooling.MAX, "to_proto": spec.to_proto(), "tops": spec.tops,
        "L": L.ReLU(spec.x), "L of two": L.Slice(spec.x, ntop=2), "L of none": L.Silence(ntop=0),
        "fn.params": spec.x.fn.params, "param_name_dict": caffe.net_spec.param_name_dict(),
        "array_to_datum": caffe.io.array_to_datum(picture),
        "datum_to_array": caffe.io.datum_to_array(caffe.io.array_to_datum(picture)),
        "array_to_blobproto": caffe.io.array_to_blobproto(picture),
        "vector": caffe.io.arraylist_to_blobprotovector_str([picture]),
        "oversample": caffe.io.oversample([picture], (2, 2)),
        "resize_image": caffe.io.resize_image(picture, (2, 2)),
        "add_blob": net.params["conv"].add_blob(1), "append": net.params["conv"].append,
    }.items():  # fmt: skip
        keep(f"kind {key}", kind(result))
        if isinstance(result, np.ndarray):
            keep(f"kind {key} type", str(result.dtype))


def main():
    """Run all parts."""
    for part in (module, making, nets, blobs, layers, solvers, kinds):
        part()
    give(RESULTS)


if __name__ == "__main__":
    main()
