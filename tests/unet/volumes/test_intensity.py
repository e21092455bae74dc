"""Grey values are scaled by one range, or each slice is normalised; input.json says which."""

from __future__ import annotations

import numpy as np
import pytest

from unet.errors import InputError
from unet.volumes import Volume, intensity_range, open_volume, write_volume
from unet.volumes.intensity import (
    INPUT,
    input_text,
    is_normalised,
    normalised_range,
    normalised_range_of,
    scale_intensity,
)


def test_grey_values_become_0_to_1():
    given = scale_intensity(np.array([[0, 51, 255]], np.uint8), (0, 255))
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, np.float32([[0, 51 / 255, 1]]))
    with pytest.raises(InputError, match=r"grey range 7\.0 to 7\.0 is empty"):
        scale_intensity(np.zeros((1, 1)), (7, 7))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", "bool"])
def test_a_normalised_slice_has_mean_one_half_and_deviation_one_sixth(dtype):
    drawn = np.random.default_rng(0).normal(120, 40, (2, 30, 40)).clip(0, 255)
    picture = (drawn > 120) if dtype == "bool" else drawn.astype(dtype)
    given = scale_intensity(picture, None)
    assert given.dtype == np.float32
    assert given.mean() == pytest.approx(1 / 2, abs=1e-5)
    assert given.std() == pytest.approx(1 / 6, abs=1e-5)


def test_brightness_and_contrast_of_a_slice_do_not_matter():
    picture = np.random.default_rng(0).normal(100, 20, (30, 40)).astype(np.float32)
    np.testing.assert_allclose(
        scale_intensity(3 * picture + 1000, None), scale_intensity(picture, None), atol=1e-4
    )


def test_a_constant_slice_becomes_one_half():
    assert normalised_range(np.full((4, 4), 7, np.uint8)) == (6.5, 7.5)
    assert (scale_intensity(np.full((4, 4), 7, np.uint8), None) == 0.5).all()


@pytest.mark.parametrize("normalise", [True, False])
def test_input_json_beside_the_network_tells(tmp_path, normalise):
    deploy = tmp_path / "deploy.prototxt"
    assert is_normalised(deploy) is False
    (tmp_path / INPUT).write_text(input_text(normalise))
    assert is_normalised(deploy) is normalise


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"input\.json: cannot be read as JSON"),
        (b"\xff\xfe", r"input\.json: cannot be read as JSON"),
        (b"[]", r'input\.json: must hold \{"normalise": true\}'),
        (b'{"normalise": 1}', r'input\.json: must hold \{"normalise": true\}'),
    ],
)
def test_a_damaged_input_json_is_refused(tmp_path, content, message):
    (tmp_path / INPUT).write_bytes(content)
    with pytest.raises(InputError, match=message):
        is_normalised(tmp_path / "deploy.prototxt")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_ranges_of_a_slice_that_is_read_in_strips_are_those_of_the_whole(
    tmp_path, monkeypatch, dtype
):
    pixels = np.random.default_rng(8).normal(900, 150, (2, 61, 47)).astype(dtype)
    write_volume(tmp_path / "stack.h5", pixels)
    monkeypatch.setattr("unet.volumes.intensity._WHOLE_PIXELS", 100)
    monkeypatch.setattr("unet.volumes.intensity._ROWS", 16)
    with open_volume(tmp_path / "stack.h5") as volume:
        monkeypatch.setattr(Volume, "__getitem__", lambda *_: pytest.fail("read as a whole"))
        assert intensity_range(volume) == intensity_range(pixels)
        given = normalised_range_of(volume, 1)
    np.testing.assert_allclose(given, normalised_range(pixels[1]), rtol=1e-6)
