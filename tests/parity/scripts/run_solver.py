"""Pass through a solver's net once, then take some steps; see tests/parity/test_solver_steps.py."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import draw_parameters, give, given, gradients, parameters, text_file


def main():
    """Give the blobs and gradients of the first pass, then losses and what the steps changed."""
    arrays = given()
    solver = caffe.get_solver(text_file(str(arrays["solver"])))
    net = solver.net
    draw_parameters(net)
    before = parameters(net)
    results = {}
    for step in range(int(arrays["steps"])):
        for blob in ("data", "label", "weight"):
            net.blobs[blob].data[...] = arrays[blob][step]
        if step == 0:
            net.clear_param_diffs()
            net.forward()
            net.backward()
            results.update(gradients(net))
            results.update({f"data {name}": np.array(blob.data) for name, blob in net.blobs.items()})
        solver.step(1)
        results[f"loss {step}"] = np.array(net.blobs["loss"].data)
    for name, value in parameters(net).items():
        # The parameters themselves would hide an error behind their start values.
        results["change of " + name] = value - before[name]
    give(results)


if __name__ == "__main__":
    main()
