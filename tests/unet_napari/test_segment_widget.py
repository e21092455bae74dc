"""The widget that segments, in a real window: layers of all kinds, what is stopped, mistakes."""

from __future__ import annotations

import gc

import dask.array
import numpy as np
import pytest
import zarr

from caffe.proto import caffe_pb2
from tests.unet_napari.slow_stack import SlowStack
from unet import load
from unet.network.nets import deploy_net
from unet_napari.known_models import KNOWN_MODELS
from unet_napari.segment_widget import CELLS, CLASSES, PROBABILITIES, SegmentWidget

STACK = np.random.default_rng(0).integers(0, 256, (3, 40, 50), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
NET = "isbi2012_slim"
# Milliseconds after which what should have come has not.
LONG = 600_000
PLACE = dict(scale=(50, 4, 4), translate=(100, 0, 8), units=("nm",) * 3)


@pytest.fixture
def opened(make_napari_viewer, qtbot):
    """Return a viewer and the widget in it, as napari's menu opens it."""
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("unet-in-caffe", "Segment (U-Net)")
    assert isinstance(widget, SegmentWidget)
    widget.models.model = NET
    widget.device.setCurrentText("cpu")
    yield viewer, widget
    widget.stop()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=LONG)


@pytest.fixture(scope="module")
def model():
    return load(NET, device="cpu")


def segment(qtbot, widget, output: str) -> None:
    widget.output.setCurrentText(output)
    widget.start.click()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=LONG)


def test_probabilities_lie_where_the_image_lies(opened, qtbot, model):
    viewer, widget = opened
    image = viewer.add_image(STACK, name="em", **PLACE)
    widget.averaging.setCurrentText("4 mirrored")
    segment(qtbot, widget, PROBABILITIES)
    found = viewer.layers["em: probabilities"]
    np.testing.assert_array_equal(found.data, model.segment(STACK, tta="mirror"))
    np.testing.assert_array_equal(found.extent.world, image.extent.world)
    assert found.units == image.units


def test_labels_are_classes_or_numbered_cells(opened, qtbot, model):
    viewer, widget = opened
    viewer.add_image(STACK, name="em")
    segment(qtbot, widget, CLASSES)
    np.testing.assert_array_equal(viewer.layers["em: classes"].data, model.segment(STACK) > 0.5)
    segment(qtbot, widget, CELLS)
    np.testing.assert_array_equal(viewer.layers["em: cells"].data, model.instances(STACK))


def test_time_points_with_depths_are_read_a_slice_at_a_time(opened, qtbot, model):
    viewer, widget = opened
    slow = SlowStack(np.stack([STACK, STACK[::-1]]))
    slow.gate.set()
    viewer.add_image(slow, name="slow", contrast_limits=(0, 255))
    segment(qtbot, widget, PROBABILITIES)
    expected = model.segment(STACK)
    found = viewer.layers["slow: probabilities"].data
    np.testing.assert_array_equal(found, np.stack([expected, expected[::-1]]))
    assert [place[:2] for place in slow.asked] == [(t, z) for t in range(2) for z in range(3)]


def test_whatever_holds_the_pixels_is_taken(opened, qtbot, model, tmp_path):
    viewer, widget = opened
    stored = zarr.open_array(tmp_path / "stack.zarr", mode="w", shape=STACK.shape, dtype="u1")
    stored[:] = STACK
    given = {
        "dask": dask.array.from_array(STACK, (2, 30, 30)),
        "zarr": stored,
        "pyramid": [STACK, STACK[:, ::2, ::2]],
        "float": STACK.astype(np.float64),
        "picture": STACK[1],
    }
    expected = model.segment(STACK)
    for kind, data in given.items():
        widget.layers.layer = viewer.add_image(data, name=kind, contrast_limits=(0, 255))
        segment(qtbot, widget, PROBABILITIES)
        found = viewer.layers[f"{kind}: probabilities"].data
        wanted = expected[1] if kind == "picture" else expected
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=kind)


@pytest.fixture(scope="module")
def of_colours(tmp_path_factory):
    """Return the folder of a network of three channels and three classes that learnt nothing."""
    import caffe

    folder = tmp_path_factory.mktemp("model")
    text = deploy_net("unet_slim", channels=3, classes=3)
    (folder / "deploy.prototxt").write_text(str(text))
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    random = np.random.default_rng(0)
    for blobs in net.params.values():
        blobs[0].data[...] = random.normal(0, 0.1, blobs[0].data.shape)
    net.save(str(folder / "weights.caffemodel"))
    assert caffe_pb2.NetParameter.FromString((folder / "weights.caffemodel").read_bytes()).layer
    return folder


