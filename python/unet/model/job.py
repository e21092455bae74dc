"""A stack that other processes segment, told by the names of its files alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unet.model.model import load
from unet.segmentation.blocks import Block
from unet.segmentation.options import Plan
from unet.segmentation.progress import Progress
from unet.segmentation.write import SegmentationFiles, arrays_of
from unet.volumes import open_volume


@dataclass(frozen=True)
class Job:
    """What a process needs to compute blocks: it can be pickled.

    Attributes
    ----------
    stack : str
    part : dict
        Further arguments of `open_volume`.
    weights, net : str
    precision : str
    plan : Plan
    files : SegmentationFiles
        Of which `Progress` is open in the process that asks.
    """

    stack: str
    part: dict[str, Any]
    weights: str
    net: str
    precision: str
    plan: Plan
    files: SegmentationFiles

    def absolute(self) -> Job:
        """Return the same for a process in another folder."""
        names = {name: os.path.abspath(getattr(self, name)) for name in ("stack", "weights", "net")}
        files = {
            name: Path(os.path.abspath(path))
            for name, path in vars(self.files).items()
            if isinstance(path, Path)
        }
        return replace(self, **names, files=replace(self.files, **files))

    def __call__(self, device: str) -> Callable[[Block], None]:
        """Open model, stack and progress; return what computes a block and puts it away."""
        model = load(self.weights, self.net, device=device, precision=self.precision)
        volume = open_volume(self.stack, channels=model.channels, **self.part, colours=True)
        progress = Progress.join(self.files.first)

        def compute(block: Block) -> None:
            # It may have been, by a worker that died before it could say so.
            if not progress.done(block):
                image, probabilities = model.run_block(volume, self.plan, block)
                arrays = arrays_of(block, image, probabilities, self.plan, self.files)
                progress.put(block, arrays, image)

        return compute
