"""How a network of the Fiji plugin, 2-D or 3-D, segments a stack: as its model definition says.

Pictures are rescaled to the element size that it was trained for and normalised by its rule; its
scores are brought back to the stack's pixels. Tiles lie on the grid of the poolings, so that their
size does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np

from unet.errors import InputError
from unet.machine.memory import array_memory, pass_memory
from unet.model.modeldef import ModelDefinition
from unet.segmentation.blocks import Block, blocks_of, bytes_a_pixel, choose_block
from unet.segmentation.caffe_unet_passes import score_averaged
from unet.segmentation.caffe_unet_tiles import GridTiles, Shape, TileRules
from unet.segmentation.options import NEXT_TILE, Plan, SegmentationOptions
from unet.segmentation.segment import TTA, probabilities_of
from unet.segmentation.tile_size import PassCost
from unet.volumes import Volume, chosen_slices
from unet.volumes.element_size import (
    Rescaling,
    grey_range,
    normalized,
    rescaled,
    rescaled_part,
    scaled_by,
    size_after,
)
from unet.volumes.file_numbers import known_numbers
from unet.volumes.units import micrometres


@dataclass(frozen=True)
class PluginPlan(Plan):
    """What is computed of a stack by a network of the plugin.

    Attributes
    ----------
    depth : int
        Slices that are one image: of a 3-D network those of a time point, else 1.
    scales : tuple of float
        Of each axis, ([z,] y, x): pixels of the network that one of the stack becomes.
    seen : tuple of int
        ([depth,] height, width) of an image after that. `tiling` is of it, or of what is seen of
        it for a block.
    tile_rules : TileRules
    pixel_size : str
        What is known of the stack's pixels, for messages.
    """

    depth: int = 1
    scales: tuple[float, ...] = ()
    seen: Shape = ()
    tile_rules: TileRules | None = None
    pixel_size: str = ""

    @property
    def passes(self) -> int:
        """Passes of the network."""
        images = len({z // self.depth for z in self.slices})
        if self.is_whole:
            return images * len(TTA[self.tta]) * self.tiling.number
        return images * sum(
            self.cut(version.apply(np.broadcast_to(np.float32(), (1, *shape))).shape[1:]).number
            for block in blocks_of(range(1), self.size, self.block)
            for shape in [tuple(one.stop - one.start for one in self.around(block)[0])]
            for version in TTA[self.tta]
        )

    def part(self, block: Block) -> None:
        """Return that a block needs all of its slice, to be normalised; `around` is what counts."""

    def around(self, block: Block) -> tuple[list[slice], list[slice]]:
        """Return of a slice as the network sees it what is computed for a block, and what counts.

        Scores that count are as far from where that is cut as they depend on pixels; it is cut on
        the grid of the poolings, as seen from both ends, so that a version which is mirrored or
        turned lies on it, too.
        """
        axes, (shown, counts) = self.tile_rules.axes, ([], [])
        # A version that is turned sees each axis with the other's poolings.
        factor = math.lcm(*(axis.downsample_factor for axis in axes))
        reach = max(axis.pad_input - axis.pad_output for axis in axes) // 2 + factor
        for length, size, scale, part in zip(self.seen, self.size, self.scales, block[1:]):
            inner = Rescaling(length, 1 / scale, size).source(part)
            first = max(0, (inner.start - reach) // factor * factor)
            behind = max(0, (length - inner.stop - reach) // factor * factor)
            shown.append(slice(first, length - behind))
            counts.append(slice(inner.start, inner.stop))
        return shown, counts

    def smaller(self) -> PluginPlan:
        """Return the same with tiles that take less memory; an InputError if there are none."""
        memory = NEXT_TILE * self.cost.memory(self.tiling.input)
        tiles = self.tile_rules.of_size(self.tiling.shape, self._fits(memory))
        if tiles is None:
            raise InputError("there are no smaller tiles")
        return replace(self, tiling=tiles)

    def _fits(self, memory: float) -> Callable[[Shape], bool]:
        return lambda tile: self.cost.memory(tile) <= memory

    def cut(self, shape: Shape) -> GridTiles:
        """Return the tiles of an image of a shape, one that lies on its side, too."""
        if shape == self.tiling.shape:
            return self.tiling
        memory = self.cost.memory(self.tiling.input)
        # Tiles that lie on their side take as much as those that stand.
        return self.tile_rules.of_size(shape, self._fits(memory)) or self.tile_rules.smallest(shape)

    def __str__(self) -> str:
        slices, versions, tiles = len(self.slices), len(TTA[self.tta]), self.tiling.number
        tile = self.tiling.input
        seen = "x".join(map(str, self.seen))
        blocks = len(blocks_of(range(1), self.size, self.block))
        cut = f" in {blocks} blocks of {self.block[0]}x{self.block[1]}" if blocks > 1 else ""
        return (
            f"{self.stack}: {slices} slice{'s' * (slices > 1)} of {self.size[0]}x{self.size[1]}, "
            f"{self.pixel_size}; {'volumes' if self.depth > 1 else 'each'} as {seen}{cut}, "
            f"{versions} version{'s' * (versions > 1)} of {tiles} tile{'s' * (tiles > 1)} of "
            f"{'x'.join(map(str, tile))}; a pass is {self.cost.work(tile) / 1e9:.3g} G "
            f"multiply-adds and about {self.cost.memory(tile) / 2**20:.0f} MB"
        )


class PluginNetwork:
    """A network of the plugin, opened.

    Parameters
    ----------
    net : caffe.Net
    definition : ModelDefinition
        As of `unet.model.open_modeldef.open_definition`.
    source : str
        The definition's file, for messages.
    device : str
        As of `unet.machine.engine.open_engine`.
    """

    def __init__(self, net: Any, definition: ModelDefinition, source: str, device: str) -> None:
        self.net, self.definition, self._source, self._device = net, definition, source, device
        self.channels = net.blobs[net.inputs[0]].shape[1]
        self.score = "score" if "score" in net.outputs else net.outputs[0]
        self.classes = net.blobs[self.score].shape[1]
        self.cost = PassCost.of(net, *definition.axes)
        # The last volume: its slices are asked for one by one.
        self._kept: tuple[Any, np.ndarray] | None = None
        # The grey values of the last slice that is computed in blocks.
        self._grey: tuple[Any, tuple, tuple[float, float]] | None = None

    def plan(self, volume: Volume, options: SegmentationOptions) -> PluginPlan:
        """Resolve what options mean for a stack; errors as of `unet.model.Model.plan`."""
        if options.procedure:
            raise InputError(f"{self._source}: is no network of 2015: leave --procedure out")
        if options.normalise is not None:
            raise InputError(
                f"{self._source}: says itself how grey values are normalised: leave --normalise "
                f"and --no-normalise out"
            )
        slices = chosen_slices(options.slices, len(volume))
        depth = self._depth(volume)
        seen = sorted({z // depth for z in slices})
        volume.demand([z for t in seen for z in range(t * depth, (t + 1) * depth)])
        volume.demand_channels(self.channels, self._source)
        size = volume.shape[-2:]
        shape = (depth, *size) if len(self.definition.axes) == 3 else size
        scales, told = self._scales(volume, shape)
        seen = size_after(shape, scales)
        pixel = depth * bytes_a_pixel(self.channels, volume.dtype.itemsize, self.classes)
        # Arrays of pixels as the network sees them may be the larger ones.
        pixel = math.ceil(pixel * max(1, math.prod(scales)))
        free = pass_memory(self._device) if options.memory is None else options.memory
        arrays, block = array_memory(self._device), size
        if len(shape) == 2:
            factor = math.lcm(*(axis.downsample_factor for axis in self.definition.axes))
            block = choose_block(size, pixel, arrays or free, factor)
        if arrays is None:
            free -= pixel * block[0] * block[1]
        rules = TileRules(self.definition.axes, self.definition.padding, on_grid=True)
        plan = PluginPlan(
            stack=volume.path,
            shape=volume.shape,
            classes=self.classes,
            slices=slices,
            intensity=options.intensity,
            tiling=rules.smallest(seen),
            block=block,
            pixel=pixel,
            tta=options.tta or "none",
            cost=self.cost,
            rules=options.rules,
            free=array_memory(self._device) or options.memory or pass_memory(self._device),
            calibration=volume.calibration.of_slices(slices, len(volume)),
            numbers=tuple(known_numbers(volume)),
            depth=depth,
            scales=scales,
            seen=seen,
            tile_rules=rules,
            pixel_size=told,
        )
        if not plan.is_whole:
            parts = [plan.around(block)[0] for block in blocks_of(range(1), size, block)]
            seen = tuple(max(one.stop - one.start for one in along) for along in zip(*parts))
        return replace(plan, tiling=self._tiles(rules, seen, options, free))

    def _depth(self, volume: Volume) -> int:
        if len(self.definition.axes) == 2:
            return 1
        if volume.calibration.axes[0] == "T":
            raise InputError(
                f"{volume.path}: its slices are time points, but {self._source} is a 3-D network: "
                f"it takes volumes"
            )
        return len(volume) // volume.calibration.times

    def _scales(self, volume: Volume, shape: Shape) -> tuple[tuple[float, ...], str]:
        """Return how many of the network's pixels one of the stack is, and what is said of it."""
        wanted = self.definition.element_size_um
        axes = len(wanted)
        known = (micrometres(volume.calibration) or (None,) * 3)[-axes:]
        given = [one or own for one, own in zip(known, wanted)]
        scales = tuple(
            1.0 if math.isclose(one, own, rel_tol=1e-9) else one / own
            for one, own in zip(given, wanted)
        )
        sizes = "x".join(f"{one:.4g}" for one in wanted)
        if None in known:
            told = f"pixels taken as the network's {sizes} µm, for the stack does not tell theirs"
        elif set(scales) == {1.0}:
            told = f"pixels of the network's {sizes} µm"
        else:
            told = f"pixels of {'x'.join(f'{one:.4g}' for one in given)} µm, rescaled to {sizes}"
        return scales, told

    def _tiles(
        self, rules: TileRules, shape: Shape, options: SegmentationOptions, free: float
    ) -> GridTiles:
        if options.tile:
            if len(shape) == 3:
                raise InputError(
                    f"--tile: volumes are cut for {self._source} as fits the memory: give --memory"
                )
            for axis, size in zip(rules.axes, options.tile):
                axis.check((size,))
            outputs = [axis.output_size(size) for axis, size in zip(rules.axes, options.tile)]
            tiles = rules.of_output(shape, outputs)
            if tiles.input != options.tile:
                raise InputError(
                    f"--tile {options.tile[0]}x{options.tile[1]}: is too small for an image of "
                    f"{shape[0]}x{shape[1]}; give {tiles.input[0]}x{tiles.input[1]} or more"
                )
            if self.cost.memory(tiles.input) > free:
                raise InputError(
                    f"--tile {options.tile[0]}x{options.tile[1]}: a pass takes about "
                    f"{self.cost.memory(tiles.input) / 2**30:.1f} GB, {free / 2**30:.1f} GB are "
                    f"free for it; take a smaller tile, or insist with --memory"
                )
            return tiles
        found = rules.of_size(shape, lambda tile: self.cost.memory(tile) <= free)
        if found is None:
            tile = rules.smallest(shape).input
            raise InputError(
                f"a pass of the smallest tiles, {'x'.join(map(str, tile))}, takes about "
                f"{self.cost.memory(tile) / 2**20:.0f} MB, but {max(free, 0) / 2**20:.0f} MB are "
                f"free for it: end other programs, or give more with --memory"
            )
        return found

    def run_block(
        self,
        volume: Volume,
        plan: PluginPlan,
        block: Block,
        passed: Callable[[], object] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a slice and the probabilities of its classes; `passed` is told of each pass."""
        image = volume.region(*block)
        if not plan.is_whole:
            return image, self._probabilities_of_block(volume, plan, block, passed)
        if len(plan.scales) == 2:
            return image, self._probabilities(image.reshape((-1,) + plan.size), plan, passed)
        first = block.z // plan.depth * plan.depth
        key = volume, plan.tta, plan.intensity, plan.tiling, first
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            slices = [
                volume.region(z, block.rows, block.columns).reshape((-1,) + plan.size)
                for z in range(first, first + plan.depth)
            ]
            self._kept = key, self._probabilities(np.stack(slices, axis=1), plan, passed)
        return image, self._kept[1][:, block.z - first].copy()

    def _probabilities(
        self, image: np.ndarray, plan: PluginPlan, passed: Callable[[], object]
    ) -> np.ndarray:
        """Return the probabilities of an image, both (channels or classes, [depth,] y, x)."""
        seen = rescaled(image, plan.scales)
        if plan.intensity is None:
            seen = normalized(seen, self.definition.normalization_type)
        else:
            seen = scaled_by(seen, _range_of(plan.intensity))
        scores = self._scores(seen, plan, passed)
        back = [1 / scale for scale in plan.scales]
        return probabilities_of(rescaled(scores, back, image.shape[1:]))

    def _scores(
        self, seen: np.ndarray, plan: PluginPlan, passed: Callable[[], object]
    ) -> np.ndarray:
        if not np.isfinite(seen).all():
            raise FloatingPointError("the picture that the network is given is NaN or infinite")
        return score_averaged(self.net, seen, plan.cut, TTA[plan.tta], lambda *_: passed())[
            self.score
        ]

    def _probabilities_of_block(
        self, volume: Volume, plan: PluginPlan, block: Block, passed: Callable[[], object]
    ) -> np.ndarray:
        """Return the probabilities of a block: those of the whole slice, but for rounding."""
        there = [Rescaling(*one) for one in zip(plan.size, plan.scales, plan.seen)]
        back = [Rescaling(one.size, 1 / one.scale, one.length) for one in there]

        def read(rows: slice, columns: slice) -> np.ndarray:
            part = volume.region(block.z, rows, columns)
            return part.reshape((-1,) + part.shape[-2:])

        shown, counts = plan.around(block)
        grey = plan.intensity and _range_of(plan.intensity)
        if grey is None:
            grey = self._grey_range(volume, plan, block.z, read, there)
        seen = scaled_by(rescaled_part(read, there, shown), grey)
        scores = self._scores(seen, plan, passed)
        inner = [slice(c.start - s.start, c.stop - s.start) for c, s in zip(counts, shown)]
        scores = scores[(slice(None), *inner)]
        return probabilities_of(rescaled_part(lambda *_: scores, back, block[1:]))

    def _grey_range(
        self,
        volume: Volume,
        plan: PluginPlan,
        z: int,
        read: Callable[..., np.ndarray],
        axes: list[Rescaling],
    ) -> tuple[float, float]:
        """Return what all blocks of a slice are normalised by; it is read for that once, first."""
        key = plan.scales, z
        if self._grey is None or self._grey[0] is not volume or self._grey[1] != key:
            height, width = plan.seen
            step = max(1, plan.block[0] * plan.block[1] // width)
            bands = (slice(first, min(first + step, height)) for first in range(0, height, step))
            parts = (rescaled_part(read, axes, (band, slice(width))) for band in bands)
            self._grey = volume, key, grey_range(parts, self.definition.normalization_type)
        return self._grey[2]


def _range_of(intensity: tuple[float, float]) -> tuple[float, float]:
    low, high = intensity
    return low, high - low
