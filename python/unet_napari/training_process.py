"""A training in a process of its own, `unet train`, on files that hold what two layers showed.

A process, and not a thread of the viewer: the training keeps both cores busy with Python, too,
which would stutter in the window; what ends one of them does not end the other; and to cancel is a
signal, after which `unet train` ends whole, and goes on when it is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from unet import open_volume
from unet.errors import InputError
from unet.report.run_files import CHOICES
from unet.volumes import Volume, VolumeWriter

# Of a file that holds a layer.
_DATASET = "volume"
# Before each mistake that it tells.
_PROGRAM = "unet train: "


@dataclass(frozen=True)
class TrainingRequest:
    """What a training is asked for.

    Attributes
    ----------
    folder : pathlib.Path
        The model folder to make.
    minutes : float
    device : str
    from_model : str
        A network to begin as, as of `unet.load`; empty: from nothing.
    overwrite : bool
        Whether it begins anew where another run is.
    """

    folder: Path
    minutes: float
    device: str = "auto"
    from_model: str = ""
    overwrite: bool = False

    @property
    def layers(self) -> Path:
        """The folder beside it that holds what it learns from."""
        return self.folder.with_name(f"{self.folder.name}-layers")

    @property
    def files(self) -> tuple[Path, Path]:
        """The image and the labels in it."""
        return self.layers / "image.h5", self.layers / "labels.h5"


def check_pair(image: Volume, labels: Volume) -> None:
    """Refuse labels that are not those of the image."""
    sizes = [(len(one), *one.shape[-2:]) for one in (image, labels)]
    if sizes[0] != sizes[1]:
        shown = ["{} slices of {} x {}".format(*size) for size in sizes]
        raise InputError(
            f"{labels.path}: has {shown[1]}, but {image.path} has {shown[0]}: choose the labels "
            f"that were painted on this image"
        )


def write_layers(request: TrainingRequest, image: Volume, labels: Volume) -> Iterator[int]:
    """Write what the training learns from; files that hold it already are left as they are.

    So a run that was stopped goes on: `unet train` knows its inputs by their sizes and times.

    Yields
    ------
    int
        Slices of image and labels that are written, or were found to be there.

    Raises
    ------
    InputError
        If another run's layers are there, and it is not to begin anew.
    """
    done = 0
    for path, volume in zip(request.files, (image, labels)):
        if path.exists():
            same = 0
            for same in _compared(path, volume):
                yield done + same
            if same == len(volume):
                done += same
                continue
            # What never chose anything has learnt nothing that would be lost.
            if (request.folder / CHOICES).exists() and not request.overwrite:
                raise InputError(
                    f"{request.folder}: the {path.stem} layer has changed since this was begun: "
                    f"name another folder, or begin anew"
                )
        with VolumeWriter(
            path,
            volume.shape,
            volume.dtype,
            dataset=_DATASET,
            calibration=volume.calibration,
            labels=volume is labels,
        ) as out:
            for slice_ in volume:
                out.write(slice_)
                done += 1
                yield done


def _compared(path: Path, volume: Volume) -> Iterator[int]:
    """Yield how many slices a file holds as the volume does, up to the first that differs."""
    with open_volume(path, _DATASET) as old:
        if (old.shape, old.dtype) == (volume.shape, volume.dtype):
            for z, (before, now) in enumerate(zip(old, volume)):
                if not np.array_equal(before, now):
                    return
                yield z + 1


class TrainingProcess:
    """`unet train` under way.

    Parameters
    ----------
    request : TrainingRequest
        Its layers are written.
    """

    def __init__(self, request: TrainingRequest) -> None:
        # Not pipes, which somebody would have to empty.
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        image, labels = (f"{path}:/{_DATASET}" for path in request.files)
        command = [sys.executable, "-m", "unet.command", "train", image, labels]
        command += ["-o", str(request.folder), "--minutes", f"{request.minutes:g}"]
        command += ["--device", request.device]
        command += ["--from", request.from_model] if request.from_model else []
        command += ["--overwrite"] if request.overwrite else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err
        )

    @property
    def status(self) -> int | None:
        """How it ended, as of `subprocess.Popen.returncode`; None: it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end; it writes down what it has learnt first."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    @property
    def said(self) -> list[str]:
        """The lines that it has printed so far."""
        return _lines(self._out)

    @property
    def mistake(self) -> str:
        """What it has complained of, without the name of the program."""
        said = [line for line in _lines(self._err) if line.startswith(_PROGRAM)]
        if said:
            return said[-1][len(_PROGRAM) :]
        status = self.status or 0
        if status < 0:
            return (
                f"the training was ended by {signal.Signals(-status).name}, as a machine does that "
                f"runs out of memory; trained again with the same fields, it goes on"
            )
        return f"the training ended with status {status}: {' '.join(_lines(self._err)[-1:])}"

    def close(self) -> None:
        """Forget it, once it has ended."""
        self._out.close()
        self._err.close()


def _lines(file: IO[bytes]) -> list[str]:
    size = os.fstat(file.fileno()).st_size
    text = os.pread(file.fileno(), size, 0).decode("utf-8", "replace")
    # A progress bar returns to the beginning of its line.
    lines = text.replace("\r", "\n").splitlines()
    return [line.strip() for line in lines if line.strip()]
