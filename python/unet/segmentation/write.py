"""A segmented stack in files: probabilities, classes, instances, outlines beside the slices."""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_parts, atomic_path, writing
from unet.files.outputs import Output
from unet.files.provenance import PICTURE, STACK
from unet.files.version import VERSION
from unet.report.plots import save_overlay
from unet.segmentation.beside_passes import behind
from unet.segmentation.block_instances import joined_instances
from unet.segmentation.blocks import Block, blocks_of
from unet.segmentation.instances import as_stored, find_instances
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.progress import Computed, Progress
from unet.volumes import Volume, VolumeWriter, as_volume
from unet.volumes.writers.layout import Layout
from unet.volumes.writers.png import slice_names
from unet.volumes.writers.zarr_in_place import ZarrInPlace, make_store

# Of a slice that is computed in blocks the overlay shows so many pixels a side.
_DRAWN_SIDE = 2000
# A slice of more pixels may hold more cells than uint16 has numbers.
_MOST_PIXELS_UINT16 = 2**26
# Of the memory, where cells of several blocks are split: the next slice may be passing.
_SHARE_OF_SPLIT = 0.5
# Bytes of results that may wait to be written.
_WAITING = 32 * 2**20


@dataclass(frozen=True)
class SegmentationFiles:
    """What is written of a stack, and where; None: that is not.

    Attributes
    ----------
    probabilities : pathlib.Path, optional
        With two classes of class 1, inside a cell; else one channel a class.
    classes : pathlib.Path, optional
        The likeliest class: bool of two, else uint8.
    instances : pathlib.Path, optional
        0 is background; cells count from 1 in each slice anew.
    overlay : pathlib.Path, optional
        Slices beside their outlines: a .png of the middle slice, or a folder of all.
    truth : str, optional
        True labels, an input: drawn in the overlay.
    truth_part : mapping, optional
        Which level, time and scene of them, where their file holds several.
    dtype : {"float32", "uint8"}, optional
        Of probabilities; uint8 is 255 for 1. By default float32, uint8 where they are PNG.
    instance_dtype : {"uint16", "uint32"}, optional
        By default uint16, uint32 for slices of more than 2^26 pixels.
    overwrite : bool
        As of `unet.files.outputs.guard_outputs`.
    zarr_format : {2, 3}, optional
        As of `VolumeWriter`.

    Raises
    ------
    InputError
        If nothing is to be written, or the overlay is of another kind.
    """

    probabilities: Path | None = None
    classes: Path | None = None
    instances: Path | None = None
    overlay: Path | None = None
    truth: str | None = None
    dtype: str | None = None
    instance_dtype: str | None = None
    overwrite: bool = False
    zarr_format: int | None = None
    truth_part: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.overlay and self.overlay.suffix.lower() not in ("", ".png"):
            raise InputError(
                f"--overlay {self.overlay}: name a .png, or a folder (no suffix) for all slices"
            )
        if not (self.probabilities or self.classes or self.instances):
            raise InputError("name what to write: -o OUT, --instances FILE or --classes FILE")

    def outputs(self) -> list[Output]:
        """Return all that is written, and what it is."""
        stacks = (self.probabilities, self.classes, self.instances)
        outputs = [Output(path, STACK) for path in stacks if path]
        return outputs + ([Output(self.overlay, PICTURE)] if self.overlay else [])

    def stacks(self) -> list[Path]:
        """Return those that hold all slices in one file."""
        stacks = (self.probabilities, self.classes, self.instances)
        return [path for path in stacks if path and path.suffix]

    @property
    def first(self) -> Path:
        """The output beside which it lies what of a run is done."""
        return next(path for path in (self.probabilities, self.classes, self.instances) if path)


