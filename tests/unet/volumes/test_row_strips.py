"""Slices computed strip by strip: the same as at once, in memory that a large slice leaves."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from unet.preparation.labels import annotate, bounding_boxes, class_counts, class_weights
from unet.preparation.prepare import TrainingSetOptions, make_training_set
from unet.preparation.training_set import TrainingSet
from unet.preparation.weight_map import weight_map
from unet.volumes import intensity_range, open_volume, row_strips, write_volume


def cells(height, width, seed=0):
    """Cells of many sizes, also as high as the slice, in numbers with gaps."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int64)
    for number in range(60):
        y, x = rng.integers(0, height), rng.integers(0, width)
        labels[y : y + rng.integers(1, 40), x : x + rng.integers(1, 40)] = 3 * number + 1
    labels[:, 17:19] = 10**10
    return labels


@pytest.fixture
def small_strips(monkeypatch):
    def choose():
        monkeypatch.setattr(row_strips, "STRIP", 1)

    return choose


@pytest.mark.parametrize("kind", ["binary", "classes", "instances"])
@pytest.mark.parametrize("ignore", [None, 4])
def test_annotations_and_weights_are_those_of_the_whole_slice(small_strips, kind, ignore):
    labels = cells(300, 90)
    labels = labels % 200 if kind == "classes" else labels
    whole = annotate(labels, kind, ignore)
    weights = class_weights(class_counts(whole.classes)[:200])
    wanted = weight_map(whole.instances, weights, labels=whole.classes)
    boxes = bounding_boxes(whole.instances)
    small_strips()
    assert len(list(row_strips.strips(labels.shape))) == 5
    part = annotate(labels, kind, ignore)
    for name in ("classes", "instances", "borders"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)), name
    assert part.vanished == whole.vanished
    assert bounding_boxes(part.instances) == boxes
    got = weight_map(part.instances, weights, labels=part.classes)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.5, 5, 300])
def test_weights_of_any_reach_are_those_of_the_formula(small_strips, sigma):
    labels = cells(200, 70, seed=1)
    small_strips()
    annotation = annotate(labels, "instances")
    got = weight_map(annotation.instances, (1, 1), sigma=sigma)
    numbers = np.unique(annotation.instances)[1:]
    rows, columns = np.mgrid[:200, :70]
    distances = []
    for number in numbers:
        y, x = np.nonzero(annotation.instances == number)
        squares = (rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2
        distances.append(np.sqrt(squares.min(axis=-1)))
    first, second = np.sort(distances, axis=0)[:2]
    gap = annotation.instances == 0
    wanted = 1 + gap * 10 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["binary", "classes", "instances"])
def test_a_large_slice_takes_twenty_bytes_a_pixel(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(row_strips, "STRIP", 1 << 17)
    size = 1500
    labels = np.kron(np.arange(1, 901).reshape(30, 30), np.ones((50, 50), int))
    labels[::50], labels[:, ::50] = 0, 0
    labels = labels.astype(np.int32) if kind == "instances" else (labels % 3).astype(np.uint8)
    write_volume(tmp_path / "labels.tif", labels[None])
    picture = np.arange(size**2, dtype=np.uint32).astype(np.uint8).reshape(1, size, size)
    write_volume(tmp_path / "raw.tif", picture)
    del labels, picture
    with open_volume(tmp_path / "raw.tif") as raw, open_volume(tmp_path / "labels.tif") as truth:
        raw[0]
        tracemalloc.start()
        try:
            make_training_set(tmp_path / "a.h5", raw, truth, TrainingSetOptions(label_kind=kind))
            assert tracemalloc.get_traced_memory()[1] < 20 * size**2
        finally:
            tracemalloc.stop()
    with TrainingSet(tmp_path / "a.h5") as training_set:
        assert training_set.shape == (1, size, size)


def test_large_slices_are_packed_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("unet.preparation.training_set._LARGEST_CHUNK", 4 * 60 * 7)
    stack = np.arange(2 * 50 * 60, dtype=np.uint8).reshape(2, 50, 60)
    write_volume(tmp_path / "raw.tif", stack)
    write_volume(tmp_path / "labels.tif", (stack > 100) * np.uint8(1))
    with open_volume(tmp_path / "raw.tif") as raw, open_volume(tmp_path / "labels.tif") as truth:
        make_training_set(tmp_path / "a.h5", raw, truth, TrainingSetOptions(label_kind="binary"))
    with TrainingSet(tmp_path / "a.h5") as training_set:
        assert training_set._datasets["weights"].chunks == (1, 7, 60)
        assert training_set._datasets["raw"].chunks == (1, 28, 60)
        for z in range(2):
            assert np.array_equal(training_set.labels(z), stack[z] > 100)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32"])
def test_grey_values_are_the_percentiles_of_numpy(dtype):
    rng = np.random.default_rng(0)
    stack = rng.normal(1000, 200, (20, 300, 300)).astype(dtype)
    chosen = stack[np.linspace(0, 19, 16).round().astype(int)]
    wanted = np.percentile(chosen, (0.1, 99.9)).astype(np.float32)
    del chosen
    assert intensity_range(stack) == tuple(map(float, wanted))


def test_grey_values_of_large_slices_take_little_memory(monkeypatch):
    monkeypatch.setattr(row_strips, "STRIP", 1 << 14)
    monkeypatch.setattr("unet.volumes.intensity._RANGE_PIXELS", 1 << 16)
    for dtype in (np.uint16, np.float32):
        stack = np.tile(np.arange(1 << 16).reshape(1, 256, 256), (20, 4, 4)).astype(dtype)
        tracemalloc.start()
        try:
            low, high = intensity_range(stack)
            assert tracemalloc.get_traced_memory()[1] < 3 << 20
        finally:
            tracemalloc.stop()
        assert (low, high) == pytest.approx((65.5, 65469.5), abs=200)
