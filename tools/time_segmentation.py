"""How fast stacks are segmented: `tools/benchmark.py segment`.

Three questions, each answered by what runs in turns on this machine: which share of the rate of
bare passes a stack is segmented at; how a slice compares with genuine Caffe, cut as the authors cut
it in 2015, and with MONAI's sliding window over a PyTorch module of the same net; and what eight
versions of a slice cost.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np

from unet import load, open_volume
from unet.errors import InputError
from unet.segmentation.options import SegmentationOptions
from unet.segmentation.progress import Progress
from unet.segmentation.segment import softmax
from unet.segmentation.tile_size import shape_net
from unet.segmentation.write import SegmentationFiles, write_segmentation
from unet.volumes import write_volume

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY / "tools" / "caffe-reference"
# Pixels along a slice of ISBI 2012, and the paper's tile.
SLICE, PAPER_TILE = 512, 572
# What must be reached.
SHARE, OVER_CAFFE, OVER_MONAI, VERSIONS = 0.92, 4.0, 1.6, 8.0
# Bytes: tiles are those asked for, however much memory is free.
_ANY_MEMORY = 1e15
# Seconds between two turns: OpenMP's threads of the one before still spin for 0.2 s.
_SETTLE = 1.0
# What is run: segmented from file to memory, or to a file.
Run = Callable[[], np.ndarray]


def segment_slice(stack: str, source: str, device: str, precision: str, tta: str = "none") -> Run:
    """Return what segments a slice as `tools/segment.py` does, on this process's `caffe`."""
    model = load(source, device=device, precision=precision)

    def once() -> np.ndarray:
        with open_volume(stack) as volume:
            chosen = SegmentationOptions(tta=tta, slices=range(1))
            (result,) = model.run(volume, model.plan(volume, chosen))
        return result[1]

    return once


def segment_slice_as_2015(stack: str, source: str, device: str, precision: str) -> Run:
    """Return what segments a slice in the tiles of the authors' release, in one version."""
    model = load(source, device=device, precision=precision)

    def once() -> np.ndarray:
        with open_volume(stack) as volume:
            chosen = SegmentationOptions(procedure="2015", slices=range(1), memory=_ANY_MEMORY)
            plan = replace(model.plan(volume, chosen), tta="none")
            (result,) = model.run(volume, plan)
        return result[1]

    return once


def segment_slice_by_monai(stack: str, source: str, device: str, precision: str) -> Run:
    """Return what segments a slice by MONAI's sliding window over a PyTorch module of the net.

    The window slides over the slice mirrored at its edges, by as much as the valid convolutions
    leave of it; so it passes as few tiles as it can. The last of each row and column is moved in,
    off the grid of the poolings, and averaged with the one before: scores are others there.
    """
    import torch
    import torch.nn.functional as F

    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        raise InputError("MONAI is not installed: .venv/bin/pip install monai") from None
    from unet_in_pytorch import PlainUNet, compute_in

    model = load(source, device="cpu")
    where, reduced = compute_in(precision, device)
    module = PlainUNet.of(model.net).eval().to(where)
    edge = model.geometry.border
    output = PAPER_TILE - 2 * edge
    inside = F.pad(torch.ones(output, output, device=where), (edge,) * 4)
    # Half a pixel less than what overlaps, since the step is rounded down.
    overlap = (2 * edge - 0.5) / PAPER_TILE

    def padded(tile: torch.Tensor) -> torch.Tensor:
        return F.pad(module(tile), (edge,) * 4)

    def once() -> np.ndarray:
        with open_volume(stack) as volume, torch.inference_mode(), reduced:
            chosen = SegmentationOptions(slices=range(1))
            image = torch.from_numpy(model.plan(volume, chosen).input(volume[0])).to(where)
            wide = F.pad(image[None], (edge,) * 4, mode="reflect")
            window = (PAPER_TILE, PAPER_TILE)
            scores = sliding_window_inference(
                wide, window, 1, padded, overlap=overlap, roi_weight_map=inside
            )
            return softmax(scores[0, :, edge:-edge, edge:-edge].float().cpu().numpy())

    return once


