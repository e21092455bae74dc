"""The network and the solvers of a run, as prototxt whose paths count from the run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from unet.experiment.folder import NET, TRAINING_SET, RunFolder
from unet.experiment.split import Split
from unet.model.adapt import Pretrained
from unet.model.open_net import DEPLOY
from unet.network import nets
from unet.network.geometry import Geometry
from unet.preparation.training_set import TrainingSet
from unet.volumes.intensity import INPUT, input_text

NAME = "unet"
# Values in memory for each value of a map, and bytes beside them: measured with 16 and 32 maps.
_KEPT, _KEPT_BY_GENUINE, _BESIDE = 1.0, 5.0, 1e8


@dataclass(frozen=True)
class Shape:
    """A U-Net: its poolings, its maps after the first convolution, and its input size.

    One that begins as a trained network has the layers of that.
    """

    levels: int
    maps: int
    padded: bool
    tile: int
    pretrained: Pretrained | None = None

    @property
    def geometry(self) -> Geometry:
        """What its tiles lose; scores where padding reaches are learnt, too."""
        return geometry_of(self.levels, self.padded, self.pretrained)

    def layers(self, classes: int) -> dict[str, Any]:
        """Return what `unet.network.nets` is told of its layers."""
        if self.pretrained is not None:
            return dict(classes=classes, body=self.pretrained.body(classes))
        return dict(classes=classes, maps=self.maps, levels=self.levels, padded=self.padded)

    def passes(self, parts: Split, size: tuple[int, int]) -> int:
        """Return how many passes cover what is held out of slices of a size."""
        down, across = (-(-length // self.geometry.output_size(self.tile)) for length in size)
        return parts.many * down * across


@dataclass(frozen=True)
class Stage:
    """A part of the training: its iterations, its first rate, and whether pixels are weighted."""

    iterations: int
    base_lr: float
    weighted: bool


@dataclass(frozen=True)
class Schedule:
    """How all stages are gone through: the solver, tests in each, iterations between snapshots."""

    method: str
    seed: int
    tests: int = 8
    snapshot_every: int = 500


class Written(NamedTuple):
    """Of a network: its parameters, and the bytes that training it takes, about."""

    parameters: int
    memory: float


def geometry_of(levels: int, padded: bool, pretrained: Pretrained | None = None) -> Geometry:
    """Return the geometry of a U-Net, or of the one that it begins as, as it is learnt with."""
    if pretrained is not None:
        return dataclasses.replace(pretrained.geometry, margin=0)
    net = nets.deploy_net(NAME, levels=levels, padded=padded)
    return dataclasses.replace(Geometry.of(net), margin=0)


def write_network(
    caffe: ModuleType,
    folder: RunFolder,
    parts: Split,
    shape: Shape,
    stages: Sequence[Stage],
    schedule: Schedule,
) -> Written:
    """Write the network for a training set in the folder, and a solver for each stage.

    Raises
    ------
    InputError
        If nothing can be learnt from the slices, or tested on those held out, or the tile is none.
    """
    shape.geometry.check((shape.tile, shape.tile))
    with TrainingSet(folder / TRAINING_SET) as training_set:
        channels, classes = training_set.channels, training_set.classes
        normalised, size = training_set.intensity_range is None, training_set.shape[1:]
        training_set.demand_annotated(parts.learnt, classes=2)
        if parts.many:
            training_set.demand_annotated(parts.tested, classes=1)
    common = dict(geometry=shape.geometry, seed=schedule.seed)
    learnt, tested = ((one.start, one.stop) for one in (parts.learnt, parts.tested))
    # What a layer of the net and a solver have in common.
    names = ["gaps" if stage.weighted else "none" for stage in stages]
    feeds = [
        nets.tiles(
            *(TRAINING_SET, shape.tile, caffe.TRAIN),
            **dict(common, stage=name, slices=learnt, weighted=stage.weighted),
        )
        for name, stage in zip(names, stages)
    ]
    passes = None
    if parts.many:
        of_test = dict(common, slices=tested, weighted=False)
        feeds.append(nets.tiles(TRAINING_SET, shape.tile, caffe.TEST, **of_test))
        passes = shape.passes(parts, size)
    of_net = shape.layers(classes)
    files = {nets.TRAIN_VAL: nets.train_val_net(NAME, feeds, **of_net)}
    for number, (name, stage) in enumerate(zip(names, stages), 1):
        files[solver_name(number)] = nets.solver(
            NAME,
            NET,
            f"{folder.stage(number).name}/{NAME}",
            stage.iterations,
            stage=name,
            test_iter=passes,
            method=schedule.method,
            rate=stage.base_lr,
            test_every=max(1, stage.iterations // schedule.tests),
            snapshot_every=schedule.snapshot_every,
            seed=schedule.seed,
        )
    nets.write_files(files, folder / NET)
    deploy = nets.deploy_net(NAME, channels=channels, tile=shape.tile, **of_net)
    nets.write_files({DEPLOY: deploy, INPUT: input_text(normalised)}, folder.path)
    net = caffe.Net(str(folder / DEPLOY), caffe.TEST)
    parameters = sum(_many(blob) for blobs in net.params.values() for blob in blobs)
    maps = sum(map(_many, net.blobs.values()))
    # The maps of the way down wait for the way back; genuine Caffe keeps all, their gradients, and
    # the windows that convolutions unroll. Of parameters there are gradients and two moments.
    kept = _KEPT if hasattr(caffe, "set_precision") else _KEPT_BY_GENUINE
    return Written(parameters, 4.0 * (kept * maps + 4 * parameters) + _BESIDE)


def _many(blob: Any) -> int:
    return int(np.prod(blob.shape))


def solver_name(number: int) -> str:
    """Return the name of the solver of a stage, counted from 1."""
    return f"solver_{number}.prototxt"
