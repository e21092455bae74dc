"""This engine in this process, on a device and in a precision: what the parity scripts run on."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import caffe
from tests.parity.harness import REPOSITORY, SCRIPTS, Arrays, Case, Engine

# Scripts start from it, so that fillers draw the same on every device.
SEED = 2015
# Types that compute in the precision, and give what they compute rounded to it.
PRODUCTS = ("Convolution", "Deconvolution", "InnerProduct")


@contextlib.contextmanager
def computing(device: str, precision: str = "fp32", graphs: bool = False) -> Iterator[None]:
    """Let the engine compute on a device and in a precision; afterwards on the CPU in fp32.

    Parameters
    ----------
    device : {"cpu", "gpu"}
    precision : {"fp32", "tf32", "bf16"}
    graphs : bool
        Whether passes are repeated as CUDA graphs.
    """
    try:
        caffe.set_graphs(graphs)
        if device == "gpu":
            caffe.set_mode_gpu()
        caffe.set_precision(precision)
        yield
    finally:
        caffe.set_precision("fp32")
        caffe.set_mode_cpu()
        caffe.set_graphs(False)


@dataclass(frozen=True)
class Here(Engine):
    """An engine whose scripts run in this process: starting CUDA takes seconds, once.

    Attributes
    ----------
    name : str
    command : tuple of str
        Not used.
    device : {"cpu", "gpu"}
    precision : {"fp32", "tf32", "bf16"}
    graphs : bool
        Whether passes are repeated as CUDA graphs.
    nudge : float
        By what fraction, at most, inputs, parameters and what layers of products give are changed.
    draw : int
        Which random changes these are.
    only : frozenset of str
        The cases to run; all if it is empty.
    """

    device: str = "cpu"
    precision: str = "fp32"
    graphs: bool = False
    nudge: float = 0.0
    draw: int = 0
    only: frozenset[str] = frozenset()

    @classmethod
    def on(cls, device: str, mode: str = "fp32") -> Here:
        """Return the engine on a device, in a precision, with graphs if the mode says so."""
        precision, *graphs = mode.split()
        return cls(f"{device} {mode}", (), device, precision, bool(graphs))

    def nudged(self, nudge: float, draw: int) -> Here:
        """Return the engine that is given values a little off."""
        return replace(self, nudge=nudge, draw=draw)

    def cases(self, cases: Mapping[str, Case]) -> Mapping[str, Case]:
        """Return those of the cases that are to be run."""
        return {name: case for name, case in cases.items() if name in (self.only or cases)}

    def run(
        self,
        script: str | Path,
        arrays: Mapping[str, np.ndarray | str | float] | None = None,
        *arguments: str,
        cwd: Path = REPOSITORY,
        **of_processes: object,
    ) -> Arrays:
        """Run a script as `Engine.run` does, but in this process; what it raises comes through."""
        with tempfile.TemporaryDirectory(prefix="parity-") as folder, _as_program(cwd):
            result = Path(folder, "result.npz")
            if not isinstance(script, Path):
                source, script = script, Path(folder, "script.py")
                script.write_text(source, encoding="utf-8")
            sys.argv[:] = [str(script), "", str(result), *arguments]
            results: Arrays = {}
            with self._exchanging(arrays or {}, results):
                caffe.set_random_seed(SEED)
                with computing(self.device, self.precision, self.graphs):
                    runpy.run_path(str(script), run_name="__main__")
            if result.exists():
                with np.load(result) as found:
                    results.update(found)
            return results

    @contextlib.contextmanager
    def _exchanging(self, arrays: Mapping[str, np.ndarray], results: Arrays) -> Iterator[None]:
        """Let the scripts be given arrays, give theirs, and draw parameters, without files."""
        # It sets the mode to CPU, and what is logged, once.
        logged = os.environ.get("GLOG_minloglevel")  # noqa: SIM112
        import exchange

        kept = {name: getattr(exchange, name) for name in ("given", "give", "draw_parameters")}
        random = np.random.default_rng(self.draw)

        def off(values: np.ndarray) -> np.ndarray:
            # Whole numbers are labels, indices and markers.
            if values.dtype.kind != "f" or np.array_equal(values, np.rint(values)):
                return values
            return values + values * noise(values.shape)

        def noise(shape: tuple[int, ...]) -> np.ndarray:
            return (2 * random.random(shape, np.float32) - 1) * np.float32(self.nudge)

        def nudge_tops(net: caffe.Net, index: int) -> None:
            kind = net.layers[index].type
            for name in net.top_names[net._layer_names[index]]:
                values = net.blobs[name].data
                if kind in PRODUCTS:
                    # What is summed is rounded, not only the sum, which may be next to nothing.
                    values += np.sqrt(np.mean(values**2)) * noise(values.shape)
                elif kind == "Input":
                    values[...] = off(values)

        def draw_parameters(net: caffe.Net) -> None:
            kept["draw_parameters"](net)
            if self.nudge:
                for blobs in net.params.values():
                    for blob in blobs:
                        blob.data[...] = off(blob.data)
                net.after_forward(lambda index: nudge_tops(net, index))

        os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112
        changed = {key: np.array(values) for key, values in arrays.items()}
        if self.nudge:
            changed = {key: off(values) for key, values in changed.items()}
        exchange.given = lambda: dict(changed)
        exchange.give = results.update
        exchange.draw_parameters = draw_parameters
        try:
            yield
        finally:
            for name, function in kept.items():
                setattr(exchange, name, function)
            if logged is None:
                os.environ.pop("GLOG_minloglevel", None)


@contextlib.contextmanager
def _as_program(cwd: Path) -> Iterator[None]:
    arguments, path, folder = sys.argv[:], sys.path[:], os.getcwd()
    sys.path.insert(0, str(SCRIPTS))
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv[:], sys.path[:] = arguments, path
