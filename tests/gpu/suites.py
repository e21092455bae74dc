"""What runs on a device: the cases, nets and solvers of tests/parity, in parts of seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gpu import networks
from tests.gpu.compare import Results
from tests.gpu.engine import Here
from tests.parity import (
    test_every_layer,
    test_layers_of_unet,
    test_neighbours,
    test_reshapes,
    test_solvers,
    test_whole_nets,
)
from tests.parity.harness import SCRIPTS, run_cases
from tests.parity.whole_nets import NETS
from tests.parity.whole_nets.random_net import RandomNet


@dataclass(frozen=True)
class Suite:
    """Cases that are run alike.

    Attributes
    ----------
    parts : sequence of str
        Names of parts that are run on their own.
    run : callable
        Runs a part on an engine and returns the arrays of its cases.
    repeating : collection of str
        Parts that run the same passes often enough for graphs of them.
    rounded : collection of str, optional
        Parts with layers that compute in the precision, all by default. The others compute in
        float32 whatever the precision is, and are held to that.
    """

    parts: Sequence[str]
    run: Callable[[Here, str], Results]
    repeating: Collection[str] = ()
    rounded: Collection[str] | None = None

    def modes(self, part: str) -> tuple[str, ...]:
        """Return the precisions and the like that a part is run in."""
        modes = ("fp32", "tf32", "bf16")
        return (*modes, "fp32 graphs") if part in self.repeating else modes

    def held(self, part: str, mode: str) -> str:
        """Return the precision whose tolerance a part is held to."""
        rounds = self.rounded is None or part in self.rounded
        return mode.split()[0] if rounds else "fp32"


def _layers(engine: Here, kind: str) -> Results:
    return run_cases(engine, engine.cases(test_every_layer.cases_of(kind)))


def _neighbours(engine: Here, kind: str) -> Results:
    return run_cases(engine, engine.cases(test_neighbours.cases_of(kind)))


def _layers_of_unet(engine: Here, part: str) -> Results:
    chosen = {
        name: case for name, case in test_layers_of_unet.CASES.items() if name.split()[0] == part
    }
    return run_cases(engine, engine.cases(chosen))


def _random_nets(engine: Here, part: str) -> Results:
    first, last = map(int, part.split("-"))
    cases = {f"net {number}": RandomNet(number).case() for number in range(first, last + 1)}
    return run_cases(engine, engine.cases(cases))


def _reshapes(engine: Here, name: str) -> Results:
    names = [case for case in test_reshapes.CASES if case.split()[0] == name]
    return test_reshapes.run(engine, names=names)


def _behaviour(engine: Here, part: str) -> Results:
    found = engine.run(SCRIPTS / "net_behaviour.py")
    # An array that somebody holds follows the next pass on the CPU alone.
    return {part: {name: array for name, array in found.items() if not name.startswith("live ")}}


def _scripts(engine: Here, name: str) -> Results:
    if name == "a Python layer":
        return {name: (engine.run(test_layers_of_unet.PYTHON_LAYER))}
    return {name: (engine.run(Path(__file__).parent / "scripts" / f"{name}.py"))}


def _with_changes(results: Results) -> Results:
    """Add what training has changed: hardly to be seen in what it led to."""
    for arrays in results.values():
        for name in [name for name in arrays if name.startswith("start ")]:
            for end in ("end trained ", "resumed trained "):
                now = name.replace("start ", end)
                if now in arrays:
                    arrays[f"change of {now}"] = arrays[now] - arrays[name]
    return results


def _whole_nets(engine: Here, name: str) -> Results:
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        return _with_changes(test_whole_nets.run(engine, Path(folder), "own", "", [name]))


def _whole_nets_crossed(engine: Here, name: str) -> Results:
    """Read on the device what the CPU has written, and the other way."""
    results: Results = {}
    cpu = Here.on("cpu").nudged(engine.nudge, engine.draw)
    for writer, reader in ((cpu, engine), (engine, cpu)):
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            test_whole_nets.run(writer, Path(folder), "own", "", [name])
            found = test_whole_nets.run(reader, Path(folder), "", "own", [name])
        here = "read here" if reader is engine else "read on the CPU"
        results.update({f"{case}, {here}": arrays for case, arrays in found.items()})
    return results


def _solvers_of(rule: str) -> list[str]:
    return [name for name in test_solvers.SOLVERS if name.split("_")[0] == rule]


def _solvers(engine: Here, rule: str) -> Results:
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        results = test_solvers.run(engine, Path(folder), "own", "", _solvers_of(rule))
        for name, arrays in results.items():
            for iteration in (test_solvers.HALF, test_solvers.STEPS):
                state = test_solvers.state(Path(folder), "own", name, iteration)
                for number, values in state["history"].items():
                    arrays[f"state at {iteration} {number}"] = values
    return results


def _solvers_crossed(engine: Here, rule: str) -> Results:
    """Go on from the device's snapshots on the CPU, and the other way."""
    results: Results = {}
    cpu = Here.on("cpu").nudged(engine.nudge, engine.draw)
    for writer, reader in ((cpu, engine), (engine, cpu)):
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            test_solvers.run(writer, Path(folder), "own", "", _solvers_of(rule))
            found = test_solvers.run(reader, Path(folder), "", "own", _solvers_of(rule))
        here = "read here" if reader is engine else "read on the CPU"
        results.update({f"{case}, {here}": arrays for case, arrays in found.items()})
    return results


# TF32 is for all products of matrices.
_ROUNDED = {"Convolution", "Deconvolution", "InnerProduct", "LSTM", "RNN"}
_KINDS = sorted(test_every_layer.CASES)
_RULES = sorted({name.split("_")[0] for name in test_solvers.SOLVERS})

# What takes longest comes first: processes that share the tests then end together.
SUITES = {
    "networks": Suite(networks.PARTS, networks.run, networks.REPEATING),
    "layers": Suite(_KINDS, _layers, rounded=_ROUNDED),
    "layers between others": Suite(test_neighbours.KINDS, _neighbours, rounded=_ROUNDED),
    "layers of the U-Net": Suite(
        sorted({name.split()[0] for name in test_layers_of_unet.CASES}),
        _layers_of_unet,
        rounded={"convolution", "deconvolution", "in"},
    ),
    "nets in new shapes": Suite(
        sorted({name.split()[0] for name in test_reshapes.CASES}),
        _reshapes,
        rounded={*_ROUNDED, "in", "several", "losses"},
    ),
    "random nets": Suite(["0-9", "10-19", "20-29", "30-39"], _random_nets),
    "nets in use": Suite(["all"], _behaviour),
    "scripts": Suite(
        ["again", "surgery", "segment", "data", "fillers", "a Python layer"],
        _scripts,
        ["again", "surgery", "segment", "data"],
    ),
    "whole nets": Suite(list(NETS), _whole_nets, list(NETS)),
    "whole nets from files": Suite(list(NETS), _whole_nets_crossed),
    "solvers": Suite(_RULES, _solvers, _RULES),
    "solvers resumed": Suite(_RULES, _solvers_crossed),
}
