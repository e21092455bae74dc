"""Pass through a solver's net once, then take some steps; see tests/parity/test_solver_steps.py."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import draw_parameters, give, given, gradients, parameters, text_file

PASSES = 4


def main():
    """Give blobs of one pass, gradients of four, losses of all steps and what they changed."""
    arrays = given()
    solver = caffe.get_solver(text_file(str(arrays["solver"])))
    net = solver.net
    draw_parameters(net)
    before = parameters(net)
    results = {}
    for batch in range(PASSES):
        feed(net, arrays, batch)
        net.clear_param_diffs()
        net.forward()
        if batch == 0:
            results.update({f"data {name}": np.array(b.data) for name, b in net.blobs.items()})
        net.backward()
        for name, gradient in gradients(net).items():
            results[f"batch {batch} {name}"] = gradient
    for step in range(int(arrays["steps"])):
        feed(net, arrays, step)
        solver.step(1)
        results[f"loss {step}"] = np.array(net.blobs["loss"].data)
    for name, value in parameters(net).items():
        results[f"change of {name}"] = value - before[name]
        results[f"largest of {name}"] = np.abs(value).max()
    give(results)


def feed(net, arrays, index):
    """Put one batch into the net's inputs."""
    for blob in ("data", "label", "weight"):
        net.blobs[blob].data[...] = arrays[blob][index]


if __name__ == "__main__":
    main()
