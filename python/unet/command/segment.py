"""Segment a stack with a trained network: the probability or the class of every pixel.

With two classes the probability is that of class 1 (inside a cell), and labels are white there.
With more, probabilities have one channel a class, and labels are the classes' numbers. --labels
writes which cell each pixel belongs to: 0 none, 1, 2, ... in each slice anew.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np
from tqdm import tqdm

from unet.command.options import parse_slices
from unet.command.segment_options import (
    cell_rules,
    choose_grey,
    choose_tiles,
    open_truth,
    output_paths,
    parse,
    parse_tile,
)
from unet.errors import InputError, few
from unet.files.atomic import atomic_parts, atomic_path, writing
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import PICTURE, STACK
from unet.machine.engine import open_engine, tiles_together
from unet.model import find_model, load_net, pass_cost
from unet.plots import save_overlay
from unet.segmentation import release2015 as procedure2015
from unet.segmentation.instances import CellRules, as_stored, find_cells
from unet.segmentation.segment import VERSIONS, segment_volume
from unet.segmentation.tiles import PassCost
from unet.volumes import Volume, VolumeWriter, chosen_slices, open_volume
from unet.volumes.intensity import INPUT, scale_grey


def main(argv: Sequence[str] | None = None) -> None:
    """Segment a stack."""
    options = parse(argv, __doc__)
    prototxt, weights = find_model(options.weights, options.net)
    outputs, rules = output_paths(options), cell_rules(options)
    pictures = [options.overlay] if options.overlay else []
    guard_outputs(
        [Output(path, STACK) for path in outputs.values()]
        + [Output(path, PICTURE) for path in pictures],
        [options.stack, *([options.truth] if options.truth else [])]
        + [prototxt, weights, prototxt.parent / INPUT],
        options.overwrite,
    )
    tile = parse_tile(options.tile)
    average = procedure2015.AVERAGE if options.procedure else options.average or "none"
    with contextlib.ExitStack() as opened:
        volume = opened.enter_context(open_volume(options.stack))
        slices = chosen_slices(parse_slices(options.slices), len(volume))
        volume.demand(slices)
        truth = open_truth(options.truth, volume, slices, opened)
        grey = choose_grey(options, volume, prototxt)

        caffe = open_engine(options.device, options.precision, graphs=True)
        net = load_net(caffe, prototxt, weights)
        channels, classes = net.blobs["data"].shape[1], net.blobs["score"].shape[1]
        if (volume.channels or 1) != channels:
            raise InputError(
                f"{volume.path}: has {volume.channels or 1} channels, but {prototxt} takes "
                f"{channels}"
            )
        shape, cost = volume.shape[-2:], pass_cost(net)
        tile, tiles, score = choose_tiles(tile, shape, cost, options)
        versions = len(VERSIONS[average])
        passes = len(slices) * tiles * versions
        print(describe(volume, slices, tile, cost, tiles, versions), flush=True)

        write = open_outputs(options, outputs, rules, slices, shape, classes, opened)
        draw = open_overlay(options.overlay, slices, opened)
        begin, flat = time.perf_counter(), []
        bar = opened.enter_context(tqdm(total=passes, unit="pass", disable=None, leave=False))
        probabilities = segment_volume(
            net,
            noted(volume, slices, flat),
            grey,
            tile,
            average=average,
            score=score,
            together=tiles_together(caffe),
            after_pass=bar.update,
        )
        for z, likely in failures_are_told(probabilities, volume, slices):
            write(z, likely)
            draw(z, volume, grey, likely, truth)
        seconds = time.perf_counter() - begin
    print(
        f"{seconds:.1f} s, {seconds / len(slices):.2f} s a slice, "
        f"{passes * cost.work(tile) / seconds / 1e9:.0f} G multiply-adds a second"
    )
    for path in [*outputs.values(), *pictures]:
        print(f"written: {path}")
    if flat:
        print(f"look at this: all pixels are of one grey value in slices {few(flat)}")


def noted(volume: Volume, slices: range, flat: list[int]) -> Iterator[np.ndarray]:
    """Yield the slices, and note those of one grey value, in which there is nothing to see."""
    for z in slices:
        picture = volume[z]
        if picture.min() == picture.max():
            flat.append(z)
        yield picture


def describe(
    volume: Volume,
    slices: range,
    tile: tuple[int, int],
    cost: PassCost,
    tiles: int,
    versions: int,
) -> str:
    """Say in a line what will be computed."""
    height, width = volume.shape[-2:]
    return (
        f"{volume.path}: {len(slices)} slice{'s' * (len(slices) > 1)} of {height}x{width}; each "
        f"{versions} version{'s' * (versions > 1)} of {tiles} tile{'s' * (tiles > 1)} of "
        f"{tile[0]}x{tile[1]}; a pass is {cost.work(tile) / 1e9:.3g} G multiply-adds and about "
        f"{cost.memory(tile) / 2**20:.0f} MB"
    )


def open_outputs(
    options: argparse.Namespace,
    paths: dict[str, Path],
    rules: CellRules,
    slices: range,
    shape: tuple[int, int],
    classes: int,
    opened: contextlib.ExitStack,
) -> Callable[[int, np.ndarray], None]:
    """Open the files; what is returned writes the probabilities of the next slice into them."""
    is_png = Path(options.out or "").suffix.lower() in ("", ".png")
    types = {
        "probability": np.dtype(options.dtype or ("uint8" if is_png else "float32")),
        "labels": np.dtype(np.bool_ if classes == 2 else np.uint8),
        "cells": np.dtype(options.label_dtype),
    }
    writers = {}
    for what, path in paths.items():
        plane = (classes,) + tuple(shape) if what == "probability" and classes > 2 else tuple(shape)
        writers[what] = opened.enter_context(
            VolumeWriter(path, (len(slices),) + plane, types[what], overwrite=options.overwrite)
        )

    def write(z: int, likely: np.ndarray) -> None:
        if "cells" in writers:
            try:
                writers["cells"].write(as_stored(find_cells(likely, rules), types["cells"]))
            except InputError as error:
                raise InputError(f"{options.stack}: slice {z}: {error}") from None
        if "labels" in writers:
            writers["labels"].write(likely.argmax(axis=0).astype(types["labels"]))
        if "probability" in writers:
            shown = likely[1] if classes == 2 else likely
            if types["probability"] == np.uint8:
                shown = np.rint(shown * 255)
            writers["probability"].write(shown.astype(types["probability"]))

    return write


def open_overlay(
    path: str | None, slices: range, opened: contextlib.ExitStack
) -> Callable[..., None]:
    """Return what draws a slice, if it is to be drawn; the pictures appear together at the end."""
    folder = single = None
    if path and Path(path).suffix.lower() == ".png":
        single = opened.enter_context(atomic_path(path))
    elif path:
        folder = opened.enter_context(atomic_parts(Path(path)))

    def draw(
        z: int,
        volume: Volume,
        grey: tuple[float, float] | None,
        likely: np.ndarray,
        truth: Callable[[int], np.ndarray] | None,
    ) -> None:
        if path is None or (folder is None and z != slices[len(slices) // 2]):
            return
        picture = scale_grey(np.reshape(volume[z], (-1,) + volume.shape[-2:]), grey)
        file = folder / f"slice_{z:04d}.png" if folder else single
        with writing(path):
            save_overlay(file, picture, likely, truth(z) if truth else None)

    return draw


def failures_are_told(
    probabilities: Iterator[np.ndarray], volume: Volume, slices: range
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the same, numbered; scores or memory out of bounds become a sentence."""
    for z in slices:
        try:
            likely = next(probabilities)
        except FloatingPointError as error:
            raise InputError(
                f"{volume.path}: slice {z}: {error}: its grey values are far from those that the "
                f"network learnt from; see --grey and --normalise"
            ) from None
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise MemoryError(f"{reason}; take a smaller --tile, or less --memory") from None
        yield z, likely
