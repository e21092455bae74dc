"""Train by many solvers; go on from what the other engine saved.

Arguments after the two paths: the folder of the files, the name that the engine gives its own files
("": it makes none), the name of those that it reads ("": none), and after how many steps there is a
snapshot. What is given: NAME|solver, the prototxt, and batches of the blobs "data" and "target".
"""

from __future__ import annotations

import os
import sys

import numpy as np

import caffe
from exchange import draw_parameters, give, given, parameters, text_file

FOLDER, OWN, OTHER = sys.argv[3:6]
HALF = int(sys.argv[6])


def prefix(engine, name):
    """Return how the files of one solver begin."""
    return os.path.join(FOLDER, f"{engine}_{name}")


def make(text, engine, name):
    """Make a solver."""
    return caffe.get_solver(text_file(text.replace("PREFIX", prefix(engine, name))))


def train(solver, batches, last):
    """Take steps, and return rates, losses, and in the end parameters."""
    results, rates, losses = {}, [], []
    while solver.iter < last:
        for blob, values in batches.items():
            solver.net.blobs[blob].data[...] = values[solver.iter]
        rates.append(solver.lr)
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    results.update({f"{key} at {last}": value for key, value in parameters(solver.net).items()})
    results[f"loss at {last}"] = np.array(losses)
    results[f"rate at {last}"] = np.array(rates)
    return results


def main():
    """Run all solvers."""
    arrays = given()
    batches = {blob: arrays.pop(blob) for blob in ("data", "target")}
    count = len(batches["data"])
    results = {}
    for key, value in arrays.items():
        name, text = key.split("|")[0], str(value)
        if OWN:
            solver = make(text, OWN, name)
            draw_parameters(solver.net)
            found = train(solver, batches, HALF)
            solver.snapshot()
            found.update(train(solver, batches, count))
            solver.snapshot()
            results.update({f"{name}|{what}": values for what, values in found.items()})
        if OTHER:
            solver = make(text, OWN + "_resumed", name)
            state = prefix(OTHER, name) + f"_iter_{HALF}.solverstate"
            solver.restore(state if os.path.exists(state) else state + ".h5")
            found = train(solver, batches, count)
            results.update({f"{name}|resumed {what}": values for what, values in found.items()})
    give(results)


if __name__ == "__main__":
    main()
