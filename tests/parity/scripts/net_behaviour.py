"""Use a net as scripts do, part by part; see tests/parity/test_reshapes.py."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import draw_parameters, give, gradients, parameters, text_file

RESULTS = {}

CHAIN = """
force_backward: %s
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "left" type: "Pooling" bottom: "a" top: "b" pooling_param { kernel_size: 2 } }
layer { name: "right" type: "InnerProduct" bottom: "a" top: "zz"
  inner_product_param { num_output: 3 } }
layer { name: "top" type: "Sigmoid" bottom: "b" top: "m" %s }
layer { name: "sum" type: "Reduction" bottom: "m" top: "c" loss_weight: 0.5 }
layer { name: "square" type: "Reduction" bottom: "zz" top: "d" loss_weight: 2
  reduction_param { operation: SUMSQ } }
"""


def make(text, phase=caffe.TRAIN):
    """Make a net with drawn parameters and drawn inputs."""
    net = caffe.Net(text_file(text), phase)
    draw_parameters(net)
    fill(net)
    return net


def fill(net, seed=0):
    """Draw the inputs."""
    random = np.random.RandomState(seed)
    for name in net.inputs:
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].data.shape)


def keep(key, value):
    """Enter a result."""
    RESULTS[key] = np.array(value)


def keep_net(key, net):
    """Enter all that a net holds."""
    for name, blob in net.blobs.items():
        keep(f"{key} data {name}", blob.data)
        keep(f"{key} diff {name}", blob.diff)
    RESULTS.update({f"{key} {name}": value for name, value in gradients(net).items()})


def names():
    """Show names, wiring, loss weights, and which way a chain is run back."""
    for force in ("true", "false"):
        net = make(CHAIN % (force, ""))
        key = f"names {force}"
        keep(f"{key} layers", list(net._layer_names))
        keep(f"{key} types", [layer.type for layer in net.layers])
        keep(f"{key} outputs", list(net.outputs))
        keep(f"{key} inputs", list(net.inputs))
        for name in net._layer_names:
            keep(f"{key} tops {name}", list(net.top_names[name]))
            keep(f"{key} bottoms {name}", list(net.bottom_names[name]))
        keep(f"{key} weights", [f"{k} {v:g}" for k, v in net.blob_loss_weights.items()])
        net.forward()
        net.backward()
        keep_net(key, net)


def parts():
    """Run from and to layers."""
    net = make(CHAIN % ("true", ""))
    keep("parts all", sorted(net.forward()))
    keep("parts blobs", sorted(net.forward(blobs=["a", "m"])))
    net.blobs["a"].data[...] *= 2
    found = net.forward(start="left", end="top")
    keep("parts to top", sorted(found))
    keep("parts m", found["m"])
    keep("parts end", sorted(net.forward(end="relu")))
    keep("parts start", sorted(net.forward(start="sum")))
    keep("parts c", net.blobs["c"].data)
    net.forward()
    net.clear_param_diffs()
    keep("parts back", sorted(net.backward()))
    keep("parts back diffs", sorted(net.backward(diffs=["a", "b"])))
    keep_net("parts twice", net)
    net.clear_param_diffs()
    net.blobs["b"].diff[...] = 1
    keep("parts back from", sorted(net.backward(start="left", end="relu")))
    keep_net("parts left", net)
    net.clear_param_diffs()
    keep("parts back to", sorted(net.backward(end="left")))
    keep("parts kwargs", net.forward(x=np.ones((2, 3, 6, 5)))["c"])


def callbacks():
    """Note the order of callbacks, forward and backward, whole and in part."""
    net = make(CHAIN % ("false", ""))
    seen = []
    for kind in ("before_forward", "after_forward", "before_backward", "after_backward"):
        for number in (1, 2):
            getattr(net, kind)(
                lambda index, kind=kind, n=number: seen.append(f"{kind} {n} {index}")
            )
    net.forward()
    net.backward()
    net.forward(start="left", end="right")
    net.backward(start="right", end="left")
    keep("callbacks", seen)


def sharing():
    """Share parameters between nets, and within one."""
    first, second = make(CHAIN % ("true", "")), make(CHAIN % ("true", ""))
    second.params["conv"][0].data[...] = 0
    first.share_with(second)
    keep("sharing taken", first.params["conv"][0].data)
    second.params["conv"][0].data[...] = 0.25
    first.params["right"][1].data[...] = 3
    for key, net in (("first", first), ("second", second)):
        net.forward()
        net.clear_param_diffs()
        net.backward()
        keep_net(f"sharing {key}", net)
        RESULTS.update({f"sharing {key} {k}": v for k, v in parameters(net).items()})

    text = "".join(
        f'''layer {{ name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}"
        param {{ name: "w" {extra} }} param {{ name: "b_{top}" }}
        inner_product_param {{ num_output: 4 }} }}'''
        for bottom, top, extra in (
            ("x", "p", ""),
            ("p", "q", "share_mode: STRICT lr_mult: 0.5 decay_mult: 0"),
            ("q", "r", "share_mode: PERMISSIVE"),
        )
    )
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 3 dim: 4 }} }} }} {text}
    layer {{ name: "loss" type: "Reduction" bottom: "r" top: "loss" loss_weight: 1
      reduction_param {{ operation: SUMSQ }} }}"""
    net = make("force_backward: true " + text)
    net.forward()
    net.clear_param_diffs()
    net.backward()
    keep_net("sharing names", net)
    options = 'base_lr: 0.001 lr_policy: "fixed" weight_decay: 0.1 momentum: 0.9'
    solver = caffe.get_solver(text_file(f"{options} train_net_param {{ {text} }}"))
    draw_parameters(solver.net)
    fill(solver.net)
    solver.step(3)
    RESULTS.update({f"sharing trained {k}": v for k, v in parameters(solver.net).items()})