def fingerprint_of(
    plan: Plan, files: SegmentationFiles, options: SegmentationOptions, network: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all that what is stored of a block depends on, but for the pixels of the stack.

    Parameters
    ----------
    plan : Plan
    files : SegmentationFiles
    options : SegmentationOptions
        A tile that was chosen by the memory that was free gives way to that of the run that began.
    network : mapping
        Of weights and network what tells them from others; and the device.
    """
    kept = {what: np.dtype(dtype).name for what, dtype in stored_types(files, plan).items()}
    if files.instances and files.instances.suffix.lower() != ".zarr":
        # What is done serves all types; but a .zarr that grows in place is of one.
        kept["instances"] = "any"
    return {
        "version": VERSION,
        **network,
        "shape": list(plan.shape),
        "slices": [plan.slices.start, plan.slices.stop, plan.slices.step],
        "grey values": None if plan.intensity is None else [float(one) for one in plan.intensity],
        "tile": list(plan.tiling.tile) if options.tile or options.procedure else None,
        "procedure": options.procedure,
        "tta": plan.tta,
        "rules": list(plan.rules) if files.instances else None,
        "outputs": {**kept, "overlay": sorted(_drawn(files, plan))[:2]},
    }


def stored_types(files: SegmentationFiles, plan: Plan) -> dict[str, Any]:
    """Return of what stacks are written the type of their pixels."""
    is_png = files.probabilities is not None and files.probabilities.suffix.lower() in ("", ".png")
    usual = "uint32" if plan.size[0] * plan.size[1] > _MOST_PIXELS_UINT16 else "uint16"
    # Instances first: they alone can fail for what a slice holds.
    types = {
        "instances": files.instance_dtype or usual,
        "classes": np.bool_ if plan.classes == 2 else np.uint8,
        "probabilities": files.dtype or ("uint8" if is_png else "float32"),
    }
    return {what: np.dtype(dtype) for what, dtype in types.items() if getattr(files, what)}


def output_bytes(files: SegmentationFiles, plan: Plan) -> dict[Path, int]:
    """Return the bytes of the pixels of each stack that is written, before they are compressed."""
    pixels = len(plan.slices) * plan.size[0] * plan.size[1]
    return {
        getattr(files, what): pixels * dtype.itemsize * (_channels(what, plan) or (1,))[0]
        for what, dtype in stored_types(files, plan).items()
    }


def _channels(what: str, plan: Plan) -> tuple[int, ...]:
    return (plan.classes,) if what == "probabilities" and plan.classes > 2 else ()


class Result(NamedTuple):
    """What was computed of a block.

    Attributes
    ----------
    block : Block
    image : ndarray, shape ([channels,] height, width)
    probabilities : float32 ndarray, shape (classes, height, width)
        As of `unet.model.Model.run_block`.
    """

    block: Block
    image: np.ndarray
    probabilities: np.ndarray


def arrays_of(result: Result, plan: Plan, files: SegmentationFiles) -> dict[str, np.ndarray]:
    """Return what is kept of a block, for `Progress.put`: enough for all that is written.

    An `InputError` if there are more instances than numbers.
    """
    block, image, probabilities = result
    arrays = {"range": np.array([image.min(), image.max()])}
    is_part = probabilities.shape[1:] != plan.size
    for what, dtype in stored_types(files, plan).items():
        # Cells go over the edges of blocks.
        if not (is_part and what == "instances"):
            arrays[what] = _as_written(what, block.z, probabilities, plan, dtype)
    if is_part and files.instances:
        rules = plan.rules._replace(minimum_area=0, watershed=None)
        arrays["components"] = find_instances(probabilities, rules)
        if plan.rules.watershed:
            arrays["cell"] = probabilities[1:].sum(axis=0)
    if block.z in _drawn(files, plan):
        shown = _shown(block, plan)
        arrays["image"], arrays["all"] = image[shown], probabilities[shown]
    return arrays


def put_blocks(
    results: Sequence[Result],
    plan: Plan,
    files: SegmentationFiles,
    progress: Progress,
    growing: Mapping[str, ZarrInPlace],
) -> list[dict[str, np.ndarray]]:
    """Put away what was computed of blocks; when this returns it is safe on the disk.

    Several processes may do so at once with different blocks: blocks are whole chunks.

    Parameters
    ----------
    results : sequence of Result
    plan : Plan
    files : SegmentationFiles
    progress : Progress
    growing : mapping of ZarrInPlace
        Of `open_growing`.

    Returns
    -------
    list of dict of ndarray
        What `progress` holds of each block.

    Raises
    ------
    InputError
        If a block has more instances than numbers, or cannot be written. Those before it are put
        away.
    """
    kept: list[dict[str, np.ndarray]] = []
    try:
        for result in results:
            kept.append(arrays_of(result, plan, files))
    finally:
        for what, store in growing.items():
            store.put_all(
                (plan.slices.index(block.z), block.rows, block.columns, arrays.pop(what))
                for (block, _, _), arrays in zip(results, kept)
                if what in arrays
            )
        # Last: this marks the blocks as done.
        progress.put(
            [Computed(block, arrays, image) for (block, image, _), arrays in zip(results, kept)]
        )
    return kept


def write_segmentation(
    run: Callable[[Sequence[Block]], Iterator[tuple[np.ndarray, np.ndarray]]],
    plan: Plan,
    files: SegmentationFiles,
    progress: Progress,
    note: Mapping[str, Any] | None = None,
    elsewhere: Callable[[Sequence[Block], Callable[[], object]], object] | None = None,
    check: Callable[[], object] = lambda: None,
) -> list[int]:
    """Compute what is not done of a stack, and write all; files appear when all of them are whole.

    Parameters
    ----------
    run : callable
        Gives of each of the blocks its image and the probabilities of its classes:
        `unet.model.Model.run`.
    plan : Plan
    files : SegmentationFiles
    progress : Progress
        Of a run of `fingerprint_of`; finished at the end.
    note : mapping, optional
        Provenance: `unet.segmentation.provenance.describe`.
    elsewhere : callable, optional
        Has other processes compute blocks, which `put_blocks` them, and calls after each what it is
        given.
    check : callable
        Is called when all is computed, before anything counts as whole.

    Returns
    -------
    list of int
        The slices of one value, in which there is nothing to see.

    Raises
    ------
    InputError
        If the truth does not fit, a slice has more instances than numbers, or a file cannot be
        written or cannot hold such a stack.
    """
    flat = []
    with contextlib.ExitStack() as opened:
        truth, offset = _open_truth(files, plan, opened)
        growing = _begin_growing(files, plan, progress, opened, note)
        writers = {**growing, **_open_writers(files, plan, opened, note, set(growing))}
        drawings = _open_overlay(files, plan, opened)
        slices, types = _Slices(plan), stored_types(files, plan)
        is_in_parts = plan.block != plan.size

        def write_all(waiting: list[tuple[Block, Result | None]]) -> None:
            new = [result for _, result in waiting if result is not None]
            try:
                kept = deque(put_blocks(new, plan, files, progress, growing))
            finally:
                noted()
            for block, result in waiting:
                write(block, read(block) if result is None else kept.popleft())

        def read(block: Block) -> dict[str, np.ndarray]:
            arrays = progress.get(block)
            # The run that began may have been asked for another type.
            if "instances" in arrays:
                arrays["instances"] = _numbered(
                    arrays["instances"], types["instances"], plan, block.z
                )
            return arrays

        def write(block: Block, arrays: Mapping[str, np.ndarray]) -> None:
            row = plan.slices.index(block.z)
            for what, writer in writers.items():
                if what in arrays:
                    writer.put(row, block.rows, block.columns, arrays[what])
            whole = slices.add(block, arrays)
            if whole is None:
                return
            if whole["range"][0] == whole["range"][1]:
                flat.append(block.z)
            if "instances" in writers and is_in_parts:
                _join_instances(writers["instances"], row, plan, files, progress)
            if block.z in drawings:
                known = None
                if truth is not None:
                    step = _step(plan)
                    known = truth[block.z - offset].reshape(plan.size)[::step, ::step]
                with writing(files.overlay):
                    picture = plan.input(whole["image"])
                    save_overlay(drawings[block.z], picture, whole["all"], known)

        blocks = plan.blocks
        noted = _Noted(plan, progress, growing)
        if elsewhere is not None:
            elsewhere([block for block in blocks if not progress.done(block)], noted)
        done = [progress.done(block) for block in blocks]
        missing = [block for block, is_done in zip(blocks, done) if not is_done]
        # Slices that a GPU gives faster than a disk can sync them are synced together.
        late = max(1, int(_WAITING // (4 * plan.classes * math.prod(plan.block))))
        with contextlib.closing(run(missing)) as results, behind(write_all, late) as put:
            for block, is_done in zip(blocks, done):
                put((block, None if is_done else Result(block, *next(results))))
        check()
        for store in growing.values():
            store.finish()
    progress.finish()
    return flat


def _step(plan: Plan) -> int:
    """Return which pixels of a slice are drawn, of those that are computed in blocks: every nth."""
    return 1 if plan.is_whole else -(-max(plan.size) // _DRAWN_SIDE)


def _shown(block: Block, plan: Plan) -> tuple[Any, slice, slice]:
    """Return which pixels of a block are drawn."""
    step = _step(plan)
    rows, columns = (slice(-one.start % step, None, step) for one in (block.rows, block.columns))
    return ..., rows, columns


def _join_instances(
    writer: VolumeWriter, row: int, plan: Plan, files: SegmentationFiles, progress: Progress
) -> None:
    """Write the cells of a slice whose blocks are all done."""
    z, dtype = plan.slices[row], stored_types(files, plan)["instances"]
    blocks = blocks_of(range(z, z + 1), plan.size, plan.block)
    joined = joined_instances(
        blocks,
        lambda block: progress.get(block)["components"],
        plan.rules,
        lambda block: progress.get(block)["cell"],
        _SHARE_OF_SPLIT * plan.free,
    )
    for block, cells in joined:
        writer.put(row, block.rows, block.columns, _numbered(cells, dtype, plan, z))


class _Noted:
    """Has .zarr that grow say how many slices are there, from the first on."""

    def __init__(self, plan: Plan, progress: Progress, growing: Mapping[str, ZarrInPlace]) -> None:
        self._blocks, self._slices, self._progress = plan.blocks, plan.slices, progress
        self._growing, self._done, self._row = growing, 0, 0

    def __call__(self) -> None:
        count = len(self._blocks)
        while self._done < count and self._progress.done(self._blocks[self._done]):
            self._done += 1
        row = len(self._slices)
        if self._done < count:
            row = self._slices.index(self._blocks[self._done].z)
        if row != self._row:
            self._row = row
            for store in self._growing.values():
                store.note(row)


class _Slices:
    """Puts slices together of blocks that come in order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._last = {block.z: block for block in plan.blocks}
        self._parts: dict[str, np.ndarray] = {}

    def add(self, block: Block, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """Return range, image and probabilities of the slice, if this is its last block."""
        if block.rows.start == block.columns.start == 0:
            self._parts = {"range": arrays["range"]}
        low, high = zip(self._parts["range"], arrays["range"])
        self._parts["range"] = np.array([min(low), max(high)])
        for name in ("image", "all"):
            if name not in arrays:
                continue
            if self._plan.is_whole:
                self._parts[name] = arrays[name]
                continue
            step = _step(self._plan)
            shape = tuple(-(-size // step) for size in self._plan.size)
            leading = arrays[name].shape[:-2]
            whole = self._parts.setdefault(name, np.empty(leading + shape, arrays[name].dtype))
            rows, columns = (
                slice(-(-one.start // step), -(-one.stop // step))
                for one in (block.rows, block.columns)
            )
            whole[..., rows, columns] = arrays[name]
        return self._parts if block == self._last[block.z] else None


def _open_truth(
    files: SegmentationFiles, plan: Plan, opened: contextlib.ExitStack
) -> tuple[Volume | None, int]:
    """Open the true labels; also return which slice of the stack its first is."""
    path, part = files.truth, files.truth_part
    if path is None:
        return None, 0
    truth = opened.enter_context(
        as_volume(path, "the truth", channels=1, part=part, if_several=True)
    )
    if len(truth) not in (plan.shape[0], len(plan.slices)) or truth.shape[-2:] != plan.size:
        raise InputError(
            f"{path}: is {truth.shape}, but the stack is {plan.shape}: give labels of all of "
            f"its slices, or of those chosen"
        )
    return truth, 0 if len(truth) == plan.shape[0] else plan.slices[0]


def _begin_growing(
    files: SegmentationFiles,
    plan: Plan,
    progress: Progress,
    opened: contextlib.ExitStack,
    note: Mapping[str, Any] | None,
) -> dict[str, ZarrInPlace]:
    """Open the .zarr that grow under their final names: those where nothing was, or we began it."""
    begun = progress.chosen.get("in place")
    if begun is None:
        begun = []
        for what in stored_types(files, plan):
            path = getattr(files, what)
            if path.suffix.lower() == ".zarr" and not os.path.lexists(path):
                begun.append(what)
        progress.choose({**progress.chosen, "in place": begun})
    if not all(getattr(files, what).is_dir() for what in begun):
        progress.drop_all()
    for what in begun:
        make_store(_growing_layout(what, files, plan, note))
    growing = open_growing(files, plan, progress, note)

    def leave() -> None:
        if not progress.count():
            for store in growing.values():
                store.remove()

    opened.callback(leave)
    return growing


def open_growing(
    files: SegmentationFiles, plan: Plan, progress: Progress, note: Mapping[str, Any] | None = None
) -> dict[str, ZarrInPlace]:
    """Open the .zarr that grow under their final names, which the run has made, by what they hold.

    Parameters are those of `write_segmentation`; an `InputError` if one cannot be written.
    """
    return {
        what: ZarrInPlace(_growing_layout(what, files, plan, note))
        for what in progress.chosen["in place"]
    }


def _growing_layout(
    what: str, files: SegmentationFiles, plan: Plan, note: Mapping[str, Any] | None
) -> Layout:
    return Layout(
        getattr(files, what),
        (len(plan.slices), *_channels(what, plan), *plan.size),
        stored_types(files, plan)[what],
        calibration=plan.calibration,
        blocks=None if plan.block == plan.size else plan.block,
        note=note or {},
        labels=what != "probabilities",
        zarr_format=files.zarr_format,
    )


def _open_writers(
    files: SegmentationFiles,
    plan: Plan,
    opened: contextlib.ExitStack,
    note: Mapping[str, Any] | None,
    but: Collection[str],
) -> dict[str, VolumeWriter]:
    writers = {}
    for what, dtype in stored_types(files, plan).items():
        if what in but:
            continue
        writer = VolumeWriter(
            getattr(files, what),
            (len(plan.slices), *_channels(what, plan), *plan.size),
            dtype,
            overwrite=files.overwrite,
            calibration=plan.calibration,
            blocks=None if plan.block == plan.size else plan.block,
            note=note,
            labels=what != "probabilities",
            zarr_format=files.zarr_format,
            numbers=[plan.numbers[z] for z in plan.slices] if plan.numbers else None,
        )
        writers[what] = opened.enter_context(writer)
    return writers


def _numbered(cells: np.ndarray, dtype: np.dtype, plan: Plan, z: int) -> np.ndarray:
    try:
        return as_stored(cells, dtype)
    except InputError as error:
        raise InputError(f"{plan.stack}: slice {z}: {error}") from None


def _as_written(
    what: str, z: int, probabilities: np.ndarray, plan: Plan, dtype: np.dtype
) -> np.ndarray:
    if what == "instances":
        return _numbered(find_instances(probabilities, plan.rules), dtype, plan, z)
    if what == "classes":
        return probabilities.argmax(axis=0).astype(dtype)
    shown = probabilities[1] if plan.classes == 2 else probabilities
    return (np.rint(shown * 255) if dtype == np.uint8 else shown).astype(dtype)


def _drawn(files: SegmentationFiles, plan: Plan) -> Sequence[int]:
    """Return the slices that are drawn."""
    if files.overlay is None:
        return ()
    return [plan.slices[len(plan.slices) // 2]] if files.overlay.suffix else plan.slices


def _open_overlay(
    files: SegmentationFiles, plan: Plan, opened: contextlib.ExitStack
) -> dict[int, Path]:
    """Return the files that slices are drawn into, which appear together at the end."""
    path, drawn = files.overlay, _drawn(files, plan)
    if path is None:
        return {}
    if path.suffix:
        return {z: opened.enter_context(atomic_path(path)) for z in drawn}
    folder = opened.enter_context(atomic_parts(path))
    times = plan.calibration.times
    depth = len(plan.slices) // times
    places = drawn if times == 1 else [divmod(z, depth) for z in drawn]
    names = slice_names([plan.numbers[z] for z in drawn] if plan.numbers else places)
    return {z: folder / name for z, name in zip(drawn, names)}
