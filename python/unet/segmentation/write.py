"""A segmented stack in files: probabilities, classes, instances, outlines beside the slices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_parts, atomic_path, writing
from unet.files.outputs import Output
from unet.files.provenance import PICTURE, STACK
from unet.plots import save_overlay
from unet.segmentation.beside_passes import behind
from unet.segmentation.instances import as_stored, find_instances
from unet.segmentation.options import Plan
from unet.volumes import Volume, VolumeWriter, open_volume


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
    dtype : {"float32", "uint8"}, optional
        Of probabilities; uint8 is 255 for 1. By default float32, uint8 where they are PNG.
    instance_dtype : {"uint16", "uint32"}
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
    instance_dtype: str = "uint16"
    overwrite: bool = False
    zarr_format: int | None = None

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


def write_segmentation(
    results: Iterable[tuple[np.ndarray, np.ndarray]],
    plan: Plan,
    files: SegmentationFiles,
    note: Mapping[str, Any] | None = None,
) -> list[int]:
    """Write a stack that is being segmented; the files appear when all of them are whole.

    Parameters
    ----------
    results : iterable of (ndarray, ndarray)
        Of each slice its image and the probabilities of its classes: `unet.model.Model.run`.
    plan : Plan
    files : SegmentationFiles
    note : mapping, optional
        Provenance: `unet.segmentation.provenance.describe`.

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
        truth, offset = _open_truth(files.truth, plan, opened)
        writers = _open_writers(files, plan, opened, note)
        drawings = _open_overlay(files.overlay, plan, opened)

        def write(z: int, image: np.ndarray, probabilities: np.ndarray) -> None:
            if image.min() == image.max():
                flat.append(z)
            for what, writer in writers.items():
                writer.write(_as_written(what, z, probabilities, plan, writer.dtype))
            if z in drawings:
                known = None if truth is None else truth[z - offset].reshape(plan.size)
                with writing(files.overlay):
                    save_overlay(drawings[z], plan.input(image), probabilities, known)

        with behind(write) as write_behind:
            for z, (image, probabilities) in zip(plan.slices, results):
                write_behind(z, image, probabilities)
    return flat


def _open_truth(
    path: str | None, plan: Plan, opened: contextlib.ExitStack
) -> tuple[Volume | None, int]:
    """Open the true labels; also return which slice of the stack its first is."""
    if path is None:
        return None, 0
    truth = opened.enter_context(open_volume(path, channels=1))
    if len(truth) not in (plan.shape[0], len(plan.slices)) or truth.shape[-2:] != plan.size:
        raise InputError(
            f"{path}: is {truth.shape}, but the stack is {plan.shape}: give labels of all of "
            f"its slices, or of those chosen"
        )
    return truth, 0 if len(truth) == plan.shape[0] else plan.slices[0]


def _open_writers(
    files: SegmentationFiles,
    plan: Plan,
    opened: contextlib.ExitStack,
    note: Mapping[str, Any] | None,
) -> dict[str, VolumeWriter]:
    is_png = files.probabilities is not None and files.probabilities.suffix.lower() in ("", ".png")
    # Instances first: they alone can fail for what a slice holds.
    types = {
        "instances": files.instance_dtype,
        "classes": np.bool_ if plan.classes == 2 else np.uint8,
        "probabilities": files.dtype or ("uint8" if is_png else "float32"),
    }
    writers = {}
    for what, dtype in types.items():
        path = getattr(files, what)
        if path:
            channels = (plan.classes,) if what == "probabilities" and plan.classes > 2 else ()
            shape = (len(plan.slices), *channels, *plan.size)
            writer = VolumeWriter(
                path,
                shape,
                np.dtype(dtype),
                overwrite=files.overwrite,
                calibration=plan.calibration,
                note=note,
                labels=what != "probabilities",
                zarr_format=files.zarr_format,
            )
            writers[what] = opened.enter_context(writer)
    return writers


def _as_written(
    what: str, z: int, probabilities: np.ndarray, plan: Plan, dtype: np.dtype
) -> np.ndarray:
    if what == "instances":
        try:
            return as_stored(find_instances(probabilities, plan.rules), dtype)
        except InputError as error:
            raise InputError(f"{plan.stack}: slice {z}: {error}") from None
    if what == "classes":
        return probabilities.argmax(axis=0).astype(dtype)
    shown = probabilities[1] if plan.classes == 2 else probabilities
    return (np.rint(shown * 255) if dtype == np.uint8 else shown).astype(dtype)


def _open_overlay(path: Path | None, plan: Plan, opened: contextlib.ExitStack) -> dict[int, Path]:
    """Return the files that slices are drawn into, which appear together at the end."""
    if path is None:
        return {}
    if path.suffix:
        middle = plan.slices[len(plan.slices) // 2]
        return {middle: opened.enter_context(atomic_path(path))}
    folder = opened.enter_context(atomic_parts(path))
    return {z: folder / f"slice_{z:04d}.png" for z in plan.slices}
