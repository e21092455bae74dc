"""The sliding-window network on a stack: its probabilities, and what they cost beside a U-Net.

    tools/sliding_window.py segment STACK --net FOLDER --weights W --slices A:B -o OUT.tif
    tools/sliding_window.py time STACK --net FOLDER --weights W --slice Z --beside MODEL --json OUT

`segment` computes all windows of a slice at once, which gives what each window by itself gives.
`time` gives seconds of a slice: pixel by pixel, measured on some of its pixels; all windows at
once; and by a U-Net; and how far the first two differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np

import unet
from unet.command.options import add_device, add_overwrite, parse_slices, real, whole
from unet.command.running import run_program
from unet.errors import InputError
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import SCORE_FILE, STACK
from unet.files.score_file import write_scores
from unet.machine.engine import open_engine
from unet.model.sliding_window import SlidingWindow
from unet.volumes import chosen_slices, open_volume
from unet.volumes.writers.volume_writer import VolumeWriter

# Times each is measured, in turns; the best counts.
_ROUNDS = 3


def calibrated(found: np.ndarray, frequency: float | None) -> np.ndarray:
    """Return probabilities of class 1 where it has this frequency, of those where it has 1/2."""
    if frequency is None:
        return found
    yes, no = found * np.float32(frequency), (1 - found) * np.float32(1 - frequency)
    return yes / (yes + no)


def segment(options: argparse.Namespace) -> None:
    """Write the probabilities of class 1."""
    guard_outputs([Output(Path(options.output), STACK)], [options.stack], options.overwrite)
    network = SlidingWindow(open_engine(options.device), Path(options.net), Path(options.weights))
    with open_volume(options.stack) as volume:
        chosen = chosen_slices(parse_slices(options.slices), len(volume))
        shape = len(chosen), *volume.shape[-2:]
        with VolumeWriter(options.output, shape, np.float32) as out:
            for z in chosen:
                begin = time.monotonic()
                found = network.dense(network.prepared(volume[z]))
                out.write(calibrated(found, options.frequency))
                print(f"slice {z}: {time.monotonic() - begin:.1f} s", flush=True)


def measure(options: argparse.Namespace) -> None:
    """Write seconds of a slice, and multiply-adds."""
    guard_outputs([Output(Path(options.json), SCORE_FILE)], [options.stack], options.overwrite)
    network = SlidingWindow(open_engine(options.device), Path(options.net), Path(options.weights))
    model = unet.load(options.beside, device=options.device)
    with open_volume(options.stack) as volume:
        if options.slice >= len(volume):
            raise InputError(f"{options.stack}: has no slice {options.slice}, but {len(volume)}")
        raw = volume[options.slice]
    image = network.prepared(raw)
    random = np.random.default_rng(1)
    places = random.integers(0, image.shape, (options.pixels, 2))
    found: dict[str, np.ndarray] = {}
    work: dict[str, Callable[[], np.ndarray]] = {
        "windows": lambda: network.windows(image, places),
        "dense": lambda: network.dense(image),
        "unet": lambda: model.segment(raw[None], tta="none"),
    }
    seconds = dict.fromkeys(work, float("inf"))
    # The first pass of a net claims its memory.
    network.windows(image, places[:64])
    work["unet"]()
    for _ in range(_ROUNDS):
        for name, compute in work.items():
            begin = time.perf_counter()
            found[name] = compute()
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    one, all_ = network.multiply_adds()
    there = found["dense"][tuple(places.T)]
    result = {
        "pixels_measured": options.pixels,
        "seconds_pixel_by_pixel": seconds["windows"] / options.pixels * image.size,
        "seconds_at_once": seconds["dense"],
        "seconds_unet": seconds["unet"],
        "largest_difference": float(np.abs(found["windows"] - there).max()),
        "multiply_adds_pixel_by_pixel": one * image.size,
        "multiply_adds_at_once": all_,
    }
    write_scores(Path(options.json), result)
    for key, value in result.items():
        print(f"{key:28}  {value:.6g}")


def main(argv: Sequence[str] | None = None) -> None:
    """Segment or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("segment", segment), ("time", measure)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("stack")
        command.add_argument("--net", required=True, help="folder that `unet nets` wrote")
        command.add_argument("--weights", required=True)
        if name == "segment":
            command.add_argument("--slices", metavar="A:B")
            command.add_argument(
                "--frequency",
                type=real(0.001, 0.999),
                help="of class 1 where it learnt: it was shown both classes equally often, and "
                "takes class 0 to be as frequent",
            )
            command.add_argument("-o", "--output", required=True)
        else:
            command.add_argument("--slice", type=whole(0), default=0)
            command.add_argument("--pixels", type=whole(1), default=512)
            command.add_argument("--beside", required=True, help="model of a U-Net")
            command.add_argument("--json", required=True)
        add_device(command, precision=False)
        add_overwrite(command)
    options = parser.parse_args(argv)
    options.run(options)


if __name__ == "__main__":
    run_program(main)
