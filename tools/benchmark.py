"""Measure speed and memory: this engine against genuine Caffe and PyTorch, and what feeds it.

They run in one go, one after the other in turns, since machines are noisy; what is shown is the
best and the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Callable

import numpy as np

from unet.command.options import real, whole
from unet.command.running import run_program
from unet.command.terminal import is_the_output
from unet.errors import InputError
from unet.machine.engine import open_engine
from unet.network.geometry import Geometry

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY / "tools" / "caffe-reference"
# Pixels along a slice of ISBI 2012.
SLICE = 512
# Rows and columns of matrices whose product is as fast as a device can multiply.
PRODUCT_SIZE, CPU_PRODUCT_SIZE = 8192, 1024


def _synthetic(net: str, tile: int, phase: str, folder: str) -> str:
    """Write the net with Input layers in place of its data layer, and a solver; return its path."""
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    name = "train_val" if phase == "train" else "deploy"
    source = REPOSITORY / "prototxt" / net / f"{name}.prototxt"
    param = text_format.Parse(source.read_text(), caffe_pb2.NetParameter())
    layers = [layer for layer in param.layer if layer.type not in ("Python", "Input")]
    del param.layer[:]
    inner = tile - 2 * Geometry().border
    shapes = {"data": (1, 1, tile, tile)}
    if phase == "train":
        shapes.update(label=(1, 1, inner, inner), weight=(1, 2, inner, inner))
    for name, shape in shapes.items():
        layer = param.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
    param.layer.extend(layers)
    path = os.path.join(folder, f"{phase}.prototxt")
    Path(path).write_text(str(param))
    if phase == "test":
        return path
    solver = os.path.join(folder, "solver.prototxt")
    Path(solver).write_text(
        f'train_net: "{path}" base_lr: 1e-6 lr_policy: "fixed" momentum: 0.99 weight_decay: 0.0005 '
        f'max_iter: 1000000 type: "SGD" random_seed: 1 snapshot_prefix: "{folder}/snapshot"'
    )
    return solver


def _caffe_pass(options: argparse.Namespace) -> tuple[Callable[[], object], float]:
    """Return what runs one training step, or one forward pass, on this process's `caffe`.

    And the products that it takes, in 1e9: a gradient of data and one of weights take as many as
    the pass forward.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    caffe = open_engine(options.device, options.precision)
    rng = np.random.RandomState(0)
    train, tile = options.phase == "train", options.tile
    if options.device != "cpu":
        from unet_in_pytorch import wait
    with tempfile.TemporaryDirectory() as folder:
        path = _synthetic(options.net, tile, options.phase, folder)
        if train:
            solver = caffe.SGDSolver(path)
            network = solver.net
            network.blobs["weight"].data[...] = rng.rand(*network.blobs["weight"].data.shape)
        else:
            network = caffe.Net(path, caffe.TEST)
    # As tools/train.py and tools/segment.py do it.
    network.retain_data = False
    network.blobs["data"].data[...] = rng.rand(1, 1, tile, tile)
    products = _products(network) * (3 if train else 1)

    def once() -> None:
        _repeat_passes(caffe, options.graphs)
        if train:
            solver.step(1)
            # As tools/train.py does after every step.
            float(network.blobs["loss"].data)
        else:
            network.forward()
        if options.device != "cpu":
            wait()

    return once, products / 1e9


def _slice_pass(options: argparse.Namespace) -> tuple[Callable[[], object], float]:
    """Return what segments one slice of 512 x 512 as tools/segment.py does, from file to memory."""
    from unet import load, open_volume
    from unet.segmentation.options import SegmentationOptions
    from unet.volumes import write_volume

    caffe = open_engine(options.device, options.precision)
    prototxt = REPOSITORY / "prototxt" / options.net / "deploy.prototxt"
    pixels = np.random.RandomState(0).randint(0, 256, (1, SLICE, SLICE)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "weights.caffemodel")
        caffe.Net(str(prototxt), caffe.TEST).save(weights)
        model = load(weights, prototxt, device=options.device, precision=options.precision)
    # Goes with the process: the file has to be there in every round.
    file = tempfile.NamedTemporaryFile(suffix=".tif")  # noqa: SIM115
    write_volume(file.name, pixels)
    asked = SegmentationOptions(tta=options.tta, normalise=True)
    with open_volume(file.name) as volume:
        plan = model.plan(volume, asked)

    def once() -> None:
        # As tools/segment.py does it.
        _repeat_passes(caffe, True)
        with open_volume(file.name) as volume:
            for _ in model.run(volume, plan):
                pass

    return once, plan.work / 1e9


def _repeat_passes(caffe: ModuleType, on: bool) -> None:
    """Let a GPU repeat passes as CUDA graphs, or not; genuine Caffe cannot."""
    if hasattr(caffe, "set_graphs"):
        caffe.set_graphs(on)