class Stack:
    """A stack, segmented from file to file, and as many bare passes of its net."""

    def __init__(self, stack: str, source: str, device: str, precision: str) -> None:
        self._stack, self._model = stack, load(source, device=device, precision=precision)
        self.output = Path(stack).parent / "probabilities.tif"
        with open_volume(stack) as volume:
            self._plan = self._model.plan(volume, SegmentationOptions())

    def segment(self) -> float:
        """Return the seconds that the stack takes."""
        begin = time.perf_counter()
        files = SegmentationFiles(probabilities=self.output, overwrite=True)
        with open_volume(self._stack) as volume, Progress.open(self.output, {}) as progress:
            run = partial(self._model.run, volume, self._plan)
            write_segmentation(run, self._plan, files, progress)
        return time.perf_counter() - begin

    def passes(self) -> float:
        """Return the seconds that the bare passes take."""
        net = self._model.net
        shape_net(net, self._plan.tiling.tile)
        net.blobs["data"].data[...] = np.random.RandomState(0).rand(*net.blobs["data"].data.shape)
        begin = time.perf_counter()
        for _ in range(self._plan.passes):
            net.forward(["score"])
        # Values are there once they are looked at.
        net.blobs["score"].data[0, 0, 0, 0].item()
        return time.perf_counter() - begin


RUNS = {
    "slice": segment_slice,
    "versions": partial(segment_slice, tta="dihedral"),
    "2015": segment_slice_as_2015,
    "monai": segment_slice_by_monai,
}


def main() -> None:
    """Run what the command line names, once for each line on standard input; answer in JSON."""
    what, stack, source, device, precision, output = sys.argv[1:]
    once: Run | None = None
    for _ in sys.stdin:
        try:
            once = once or RUNS[what](stack, source, device, precision)
            begin = time.perf_counter()
            result = once()
            answer: dict[str, Any] = {"seconds": time.perf_counter() - begin}
            np.save(output, result)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


