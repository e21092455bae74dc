"""What a whole net is: its text, its solver, and the batches it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

import caffe
from caffe import layers as L
from caffe.proto import caffe_pb2

# Batches of each net; the solvers take a step on each.
STEPS = 5
STEPS_BEFORE_SNAPSHOT = 3


@dataclass
class WholeNet:
    """A net with what it takes to run and to train it.

    Attributes
    ----------
    spec : caffe.NetSpec
        Its Input layers have the names of `batches`.
    batches : mapping of blob to array
        float32, STEPS batches along the first axis.
    solver : mapping
        Fields of the SolverParameter.
    keeps_fillers : tuple of str
        Layers whose parameters stay as their fillers make them.
    force_backward : bool
        Whether the gradients of the inputs can be asked for: not that of whole numbers.
    hdf5 : bool
        Whether genuine Caffe can write it to HDF5: not layers with a slash in their names.
    """

    spec: caffe.NetSpec
    batches: Mapping[str, np.ndarray]
    solver: Mapping[str, object] = field(default_factory=dict)
    keeps_fillers: tuple[str, ...] = ()
    force_backward: bool = True
    hdf5: bool = True

    def net(self) -> str:
        """Return the prototxt."""
        return str(self.spec.to_proto())

    def solver_text(self, prefix: str) -> str:
        """Return the prototxt of the solver, the net in it, whose files begin with `prefix`."""
        options: dict[str, object] = dict(base_lr=0.01, lr_policy="fixed", max_iter=100)
        param = caffe_pb2.SolverParameter(**{**options, **self.solver})
        param.snapshot_prefix = prefix
        param.train_net_param.CopyFrom(self.spec.to_proto())
        return str(param)


def inputs(spec: caffe.NetSpec, batches: Mapping[str, np.ndarray]) -> None:
    """Add an Input layer for each blob."""
    for name, values in batches.items():
        spec[name] = L.Input(shape=dict(dim=list(values.shape[1:])))


def pictures(seed: int, *shape: int) -> np.ndarray:
    """Draw STEPS batches of pictures: waves and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    phase = random.uniform(0, 2 * np.pi, (2, STEPS, *shape[:-2], 1, 1))
    waves = np.sin(x / 3 + phase[0]) * np.sin(y / 4 + phase[1])
    return (waves + random.normal(0, 0.3, waves.shape)).astype(np.float32)


def numbers(seed: int, stop: int, *shape: int) -> np.ndarray:
    """Draw STEPS batches of whole numbers below `stop`."""
    return np.random.default_rng(seed).integers(0, stop, (STEPS, *shape)).astype(np.float32)


def reals(seed: int, *shape: int) -> np.ndarray:
    """Draw STEPS batches of normal numbers."""
    return np.random.default_rng(seed).normal(0, 1, (STEPS, *shape)).astype(np.float32)