def permissive():
    """Share a parameter between layers whose shapes differ, but not the number of values."""
    net = make(
        """
    force_backward: true
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 dim: 1 dim: 1 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" }
      inner_product_param { num_output: 6 bias_term: false } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "z"
      param { name: "w" share_mode: PERMISSIVE }
      convolution_param { num_output: 6 kernel_size: 1 bias_term: false } }
    layer { name: "l1" type: "Reduction" bottom: "y" top: "l1" loss_weight: 1
      reduction_param { operation: SUMSQ } }
    layer { name: "l2" type: "Reduction" bottom: "z" top: "l2" loss_weight: 1
      reduction_param { operation: ASUM } }
    """
    )
    net.forward()
    net.clear_param_diffs()
    net.backward()
    keep_net("permissive", net)
    RESULTS.update({f"permissive {k}": v for k, v in parameters(net).items()})


PROPAGATE = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
layer { name: "a" type: "Bias" bottom: "x" top: "a" }
layer { name: "layer" type: "%s" bottom: "a" top: "b" propagate_down: %s %s }
layer { name: "other" type: "TanH" bottom: "a" top: "c" }
layer { name: "bent" type: "Sigmoid" bottom: "b" top: "bent" }
layer { name: "lb" type: "Reduction" bottom: "bent" top: "lb" loss_weight: 1
  reduction_param { operation: SUMSQ } }
layer { name: "lc" type: "Reduction" bottom: "c" top: "lc" loss_weight: 1
  reduction_param { operation: SUMSQ } }
"""
OPTIONS = {
    "Convolution": "convolution_param { num_output: 2 kernel_size: 2 }",
    "Deconvolution": "convolution_param { num_output: 2 kernel_size: 2 }",
    "Im2col": "convolution_param { kernel_size: 2 }",
    "Pooling": "pooling_param { kernel_size: 2 }",
    "InnerProduct": "inner_product_param { num_output: 2 }",
    "LRN": "lrn_param { local_size: 3 alpha: 1 }",
    "Reshape": "reshape_param { shape { dim: 0 dim: -1 } }",
    "Tile": "tile_param { tiles: 2 }",
    "Log": "log_param { shift: 9 }",
    "Reduction": "reduction_param { axis: 1 }",
}
KINDS = [
    *("BatchNorm", "LRN", "MVN", "Softmax", "Im2col", "ReLU", "TanH", "Sigmoid", "Exp", "Log"),
    *("Power", "BNLL", "ELU", "AbsVal", "Pooling", "Flatten", "Reshape", "Split", "Tile", "Swish"),
    *("Clip", "PReLU", "Bias", "InnerProduct", "Convolution", "Deconvolution", "Reduction"),
]


def propagate_down():
    """Forbid a layer of each type to propagate down, where a gradient is needed; and ask for it."""
    for kind in KINDS:
        for down in ("false", "true"):
            net = make(PROPAGATE % (kind, down, OPTIONS.get(kind, "")))
            net.forward()
            net.clear_param_diffs()
            net.backward()
            keep_net(f"propagate {kind} {down}", net)
    within = "lrn_param { local_size: 3 alpha: 1 norm_region: WITHIN_CHANNEL }"
    net = make(PROPAGATE % ("LRN", "false", within))
    net.forward()
    net.backward()
    keep_net("propagate LRN within", net)
    # The first layers: nothing below needs a gradient.
    for kind in ("BatchNorm", "Convolution", "Scale", "PReLU", "InnerProduct"):
        text = f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 3 dim: 2 }} }} }}
        layer {{ name: "ab" type: "Reshape" bottom: "x" top: "x4"
          reshape_param {{ shape {{ dim: 0 dim: 0 dim: 1 dim: 1 }} }} }}
        layer {{ name: "a" type: "{kind}" bottom: "x4" top: "a"
          {OPTIONS.get(kind, "").replace("kernel_size: 2", "kernel_size: 1")} }}
        layer {{ name: "bent" type: "Sigmoid" bottom: "a" top: "bent" }}
        layer {{ name: "l" type: "Reduction" bottom: "bent" top: "l" loss_weight: 1
          reduction_param {{ operation: SUMSQ }} }}"""
        net = make(text)
        net.forward()
        net.clear_param_diffs()
        net.backward()
        keep(f"first {kind} a", net.blobs["a"].diff)
        if kind != "Scale":
            # Genuine Caffe's Scale computes in its bottom's diff.
            keep(f"first {kind} x4", net.blobs["x4"].diff)


def live_arrays():
    """Hold arrays over passes and reshapes."""
    net = make(CHAIN % ("true", ""))
    data, weights = net.blobs["x"].data, net.params["conv"][0].data
    output, gradient = net.forward()["c"], net.params["conv"][0].diff
    keep("live before", output)
    data[...] = 0.5
    weights *= 2
    net.forward()
    keep("live output", output)
    net.clear_param_diffs()
    net.backward()
    keep("live gradient", gradient)
    net.blobs["x"].reshape(1, 3, 6, 5)
    net.reshape()
    keep("live smaller", net.blobs["x"].data)
    net.blobs["x"].data[...] = 0.25
    net.forward()
    keep("live weights", weights)
    keep("live gradient again", gradient)
    net.blobs["x"].reshape(2, 3, 6, 5)
    net.reshape()
    keep("live back", net.blobs["x"].data)
    net.forward()
    keep("live back m", net.blobs["m"].data)
    data[...] = -0.5
    net.forward()
    keep("live held m", net.blobs["m"].data)


def main():
    """Run all parts."""
    for part in (names, parts, callbacks, sharing, permissive, propagate_down, live_arrays):
        part()
    give(RESULTS)


if __name__ == "__main__":
    main()
