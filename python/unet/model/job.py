"""A stack that is to be segmented into files: all that was asked for, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.outputs import guard_outputs
from unet.model.model import load
from unet.model.open_net import find_model
from unet.segmentation.blocks import Block
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.progress import Progress
from unet.segmentation.workers import devices_of
from unet.segmentation.write import Result, SegmentationFiles, open_growing, put_blocks
from unet.volumes import open_volume
from unet.volumes.intensity import INPUT
from unet.volumes.stacks import existing_stack


@dataclass(frozen=True)
class Job:
    """What is segmented, how, into which files, and who computes.

    Attributes
    ----------
    stack : str
        As of `unet.volumes.open_volume`.
    part : dict
        Further arguments of it: level, channel, time, scene.
    model, weights, net : str, optional
        As of `unet.model.find_model`: the first or the second, and the prototxt.
    options : SegmentationOptions
    files : SegmentationFiles
    device, precision : str
        As of `unet.model.load`; "0,1" is a process on each GPU.
    workers : int
        Processes of this machine; 0: one, or one for each GPU.
    scheduler : str, optional
        Address of the Dask cluster that computes instead.

    Raises
    ------
    InputError
        If both workers and a scheduler are named, or more workers than GPUs.
    """

    stack: str
    part: dict[str, Any]
    model: str | None
    weights: str | None
    net: str | None
    options: SegmentationOptions
    files: SegmentationFiles
    device: str = "auto"
    precision: str = "fp32"
    workers: int = 0
    scheduler: str | None = None
    #: The device of each process.
    devices: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.workers and self.scheduler:
            raise InputError("--workers and --scheduler: give one of them")
        object.__setattr__(self, "devices", tuple(devices_of(self.device, self.workers)))

    def network(self) -> tuple[Path, Path]:
        """Return the network's files, (net, weights); an `InputError` if one is missing."""
        return find_model(self.model or self.weights, self.net)

    def check_files(self) -> None:
        """Refuse inputs that are missing and outputs that would damage something."""
        net, weights = self.network()
        truth = [self.files.truth] if self.files.truth else []
        inputs = [self.stack, *truth, net, weights, net.parent / INPUT]
        guard_outputs(self.files.outputs(), inputs, self.files.overwrite)
        existing_stack(self.stack)

    def absolute(self) -> Job:
        """Return the same for a process in another folder."""
        net, weights = (os.path.abspath(file) for file in self.network())
        files = {
            name: Path(os.path.abspath(path))
            for name, path in vars(self.files).items()
            if isinstance(path, Path)
        }
        return replace(
            self,
            stack=os.path.abspath(self.stack),
            model=None,
            weights=weights,
            net=net,
            files=replace(self.files, **files),
        )


@dataclass(frozen=True)
class BlockWorker:
    """What a process needs to compute blocks of a job: it can be pickled.

    Attributes
    ----------
    job : Job
        Of which `Progress` is open in the process that asks.
    plan : Plan
    """

    job: Job
    plan: Plan

    def __call__(self, device: str) -> Callable[[Block], None]:
        """Open model, stack and progress; return what computes a block and puts it away."""
        job, plan = self.job, self.plan
        net, weights = job.network()
        model = load(weights, net, device=device, precision=job.precision)
        volume = open_volume(job.stack, channels=model.channels, **job.part, colours=True)
        progress = Progress.join(job.files.first)
        growing = open_growing(job.files, plan, progress)

        def compute(block: Block) -> None:
            # It may have been, by a worker that died before it could say so.
            if not progress.done(block):
                image, probabilities = model.run_block(volume, plan, block)
                put_blocks(
                    [Result(block, image, probabilities)], plan, job.files, progress, growing
                )

        return compute
