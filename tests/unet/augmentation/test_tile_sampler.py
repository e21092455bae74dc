from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from unet.augmentation.tile_sampler import Augmentation, TileSampler
from unet.preparation.training_set import TrainingSet, write_training_set

BORDER = 92
ATTRIBUTES = dict(classes=3, grey_low=0.0, grey_high=100.0)
STILL = Augmentation(std=0.0, rotation=0.0, mirror=False, shift=False)
VARIED = Augmentation(contrast=0.3, brightness=0.2, gamma=0.4)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """Return three slices whose grey values, classes and weights tell each other.

    The grey value is 20 + 30 * class, w(x) is 1 + class, and a corner of each is not annotated.
    """
    random = np.random.default_rng(1)
    field = ndimage.gaussian_filter(random.normal(size=(3, 150, 130)), (0, 9, 9))
    labels = np.digitize(field, np.quantile(field, [1 / 3, 2 / 3])).astype(np.uint8)
    raw = (20 + 30 * labels).astype(np.uint8)
    weights = (1 + labels).astype(np.float32)
    labels[:, :20, :30] = 255
    path = tmp_path_factory.mktemp("blobs") / "blobs.h5"
    write_training_set(path, raw, labels, weights, attributes=ATTRIBUTES)
    with TrainingSet(path) as training_set:
        yield training_set


def sampler(
    training_set: TrainingSet, augmentation: Augmentation, seed: int = 1, tile=(236, 252)
) -> TileSampler:
    return TileSampler(training_set, [0, 1, 2], tile, BORDER, augmentation, seed)


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second))


def test_shapes_and_types(blobs: TrainingSet):
    data, label, weight = sampler(blobs, VARIED)(0)
    assert (data.shape, data.dtype) == ((1, 236, 252), np.float32)
    assert (label.shape, label.dtype) == ((52, 68), np.uint8)
    assert (weight.shape, weight.dtype) == ((52, 68), np.float32)


def test_a_tile_depends_on_seed_and_number_alone(blobs: TrainingSet):
    forward = [sampler(blobs, VARIED)(i) for i in range(4)]
    one = sampler(blobs, VARIED)
    for i in (3, 1, 2, 0):
        assert same(one(i), forward[i])
    assert not same(forward[0], forward[1])
    assert not same(sampler(blobs, VARIED, seed=2)(0), forward[0])


def test_a_tile_does_not_depend_on_what_is_kept(blobs: TrainingSet, monkeypatch):
    expected = [sampler(blobs, VARIED)(i) for i in range(6)]
    monkeypatch.setattr("unet.augmentation.tile_sampler._CACHE", 1)
    poor = sampler(blobs, VARIED)
    assert all(same(poor(i), expected[i]) for i in range(6))
    assert len(poor._kept) == 1


def test_intensities_do_not_change_the_geometry(blobs: TrainingSet):
    plain = sampler(blobs, replace(VARIED, contrast=0.0, brightness=0.0, gamma=0.0))(4)
    varied = sampler(blobs, VARIED)(4)
    assert same(plain[1:], varied[1:])
    assert not np.array_equal(plain[0], varied[0])


def test_without_augmentation_the_tile_is_the_middle_of_the_slice(blobs: TrainingSet):
    data, label, weight = TileSampler(blobs, [1], (236, 252), BORDER, STILL, 1)(9)
    # Pixel (118, 126) of the tile is pixel (75, 65) of the slice.
    rows = np.arange(75 - 118, 75 + 118)
    columns = np.arange(65 - 126, 65 + 126)
    rows, columns = np.abs(rows), np.abs(columns)
    rows, columns = np.minimum(rows, 298 - rows), np.minimum(columns, 258 - columns)
    assert np.array_equal(data[0], blobs.raw(1)[0][np.ix_(rows, columns)])
    inner = np.ix_(rows[92:-92], columns[92:-92])
    assert np.array_equal(label, blobs.labels(1)[inner])
    assert np.array_equal(weight, np.where(label == 255, 0, blobs.weights(1)[inner]))


def test_picture_labels_and_weights_are_deformed_together(blobs: TrainingSet):
    for i in range(8):
        data, label, weight = sampler(blobs, replace(VARIED, contrast=0, brightness=0, gamma=0))(i)
        known = label != 255
        assert np.array_equal(weight[known], 1.0 + label[known])
        assert not weight[~known].any()
        # The grey value, 0.2 + 0.3 * class, gives the class but for the pixels where it changes.
        guess = np.rint((data[0, 92:-92, 92:-92] - 0.2) / 0.3)
        assert (guess == label)[known].mean() > 0.97


