"""Run nets again and again, their inputs in other shapes each time.

What is given: NAME|net, NAME|phase, NAME|backward, and NAME|input|PASS|BLOB. Before the passes of
even numbers net.reshape() is called; before the others forward() finds the new shapes by itself.
With a third argument "fresh" every pass has a net of its own, which knows no other shape.
"""

from __future__ import annotations

import re
import sys
import zlib

import numpy as np

import caffe
from exchange import draw_parameters, give, given, gradients, text_file

FRESH = sys.argv[3:] == ["fresh"]


def make(text, inputs, phase):
    """Make a net whose Input layers have the shapes of `inputs`."""
    for blob, values in inputs.items():
        dims = " ".join(f"dim: {size}" for size in values.shape)
        text = re.sub(f"SHAPE_OF_{blob}\\b", f"shape {{ {dims} }}", text)
    net = caffe.Net(text_file(text), phase)
    draw_parameters(net)
    return net


def run(net, inputs, reshape, backward):
    """Return what one pass in both directions gives."""
    for blob, values in inputs.items():
        net.blobs[blob].reshape(*values.shape)
        net.blobs[blob].data[...] = values
    if reshape:
        net.reshape()
        results = {f"shape {name}": np.array(blob.shape) for name, blob in net.blobs.items()}
    else:
        results = {}
    loss = net._forward(0, len(net.layers) - 1)
    results["loss"] = np.array(np.nan if loss is None else loss)
    results.update({f"data {name}": np.array(blob.data) for name, blob in net.blobs.items()})
    if backward:
        net.clear_param_diffs()
        for name in net.outputs:
            if not net.blob_loss_weights[name]:
                shape = net.blobs[name].data.shape
                random = np.random.RandomState(zlib.crc32(f"{name} {shape}".encode()))
                net.blobs[name].diff[...] = random.standard_normal(shape)
        net.backward()
        results.update(gradients(net))
        results.update({f"diff {name}": np.array(blob.diff) for name, blob in net.blobs.items()})
    return results


def main():
    """Run all nets."""
    nets = {}
    for key, value in given().items():
        name, kind = key.split("|")[:2]
        case = nets.setdefault(name, {"passes": {}})
        if kind == "input":
            number, blob = key.split("|")[2:]
            case["passes"].setdefault(int(number), {})[blob] = value
        else:
            case[kind] = value
    results = {}
    for name, case in nets.items():
        phase, net = int(case["phase"]), None
        for number, inputs in sorted(case["passes"].items()):
            if net is None or FRESH:
                net = make(str(case["net"]), inputs, phase)
            found = run(net, inputs, number % 2 == 0, bool(case["backward"]))
            results.update({f"{name}|{number} {what}": value for what, value in found.items()})
    give(results)


if __name__ == "__main__":
    main()
