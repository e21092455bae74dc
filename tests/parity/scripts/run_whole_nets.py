"""Run, train and save whole nets; read what the other engine saved.

Arguments after the two paths: the folder of the files, the name that the engine gives its own files
("": it makes none), the name of those that it reads ("": none), and after how many steps of a
solver there is a snapshot. What is given: NAME|net_text, NAME|solver_text, NAME|force_backward,
NAME|hdf5, NAME|keeps (names of layers) and NAME|input|BLOB, with one batch a solver step.
"""

from __future__ import annotations

import os
import sys

import numpy as np

import caffe
from exchange import draw_parameters, give, given, gradients, parameters, text_file

FOLDER, OWN, OTHER = sys.argv[3:6]
STEPS_BEFORE_SNAPSHOT = int(sys.argv[6])


class Whole:
    """One net with its batches."""

    def __init__(self, name):
        self.name = name
        self.net_text = self.solver_text = ""
        self.force_backward = self.hdf5 = False
        self.keeps = []
        self.inputs = {}

    def path(self, engine, suffix):
        """Return the path of a file that an engine makes of this net."""
        return os.path.join(FOLDER, f"{engine}_{self.name}{suffix}")

    def draw(self, net):
        """Draw the parameters, but those of layers that keep their fillers' values."""
        kept = {(layer, i): b.data.copy() for layer in self.keeps
                for i, b in enumerate(net.params[layer])}  # fmt: skip
        draw_parameters(net)
        for (layer, index), values in kept.items():
            net.params[layer][index].data[...] = values

    def feed(self, net, batch):
        """Put one batch into the net's inputs."""
        for blob, values in self.inputs.items():
            net.blobs[blob].data[...] = values[batch]

    def net(self, phase, weights=None):
        """Make the net, with all the gradients that can be had."""
        force = "force_backward: true\n" if self.force_backward else ""
        path = text_file(force + self.net_text)
        return caffe.Net(path, phase, weights=weights) if weights else caffe.Net(path, phase)

    def solver(self, engine):
        """Make the solver, whose files get the name of `engine`."""
        text = self.solver_text.replace("PREFIX", self.path(engine, ""))
        return caffe.get_solver(text_file(text))

    def state(self, engine, iteration):
        """Return the path of a solver state."""
        path = self.path(engine, f"_iter_{iteration}.solverstate")
        return path if os.path.exists(path) else path + ".h5"

    def steps(self, solver, first, last):
        """Take steps, each on the batch of its number, and return what came of them."""
        results = {}
        for step in range(first, last):
            self.feed(solver.net, step)
            solver.step(1)
            for name in solver.net.outputs:
                results[f"step {step} {name}"] = np.array(solver.net.blobs[name].data)
        results.update({"trained " + key: value for key, value in parameters(solver.net).items()})
        return results


def blobs(net):
    """Return the data of all blobs."""
    return {f"data {name}": np.array(blob.data) for name, blob in net.blobs.items()}


def run(whole):
    """Pass through the net in both directions, save it, and train it; snapshot on the way."""
    net = whole.net(caffe.TRAIN)
    whole.draw(net)
    results = {"start " + key: value for key, value in parameters(net).items()}
    whole.feed(net, 0)
    net.clear_param_diffs()
    net.forward()
    results.update(blobs(net))
    net.backward()
    results.update(gradients(net))
    results.update({f"diff {name}": np.array(blob.diff) for name, blob in net.blobs.items()})
    # Statistics are parameters that a pass changes.
    results.update(parameters(net))
    net.save(whole.path(OWN, ".caffemodel"))
    if whole.hdf5:
        net.save_hdf5(whole.path(OWN, ".h5"))
    own = tested(whole, OWN, ".caffemodel")
    results.update({f"test {key}": value for key, value in own.items()})

    solver = whole.solver(OWN)
    whole.draw(solver.net)
    count = len(next(iter(whole.inputs.values())))
    results.update(whole.steps(solver, 0, STEPS_BEFORE_SNAPSHOT))
    solver.snapshot()
    results.update({f"end {k}": v for k, v in
                    whole.steps(solver, STEPS_BEFORE_SNAPSHOT, count).items()})  # fmt: skip
    return results


def tested(whole, engine, suffix):
    """Read a file of an engine in phase TEST and pass through the net."""
    net = whole.net(caffe.TEST, whole.path(engine, suffix))
    whole.feed(net, 1)
    net.forward()
    return {**blobs(net), **parameters(net)}


def read(whole):
    """Read the other engine's files: pass through the net, go on training."""
    results = {}
    for suffix in (".caffemodel", ".h5") if whole.hdf5 else (".caffemodel",):
        found = tested(whole, OTHER, suffix)
        results.update({f"read {suffix} {key}": value for key, value in found.items()})
    solver = whole.solver(OWN + "_resumed")
    solver.restore(whole.state(OTHER, STEPS_BEFORE_SNAPSHOT))
    count = len(next(iter(whole.inputs.values())))
    assert solver.iter == STEPS_BEFORE_SNAPSHOT
    results.update({f"resumed {k}": v for k, v in
                    whole.steps(solver, STEPS_BEFORE_SNAPSHOT, count).items()})  # fmt: skip
    return results


def main():
    """Run all nets, or read all files."""
    wholes = {}
    for key, value in given().items():
        name, kind = key.split("|")[:2]
        whole = wholes.setdefault(name, Whole(name))
        if kind == "input":
            whole.inputs[key.split("|", 2)[2]] = value
        elif kind == "keeps":
            whole.keeps = value.tolist()
        else:
            setattr(whole, kind, str(value) if kind.endswith("_text") else bool(value))
    results = {}
    for name, whole in wholes.items():
        of_net = run(whole) if OWN else {}
        of_net.update(read(whole) if OTHER else {})
        results.update({f"{name}|{key}": value for key, value in of_net.items()})
    give(results)


if __name__ == "__main__":
    main()
