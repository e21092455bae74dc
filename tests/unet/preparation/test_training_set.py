"""A training set comes back as it was written, and what is none is refused by name."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from unet.errors import InputError
from unet.files.provenance import TRAINING_SET, may_replace
from unet.preparation.training_set import TrainingSet, TrainingSetWriter, write_training_set

ATTRIBUTES = {"classes": 3, "grey_low": 10.0, "grey_high": 110.0, "w0": 10.0, "sigma": 5.0}


def arrays(shape=(2, 6, 7), channels=None, dtype="uint16"):
    rng = np.random.default_rng(0)
    raw_shape = shape if channels is None else (shape[0], channels) + shape[1:]
    raw = rng.integers(0, 200, raw_shape).astype(dtype)
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
    weights = rng.uniform(0, 9, shape).astype(np.float32)
    return raw, labels, weights


def written(path, **options):
    raw, labels, weights = arrays(**options)
    write_training_set(path, raw, labels, weights, attributes=ATTRIBUTES)
    return raw, labels, weights


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32"])
def test_comes_back_as_it_was_written(tmp_path, channels, dtype):
    raw, labels, weights = written(tmp_path / "a.h5", channels=channels, dtype=dtype)
    with TrainingSet(tmp_path / "a.h5") as training_set:
        assert training_set.shape == (2, 6, 7)
        assert training_set.channels == (channels or 1)
        assert training_set.classes == 3
        assert training_set.intensity_range == (10, 110)
        assert training_set.attributes["sigma"] == 5
        for z in range(2):
            picture = training_set.raw(z)
            assert picture.dtype == np.float32
            assert picture.shape == (channels or 1, 6, 7)
            expected = (raw[z].astype(np.float32) - 10) / 100
            np.testing.assert_allclose(picture.reshape(expected.shape), expected, rtol=1e-6)
            assert np.array_equal(training_set.labels(z), labels[z])
            assert np.array_equal(training_set.weights(z), weights[z])
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file["raw"].dtype == dtype
        assert file["weights"].dtype == np.float32
        assert file.attrs["format"] == b"unet-training-set"


@pytest.mark.parametrize("channels", [None, 3])
def test_normalised_slices(tmp_path, channels):
    raw, labels, weights = arrays(channels=channels)
    attributes = {**ATTRIBUTES, "normalise": True}
    write_training_set(tmp_path / "a.h5", raw, labels, weights, attributes=attributes)
    with TrainingSet(tmp_path / "a.h5") as training_set:
        assert training_set.intensity_range is None
        for z in range(2):
            expected = (raw[z] - raw[z].mean()) / (6 * raw[z].std()) + 0.5
            picture = training_set.raw(z)
            assert picture.shape == (channels or 1, 6, 7)
            np.testing.assert_allclose(picture.reshape(expected.shape), expected, atol=1e-6)


def test_the_first_format_is_read(tmp_path):
    written(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["format_version"] = 1
    with TrainingSet(tmp_path / "a.h5") as training_set:
        assert training_set.intensity_range == (10, 110)


def test_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        written(tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_failure_leaves_no_file(tmp_path):
    raw, labels, weights = arrays()
    with (
        pytest.raises(RuntimeError),
        TrainingSetWriter(tmp_path / "a.h5", labels.shape, raw.dtype, ATTRIBUTES) as writer,
    ):
        writer.write(0, raw[0], labels[0], weights[0])
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        TrainingSet(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "a.h5"
    refused(path, "no such training set; make one with tools/prepare.py")
    path.write_text("some text")
    refused(path, "is not HDF5, and so no training set")
    with h5py.File(path, "w") as file:
        file["raw"] = 1
    refused(path, "is HDF5 but no training set")


@pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.99])
def test_truncated_file(tmp_path, part):
    path = tmp_path / "a.h5"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refused(path, "cannot be read as HDF5")


@pytest.mark.parametrize("key", ["raw", "labels", "weights"])
def test_missing_or_wrong_dataset_is_named(tmp_path, key):
    path = tmp_path / "a.h5"
    written(path)
    with h5py.File(path, "a") as file:
        del file[key]
    refused(path, f"no dataset /{key}")
    with h5py.File(path, "a") as file:
        file[key] = np.zeros((2, 6, 8), np.uint8)
    refused(path, "is .2, 6, 8. but|but /labels is .2, 6, 8.")


@pytest.mark.parametrize("key", ["classes", "grey_low", "grey_high", "format_version"])
def test_missing_or_wrong_attribute_is_named(tmp_path, key):
    path = tmp_path / "a.h5"
    written(path)
    with h5py.File(path, "a") as file:
        del file.attrs[key]
    refused(path, f"attribute {key} is missing")
    with h5py.File(path, "a") as file:
        file.attrs[key] = "many"
    refused(path, f"attribute {key} is missing or no number")


def test_newer_version(tmp_path):
    written(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["format_version"] = 99
    refused(tmp_path / "a.h5", "newer version")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("raw", np.nan, "slice 1 of /raw holds NaN"),
        ("weights", np.nan, "slice 1 of /weights holds NaN"),
        ("weights", -1, "slice 1 of /weights holds NaN, infinite or negative"),
        ("labels", 3, "slice 1 of /labels holds other classes than 3"),
    ],
)
def test_bad_values_are_found_when_read(tmp_path, key, value, message):
    written(tmp_path / "a.h5", dtype="float32")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file[key][1, 2, 3] = value
    with TrainingSet(tmp_path / "a.h5") as training_set:
        getattr(training_set, key)(0)
        with pytest.raises(InputError, match=message):
            getattr(training_set, key)(1)


def test_damaged_chunk_names_file_slice_and_key(tmp_path):
    path = tmp_path / "a.h5"
    written(path)
    with h5py.File(path, "r") as file:
        chunk = file["weights"].id.get_chunk_info(1)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    damaged = pytest.raises(InputError, match="slice 1 of /weights is damaged")
    with TrainingSet(path) as training_set, damaged:
        training_set.weights(1)


def test_slices_are_read_until_they_are_known_to_do(tmp_path):
    raw, labels, weights = arrays((3, 6, 7))
    labels[0], labels[1, 0, :2], labels[1, 1:] = 1, (0, 1), 255
    weights[0, 0], weights[1] = 0, 1
    write_training_set(tmp_path / "a.h5", raw, labels, weights, attributes=ATTRIBUTES)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["weights"][2] = np.nan
    with TrainingSet(tmp_path / "a.h5") as training_set:
        # The damaged slice is not needed for the answer.
        training_set.demand_annotated([0, 2], classes=1)
        training_set.demand_annotated([0, 1, 2], classes=2)
        with pytest.raises(InputError, match=r"slices 0 to 0 all pixels that count are of class 1"):
            training_set.demand_annotated([0], classes=2)
        with pytest.raises(InputError, match="NaN"):
            training_set.demand_annotated([0, 2], classes=2)


def test_lists_of_more_slices_than_an_attribute_holds(tmp_path):
    numbers = np.arange(20_000)
    lists = {"slices": numbers, "balance_slices": numbers[:2], "frames": numbers[::-1].tolist()}
    write_training_set(tmp_path / "a.h5", *arrays(), attributes={**ATTRIBUTES, **lists})
    with TrainingSet(tmp_path / "a.h5") as training_set:
        for name, expected in lists.items():
            assert np.array_equal(training_set.attributes[name], expected)
        assert training_set.attributes["sigma"] == 5
    assert may_replace(tmp_path / "a.h5", TRAINING_SET)


def test_lists_of_older_files_are_attributes(tmp_path):
    write_training_set(tmp_path / "a.h5", *arrays(), attributes=ATTRIBUTES)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["slices"] = np.arange(3)
        file.attrs["label_kind"] = "binary"
    with TrainingSet(tmp_path / "a.h5") as training_set:
        assert training_set.attributes["slices"].tolist() == [0, 1, 2]
        assert training_set.attributes["label_kind"] == "binary"


def test_sources_whose_names_are_not_utf_8(tmp_path):
    attributes = {**ATTRIBUTES, "raw_source": "10 \udcb5m.tif", "label_kind": "binary"}
    write_training_set(tmp_path / "\udcb5.h5", *arrays(), attributes=attributes)
    with TrainingSet(tmp_path / "\udcb5.h5") as training_set:
        assert training_set.attributes["raw_source"] == "10 \\xb5m.tif"
        assert training_set.attributes["label_kind"] == "binary"