def test_colours_are_channels_and_each_class_becomes_a_layer(opened, qtbot, of_colours):
    viewer, widget = opened
    with_transparency = np.concatenate([COLOUR, np.full((40, 50, 1), 255, np.uint8)], axis=-1)
    image = viewer.add_image(with_transparency, name="stained", scale=(2, 3))
    widget.models.model = KNOWN_MODELS.add(of_colours)
    segment(qtbot, widget, PROBABILITIES)
    (expected,) = load(of_colours, device="cpu").segment(np.moveaxis(COLOUR, -1, 0)[None])
    assert expected.shape == (3, 40, 50)
    for number, one in enumerate(expected):
        found = viewer.layers[f"stained: probabilities of class {number}"]
        np.testing.assert_array_equal(found.data, one)
        np.testing.assert_array_equal(found.extent.world, image.extent.world)
    segment(qtbot, widget, CLASSES)
    np.testing.assert_array_equal(viewer.layers["stained: classes"].data, expected.argmax(axis=0))


def test_mistakes_are_told_in_a_sentence_and_leave_nothing(opened, qtbot, told):
    viewer, widget = opened

    def demand(data: np.ndarray | None, said: str, model: str = NET, device: str = "cpu") -> None:
        viewer.layers.clear()
        if data is not None:
            viewer.add_image(data, name="x", contrast_limits=(0, 255))
        widget.models.model = model
        widget.device.setCurrentText(device)
        segment(qtbot, widget, CELLS)
        told(said)
        assert [layer.name for layer in viewer.layers] == ["x"] * (data is not None)
        assert widget.start.isEnabled()

    demand(None, "there is no image layer: open a picture")
    demand(COLOUR, "layer 'x': has 3 channels, but .* takes 1")
    demand(np.where(STACK == 7, np.nan, STACK), "layer 'x': slice 0 holds NaN")
    demand(STACK[:0], "layer 'x': is empty")
    demand(STACK, "/nowhere: there is no such file", model=KNOWN_MODELS.add("/nowhere"))
    demand(STACK, "device 'gpu' is neither auto", device="gpu")
    # The same slice over and over.
    absurd = np.broadcast_to(STACK[0], (10**5, 10**5, 40, 50))
    demand(absurd, "layer 'x': the result takes 74505.8 GB, .* are free: segment the file")


@pytest.fixture
def slowly(opened):
    """Return viewer, widget and the pixels of a layer, whose segmentation waits for them."""
    viewer, widget = opened
    slow = SlowStack(np.concatenate([STACK] * 10))
    viewer.add_image(slow, name="slow", contrast_limits=(0, 255))
    widget.start.click()
    assert widget.is_running
    yield viewer, widget, slow
    slow.gate.set()


def test_what_is_cancelled_keeps_what_is_done_and_can_be_begun_again(slowly, qtbot):
    viewer, widget, slow = slowly
    slow.gate.set()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=LONG)
    assert not widget.start.isEnabled()
    widget.cancel.click()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=LONG)
    assert len(slow.asked) < 30
    assert viewer.layers["slow: classes"].data[0].any()
    assert not viewer.layers["slow: classes"].data[-1].any()
    segment(qtbot, widget, CLASSES)
    assert viewer.layers["slow: classes [1]"].data[-1].any()


def test_without_its_image_layer_a_segmentation_goes_on(slowly, qtbot):
    viewer, widget, slow = slowly
    viewer.layers.remove("slow")
    slow.gate.set()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=LONG)
    assert viewer.layers["slow: classes"].data[-1].any()


def test_who_removes_the_result_wants_no_more_of_it(slowly, qtbot):
    viewer, widget, slow = slowly
    slow.gate.set()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=LONG)
    viewer.layers.remove("slow: classes")
    qtbot.waitUntil(lambda: not widget.is_running, timeout=LONG)
    assert len(slow.asked) < 30


def test_a_viewer_that_is_closed_ends_what_it_was_segmenting(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("unet-in-caffe", "Segment (U-Net)")
    widget.models.model = NET
    widget.device.setCurrentText("cpu")
    slow = SlowStack(np.concatenate([STACK] * 10))
    viewer.add_image(slow, name="slow", contrast_limits=(0, 255))
    widget.start.click()
    worker = widget._worker
    qtbot.waitUntil(lambda: bool(slow.asked), timeout=LONG)
    viewer.close()
    del viewer, widget
    gc.collect()
    qtbot.waitUntil(lambda: worker.abort_requested, timeout=LONG)
    slow.gate.set()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=LONG)
    assert len(slow.asked) < 30


def test_the_layers_that_are_offered_are_those_of_the_viewer(opened):
    viewer, widget = opened
    box = widget.layers
    one, two = viewer.add_image(STACK, name="one"), viewer.add_image(STACK, name="two")
    viewer.add_labels(STACK, name="labels")
    assert [box.itemText(i) for i in range(box.count())] == ["one", "two"]
    box.layer = two
    two.name = "renamed"
    assert (box.layer, box.currentText()) == (two, "renamed")
    viewer.layers.remove(two)
    assert box.layer is one
