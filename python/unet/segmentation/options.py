"""What segmenting a stack was asked for, and what that means for a stack and a network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from unet.errors import InputError
from unet.segmentation import release2015
from unet.segmentation.blocks import Block, blocks_of
from unet.segmentation.caffe_unet_tiles import GridTiles
from unet.segmentation.instances import InstanceRules, check_rules
from unet.segmentation.segment import TTA, Part, tiling_of
from unet.segmentation.tile_size import PassCost, choose_tile, tiled_area
from unet.segmentation.tiles import Tiling
from unet.volumes.calibration import Calibration
from unet.volumes.intensity import scale_intensity

# Memory of the next smaller tile, of that which did not fit.
NEXT_TILE = 0.75


@dataclass(frozen=True)
class SegmentationOptions:
    """How a stack is segmented.

    Parameters
    ----------
    tta : {"none", "mirror", "rotate", "dihedral"}, optional
        Test-time augmentation: the mean over 4 mirrored, 4 rotated or all 8 orientations of each
        slice. None is "none".
    tile : int or tuple of int, optional
        Size, or (height, width), of the network's input; by default the one that costs least.
    memory : float, optional
        Bytes that a pass and the arrays of a block may take, on a GPU a pass alone; by default most
        of what is free, half of it on a GPU.
    intensity : tuple of float, optional
        The values that become 0 and 1 at the network's input; by default
        `unet.volumes.intensity_range` of the stack.
    normalise : bool, optional
        Bring each slice to the same mean and standard deviation instead; by default as the network
        was trained.
    slices : range or slice, optional
        Those that are segmented; by default all.
    procedure : {"2015"}, optional
        Segment as the authors did with their networks of 2015 (`unet.segmentation.release2015`),
        which fixes `tile`, `tta` and `rules`.
    rules : InstanceRules
        What is an instance.

    Raises
    ------
    InputError
        If a value is out of its bounds, or two contradict each other.
    """

    tta: str | None = None
    tile: int | tuple[int, int] | None = None
    memory: float | None = None
    intensity: tuple[float, float] | None = None
    normalise: bool | None = None
    slices: range | slice | None = None
    procedure: str | None = None
    rules: InstanceRules = field(default_factory=InstanceRules)

    def __post_init__(self) -> None:
        if self.tta not in (None, *TTA):
            raise InputError(f"tta {self.tta!r}: give one of {', '.join(TTA)}")
        if isinstance(self.tile, (int, np.integer)):
            object.__setattr__(self, "tile", (int(self.tile),) * 2)
        if self.memory is not None and not self.memory > 0:
            raise InputError(f"--memory {self.memory / 2**30:g}: must be above 0")
        if self.intensity is not None:
            if self.normalise:
                raise InputError("--grey and --normalise: give one of them")
            if self.intensity[0] == self.intensity[1]:
                low, high = self.intensity
                raise InputError(f"--grey {low:g} {high:g}: give two values")
        check_rules(self.rules)
        if self.procedure is None:
            return
        if self.procedure != "2015":
            raise InputError(f"procedure {self.procedure!r}: there is that of '2015' only")
        fixed = {"tile": self.tile, "tta": self.tta, **self.rules.changed()}
        given = [name for name, value in fixed.items() if value is not None]
        if given:
            raise InputError(
                f"--procedure 2015 fixes --{given[0].replace('_', '-')}: leave one of them out"
            )
        object.__setattr__(self, "tta", release2015.TTA)
        object.__setattr__(self, "rules", release2015.RULES)


@dataclass(frozen=True)
class Plan:
    """What is computed of a stack: all that follows from options, stack and network.

    Attributes
    ----------
    stack : str
        For messages.
    shape : tuple of int
        Of the stack.
    classes : int
    slices : range
        Those that are segmented.
    intensity : tuple of float or None
        The values that become 0 and 1; None: each slice is normalised.
    tiling : Tiling or GridTiles
    block : tuple of int
        (height, width) of what is computed and written at a time.
    pixel : int
        Bytes that arrays take for a pixel of it.
    tta : str
    cost : PassCost
    rules : InstanceRules
    free : float
        Bytes that there are for passes and arrays.
    calibration : Calibration
        Of the slices that are segmented, and of what is written.
    numbers : tuple of int
        Of a folder the number in the name of each file; empty where there are none.
    """

    stack: str
    shape: tuple[int, ...]
    classes: int
    slices: range
    intensity: tuple[float, float] | None
    tiling: Tiling | GridTiles
    block: tuple[int, int]
    pixel: int
    tta: str
    cost: PassCost
    rules: InstanceRules
    free: float
    calibration: Calibration = field(default_factory=Calibration)
    numbers: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a slice."""
        return self.shape[-2:]

    @property
    def is_whole(self) -> bool:
        """Whether a block is a whole slice."""
        return self.block == self.size

    @property
    def blocks(self) -> list[Block]:
        """What is computed at a time, in order: a slice is one block while it fits in memory."""
        return blocks_of(self.slices, self.size, self.block)

    def part(self, block: Block) -> Part | None:
        """Return what a block's tiles show of its slice; None: all of it."""
        if self.is_whole:
            return None
        return Part.of(block.rows, block.columns, self.size, self.tiling, self.tta)

    @property
    def passes(self) -> int:
        """Passes of the network."""
        return len(self.slices) * self.passes_a_slice

    @property
    def passes_a_slice(self) -> int:
        """Passes of the network over all blocks and versions of a slice."""
        if self.is_whole:
            return len(TTA[self.tta]) * len(self.tiling.origins)
        return sum(
            len(tiling_of(one, self.tiling, block.rows, block.columns, self.size)[0].origins)
            for one in TTA[self.tta]
            for block in blocks_of(range(1), self.size, self.block)
        )

    def smaller(self) -> Plan:
        """Return the same with tiles that take less memory; its result differs by rounding alone.

        Raises
        ------
        InputError
            If there are none.
        """
        if self.tiling.reach is not None:
            raise InputError("the tiles of --procedure 2015 are fixed")
        memory = NEXT_TILE * self.cost.memory(self.tiling.tile)
        geometry, area = (
            self.tiling.geometry,
            tiled_area(self.block, self.size, self.tta, self.tiling.geometry),
        )
        tile = choose_tile(area, self.cost, memory, geometry)
        return replace(self, tiling=Tiling.over(self.size, tile, geometry))

    @property
    def work(self) -> float:
        """Multiply-adds."""
        return self.passes * self.cost.work(self.tiling.tile)

    @property
    def memory(self) -> float:
        """Bytes: of a pass, and of the arrays of blocks."""
        return self.cost.memory(self.tiling.tile) + self.pixel * self.block[0] * self.block[1]

    def input(self, image: np.ndarray, intensity: tuple[float, float] | None = None) -> np.ndarray:
        """Return a slice as the network is given it, float32 (channels, height, width).

        Of a part of a slice that is normalised, `intensity` is the range of the whole.
        """
        image = image.reshape((-1,) + image.shape[-2:])
        return scale_intensity(image, self.intensity or intensity)

    def __str__(self) -> str:
        (height, width), tile, cost = self.size, self.tiling.tile, self.cost
        slices, versions = len(self.slices), len(TTA[self.tta])
        tiles = len(self.tiling.origins)
        cut = f"{versions} version{'s' * (versions > 1)} of {tiles} tile{'s' * (tiles > 1)}"
        if not self.is_whole:
            blocks = len(blocks_of(range(1), self.size, self.block))
            cut = (
                f"{blocks} blocks of {self.block[0]}x{self.block[1]}, {versions} "
                f"version{'s' * (versions > 1)}, {self.passes_a_slice} tiles"
            )
        return (
            f"{self.stack}: {slices} slice{'s' * (slices > 1)} of {height}x{width}; each {cut} of "
            f"{tile[0]}x{tile[1]}; a pass is {cost.work(tile) / 1e9:.3g} G multiply-adds and about "
            f"{cost.memory(tile) / 2**20:.0f} MB"
        )
