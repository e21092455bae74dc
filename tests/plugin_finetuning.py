"""A client that finetunes as the Fiji plugin does, without Fiji: files, commands, cancel, resume.

Its files, its commands and how it reads the log are the plugin's, as facts; its arithmetic is plain
numpy and scipy.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from caffe.files import prototxt
from tests import caffe_unet, finetuning
from tests.plain_caffe_unet import PluginModel
from tests.plugin_client import CAFFE, Outcome

# As the plugin's definitions have it.
SOLVER = (
    "net: 'cells.prototxt'\nbase_lr:       0.00001\nmomentum:      0.9\nmomentum2:     0.999\n"
    "lr_policy:     'fixed'\nmax_iter:      600000\ndisplay:       1\nsnapshot:      10000\n"
    "snapshot_prefix: 'snapshot'\nsnapshot_format: HDF5\ntype: 'Adam'\nsolver_mode:   GPU\n"
    "debug_info:    0\n"
)
_COUNTS = {
    "intersection": "IoU - Per class intersection: ",
    "union": "IoU - Per class union: ",
    **{
        f"{kind} {short}": f"F1_{kind} - Per class {long} count: "
        for kind in ("detection", "segmentation")
        for short, long in (("hits", "true positive"), ("found", "prediction"), ("all", "object"))
    },
}


@dataclass
class Curves:
    """What the plugin plots: a value a step, and a value a validation and class."""

    iterations: int
    interval: int
    classes: int
    train: np.ndarray = field(init=False)
    valid: np.ndarray = field(init=False)
    counts: dict[str, np.ndarray] = field(init=False)
    _at: int = 0

    def __post_init__(self) -> None:
        tests = self.iterations // self.interval + 1
        self.train = np.full(self.iterations + 1, np.nan)
        self.valid = np.full(tests, np.nan)
        self.counts = {name: np.zeros((self.classes, tests)) for name in _COUNTS}

    def read(self, line: str) -> None:
        """Take from a line of the log what the plugin takes; another number than Java's fails."""
        if re.fullmatch(r".*Iteration [0-9]+, Testing net.*", line):
            self._at = int(line.split("Iteration ")[1].split(",")[0]) // self.interval
        for name, words in _COUNTS.items():
            if words in line:
                for kind, value in enumerate(line.split(words)[1].rstrip(" ").split(" ")):
                    self.counts[name][kind, self._at] += _number(value)
        if re.fullmatch(r".*Test net output #[0-9]*: loss_valid = .*", line):
            self.valid[self._at] = _number(line.split("loss_valid = ")[1].split(" ")[0])
        if re.fullmatch(r".*Iteration [0-9]+ .* loss = .*", line):
            step = int(line.split("Iteration ")[1].split(" ")[0])
            self.train[step] = _number(line.split("loss = ")[1])


def _number(text: str) -> float:
    assert re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(NaN|Infinity)", text), text
    return float(text)


@dataclass
class Job:
    """A finetuning that is prepared: the command, the curves so far, the model that comes of it."""

    command: list[str]
    curves: Curves
    prefix: Path
    model: Path
    tiles: list[Path]

    @property
    def result(self) -> Path:
        """The weights after the last step."""
        return Path(f"{self.prefix}-snapshot_iter_{self.curves.iterations}.caffemodel.h5")


def annotate(instances: np.ndarray, ratio: float = 0.1) -> tuple[np.ndarray, ...]:
    """Return labels, weights and the density of tiles' centres, of numbered cells (0 elsewhere).

    Pixels that touch a cell of another number above or before them become background; it weighs
    more between two cells.
    """
    labels = (instances > 0).astype(int)
    far = np.pad(instances, 1)
    for shift in ((0, 0), (0, 1), (0, 2), (1, 0)):
        other = far[shift[0] :, shift[1] :][: instances.shape[0], : instances.shape[1]]
        labels[(other > 0) & (other != instances)] = 0
    distances = [
        ndimage.distance_transform_edt(instances != number)
        for number in range(1, instances.max() + 1)
    ]
    first, second = np.sort(np.stack(distances), axis=0)[:2]
    weights = (
        ratio
        + 50 * np.exp(-((first + second) ** 2) / (2 * 6**2))
        + (1 - ratio) * np.exp(-(first**2) / (2 * 10**2))
    )
    return labels, np.where(labels > 0, 1, weights), np.where(labels > 0, 1, ratio)


