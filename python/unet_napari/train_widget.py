"""The widget that trains a network on an image and a labels layer, and shows how it learns."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.layers import Image, Labels
from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils import progress
from napari.utils.notifications import show_error, show_info
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QToolButton,
    QWidget,
)

from unet.errors import InputError, is_mistake
from unet.report.run_files import Run, read_run
from unet.volumes import Volume
from unet_napari.form import LayerBox, ModelBox, device_box, sentence, told
from unet_napari.known_models import KNOWN_MODELS
from unet_napari.layers import stack_of
from unet_napari.training_process import (
    TrainingProcess,
    TrainingRequest,
    check_pair,
    write_layers,
)

_LOOK = 500  # milliseconds between two looks at what the process has written
# Parts of a plot that have the colour of text, and those of the window.
_PARTS = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
_GROUNDS = ("axes.facecolor", "legend.facecolor")
# A line of the scores on what was held out.
_SCORE = re.compile(r"\w+ +[0-9.]+")
# Losses of so many iterations are averaged in the curve.
_SMOOTH = 20


def written(request: TrainingRequest, image: Volume, labels: Volume) -> Iterator[int]:
    """Write the layers as `write_layers` does; return the sentence of a mistake, or None."""
    try:
        yield from write_layers(request, image, labels)
    except Exception as error:
        if not is_mistake(error):
            raise
        return sentence(error)
    return None


class TrainWidget(QWidget):
    """Train a network on an image layer and a labels layer, in the time that is given.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer, self._running = napari_viewer, _Running()
        self._worker: GeneratorWorker | None = None
        self.images, self.labels = LayerBox(napari_viewer, Image), LayerBox(napari_viewer, Labels)
        self.folder, browse = QLineEdit(), QToolButton()
        self.folder.setPlaceholderText("model folder to make")
        browse.setText("…")
        browse.clicked.connect(self._browse)
        place = QHBoxLayout()
        place.addWidget(self.folder)
        place.addWidget(browse)
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 100_000)
        self.minutes.setValue(20)
        self.minutes.setToolTip("of the whole run; network and iterations are chosen to fit")
        self.begin_as, self.device = ModelBox(none="nothing"), device_box()
        self.anew = QCheckBox("begin anew (--overwrite)")
        self.anew.setToolTip("also where a run is: else it is gone on with")
        self.start, self.cancel = QPushButton("Train"), QPushButton("Stop")
        self.cancel.setToolTip("what was learnt is kept: trained again, it goes on")
        self.bar, self.said = QProgressBar(), QLabel()
        self.bar.setRange(0, 1000)
        self.said.setWordWrap(True)
        self.canvas = FigureCanvasQTAgg(Figure(figsize=(4, 2.6), layout="constrained"))
        self.canvas.setMinimumHeight(150)
        self.canvas.setVisible(False)
        form = QFormLayout(self)
        form.addRow("image", self.images)
        form.addRow("labels", self.labels)
        form.addRow("network", place)
        form.addRow("minutes", self.minutes)
        form.addRow("begin as", self.begin_as)
        form.addRow("device", self.device)
        form.addRow(self.anew)
        form.addRow(self.start)
        form.addRow(self.cancel)
        form.addRow(self.bar)
        form.addRow(self.said)
        form.addRow(self.canvas)
        self.start.clicked.connect(self.train)
        self.cancel.clicked.connect(self.stop)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK)
        self._timer.timeout.connect(self._look)
        KNOWN_MODELS.added.connect(self._offer)
        self.destroyed.connect(_stopping(self._running))
        self._show_running(False)

    def reset_choices(self, event: object = None) -> None:
        """List the layers anew; napari calls it when they change."""
        self.images.refill()
        self.labels.refill()

    def _offer(self, model: str) -> None:
        self.begin_as.refill()

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "The model folder to make, or to go on with"
        )
        if folder:
            self.folder.setText(folder)

    @property
    def is_running(self) -> bool:
        """Whether layers are being written, or a training is under way."""
        return self._worker is not None or self._running.process is not None

    def train(self) -> None:
        """Begin what the fields say, or go on with it."""
        with told():
            image, labels = self.images.layer, self.labels.layer
            if image is None or labels is None:
                missing = "image" if image is None else "labels"
                raise InputError(f"there is no {missing} layer: an image and its labels are needed")
            if not self.folder.text().strip():
                raise InputError("name the model folder to make")
            pair = stack_of(image), stack_of(labels)
            check_pair(*pair)
            self._request = TrainingRequest(
                Path(self.folder.text().strip()).expanduser().absolute(),
                self.minutes.value(),
                self.device.currentText().strip(),
                self.begin_as.model,
                self.anew.isChecked(),
            )
            self._began = time.monotonic()
            self._is_stopped, self._drawn = False, 0
            self._worker = self._running.worker = create_worker(written, self._request, *pair)
            self._worker.returned.connect(self._written)
            self._worker.finished.connect(self._ended_writing)
            self._progress = progress(total=1000, desc=f"training {self._request.folder.name}")
            self.said.setText("takes the layers")
            self._show_running(True)
            self._timer.start()
            self._worker.start()

    def _written(self, mistake: str | None) -> None:
        if mistake is not None:
            self.said.setText("")
            show_error(mistake)
        elif not self._is_stopped:
            with told():
                self._running.process = TrainingProcess(self._request)

    def _ended_writing(self) -> None:
        self._worker = self._running.worker = None
        if self._running.process is None:
            self._end()

    def stop(self) -> None:
        """Ask the training to end, once the iteration that is running is done and written down."""
        self._is_stopped = True
        self.said.setText("stops, and writes down what was learnt")
        self._running.stop()

    def _look(self) -> None:
        share = (time.monotonic() - self._began) / (60 * self._request.minutes)
        done = min(999, int(1000 * share))
        self.bar.setValue(done)
        self._progress.update(max(0, done - self._progress.n))
        process = self._running.process
        if process is None:
            return
        status = process.status
        self._draw(read_run(self._request.folder))
        if status is None:
            if process.said and not self._is_stopped:
                self.said.setText(process.said[-1])
            return
        self._running.process = None
        if status == 0:
            self.said.setText("\n".join(filter(_SCORE.fullmatch, process.said)))
            # Else the curve takes the place where two widgets lie one above the other.
            self.said.setMinimumHeight(self.said.sizeHint().height())
            show_info(f"{self._request.folder}: is trained")
            KNOWN_MODELS.add(self._request.folder)
        elif self._is_stopped:
            self.said.setText("stopped; trained again with the same fields, it goes on")
        else:
            self.said.setText("")
            show_error(process.mistake)
        process.close()
        self._end()

    def _end(self) -> None:
        self._timer.stop()
        self._progress.close()
        self._show_running(False)

    def _show_running(self, is_running: bool) -> None:
        self.start.setEnabled(not is_running)
        self.cancel.setEnabled(is_running)
        self.bar.setVisible(is_running)

    def _draw(self, run: Run) -> None:
        """Draw the loss of all stages, iterations counted through, and that of held-out tiles."""
        rows = sum(len(stage.rows) for stage in run.stages)
        if rows == self._drawn:
            return
        self._drawn = rows
        self.canvas.setVisible(True)
        figure, theme = self.canvas.figure, get_theme(self._viewer.theme)
        colours = dict.fromkeys(_PARTS, theme.text.as_hex())
        ground = dict.fromkeys(_GROUNDS, theme.background.as_hex())
        figure.clear()
        figure.set_facecolor(theme.background.as_hex())
        with rc_context({**colours, **ground, "font.size": 8}):
            self._plot(figure.add_subplot(xlabel="iteration", ylabel="loss"), run)
            # Legends and ticks take their colours when they are drawn.
            self.canvas.draw()

    def _plot(self, axes: Axes, run: Run) -> None:
        before = 0
        for stage in run.stages:
            if before:
                # Another loss: the weight of the gaps comes in.
                axes.axvline(before, color="gray", linestyle=":", label="gaps weigh")
            losses = [row["loss"] for row in stage.rows if "loss" in row]
            mean = [
                sum(losses[max(0, i - _SMOOTH) : i + 1]) / len(losses[max(0, i - _SMOOTH) : i + 1])
                for i in range(len(losses))
            ]
            steps = [before + row["iteration"] for row in stage.rows if "loss" in row]
            axes.plot(steps, mean, color="tab:blue", label="training")
            tests = [row for row in stage.rows if "test_loss" in row]
            axes.plot(
                [before + row["iteration"] for row in tests],
                [row["test_loss"] for row in tests],
                "o-",
                color="tab:orange",
                label="held out",
            )
            before += stage.done
        handles, names = axes.get_legend_handles_labels()
        first = {name: handle for handle, name in zip(handles[::-1], names[::-1])}
        axes.legend(first.values(), first)


class _Running:
    """What is under way: the worker that writes layers, then the process that trains."""

    def __init__(self) -> None:
        self.worker: GeneratorWorker | None = None
        self.process: TrainingProcess | None = None

    def stop(self) -> None:
        """Ask both to end."""
        if self.worker is not None:
            self.worker.quit()
        if self.process is not None:
            self.process.stop()


def _stopping(running: _Running) -> Callable[..., None]:
    """Return what ends the training of a widget that has gone; it does not hold the widget."""
    return lambda *_: running.stop()