def _products(network: object) -> int:
    """Count the multiplications of a pass forward: weights times places that they are used in."""
    total = 0
    for name, layer in zip(network._layer_names, network.layers):
        if layer.type in ("Convolution", "Deconvolution"):
            blobs = network.top_names if layer.type == "Convolution" else network.bottom_names
            total += layer.blobs[0].count * int(np.prod(network.blobs[blobs[name][0]].shape[2:]))
    return total


def _built(options: argparse.Namespace) -> tuple[Callable[[], object], float]:
    """Return what runs the pass that options name, and its products in 1e9, if it counts them."""
    if options.phase == "product":
        from unet_in_pytorch import matrix_product

        size = CPU_PRODUCT_SIZE if options.device == "cpu" else PRODUCT_SIZE
        return matrix_product(size, options.device, options.precision), size**3 / 1e9
    if options.by == "torch":
        from unet.network.nets import WIDTHS
        from unet_in_pytorch import plain_step

        train = options.phase == "train"
        width = WIDTHS[options.net]
        return plain_step(width, options.tile, train, options.device, options.precision), 0.0
    return (_slice_pass if options.phase == "slice" else _caffe_pass)(options)


def work(options: argparse.Namespace) -> None:
    """Run passes in this process, one for each line on standard input, answered in JSON.

    A line is empty or holds, in JSON, options in place of those of the command line, of one
    precision and device; with "build" it asks that the pass be built, which is done once, and not
    run. The answer to one that fails is its `error`.
    """
    built: dict[str, _Pass] = {}
    for line in sys.stdin:
        asked = json.loads(line) if line.strip() else {}
        only_built = asked.pop("build", False)
        name = json.dumps(asked)
        try:
            if name not in built:
                built[name] = _Pass(argparse.Namespace(**{**vars(options), **asked}))
            answer = {"built": True} if only_built else built[name].time()
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