def _save(path: Path, size: float, **values: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            blob = np.asarray(value, np.float32)
            chunks = (1, 1, *blob.shape[2:])
            file.create_dataset(
                name, data=blob, chunks=chunks, compression="gzip", compression_opts=3
            )
            file[name].attrs["element_size_um"] = np.full(blob.ndim - 2, size)
    return path


def _tiles(
    shape: Sequence[int], inner: Sequence[int], border: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return of each tile the rows and columns of its input, and of its scores."""
    found = []
    for y in range(-(-shape[0] // inner[0])):
        for x in range(-(-shape[1] // inner[1])):
            starts = y * inner[0], x * inner[1]
            wide = [np.arange(s - b, s + n + b) for s, n, b in zip(starts, inner, border)]
            found.append((*wide, *(np.arange(s, s + n) for s, n in zip(starts, inner))))
    return found


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    period = 2 * (length - 1)
    return (length - 1) - np.abs(np.abs(index) % period - (length - 1))


def prepare(
    folder: Path,
    model: PluginModel,
    train: list[tuple[np.ndarray, np.ndarray]],
    valid: list[tuple[np.ndarray, np.ndarray]],
    *,
    tile: tuple[int, int],
    iterations: int,
    interval: int,
    rate: float,
) -> Job:
    """Write the files of a job on pictures (frames, y, x) from 0 to 1 and their numbered cells."""
    prefix, tiles, size = folder / "unet-1", [], model.definition.element_size_um[0]
    lines = {"train": "", "valid": ""}
    for number, (picture, cells) in enumerate(train):
        labels, weights, density = map(np.stack, zip(*map(annotate, cells)))
        values = {"labels": labels, "weights": weights, "weights2": density}
        values = {name: value[:, None] for name, value in values.items()}
        path = _save(Path(f"{prefix}_train_{number}.h5"), size, data=picture[:, None], **values)
        with h5py.File(path, "a") as file:
            group = file.create_group("conversionParameters")
            group.attrs["classNames"] = np.array([b"Background", b"cell"])
        lines["train"] += f"{path}\n"
    border = [caffe_unet.border(level) for level in model.levels]
    inner = [side - 2 * more for side, more in zip(tile, border)]
    for number, (picture, cells) in enumerate(valid):
        labels, weights, _ = map(np.stack, zip(*map(annotate, cells)))
        height, width = picture.shape[1:]
        for count, (rows, columns, y, x) in enumerate(_tiles((height, width), inner, border)):
            wide = np.ix_(range(len(picture)), _mirrored(rows, height), _mirrored(columns, width))
            small = np.ix_(range(len(picture)), _mirrored(y, height), _mirrored(x, width))
            inside = (y < height)[:, None] & (x < width)
            path = _save(
                Path(f"{prefix}_valid_{number}_{count}.h5"),
                size,
                data3=picture[wide][:, None],
                labels=labels[small][:, None],
                weights=np.where(inside, weights[small], 0)[:, None],
            )
            tiles.append(path)
            lines["valid"] += f"{path}\n"
    for name, text in lines.items():
        Path(f"{prefix}-{name}filelist.txt").write_text(text)

    net = prototxt.parse_net(model.definition.model_prototxt)
    for layer in net.layer:
        if layer.type == "HDF5Data":
            layer.hdf5_data_param.source = f"{prefix}-trainfilelist.txt"
        if layer.type == "CreateDeformation":
            shape = layer.create_deformation_param
            shape.ny, shape.nx = tile
    finetuned, text = folder / "finetuned.modeldef.h5", Path(f"{prefix}-model.prototxt")
    prototxt.write_text(net, text)
    caffe_unet.write_modeldef(
        finetuned,
        replace(
            model.definition,
            model_prototxt=text.read_text(),
            class_names=("Background", "cell"),
        ),
    )
    list_of_tiles = f"{prefix}-validfilelist.txt"
    prototxt.write_text(
        finetuning.with_validation(net, model.definition.input_blob_name, list_of_tiles), text
    )
    solver, path = prototxt.parse_solver(SOLVER), Path(f"{prefix}-solver.prototxt")
    solver.net, solver.base_lr, solver.lr_policy, solver.type = str(text), rate, "fixed", "Adam"
    solver.max_iter = solver.snapshot = iterations
    solver.snapshot_prefix, solver.solver_mode = f"{prefix}-snapshot", solver.CPU
    solver.test_iter.append(len(tiles))
    solver.test_interval = interval
    prototxt.write_text(solver, path)
    command = [CAFFE, "train", "-solver", path, "-weights", model.weights, "-sigint_effect", "stop"]
    curves = Curves(iterations, interval, 1)
    return Job(list(map(str, command)), curves, prefix, finetuned, tiles)


def train(job: Job, cancel_after: int | None = None) -> tuple[Outcome, Path | None]:
    """Run a job to its end; return how it ended, and the snapshot of one that was cancelled.

    `cancel_after` that step the user cancels: signal 2 for the process that the first line of
    standard output names, for a Java of today knows no other.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Fiji says nothing of the log; other tests of this process may have.
    environment = {name: value for name, value in os.environ.items() if "GLOG_" not in name}
    with subprocess.Popen(job.command, env=environment, **pipes) as running:
        told, snapshot, log = int(running.stdout.readline()), None, ""
        assert told == running.pid
        for line in running.stderr:
            log += line
            cancelled = cancel_after is not None and not np.isnan(job.curves.train[cancel_after])
            if cancelled:
                found = re.fullmatch(r".* Snapshotting to HDF5 file (.*)\n", line)
                snapshot = Path(found.group(1)) if found else snapshot
                continue
            job.curves.read(line.rstrip("\n"))
            if cancel_after is not None and not np.isnan(job.curves.train[cancel_after]):
                running.send_signal(signal.SIGINT)
        out = running.stdout.read()
    return Outcome(running.returncode, out, log), snapshot


def resumed(job: Job, snapshot: Path) -> Job:
    """Return a job that goes on from the state beside a snapshot."""
    state = str(snapshot).replace(".caffemodel.h5", ".solverstate.h5")
    where = job.command.index("-weights")
    command = [*job.command[:where], "-snapshot", state, *job.command[where + 2 :]]
    return replace(job, command=command)