class _Process:
    """One of `RUNS` in a process of its own, on this engine or on genuine Caffe."""

    def __init__(self, what: str, stack: str, source: str, options: argparse.Namespace) -> None:
        self._output = Path(stack).parent / f"{what}.npy"
        python = [str(REFERENCE), "python3"] if what == "2015" else [sys.executable]
        many = str(options.threads)
        given = [what, stack, source, options.device, options.precision, str(self._output)]
        self._what = what
        self._process = subprocess.Popen(
            [*python, __file__, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS=many, OPENBLAS_NUM_THREADS=many),
            cwd=str(REPOSITORY),
        )

    def seconds(self) -> float:
        """Run it once."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        # Libraries, too, may say something.
        for line in iter(self._process.stdout.readline, ""):
            if line.startswith("{"):
                answer = json.loads(line)
                if "error" in answer:
                    raise InputError(f"{self._what}: {answer['error']}")
                return answer["seconds"]
        raise InputError(f"the process that runs '{self._what}' ended unexpectedly")

    def result(self) -> np.ndarray:
        """Return the probabilities of the last run."""
        return np.load(self._output)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def in_turns(
    stack: str, source: str, names: Iterable[str], options: argparse.Namespace
) -> Iterator[tuple[str, list[float], np.ndarray]]:
    """Run each of `RUNS` in turns; yield its name, its seconds in each round, and its result.

    What is named twice runs twice a round. The options are those of `tools/benchmark.py`: device,
    precision, threads and rounds.
    """
    names = list(names)
    processes = {name: _Process(name, stack, source, options) for name in dict.fromkeys(names)}
    found: dict[str, list[float]] = {name: [] for name in processes}
    try:
        for turn in range(options.rounds + 1):
            for name in names:
                time.sleep(_SETTLE)
                seconds = processes[name].seconds()
                # The first one warms up.
                if turn:
                    found[name].append(seconds)
        for name, process in processes.items():
            yield name, found[name], process.result()
    finally:
        for process in processes.values():
            process.close()


def segment(options: argparse.Namespace) -> None:
    """Answer the three questions; exit status 1 if one of the bounds is missed."""
    on_cpu = options.device == "cpu"
    if on_cpu and subprocess.run([str(REFERENCE), "--check"], check=False).returncode:
        raise InputError("genuine Caffe is not installed: run make caffe-reference first")
    pixels = np.random.RandomState(0).randint(0, 256, (options.slices, SLICE, SLICE))
    held = []
    # Genuine Caffe does not know networks by name.
    known = REPOSITORY / "models" / options.model
    options.model = str(known if known.exists() else options.model)
    with tempfile.TemporaryDirectory() as folder:
        stack = os.path.join(folder, "stack.tif")
        write_volume(stack, pixels.astype(np.uint8))
        held.append(_time_stack(stack, options))
        held += _time_slice(stack, options)
    if not all(held):
        raise SystemExit(1)


def _told(what: str, seconds: list[float]) -> None:
    print(f"  {what:34s} best {min(seconds):8.3f} s, median {statistics.median(seconds):8.3f} s")


def _verdict(what: str, value: float, bound: float, at_most: bool = False) -> bool:
    held = value <= bound if at_most else value >= bound
    word = "at most" if at_most else "at least"
    print(f"  {what}: {value:.2f}, {word} {bound:g}: {'held' if held else 'MISSED'}", flush=True)
    return held


def _time_stack(stack: str, options: argparse.Namespace) -> bool:
    # In this process: rounds of the same net, same memory, same threads.
    timed = Stack(stack, options.model, options.device, options.precision)
    timed.segment()
    bare, whole = [timed.passes()], []
    for _ in range(options.rounds):
        whole.append(timed.segment())
        bare.append(timed.passes())
    print(f"{Path(options.model).name}: {options.slices} slices of {SLICE}x{SLICE}, file to file:")
    _told("the stack", whole)
    _told("as many bare passes", bare)
    # Each beside the passes before and after it, since machines are noisy.
    shares = [(a + b) / 2 / w for a, w, b in zip(bare, whole, bare[1:])]
    return _verdict("share of the rate of passes", statistics.median(shares), SHARE)


def _time_slice(stack: str, options: argparse.Namespace) -> list[bool]:
    names = {"slice": "this engine", "versions": "this engine, 8 versions"}
    # Genuine Caffe, as Debian has it, computes on CPUs.
    names |= {"2015": "genuine Caffe, tiles of 2015"} if options.device == "cpu" else {}
    names |= {"monai": f"MONAI, tiles of {PAPER_TILE}"}
    where = f"{options.threads} threads" if options.device == "cpu" else f"GPU {options.device}"
    print(
        f"{Path(options.model).name}: one slice of {SLICE}x{SLICE}, {where}, {options.precision}:",
        flush=True,
    )
    every, results = {}, {}
    # A slice before and after its versions. The one before is what others are compared with, so
    # that each has as many chances.
    order = ["slice", "versions", "slice", *list(names)[2:]]
    for name, seconds, result in in_turns(stack, options.model, order, options):
        every[name], results[name] = seconds, result
    before, after = every["slice"][::2], every["slice"][1::2]
    every["slice"] = before
    for name, seconds in every.items():
        _told(names[name], seconds)
    best = {name: min(seconds) for name, seconds in every.items()}
    for name in {"2015", "monai"}.intersection(names):
        apart = np.abs(results[name] - results["slice"])
        print(f"  {names[name]}: other by {apart.mean():.1e} on average, {apart.max():.1e} at most")
    one, held = best["slice"], []
    if "2015" in names:
        held.append(_verdict("times as fast as genuine Caffe", best["2015"] / one, OVER_CAFFE))
    held.append(_verdict("times as fast as MONAI", best["monai"] / one, OVER_MONAI))
    # Each beside the slices around it: in a best one, so much shorter, there is more luck.
    around = zip(every["versions"], before, after)
    versions = statistics.median(2 * v / (a + b) for v, a, b in around)
    return [*held, _verdict("8 versions over one", versions, VERSIONS, at_most=True)]


if __name__ == "__main__":
    main()
