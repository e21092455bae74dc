"""The widget that trains, in a real window: on two layers, stopped and gone on with, mistakes."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import pytest

from unet import load
from unet.datasets.phantom import phantom
from unet_napari.known_models import KNOWN_MODELS
from unet_napari.segment_widget import PROBABILITIES
from unet_napari.train_widget import TrainWidget

# Milliseconds after which what should have come has not.
LONG = 600_000
IMAGE, LABELS = phantom(slices=4, size=64)


@pytest.fixture
def opened(make_napari_viewer, qtbot, tmp_path):
    """Return a viewer with an image and its labels, and the widget with a folder to make."""
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("unet-in-caffe", "Train (U-Net)")
    assert isinstance(widget, TrainWidget)
    viewer.add_image(IMAGE, name="em")
    viewer.add_labels(LABELS, name="cells")
    widget.folder.setText(str(tmp_path / "mine"))
    widget.device.setCurrentText("cpu")
    yield viewer, widget
    widget.stop()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=LONG)


def until(qtbot, is_time) -> None:
    qtbot.waitUntil(is_time, timeout=LONG)


def drawn(widget: TrainWidget) -> int:
    """Return of how many iterations the losses are drawn."""
    lines = [line for axes in widget.canvas.figure.axes for line in axes.lines]
    return sum(len(line.get_xdata()) for line in lines if line.get_label() == "training")


@pytest.mark.slow
def test_what_two_layers_have_taught_segments_a_third(opened, qtbot, tmp_path):
    viewer, widget = opened
    _, other = viewer.window.add_plugin_dock_widget("unet-in-caffe", "Segment (U-Net)")
    widget.minutes.setValue(0.1)
    widget.start.click()
    assert not widget.start.isEnabled()
    until(qtbot, lambda: not widget.is_running)
    assert widget.said.text().startswith("rand_error ")
    # Of two widgets, one above the other: all lines are to be seen.
    assert widget.said.minimumHeight() >= 5 * widget.said.fontMetrics().height()
    assert drawn(widget) > 0
    assert other.models.model == str(tmp_path / "mine")
    other.device.setCurrentText("cpu")
    other.output.setCurrentText(PROBABILITIES)
    other.start.click()
    until(qtbot, lambda: not other.is_running)
    expected = load(tmp_path / "mine", device="cpu").segment(IMAGE)
    np.testing.assert_array_equal(viewer.layers["em: probabilities"].data, expected)


@pytest.mark.slow
def test_a_training_that_is_stopped_goes_on_with_the_same_layers_alone(
    opened, qtbot, told, tmp_path
):
    viewer, widget = opened
    # Too few for wider networks to be tried first.
    widget.minutes.setValue(2)

    def train_and_stop(said: str) -> None:
        widget.start.click()
        until(qtbot, lambda: widget.said.text().startswith(said))
        widget.cancel.click()
        until(qtbot, lambda: not widget.is_running)
        assert widget.said.text().startswith("stopped")
        assert widget.start.isEnabled()

    train_and_stop("stage 1: ")
    train_and_stop("stage 1: ")
    assert "goes on with" in (tmp_path / "mine" / "run.log").read_text()

    painted = LABELS.copy()
    painted[0, :5] = 0
    viewer.layers["cells"].data = painted
    widget.start.click()
    until(qtbot, lambda: not widget.is_running)
    told(r".*mine: the labels layer has changed since this was begun: name another folder")

    viewer.layers["cells"].data = LABELS
    widget.minutes.setValue(3)
    widget.start.click()
    until(qtbot, lambda: not widget.is_running)
    told(r".*mine: was begun with --minutes 2.0, and is now asked for with --minutes 3.0")


def test_mistakes_are_told_in_a_sentence_and_nothing_begins(opened, qtbot, told, tmp_path):
    viewer, widget = opened
    for said, change in {
        "layer 'cells': has 1 slices of 64 x 64, but layer 'em' has 4 slices of 64 x 64": lambda: (
            setattr(viewer.layers["cells"], "data", LABELS[0])
        ),
        "name the model folder": lambda: widget.folder.setText(" "),
        "there is no labels layer": lambda: viewer.layers.remove("cells"),
        "there is no image layer": lambda: viewer.layers.remove("em"),
    }.items():
        change()
        widget.start.click()
        told(said)
        assert not widget.is_running
    assert list(tmp_path.glob("mine*")) == []


def test_where_nothing_can_be_written_it_is_told_and_the_fields_are_free(opened, qtbot, told):
    _, widget = opened
    widget.folder.setText("/proc/mine")
    widget.start.click()
    until(qtbot, lambda: not widget.is_running)
    told("/proc/mine-layers/image.h5: cannot be written: ")
    assert widget.start.isEnabled() and widget.said.text() == ""


def test_a_viewer_that_is_closed_ends_its_training(make_napari_viewer, qtbot, tmp_path):
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("unet-in-caffe", "Train (U-Net)")
    viewer.add_image(IMAGE)
    viewer.add_labels(LABELS)
    widget.folder.setText(str(tmp_path / "mine"))
    widget.start.click()

    def children() -> list[psutil.Process]:
        # Nobody has asked yet how those ended that are called zombies.
        known = [one for one in psutil.Process().children() if one.status() != "zombie"]
        return [one for one in known if "train" in one.cmdline()]

    until(qtbot, lambda: bool(children()))
    viewer.close()
    del viewer, widget
    gc.collect()
    until(qtbot, lambda: not children())


def test_networks_of_the_session_are_offered_to_begin_as(opened, tmp_path):
    _, widget = opened
    model = KNOWN_MODELS.add(tmp_path / "other")
    assert widget.begin_as.model == ""
    widget.begin_as.model = model
    assert widget.begin_as.model == model