class _Pass:
    """A pass among others in this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._on_gpu = options.device != "cpu"
        before = self._memory()[0]
        self._once, self._products = _built(options)
        # What it keeps, in GiB: now, and once it has run.
        self._kept, self._has_run = self._memory()[0] - before, False

    def _memory(self, anew: bool = False) -> tuple[float, float]:
        if not self._on_gpu:
            return 0.0, 0.0
        from unet_in_pytorch import gpu_gib

        return gpu_gib(anew)

    def time(self) -> dict[str, object]:
        """Run it; return its times in seconds, its products in 1e9 and the largest memory."""
        before = self._memory(anew=True)[0]
        start, spent = time.perf_counter(), time.process_time()
        self._once()
        found = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - spent,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "products": self._products,
        }
        if self._on_gpu:
            now, most = self._memory()
            found["gpu_gib"] = most - before + self._kept
            if not self._has_run:
                self._kept, self._has_run = self._kept + now - before, True
        return found


def _worker(command: Sequence[str], threads: int) -> subprocess.Popen:
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=str(REPOSITORY),
    )


def _ask(worker: subprocess.Popen) -> dict[str, float]:
    worker.stdin.write("\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise InputError(f"the engine run by '{' '.join(worker.args[:2])}' ended unexpectedly")
    answer = json.loads(line)
    if "error" in answer:
        print(answer["error"], file=sys.stderr)
        raise InputError(f"the engine run by '{' '.join(worker.args[:2])}' failed, see above")
    return answer


def engine(options: argparse.Namespace) -> None:
    """Compare training steps and forward passes of both engines, and of a PyTorch module."""
    Geometry().check((options.tile, options.tile))
    on_cpu = options.device == "cpu"
    if on_cpu and subprocess.run([str(REFERENCE), "--check"], check=False).returncode:
        raise InputError("genuine Caffe is not installed: run make caffe-reference first")
    precision = open_engine(options.device, options.precision).get_precision()
    phases = ["train", "test"] if options.phase == "both" else [options.phase]
    for phase in phases:
        arguments = ["tools/benchmark.py", "work", "--net", options.net]
        arguments += ["--tile", str(options.tile), "--phase", phase, "--device", options.device]
        chosen = ["--precision", precision]
        ours = [sys.executable, *arguments, *chosen]
        workers = {"this engine": _worker(ours, options.threads)}
        if on_cpu:
            # Genuine Caffe and PyTorch in float32, whatever this engine computes in.
            chosen = []
            genuine = [str(REFERENCE), "python3", *arguments]
            workers["genuine Caffe"] = _worker(genuine, options.threads)
        plain = [sys.executable, *arguments, *chosen, "--by", "torch"]
        workers["plain PyTorch"] = _worker(plain, options.threads)
        results: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        try:
            for _ in range(options.rounds + 1):
                for name, worker in workers.items():
                    results[name].append(_ask(worker))
        finally:
            for worker in workers.values():
                worker.stdin.close()
                worker.wait()
        what = "forward + backward + update" if phase == "train" else "forward"
        where = f"{options.threads} threads" if on_cpu else f"GPU {options.device}"
        print(f"{options.net}, {options.tile}x{options.tile}, {what}, {precision}, {where}:")
        best = {}
        for name, rounds in results.items():
            seconds = [entry["seconds"] for entry in rounds[1:]]
            best[name] = min(seconds)
            print(
                f"  {name:14s} best {min(seconds):6.2f} s, "
                f"median {statistics.median(seconds):6.2f} s, "
                f"CPU time {min(entry['cpu_seconds'] for entry in rounds[1:]):6.2f} s, "
                f"peak memory {max(entry['peak_gib'] for entry in rounds):5.2f} GiB"
            )
        rate = 2e-3 * results["this engine"][0]["products"] / best["this engine"]
        share = f", {rate / options.peak:.0%} of the peak" if options.peak else ""
        print(f"  {rate:.2f} TFLOP/s of direct convolution{share}")
        for name in list(workers)[1:]:
            print(f"  {best[name] / best['this engine']:.2f} times as fast as {name} (best)")


def tiles(options: argparse.Namespace) -> None:
    """Time the cutting of augmented training tiles, by worker processes and without."""
    from unet.augmentation.tile_sampler import Augmentation, TileSampler
    from unet.augmentation.tile_workers import TileWorkers
    from unet.network.nets import AUGMENTATION
    from unet.preparation.labels import instances_from_binary
    from unet.preparation.training_set import TrainingSet, write_training_set
    from unet.preparation.weight_map import weight_map

    rng = np.random.RandomState(0)
    raw = rng.randint(0, 256, (20, SLICE, SLICE)).astype(np.uint8)
    inside = np.arange(SLICE) % 48 > 2
    labels = np.stack([inside & inside[:, None]] * len(raw)).astype(np.uint8)
    weights = np.stack([weight_map(instances_from_binary(labels[0] > 0), [1.0, 1.0])] * len(raw))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tiles.h5")
        known = dict(classes=2, grey_low=0.0, grey_high=255.0)
        write_training_set(path, raw, labels, weights, attributes=known)
        tile = (options.tile, options.tile)
        with TrainingSet(path) as training_set:
            how = Augmentation(**AUGMENTATION)
            sampler = TileSampler(training_set, range(len(raw)), tile, Geometry().border, how, 1)
            for count in options.workers or (0, options.threads):
                workers = TileWorkers(sampler, count) if count else None
                take = workers.fetch if workers else sampler
                # What workers have cut ahead by then counts for little.
                number = options.tiles * max(1, count)
                for index in range(10):
                    take(index)
                start = time.perf_counter()
                for index in range(10, 10 + number):
                    take(index)
                rate = number / (time.perf_counter() - start)
                if workers:
                    workers.close()
                told = f"{tile[0]}x{tile[1]} tiles, {count} workers: {rate:.1f} a second"
                print(told, flush=True)


def segment(options: argparse.Namespace) -> None:
    """Time stacks and slices from file to probabilities, here and by others."""
    from time_segmentation import segment

    segment(options)


def onnx(options: argparse.Namespace) -> None:
    """Time and compare what ONNX Runtime makes of an exported network."""
    from time_export import onnx

    onnx(options)


BENCHMARKS = {"engine": engine, "onnx": onnx, "segment": segment, "tiles": tiles, "work": work}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(BENCHMARKS))
    parser.add_argument("--net", default="unet", help="folder of prototxt/ (engine)")
    parser.add_argument(
        "--tile", type=whole(1), default=572, help="input size (engine, tiles, onnx)"
    )
    parser.add_argument(
        "--phase",
        default="both",
        choices=["train", "test", "both", "slice", "product"],
        help="a training step, a pass forward (engine); also a slice segmented, or a product of "
        "matrices (work)",
    )
    parser.add_argument(
        "--graphs", action="store_true", help="a GPU repeats recorded passes (work)"
    )
    parser.add_argument("--tta", default="none", help="as of tools/segment.py (slice)")
    parser.add_argument("--precision", default="fp32", help="of this engine: fp32, tf32 or bf16")
    parser.add_argument("--device", default="cpu", help="cpu or the number of a GPU")
    parser.add_argument(
        "--peak",
        type=real(1e-6, 1e12),
        metavar="TFLOPS",
        help="of the device, to show the share of it",
    )
    parser.add_argument("--by", default="caffe", choices=["caffe", "torch"], help="(work)")
    parser.add_argument("--threads", type=whole(1, 4096), default=os.cpu_count())
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument(
        "--tiles", type=whole(1), default=100, help="how many are cut, by each worker (tiles)"
    )
    parser.add_argument(
        "--workers", type=whole(0, 4096), nargs="+", help="how many cut (tiles; 0 and --threads)"
    )
    parser.add_argument("--model", default="isbi2012", help="a trained network (segment, onnx)")
    parser.add_argument("--slices", type=whole(1), default=30, help="of the stack (segment)")
    options = parser.parse_args(argv)
    is_the_output()
    BENCHMARKS[options.what](options)


if __name__ == "__main__":
    run_program(main)
