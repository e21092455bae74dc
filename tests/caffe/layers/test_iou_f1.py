"""IoU and F1 of caffe_unet: hand-made pictures, scikit-image's labels, lines of the log."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from skimage import measure

import caffe
from caffe.errors import CaffeError

TYPES = {
    "IoU": "type: 'IoU'",
    "F1_detection": "type: 'F1' f1_param { distance_mode: EUCLIDEAN distance_threshold: 3 }",
    "F1_segmentation": "type: 'F1'",
}


def input_of(name: str, *shape: int) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    param = f"input_param {{ shape {{ {dims} }} }}"
    return f"layer {{ name: '{name}' type: 'Input' top: '{name}' {param} }}\n"


def run(folder, capfd, labels, predicted, weights=None, classes=2, param=""):
    """Return what the layers have on the log, by line, and their tops."""
    labels, predicted = np.array(labels), np.array(predicted)
    pixels = labels.shape
    text = input_of("score", 1, classes, *pixels) + input_of("labels", 1, 1, *pixels)
    if weights is not None:
        text += input_of("weights", 1, 1, *pixels)
    for name, kind in TYPES.items():
        third = "" if weights is None else "bottom: 'weights'"
        text += (
            f"layer {{ name: '{name}' bottom: 'score' bottom: 'labels' {third} top: '{name}' "
            f"{kind} {param} include {{ phase: TEST }} }}\n"
        )
    path = folder / "net.prototxt"
    path.write_text(text)
    net = caffe.Net(str(path), caffe.TEST)
    net.blobs["score"].data[0] = predicted == np.arange(classes).reshape(-1, *(1,) * len(pixels))
    net.blobs["labels"].data[0, 0] = labels
    if weights is not None:
        net.blobs["weights"].data[0, 0] = weights
    capfd.readouterr()
    tops = {name: float(values) for name, values in net.forward().items()}
    found = re.findall(r"\] (\w+) - Per class ([\w ]+): ([\d ]+)$", capfd.readouterr().err, re.M)
    return {(name, what): [*map(int, counts.split())] for name, what, counts in found}, tops


def counts_of(log, name):
    kinds = ("true positive count", "prediction count", "object count")
    return [log[name, kind] for kind in kinds]


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    monkeypatch.delenv("GLOG_minloglevel", raising=False)


LABELS = [
    [1, 1, 0, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [2, 2, 2, 0, 0, 0, 0, 0],
]
PREDICTED = [
    [1, 1, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 2, 0, 0, 0],
    [0, 0, 2, 0, 0, 0, 0, 0],
]


def test_counts_of_each_class_are_on_the_log_as_can_be_counted_by_hand(tmp_path, capfd):
    log, tops = run(tmp_path, capfd, LABELS, PREDICTED, classes=3)
    assert log["IoU", "intersection"] == [3, 1]
    assert log["IoU", "union"] == [6, 4]
    # The two pixels that touch by a corner are one object.
    assert counts_of(log, "F1_segmentation") == [[1, 0], [1, 2], [2, 1]]
    # The bar's middle is 1 pixel from the one of its own, which is nearer than 3.
    assert counts_of(log, "F1_detection") == [[1, 1], [1, 2], [2, 1]]
    assert tops["IoU"] == pytest.approx((3 / 6 + 1 / 4) / 2)
    assert tops["F1_segmentation"] == pytest.approx((2 / 3 + 0) / 2)
    assert tops["F1_detection"] == pytest.approx(2 / 3)


def test_pixels_without_weight_do_not_count(tmp_path, capfd):
    weights = np.ones((5, 8))
    weights[4] = weights[3] = 0
    weights[0, 0] = 0
    log, tops = run(tmp_path, capfd, LABELS, PREDICTED, weights, classes=3)
    assert log["IoU", "intersection"] == [2, 0]
    assert log["IoU", "union"] == [5, 0]
    assert counts_of(log, "F1_segmentation") == [[1, 0], [1, 0], [2, 0]]
    # A class that is nowhere is left out.
    assert tops["IoU"] == pytest.approx(2 / 5)


def test_another_background_changes_places_with_class_0(tmp_path, capfd):
    param = "iou_param { background_label: 1 }"
    text = {"IoU": TYPES["IoU"]}
    labels, predicted = np.array(LABELS[:3]), np.array(PREDICTED[:3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "TYPES", text)
        log, tops = run(tmp_path, capfd, labels, predicted, param=param)
    zeros = labels == 0, predicted == 0
    assert log["IoU", "intersection"] == [(zeros[0] & zeros[1]).sum()]
    assert tops["IoU"] == pytest.approx((zeros[0] & zeros[1]).sum() / (zeros[0] | zeros[1]).sum())


def test_nothing_to_find_and_nothing_found_is_full_agreement(tmp_path, capfd):
    log, tops = run(tmp_path, capfd, np.zeros((3, 4)), np.zeros((3, 4)))
    assert set(tops.values()) == {1.0}
    assert counts_of(log, "F1_segmentation") == [[0], [0], [0]]


def best(distances: np.ndarray, threshold: float) -> int:
    """Return the matches of the assignment with the least sum, of all that there are."""
    if distances.shape[0] > distances.shape[1]:
        distances = distances.T
    rows, columns = distances.shape
    chosen = min(
        itertools.permutations(range(columns), rows),
        key=lambda order: distances[range(rows), order].sum(),
    )
    return int((distances[range(rows), chosen] < threshold).sum())


@pytest.mark.parametrize("shape", [(22, 24), (5, 12, 12)])
@pytest.mark.parametrize("seed", range(3))
def test_matches_are_those_of_the_cheapest_of_all_assignments(tmp_path, capfd, shape, seed):
    random = np.random.default_rng(seed)
    true, found = np.zeros(shape, int), np.zeros(shape, int)
    for _ in range(4):
        start = random.integers(1, np.array(shape) - 3)
        true[tuple(slice(a, a + 3) for a in start)] = 1
        moved = np.clip(start + random.integers(-2, 3, len(shape)), 0, None)
        found[tuple(slice(a, a + 3) for a in moved)] = 1
    log, _ = run(tmp_path, capfd, true, found)
    objects, predictions = (
        measure.regionprops(measure.label(mask, connectivity=mask.ndim)) for mask in (true, found)
    )
    sets = [[set(map(tuple, region.coords)) for region in each] for each in (objects, predictions)]
    overlap = np.array([[1 - len(a & b) / len(a | b) for b in sets[1]] for a in sets[0]])
    apart = np.array(
        [
            [np.hypot.reduce(np.subtract(a.centroid, b.centroid)) for b in predictions]
            for a in objects
        ]
    )
    for name, distances, threshold in (("segmentation", overlap, 0.5), ("detection", apart, 3)):
        expected = [[best(distances, threshold)], [len(predictions)], [len(objects)]]
        assert counts_of(log, f"F1_{name}") == expected


def test_labels_of_classes_that_there_are_not_are_refused(tmp_path, capfd):
    with pytest.raises(CaffeError, match=r"'IoU'.*labels must lie in 0..1, found 0 to 2"):
        run(tmp_path, capfd, LABELS, PREDICTED, classes=2)
