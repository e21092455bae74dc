"""The widget that segments an image layer with a trained network, slice by slice as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from napari.layers import Image, Layer
from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils import progress
from napari.utils.notifications import show_error, show_info
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QFormLayout, QProgressBar, QPushButton, QWidget

from unet import load
from unet.errors import InputError, is_mistake
from unet.model import Model
from unet.volumes import Volume
from unet_napari.form import LayerBox, ModelBox, device_box, sentence, told
from unet_napari.known_models import KNOWN_MODELS
from unet_napari.layers import front_of, place_of, stack_of

_LOOK = 200  # milliseconds between two looks at how far it is
#: What comes out; the words of the field.
CLASSES, CELLS, PROBABILITIES = "labels: classes", "labels: cells", "image: probabilities"
#: Test-time augmentation; None: as suits the network.
AVERAGING = {
    "as suits the network": None,
    "none": "none",
    "4 mirrored": "mirror",
    "4 rotated": "rotate",
    "8: dihedral": "dihedral",
}


class _Cancelled(Exception):
    """Nobody waits for the rest any more."""


class Passes:
    """How far a segmentation is, as `unet.model.Model.stream` tells a bar; and whether it goes on.

    Written by the thread that computes, read by that of the window.
    """

    def __init__(self) -> None:
        self.total = self.done = 0
        self.worker: GeneratorWorker | None = None

    def update(self) -> None:
        """Note a pass of the network."""
        self.done += 1
        if self.worker is not None and self.worker.abort_requested:
            raise _Cancelled


@dataclass(frozen=True)
class Job:
    """What a segmentation is asked for."""

    model: str
    device: str
    tta: str | None
    output: str


def segmented(volume: Volume, job: Job, passes: Passes) -> Iterator[tuple[int, np.ndarray]]:
    """Segment a stack.

    Parameters
    ----------
    volume : unet.volumes.Volume
    job : Job
    passes : Passes

    Yields
    ------
    z : int
    result : ndarray, shape (height, width), of probabilities of more than two classes with these
        before
        uint8 class numbers, int32 numbers of cells, or float32 probabilities.

    Returns
    -------
    str or None
        The sentence of a mistake.
    """
    try:
        model = load(job.model, device=job.device)
        _demand_memory(volume, model, job.output)
        if job.output == CELLS:
            results = model.stream_instances(volume, tta=job.tta, bar=passes)
        else:
            results = model.stream(volume, tta=job.tta, bar=passes)
        for z, result in enumerate(results):
            if job.output == CLASSES:
                is_binary = model.classes == 2
                result = (result > 0.5 if is_binary else result.argmax(axis=0)).astype(np.uint8)
            yield z, result
    except _Cancelled:
        return None
    except Exception as error:
        if not is_mistake(error):
            raise
        return sentence(error)
    return None


def _demand_memory(volume: Volume, model: Model, output: str) -> None:
    """Refuse a result that would take more memory than is free."""
    maps = model.classes if output == PROBABILITIES and model.classes > 2 else 1
    each = 1 if output == CLASSES else 4
    need = len(volume) * maps * volume.shape[-2] * volume.shape[-1] * each
    free = psutil.virtual_memory().available
    if need > free:
        raise InputError(
            f"{volume.path}: the result takes {need / 2**30:.1f} GB, of which {free / 2**30:.1f} "
            f"are free: segment the file with the program, unet segment STACK -o OUT.zarr"
        )


@dataclass(frozen=True)
class _Target:
    """Of which layer a result is, as it was when it was begun: that may be removed meanwhile."""

    name: str
    front: tuple[int, ...]
    place: dict[str, Any]
    output: str


class SegmentWidget(QWidget):
    """Segment an image layer: a network, a device, and what comes out.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._worker: GeneratorWorker | None = None
        self._passes = Passes()
        self._results: list[Layer] = []
        self.layers, self.models, self.device = (
            LayerBox(napari_viewer, Image),
            ModelBox(),
            device_box(),
        )
        self.averaging, self.output = QComboBox(), QComboBox()
        self.averaging.addItems(AVERAGING)
        self.averaging.setToolTip("the mean over so many orientations of each slice")
        self.output.addItems([CLASSES, CELLS, PROBABILITIES])
        self.start, self.cancel = QPushButton("Segment"), QPushButton("Cancel")
        self.bar = QProgressBar()
        self.bar.setFormat("%v of %m passes")
        form = QFormLayout(self)
        form.addRow("image", self.layers)
        form.addRow("network", self.models)
        form.addRow("averaging", self.averaging)
        form.addRow("device", self.device)
        form.addRow("result", self.output)
        form.addRow(self.start)
        form.addRow(self.cancel)
        form.addRow(self.bar)
        self.start.clicked.connect(self.segment)
        self.cancel.clicked.connect(self.stop)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK)
        self._timer.timeout.connect(self._look)
        KNOWN_MODELS.added.connect(self._offer)
        self.destroyed.connect(_stopping(self._passes))
        self._show_running(False)

    def reset_choices(self, event: object = None) -> None:
        """List the layers anew; napari calls it when they change."""
        self.layers.refill()

    def _offer(self, model: str) -> None:
        self.models.refill()
        self.models.model = model

    @property
    def is_running(self) -> bool:
        """Whether a segmentation is under way."""
        return self._worker is not None

    def segment(self) -> None:
        """Begin what the fields say."""
        with told():
            layer = self.layers.layer
            if layer is None:
                raise InputError("there is no image layer: open a picture or a stack first")
            self._begin(layer, stack_of(layer))

    def _begin(self, layer: Image, volume: Volume) -> None:
        job = Job(
            self.models.model,
            self.device.currentText().strip(),
            AVERAGING[self.averaging.currentText()],
            self.output.currentText(),
        )
        self._passes.total = self._passes.done = 0
        self._results = []
        self._target = _Target(layer.name, front_of(layer), place_of(layer), job.output)
        self._worker = self._passes.worker = create_worker(segmented, volume, job, self._passes)
        self._worker.yielded.connect(self._take)
        self._worker.returned.connect(self._returned)
        self._worker.finished.connect(self._ended)
        self._progress = progress(total=0, desc=f"{layer.name}: {job.output}")
        self._show_running(True)
        self._timer.start()
        self._worker.start()

    def stop(self) -> None:
        """Ask the segmentation to end after the pass that is computed; what is done stays."""
        if self._worker is not None:
            self._worker.quit()

    def _take(self, done: tuple[int, np.ndarray]) -> None:
        """Put a slice into the result, which appears with the first one."""
        z, found = done
        front = self._target.front
        index = (..., *(np.unravel_index(z, front) if front else ()), slice(None), slice(None))
        if z == 0:
            with told():
                self._data = np.zeros((*found.shape[:-2], *front, *found.shape[-2:]), found.dtype)
                self._data[index] = found
                self._results = self._show(self._data)
        elif self._results:
            self._data[index] = found
        there = [layer for layer in self._results if layer in self._viewer.layers]
        if not there:
            # Nor does who removes it want the rest.
            self.stop()
        for layer in there:
            layer.refresh()

    def _show(self, data: np.ndarray) -> list[Layer]:
        """Add the layer of a result; of several classes' probabilities one for each."""
        name, output, place = self._target.name, self._target.output, self._target.place
        name = f"{name}: {output.rpartition(' ')[2]}"
        if output != PROBABILITIES:
            return [self._viewer.add_labels(data, name=name, **place)]
        several = data.ndim > len(self._target.front) + 2
        return [
            self._viewer.add_image(
                one,
                name=f"{name} of class {number}" if several else name,
                contrast_limits=(0, 1),
                # Of layers that cover each other the first class that is no background.
                visible=number == 1 or not several,
                **place,
            )
            for number, one in enumerate(data if several else [data])
        ]

    def _look(self) -> None:
        total, done = self._passes.total, self._passes.done
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        if total:
            self._progress.total = total
            self._progress.update(done - self._progress.n)

    def _returned(self, mistake: str | None) -> None:
        if mistake is not None:
            show_error(mistake)
        else:
            show_info(f"{self._target.name}: segmented")

    def _ended(self) -> None:
        self._timer.stop()
        self._look()
        self._progress.close()
        self._worker = self._passes.worker = None
        self._show_running(False)

    def _show_running(self, is_running: bool) -> None:
        self.start.setEnabled(not is_running)
        self.cancel.setEnabled(is_running)
        self.bar.setVisible(is_running)


def _stopping(passes: Passes) -> Callable[..., None]:
    """Return what ends a segmentation whose widget has gone; it does not hold the widget."""

    def stop(*_: object) -> None:
        if passes.worker is not None:
            passes.worker.quit()

    return stop
