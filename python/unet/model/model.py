"""A trained network: opened from wherever it comes, it turns stacks into probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from unet.errors import InputError
from unet.files.names import PathLike
from unet.machine.engine import open_engine, tiles_together
from unet.machine.memory import pass_memory
from unet.model.modeldef import read_modeldef
from unet.model.open_net import find_model, is_modeldef, load_net
from unet.network.geometry import Geometry
from unet.segmentation import release2015
from unet.segmentation.beside_passes import ahead
from unet.segmentation.blocks import Block
from unet.segmentation.instances import InstanceRules, find_instances
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.segment import segment_image
from unet.segmentation.tile_size import PassCost, choose_tile
from unet.segmentation.tiles import Tiling
from unet.volumes import Stack, Volume, as_volume, chosen_slices, intensity_range
from unet.volumes.intensity import is_normalised


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
    return Model(caffe, *load_net(caffe, prototxt, weights), prototxt, device)


class Model:
    """A trained network, as `load` opens it.

    Attributes
    ----------
    net : caffe.Net
    geometry : unet.network.geometry.Geometry
        Which tiles it takes and what they lose.
    prototxt : pathlib.Path
    channels, classes : int
    """

    def __init__(
        self, caffe: ModuleType, net: Any, geometry: Geometry, prototxt: Path, device: str
    ) -> None:
        self.net, self.geometry, self.prototxt = net, geometry, prototxt
        self.channels, self.classes = net.blobs["data"].shape[1], net.blobs["score"].shape[1]
        self._device, self._together = device, tiles_together(caffe)

    def __repr__(self) -> str:
        channels = f"{self.channels} channel{'s' * (self.channels > 1)}"
        sizes = f"{self.geometry.downsample_factor}k + {self.geometry.pad_input}"
        name = f"{self.prototxt.absolute().parent.name}/{self.prototxt.name}"
        return f"<Model {name}: {channels}, {self.classes} classes, tiles of {sizes}>"

    def segment(self, stack: Stack, **options: Any) -> np.ndarray:
        """Return the probability of every pixel.

        Parameters
        ----------
        stack : ndarray, Volume or path
            (slices, height, width), (slices, channels, height, width) or (height, width), or
            whatever `unet.open_volume` opens.
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
        return np.stack(list(self.stream(stack, **options)))

    def stream(self, stack: Stack, **options: Any) -> Iterator[np.ndarray]:
        """Yield the slices of `segment` one at a time: no more is in memory."""
        for probabilities in self._each(stack, SegmentationOptions(**options)):
            yield probabilities[1] if self.classes == 2 else probabilities

    def instances(
        self,
        stack: Stack,
        *,
        threshold: float | None = None,
        minimum_area: int = 1,
        fill_holes: bool = False,
        watershed: float | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Return which cell each pixel belongs to.

        Parameters
        ----------
        stack, **options
            As for `segment`.
        threshold, minimum_area, fill_holes, watershed
            As of `unet.segmentation.instances.InstanceRules`.

        Returns
        -------
        int32 ndarray, shape (slices, height, width)
            0 is background; cells count from 1 in each slice anew.

        Raises
        ------
        InputError, MemoryError
            As `segment`.
        """
        rules = InstanceRules(threshold, minimum_area, fill_holes, watershed)
        asked = SegmentationOptions(rules=rules, **options)
        return np.stack([find_instances(one, asked.rules) for one in self._each(stack, asked)])

    def _each(self, stack: Stack, options: SegmentationOptions) -> Iterator[np.ndarray]:
        with as_volume(stack, "stack", colours=True) as volume:
            results = self.run(volume, self.plan(volume, options))
            with closing(results):
                for _, probabilities in results:
                    yield probabilities

    def plan(self, volume: Volume, options: SegmentationOptions) -> Plan:
        """Resolve what the options mean for a stack, before anything is computed.

        Raises
        ------
        InputError
            If the stack has other channels or lacks slices, a tile is not of a valid size or too
            large for the memory, or it is not known how the network learnt intensities.
        """
        slices = chosen_slices(options.slices, len(volume))
        volume.demand(slices)
        if (volume.channels or 1) != self.channels:
            raise InputError(
                f"{volume.path}: has {volume.channels or 1} channels, but {self.prototxt} takes "
                f"{self.channels}"
            )
        shape, cost = volume.shape[-2:], PassCost.of(self.net, self.geometry)
        free = pass_memory(self._device) if options.memory is None else options.memory
        if options.procedure:
            tiling = release2015.tiling(shape, self.geometry)
            asked, remedy = f"--procedure {options.procedure}", "leave it out"
        else:
            tile = options.tile or choose_tile(shape, cost, free, self.geometry)
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
            block=shape,
            tta=options.tta or "none",
            cost=cost,
            rules=options.rules,
            calibration=volume.calibration,
        )

    def _intensity(
        self, volume: Volume, options: SegmentationOptions
    ) -> tuple[float, float] | None:
        """Return the values that become 0 and 1; None: each slice is normalised."""
        if options.intensity:
            return options.intensity
        if options.normalise is None and is_modeldef(self.prototxt):
            raise InputError(
                f"{self.prototxt}: scales grey values by normalization_type "
                f"{read_modeldef(self.prototxt).normalization_type}, a number of the plugin's that "
                f"is not known here: give --grey LOW HIGH, --normalise or --no-normalise"
            )
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
        read = ((block, *self._read(volume, plan, block)) for block in chosen)
        done = plan.passes * (len(plan.blocks) - len(chosen)) // len(plan.blocks)
        bar = tqdm(total=plan.passes, initial=done, unit="pass", disable=hidden, leave=False)
        with bar, closing(ahead(read)) as coming:
            for block, image, scaled in coming:
                yield image, self._segmented(volume, plan, block, scaled, bar)

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
        image, scaled = self._read(volume, plan, block)
        return image, self._segmented(volume, plan, block, scaled, None)

    def _read(self, volume: Volume, plan: Plan, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return a block, and what the network is given of it."""
        image = volume.region(*block)
        return image, plan.input(image)

    def _segmented(
        self, volume: Volume, plan: Plan, block: Block, scaled: np.ndarray, bar: tqdm | None
    ) -> np.ndarray:
        """Return the probabilities of a block that was read."""
        try:
            return segment_image(
                self.net, scaled, plan.tiling, plan.tta, together=self._together, bar=bar
            )
        except FloatingPointError as error:
            raise InputError(
                f"{volume.path}: slice {block.z}: {error}: its grey values are far from those "
                f"that the network learnt from; see --grey and --normalise"
            ) from None
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise MemoryError(f"{reason}; take a smaller --tile, or less --memory") from None