def test_every_pixel_of_a_slice_is_drawn_as_often(tmp_path: Path):
    # One class a quadrant: whatever is drawn, each fills a quarter of the labels.
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, :32, 32:], labels[0, 32:, :32], labels[0, 32:, 32:] = 1, 2, 3
    path = tmp_path / "quadrants.h5"
    attributes = dict(ATTRIBUTES, classes=4)
    write_training_set(path, labels, labels, labels.astype(np.float32), attributes=attributes)
    with TrainingSet(path) as training_set:
        one = TileSampler(training_set, [0], (188, 188), BORDER, Augmentation(), 1)
        counts = sum(np.bincount(one(i)[1].ravel(), minlength=4) for i in range(200))
    assert np.all(np.abs(counts / counts.sum() - 0.25) < 0.08)


def test_all_slices_are_drawn(tmp_path: Path):
    labels = np.tile(np.arange(4, dtype=np.uint8)[:, None, None], (1, 5, 5))
    path = tmp_path / "slices.h5"
    attributes = dict(ATTRIBUTES, classes=4)
    write_training_set(path, labels, labels, labels.astype(np.float32), attributes=attributes)
    with TrainingSet(path) as training_set:
        one = TileSampler(training_set, [1, 3], (188, 188), BORDER, Augmentation(), 1)
        drawn = [int(one(i)[1][0, 0]) for i in range(40)]
    assert set(drawn) == {1, 3}
    assert 8 < drawn.count(1) < 32


def test_channels_are_deformed_alike(tmp_path: Path):
    raw = np.random.default_rng(0).integers(0, 100, (2, 1, 40, 30)).astype(np.uint16)
    labels = np.zeros((2, 40, 30), np.uint8)
    path = tmp_path / "channels.h5"
    write_training_set(
        path, np.concatenate([raw, raw, 2 * raw], axis=1), labels, labels, attributes=ATTRIBUTES
    )
    with TrainingSet(path) as training_set:
        data = TileSampler(training_set, [0, 1], (188, 204), BORDER, Augmentation(), 1)(0)[0]
    assert data.shape == (3, 188, 204)
    assert np.array_equal(data[0], data[1])
    assert data[2] == pytest.approx(2 * data[0], abs=1e-5)


def test_noise_is_normally_distributed_of_a_deviation_up_to_that_said(blobs: TrainingSet):
    plain, noisy = (sampler(blobs, how) for how in (VARIED, replace(VARIED, noise=0.1)))
    deviations, before = [], np.zeros(1)
    for i in range(20):
        one, other = plain(i), noisy(i)
        assert same(one[1:], other[1:])
        added = (other[0] - one[0]).ravel().astype(float)
        deviations.append(added.std())
        assert stats.kstest(added / added.std(), "norm").statistic < 0.01
        # Each tile has its own.
        assert i == 0 or abs(np.corrcoef(added, before)[0, 1]) < 0.03
        before = added
    assert stats.kstest(deviations, stats.uniform(0, 0.1).cdf).pvalue > 0.01


def test_balanced_tiles_are_centred_on_each_class_equally_often(blobs: TrainingSet):
    one = sampler(blobs, replace(VARIED, std=0.0, balanced=True), tile=(185, 185))
    centres = [int(one(i)[1][0, 0]) for i in range(300)]
    counts = [centres.count(k) for k in range(3)]
    assert sum(counts) == 300, "the corner that is not annotated is never the centre"
    assert stats.chisquare(counts).pvalue > 0.01


def test_a_tile_that_is_not_balanced_is_the_one_it_was(blobs: TrainingSet):
    still = replace(STILL, balanced=True)
    assert same(sampler(blobs, still)(5), sampler(blobs, STILL)(5))
    assert not same(sampler(blobs, replace(VARIED, balanced=True))(5), sampler(blobs, VARIED)(5))


def test_classes_that_a_slice_lacks_are_not_waited_for(tmp_path: Path):
    labels = np.full((1, 40, 40), 2, np.uint8)
    labels[0, 7, 9] = 0
    weights = np.ones(labels.shape, np.float32)
    path = tmp_path / "two.h5"
    write_training_set(path, labels, labels, weights, attributes=ATTRIBUTES)
    with TrainingSet(path) as training_set:
        how = replace(STILL, shift=True, balanced=True)
        one = TileSampler(training_set, [0], (9, 9), 4, how, 1)
        centres = [int(one(i)[1][0, 0]) for i in range(60)]
    assert 20 < centres.count(0) < 40
    assert set(centres) == {0, 2}
