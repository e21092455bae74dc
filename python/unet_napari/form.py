"""What the fields of both widgets are made of: boxes of layers, of models, of devices; mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from napari.layers import Layer
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QMenu, QToolButton, QWidget

from unet.errors import is_mistake
from unet_napari.known_models import KNOWN_MODELS

#: A word of `unet.load`, or the number of a GPU, which may be typed.
DEVICES = ("auto", "cpu", "0", "1")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Have napari tell a mistake of the user's in its sentence; other errors come out."""
    try:
        yield
    except Exception as error:
        if not is_mistake(error):
            raise
        show_error(sentence(error))


def sentence(error: BaseException) -> str:
    """Return what there is to say of an error: on one line, and never nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def device_box() -> QComboBox:
    """Return a field for the device."""
    box = QComboBox()
    box.addItems(DEVICES)
    box.setEditable(True)
    box.setToolTip("auto, cpu or the number of a GPU")
    return box


class LayerBox(QComboBox):
    """A field for a layer of one kind; `refill` brings it up to date with the viewer."""

    def __init__(self, viewer: Viewer, kind: type[Layer]) -> None:
        super().__init__()
        self._viewer, self._kind = viewer, kind
        self._layers: list[Layer] = []
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.refill()

    def refill(self) -> None:
        """List the layers that there are; the one that was chosen stays so."""
        before = self.layer
        self._layers = [one for one in self._viewer.layers if isinstance(one, self._kind)]
        self.clear()
        self.addItems([one.name for one in self._layers])
        if before in self._layers:
            self.setCurrentIndex(self._layers.index(before))

    @property
    def layer(self) -> Layer | None:
        """The one that is chosen; None if there is none."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer) -> None:
        self.setCurrentIndex(self._layers.index(layer))


class ModelBox(QWidget):
    """A field for a trained network: one that is known, or a folder or file that is opened.

    Parameters
    ----------
    none : str
        What is offered first and means no network; empty: one has to be chosen.
    """

    def __init__(self, none: str = "") -> None:
        super().__init__()
        self._none = none
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.currentTextChanged.connect(self.box.setToolTip)
        browse = QToolButton()
        browse.setText("…")
        browse.setToolTip("open a model folder, or a file of weights")
        menu = QMenu(browse)
        menu.addAction("Model folder…", self._open_folder)
        menu.addAction("File of weights…", self._open_file)
        browse.setMenu(menu)
        browse.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.box, 1)
        row.addWidget(browse)
        self.refill()

    def refill(self) -> None:
        """List the networks that are known; the one that was chosen stays so."""
        before = self.model
        self.box.clear()
        if self._none:
            self.box.addItem(self._none)
        self.box.addItems(KNOWN_MODELS.all)
        self.model = before

    @property
    def model(self) -> str:
        """As `unet.load` takes it; empty where none is chosen."""
        text = self.box.currentText()
        return "" if text == self._none else text

    @model.setter
    def model(self, model: str) -> None:
        self.box.setCurrentIndex(max(0, self.box.findText(model)))

    def _open_folder(self) -> None:
        self._open(QFileDialog.getExistingDirectory(self, "A model folder"))

    def _open_file(self) -> None:
        kinds = "Weights (*.caffemodel *.h5);;All files (*)"
        self._open(QFileDialog.getOpenFileName(self, "A file of weights", "", kinds)[0])

    def _open(self, path: str) -> None:
        if path:
            self.model = KNOWN_MODELS.add(path)
