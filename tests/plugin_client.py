"""A client that does what the Fiji plugin does for segmentation and detection, without Fiji.

The files that it writes, the commands that it runs, and how it reads what comes are the plugin's,
as facts; its arithmetic is plain numpy and scipy.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from scipy import ndimage

from unet.command import caffe_unet
from unet.command.running import run_program

_PROGRESS = re.compile(r"Processing batch ([0-9]+)/([0-9]+), tile ([0-9]+)/([0-9]+)")
# Beside the interpreter, where pip puts it.
CAFFE_UNET = str(Path(sys.executable).with_name("caffe_unet"))
CAFFE = str(Path(sys.executable).with_name("caffe"))


class Outcome(NamedTuple):
    """How a command ended: its exit status, what it printed, what it logged."""

    status: int
    out: str
    error: str

    @property
    def complaint(self) -> str:
        """What the plugin's window says, by words that it looks for in the log."""
        for words, said in (
            ("out of memory", "Not enough GPU memory available."),
            ("invalid device ordinal", "Requested GPU does not exist."),
        ):
            if words in self.error:
                return said
        return "Unknown caffe error."


class Detection(NamedTuple):
    """One line of the plugin's table."""

    frame: int
    position: tuple[float, ...]
    kind: int
    confidence: float


def execute(*words: object) -> Outcome:
    """Run a command to its end."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


def is_found(program: str) -> bool:
    """Tell whether a program is there: called alone, it ends well."""
    return execute(program).status == 0


def execute_here(capfd: pytest.CaptureFixture, *words: object) -> Outcome:
    """Run caffe_unet to its end as its process does, but quickly, in this one."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_program(lambda _: caffe_unet.main(list(map(str, words))))
    return Outcome(ended.value.code or 0, *capfd.readouterr())


def check(capfd: pytest.CaptureFixture, model: Path, weights: Path, channels: int) -> Outcome:
    """Ask whether a model and weights suit images of so many channels."""
    words = ("-model", model, "-weights", weights, "-n_channels", channels)
    return execute_here(capfd, "check_model_and_weights_h5", *words)


def write_job(
    path: Path, image: np.ndarray, size: Sequence[float], wanted: Sequence[float], kind: int
) -> np.ndarray:
    """Write an image (frames, channels, [z,] y, x) as the model wants it; return what is written.

    Pixels of `size` micrometres become such of `wanted`, by linear interpolation; then each frame
    is scaled to 0 to 1 (kind 1), or not (0).
    """
    blob = image.astype(np.float32)
    for axis, (own, new) in enumerate(zip(size, wanted), 2):
        length, scale = blob.shape[axis], own / new
        place = np.arange(int(length * scale + 0.5)) / scale
        low = place.astype(int)
        high = np.where(low + 1 < length, low + 1, 2 * (length - 1) - (low + 1))
        share = (place - low).reshape((-1,) + (1,) * (blob.ndim - 1 - axis))
        blob = (1 - share) * blob.take(low, axis) + share * blob.take(high, axis)
    if kind == 1:
        for frame in blob:
            frame[...] = (frame - frame.min()) / (frame.max() - frame.min())
    block = (1,) * (blob.ndim - 2) + blob.shape[-2:]
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data",
            data=blob.astype(np.float32),
            chunks=block,
            compression="gzip",
            compression_opts=3,
        )
        data.attrs["element_size_um"] = np.array(wanted, np.float64)
    return blob.astype(np.float32)


def segment(
    job: Path, model: Path, weights: Path, *flags: object, cancel_after: int | None = None
) -> tuple[Outcome, list[tuple[int, int, int, int]]]:
    """Have the images of a job replaced by their scores; return how that ended, and its progress.

    `cancel_after` so many lines of progress the user cancels: signal 2, and at once 15.
    """
    words = [CAFFE_UNET, "tiled_predict", "-infileH5", job, "-outfileH5", job, "-model", model]
    words += ["-weights", weights, "-iterations", "0", *flags]
    running = subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told, out = [], ""
    for line in running.stdout:
        out += line
        found = _PROGRESS.fullmatch(line.rstrip("\n"))
        if found:
            told.append(tuple(map(int, found.groups())))
            if len(told) == cancel_after:
                running.send_signal(signal.SIGINT)
                running.terminate()
    error = running.stderr.read()
    return Outcome(running.wait(), out, error), told


def read_segmentation(job: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return of each output the likeliest class of each pixel, and the soft-max."""
    with h5py.File(job, "r") as file:
        outputs = {name: file[name][()] for name in file}
    found = {}
    for name, scores in outputs.items():
        powers = np.exp(scores.astype(float))
        found[name] = scores.argmax(axis=1), powers / powers.sum(axis=1, keepdims=True)
    return found


def detect(classes: np.ndarray, softmax: np.ndarray, size: Sequence[float]) -> list[Detection]:
    """Return the objects: connected pixels of a class, and where their mean by soft-max lies.

    Pixels touch with their sides; positions are ([z,] y, x) in micrometres.
    """
    found = []
    for frame, labels in enumerate(classes):
        for kind in range(1, softmax.shape[1]):
            components, many = ndimage.label(labels == kind)
            for number in range(1, many + 1):
                inside = components == number
                weight = softmax[frame, kind][inside]
                places = [(w * weight).sum() / weight.sum() for w in np.nonzero(inside)]
                position = tuple(place * side for place, side in zip(places, size))
                found.append(Detection(frame + 1, position, kind, weight.mean()))
    return found
