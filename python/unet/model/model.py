"""A trained network: opened from wherever it comes, it turns stacks into probabilities."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from unet.errors import InputError
from unet.files.names import PathLike
from unet.machine.engine import open_engine, tiles_together, unwarned
from unet.machine.memory import array_memory, is_short_of_memory, pass_memory
from unet.model.defaults import read_defaults
from unet.model.lazy import is_lazy, segment_lazily
from unet.model.open_modeldef import open_definition
from unet.model.open_net import find_model, is_modeldef, load_net
from unet.model.plugin_network import PluginNetwork
from unet.network.geometry import Geometry
from unet.segmentation import release2015
from unet.segmentation.blocks import Block, bytes_a_pixel, choose_block
from unet.segmentation.instances import InstanceRules, find_instances
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.segment import Picture, segment_pictures
from unet.segmentation.tile_size import PassCost, choose_tile, shape_net, tiled_area
from unet.segmentation.tiles import Tiling
from unet.volumes import Stack, Volume, as_volume, chosen_slices, intensity_range
from unet.volumes.file_numbers import known_numbers
from unet.volumes.intensity import is_normalised, normalised_range_of


def load(
    source: PathLike,
    net: PathLike | None = None,
    *,
    device: str = "auto",
    precision: str = "fp32",
) -> Model:
    """Open a trained network.

    Parameters
    ----------
    source : path
        A network that comes with the project, by name (isbi2012_slim, isbi2012, phc-u373_slim); a
        model folder (weights.caffemodel or weights.caffemodel.h5, deploy.prototxt); a .caffemodel
        or HDF5 file of weights; phseg_v5.caffemodel of the authors' release of 2015; or
        NAME.modeldef.h5 or NAME.caffemodel.h5 of the Fiji plugin.
    net : path, optional
        The network's prototxt or .modeldef.h5; by default the one beside the weights.
    device : str
        "auto", "cpu" or the number of a GPU.
    precision : {"fp32", "tf32", "bf16"}
        Of convolutions; bf16 where the hardware has it, else fp32.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If a file is missing or damaged, weights and network do not belong together, or tiles of the
        network cannot be put together.

    Examples
    --------
    >>> import unet
    >>> unet.load("isbi2012_slim", device="cpu")
    <Model isbi2012_slim/deploy.prototxt: 1 channel, 2 classes, tiles of 16k + 60>
    """
    prototxt, weights = find_model(source, net)
    caffe = open_engine(device, precision, graphs=True)
    files = (Path(weights), prototxt)
    if is_modeldef(prototxt):
        with unwarned():
            opened, definition = open_definition(caffe, prototxt, weights)
            plugin = PluginNetwork(opened, definition, str(prototxt), device)
        return Model(caffe, opened, definition.axes[-1], files, device, precision, plugin)
    return Model(caffe, *load_net(caffe, prototxt, weights), files, device, precision)


# Held while a process opens what another one has sent it.
_opening = threading.Lock()


def _reopen(*opened: str) -> Model:
    """Return a model that another process has opened; this one opens it once."""
    with _opening:
        return _reopened(*opened)


@functools.lru_cache(maxsize=1)
def _reopened(weights: str, net: str, device: str, precision: str) -> Model:
    return load(weights, net, device=device, precision=precision)


class Model:
    """A trained network, as `load` opens it; pickled by the names of its files.

    Attributes
    ----------
    net : caffe.Net
    geometry : unet.network.geometry.Geometry
        Which tiles it takes and what they lose.
    prototxt : pathlib.Path
    channels, classes : int
    defaults : dict
        What it is segmented with where nothing else is asked for: tta, and what is a cell, as
        segment.json beside it says (`unet.model.defaults.read_defaults`).
    """

    def __init__(
        self,
        caffe: ModuleType,
        net: Any,
        geometry: Geometry,
        files: tuple[Path, Path],
        device: str,
        precision: str,
        plugin: PluginNetwork | None = None,
    ) -> None:
        self.net, self.geometry, self.prototxt = net, geometry, files[1]
        self._plugin = plugin
        self._opened = (*(os.path.abspath(file) for file in files), device, precision)
        self._score = "score" if plugin is None else plugin.score
        self.channels = net.blobs[net.inputs[0]].shape[1]
        self.classes = net.blobs[self._score].shape[1]
        self.defaults = read_defaults(self.prototxt)
        self._device, self._together = device, tiles_together(caffe)
        # Bytes of the smallest pass that did not fit.
        self._too_much = np.inf
        self._normalised: tuple[Volume, int, tuple[float, float]] | None = None

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return _reopen, self._opened

    def __repr__(self) -> str:
        channels = f"{self.channels} channel{'s' * (self.channels > 1)}"
        sizes = f"{self.geometry.downsample_factor}k + {self.geometry.pad_input}"
        name = f"{self.prototxt.absolute().parent.name}/{self.prototxt.name}"
        return f"<Model {name}: {channels}, {self.classes} classes, tiles of {sizes}>"

    def segment(self, stack: Stack, **options: Any) -> np.ndarray:
        """Return the probability of every pixel.

        Parameters
        ----------
        stack : ndarray, zarr.Array, dask.array.Array, Volume or path
            (slices, height, width), (slices, channels, height, width) or (height, width), or
            whatever `unet.open_volume` opens. Of a dask array another one comes out: blocks are
            computed when they are asked for.
        **options
            Fields of `unet.segmentation.options.SegmentationOptions`, such as tta="dihedral".

        Returns
        -------
        float32 ndarray, shape (slices, height, width) or (slices, classes, height, width)
            With two classes the probability of class 1, inside a cell.

        Raises
        ------
        InputError
            If the stack cannot be read or has other channels, or an option is invalid.
        MemoryError
            If a pass does not fit into memory after all.

        Examples
        --------
        >>> import unet
        >>> model = unet.load("isbi2012_slim", device="cpu")
        >>> stack = np.random.default_rng(0).integers(0, 256, (2, 20, 30), np.uint8)
        >>> probabilities = model.segment(stack, tta="mirror")
        >>> probabilities.shape, probabilities.dtype
        ((2, 20, 30), dtype('float32'))
        """
        if is_lazy(stack):
            return segment_lazily(self, stack, self.options(**options))
        return np.stack(list(self.stream(stack, **options)))

    def stream(
        self, stack: Stack, *, bar: tqdm | None = None, **options: Any
    ) -> Iterator[np.ndarray]:
        """Yield the slices of `segment` one at a time: no more is in memory.

        `bar` is told how far it is, as of `run`.
        """
        for probabilities in self._each(stack, self.options(**options), bar):
            yield probabilities[1] if self.classes == 2 else probabilities

    def instances(
        self,
        stack: Stack,
        *,
        threshold: float | None = None,
        minimum_area: int | None = None,
        fill_holes: bool | None = None,
        watershed: float | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Return which cell each pixel belongs to.

        Parameters
        ----------
        stack, **options
            As for `segment`.
        threshold, minimum_area, fill_holes, watershed
            As of `unet.segmentation.instances.InstanceRules`; by default what the network is best
            segmented with, if segment.json beside it says so.

        Returns
        -------
        int32 ndarray, shape (slices, height, width)
            0 is background; cells count from 1 in each slice anew.

        Raises
        ------
        InputError, MemoryError
            As `segment`.
        """
        rules = dict(
            threshold=threshold,
            minimum_area=minimum_area,
            fill_holes=fill_holes,
            watershed=watershed,
        )
        return np.stack(list(self.stream_instances(stack, rules, **options)))

    def stream_instances(
        self,
        stack: Stack,
        rules: Mapping[str, Any] | None = None,
        *,
        bar: tqdm | None = None,
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """Yield the slices of `instances` one at a time: no more is in memory.

        `rules` holds what `instances` takes by name, and `bar` is told how far it is, as of `run`.
        """
        asked = self.options(rules, **options)
        for probabilities in self._each(stack, asked, bar):
            yield find_instances(probabilities, asked.rules)

    def options(
        self, cells: Mapping[str, Any] | None = None, **options: Any
    ) -> SegmentationOptions:
        """Return how a stack is segmented: as asked for, else as suits this network.

        Parameters
        ----------
        cells : mapping, optional
            Fields of `unet.segmentation.instances.InstanceRules`; None: not asked for.
        **options
            Fields of `SegmentationOptions`. A procedure fixes all that the network would say.
        """
        defaults = {} if options.get("procedure") else self.defaults
        if options.get("tta") is None:
            options["tta"] = defaults.get("tta")
        if "rules" not in options:
            asked = {name: value for name, value in (cells or {}).items() if value is not None}
            known = {name: value for name, value in defaults.items() if name != "tta"}
            options["rules"] = InstanceRules(**{**known, **asked})
        return SegmentationOptions(**options)

    def _each(
        self, stack: Stack, options: SegmentationOptions, bar: tqdm | None
    ) -> Iterator[np.ndarray]:
        # A file may be understood in two ways, an array in one.
        is_file = isinstance(stack, (str, os.PathLike))
        channels = self.channels if is_file else None
        with as_volume(stack, "stack", channels=channels, colours=True) as volume:
            plan = self.plan(volume, options)
            results = self.run(volume, plan, bar=bar)
            with closing(results):
                yield from joined(plan, (probabilities for _, probabilities in results))

    def plan(self, volume: Volume, options: SegmentationOptions) -> Plan:
        """Resolve what the options mean for a stack, before anything is computed.

        Raises
        ------
        InputError
            If the stack has other channels or lacks slices, a tile is not of a valid size or too
            large for the memory, or it is not known how the network learnt intensities.
        """
        if self._plugin is not None:
            return self._plugin.plan(volume, options)
        slices = chosen_slices(options.slices, len(volume))
        volume.demand(slices)
        volume.demand_channels(self.channels, self.prototxt)
        shape, cost = volume.shape[-2:], self._cost
        free = pass_memory(self._device) if options.memory is None else options.memory
        tta = options.tta or "none"
        pixel = bytes_a_pixel(self.channels, volume.dtype.itemsize, self.classes)
        if options.procedure:
            block, tiling = shape, release2015.tiling(shape, self.geometry)
            asked, remedy = f"--procedure {options.procedure}", "leave it out"
        else:
            arrays = array_memory(self._device)
            factor = self.geometry.downsample_factor
            block = choose_block(shape, pixel, arrays or free, factor)
            if arrays is None and not options.tile:
                free -= pixel * block[0] * block[1]
            area = tiled_area(block, shape, tta, self.geometry)
            tile = options.tile or choose_tile(area, cost, free, self.geometry)
            tiling = Tiling.over(shape, tile, self.geometry)
            asked, remedy = f"--tile {tile[0]}x{tile[1]}", "take a smaller tile"
        if cost.memory(tiling.tile) > free:
            raise InputError(
                f"{asked}: a pass takes about {cost.memory(tiling.tile) / 2**30:.1f} GB, "
                f"{free / 2**30:.1f} GB are free for it; {remedy}, or insist with --memory"
            )
        return Plan(
            stack=volume.path,
            shape=volume.shape,
            classes=self.classes,
            slices=slices,
            intensity=self._intensity(volume, options),
            tiling=tiling,
            block=block,
            pixel=pixel,
            tta=tta,
            cost=cost,
            rules=options.rules,
            free=array_memory(self._device) or options.memory or pass_memory(self._device),
            calibration=volume.calibration.of_slices(slices, len(volume)),
            numbers=tuple(known_numbers(volume)),
        )

    @functools.cached_property
    def _cost(self) -> PassCost:
        return PassCost.of(self.net, self.geometry)

    def measure_pass(self, plan: Plan) -> float:
        """Return the seconds that a pass of a plan takes; MemoryError if it does not fit."""
        shape_net(self.net, plan.tiling.tile)
        self.net.blobs[self.net.inputs[0]].data[...] = 0
        # The first one also pays for what is made once, such as memory and a choice of algorithms.
        self._choose_engine()
        for _ in range(2):
            begin = time.perf_counter()
            try:
                self.net.forward([self._score])
                # A GPU is waited for.
                self.net.blobs[self._score].data.flat[0].item()
            except RuntimeError as error:
                if not is_short_of_memory(error):
                    raise
                raise MemoryError(str(error).splitlines()[0]) from None
        return time.perf_counter() - begin

    def _choose_engine(self) -> None:
        """Compute on the device and in the precision of this model, not of the last one opened."""
        device, precision = self._opened[2:]
        open_engine(device, precision, graphs=True)

    def _intensity(
        self, volume: Volume, options: SegmentationOptions
    ) -> tuple[float, float] | None:
        """Return the values that become 0 and 1; None: each slice is normalised."""
        if options.intensity:
            return options.intensity
        normalise = options.normalise
        if normalise is None:
            normalise = is_normalised(self.prototxt)
        return None if normalise else intensity_range(volume)

    def run(
        self,
        volume: Volume,
        plan: Plan,
        blocks: Sequence[Block] | None = None,
        *,
        progress: bool = False,
        bar: tqdm | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks of a plan, and the probabilities of its classes.

        Parameters
        ----------
        volume : Volume
        plan : Plan
            As of `plan`.
        blocks : sequence of Block, optional
            Those of the plan that are computed; by default all.
        progress : bool
            Whether a terminal shows how many passes are done.
        bar : tqdm, optional
            Is told instead: `total` is set to the number of passes, and `update()` called after
            each. What that raises ends the segmentation, and comes out of it.

        Yields
        ------
        image, probabilities : ndarray
            As of `run_block`, of each of the blocks in order.

        Raises
        ------
        InputError
            If intensities or scores are out of all bounds.
        MemoryError
        """
        hidden = None if progress else True
        chosen = plan.blocks if blocks is None else blocks
        done = plan.passes * (len(plan.blocks) - len(chosen)) // len(plan.blocks)
        if bar is not None:
            bar.total = plan.passes - done
            yield from self._segmented(volume, plan, chosen, bar)
            return
        with tqdm(total=plan.passes, initial=done, unit="pass", disable=hidden, leave=False) as bar:
            yield from self._segmented(volume, plan, chosen, bar)

    def run_block(self, volume: Volume, plan: Plan, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return a block of a plan, and the probabilities of its classes.

        They are the same, bit for bit, in whatever order and process blocks are computed.

        Parameters
        ----------
        volume : Volume
        plan : Plan
            As of `plan`.
        block : Block
            One of `plan.blocks`.

        Returns
        -------
        image : ndarray, shape ([channels,] height, width)
        probabilities : float32 ndarray, shape (classes, height, width)

        Raises
        ------
        InputError, MemoryError
            As `run`.
        """
        (result,) = self._segmented(volume, plan, [block], None)
        return result

    def _read(self, volume: Volume, plan: Plan, block: Block) -> tuple[np.ndarray, Picture]:
        """Return the image of a block, and what of it goes through the network."""
        part = plan.part(block)
        if part is None:
            image = volume.region(*block)
            return image, Picture(plan.input(image), plan.tiling, plan.tta)
        shown = volume.region(block.z, *part.seen)
        intensity = None if plan.intensity else self._normalised_range(volume, block.z)
        top, left = block.rows.start - part.seen[0].start, block.columns.start - part.seen[1].start
        height = block.rows.stop - block.rows.start
        width = block.columns.stop - block.columns.start
        image = shown[..., top : top + height, left : left + width]
        return image, Picture(plan.input(shown, intensity), plan.tiling, plan.tta, part)

    def _normalised_range(self, volume: Volume, z: int) -> tuple[float, float]:
        """Return what all blocks of a slice share; the last one is kept."""
        if self._normalised is None or self._normalised[:2] != (volume, z):
            self._normalised = (volume, z, normalised_range_of(volume, z))
        return self._normalised[2]

    def _fitting(self, plan: Plan) -> Plan:
        """Return a plan, with smaller tiles once larger ones did not fit into memory."""
        while plan.cost.memory(plan.tiling.tile) >= self._too_much:
            plan = plan.smaller()
        return plan

    def _segmented(
        self, volume: Volume, plan: Plan, blocks: Sequence[Block], bar: tqdm | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the image and the probabilities of blocks; with smaller tiles if need be."""
        waiting, plan = deque(blocks), self._fitting(plan)
        while waiting:
            # Of blocks that were read, and not given yet.
            images: deque[np.ndarray] = deque()
            results = self._passes(volume, plan, list(waiting), images, bar)
            self._choose_engine()
            try:
                with closing(results):
                    for probabilities in results:
                        waiting.popleft()
                        yield images.popleft(), probabilities
                        # Another model may have computed meanwhile.
                        self._choose_engine()
            except FloatingPointError as error:
                raise InputError(
                    f"{volume.path}: slice {waiting[0].z}: {error}: its grey values are far from "
                    f"those that the network learnt from; see --grey and --normalise"
                ) from None
            except (MemoryError, RuntimeError) as error:
                if not is_short_of_memory(error):
                    raise
                reason = (str(error).splitlines() or ["out of memory"])[0]
            if waiting:
                # Beyond the except: the error holds what the pass took until it is forgotten.
                plan = self._for_less(volume, plan, waiting[0], reason)

    def _passes(
        self,
        volume: Volume,
        plan: Plan,
        blocks: list[Block],
        images: deque[np.ndarray],
        bar: tqdm | None,
    ) -> Iterator[np.ndarray]:
        """Yield the probabilities of blocks, whose images are put into `images`."""
        if self._plugin is not None:
            passed = (lambda: None) if bar is None else bar.update
            for block in blocks:
                image, probabilities = self._plugin.run_block(volume, plan, block, passed)
                images.append(image)
                yield probabilities
            return

        def pictures() -> Iterator[Picture]:
            for block in blocks:
                image, picture = self._read(volume, plan, block)
                images.append(image)
                yield picture

        yield from segment_pictures(self.net, pictures(), together=self._together, bar=bar)

    def _for_less(self, volume: Volume, plan: Plan, block: Block, reason: str) -> Plan:
        """Return the plan with smaller tiles, and say so."""
        tile = plan.tiling.tile
        self._too_much = min(self._too_much, plan.cost.memory(tile))
        try:
            plan = self._fitting(plan)
        except InputError as error:
            raise MemoryError(f"{reason}; {error}") from None
        smaller = plan.tiling.tile
        tqdm.write(
            f"{volume.path}: slice {block.z}: tiles of {'x'.join(map(str, tile))} did not fit into "
            f"memory ({reason}); going on with {'x'.join(map(str, smaller))}",
            file=sys.stderr,
        )
        return plan


def joined(plan: Plan, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield whole slices of the parts, ([channels,] height, width), of a plan's blocks in order."""
    whole: np.ndarray | None = None
    for block, part in zip(plan.blocks, parts):
        if plan.is_whole:
            yield part
            continue
        if whole is None:
            whole = np.empty(part.shape[:-2] + plan.size, part.dtype)
        whole[..., block.rows, block.columns] = part
        if (block.rows.stop, block.columns.stop) == plan.size:
            yield whole
            whole = None
