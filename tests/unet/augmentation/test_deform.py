from __future__ import annotations

import numpy as np
import pytest

from unet.augmentation.deform import (
    TileRandom,
    Window,
    grid_weights,
    jitter_intensity,
    keys_weights,
    rigid_matrix,
    tile_coordinates,
)
from unet.volumes.mirror import reflect


def keys(s: float) -> float:
    """Keys 1981, Eq. 15, with a = -1/2, as printed there."""
    s = abs(s)
    if s < 1:
        return 1.5 * s**3 - 2.5 * s**2 + 1
    return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s < 2 else 0.0


def naive_displacement(values: np.ndarray, position: float) -> float:
    """One-dimensional cubic convolution of values at 0, 1, ..., continued in straight lines."""
    extended = [2 * values[0] - values[1], *values, 2 * values[-1] - values[-2]]
    return sum(v * keys(position - (k - 1)) for k, v in enumerate(extended))


def naive_cubic(image: np.ndarray, row: float, column: float) -> float:
    total = 0.0
    for y in range(int(np.floor(row)) - 1, int(np.floor(row)) + 3):
        for x in range(int(np.floor(column)) - 1, int(np.floor(column)) + 3):
            inside = image[int(reflect(np.array(y), image.shape[0]))]
            value = inside[int(reflect(np.array(x), image.shape[1]))]
            total += keys(row - y) * keys(column - x) * value
    return total


def test_random_numbers_depend_on_seed_and_tile_only():
    first = TileRandom(3, 7).normal((2, 3, 3))
    assert np.array_equal(first, TileRandom(3, 7).normal((2, 3, 3)))
    for other in ((3, 8), (4, 7), (7, 3)):
        assert not np.any(first == TileRandom(*other).normal((2, 3, 3)))


def test_random_numbers_have_the_distributions_they_are_named_for():
    normal = TileRandom(1, 0).normal((200, 200))
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    # A quarter lies beyond the upper quartile of the normal distribution.
    assert abs((normal > 0.67449).mean() - 0.25) < 0.01
    random = TileRandom(1, 1)
    uniform = np.array([random.uniform(-2, 6) for _ in range(4000)])
    assert -2 < uniform.min() < -1.9
    assert 5.9 < uniform.max() < 6
    assert abs(uniform.mean() - 2) < 0.15
    counts = np.bincount([random.below(3) for _ in range(3000)])
    assert counts.shape == (3,)
    assert np.all(np.abs(counts - 1000) < 120)


def test_random_numbers_take_the_largest_seed_and_tile():
    assert 0 < TileRandom(2**63 - 1, 2**63).uniform(0, 1) < 1


def test_random_numbers_are_philox_4x64():
    # The first 64-bit word for a counter of 1 and the key (1, 2), computed from the definition in
    # Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    mask = 2**64 - 1
    counter, key = [1, 0, 0, 0], [1, 2]
    for _ in range(10):
        high0, low0 = divmod(counter[0] * 0xD2E7470EE14C6C93, 2**64)
        high1, low1 = divmod(counter[2] * 0xCA5A826395121157, 2**64)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    assert TileRandom(1, 2).uniform(0, 1) == ((counter[0] >> 12) + 0.5) / 2**52


def test_keys_weights_are_those_of_the_paper():
    for t in np.linspace(0, 1, 11):
        weights = [float(w) for w in keys_weights(np.array(t))]
        assert weights == pytest.approx([keys(t + 1), keys(t), keys(t - 1), keys(t - 2)], abs=1e-14)


@pytest.mark.parametrize("points, size", [(2, 5), (3, 9), (3, 572), (4, 188), (7, 3)])
def test_grid_weights_equal_the_naive_interpolation(points: int, size: int):
    values = np.random.default_rng(points).normal(size=points)
    positions = np.linspace(0, points - 1, size)
    expected = [naive_displacement(values, p) for p in positions]
    assert grid_weights(points, size) @ values == pytest.approx(expected, abs=1e-12)


def test_grid_weights_go_through_the_grid_and_continue_straight_lines():
    assert np.allclose(grid_weights(3, 9)[[0, 4, 8]], np.eye(3))
    assert grid_weights(3, 9) @ [1.0, 3.0, 5.0] == pytest.approx(np.linspace(1, 5, 9))


def test_coordinates_without_deformation_are_the_pixels_around_the_centre():
    rows, columns = tile_coordinates((3, 4), (10, 20), rigid_matrix(0, False, False))
    assert rows.tolist() == [[9] * 4, [10] * 4, [11] * 4]
    assert columns.tolist() == [[18, 19, 20, 21]] * 3
    assert rows.dtype == columns.dtype == np.float32


def test_a_quarter_turn_and_mirrors_are_numpy_s():
    image = np.arange(25, dtype=np.float32).reshape(5, 5)
    for angle, flips, expected in (
        (np.pi / 2, (False, False), np.rot90(image, -1)),
        (0, (True, False), image[::-1]),
        (0, (False, True), image[:, ::-1]),
        (np.pi, (True, True), image),
        (np.pi / 2, (False, True), np.rot90(image, -1)[:, ::-1]),
    ):
        places = tile_coordinates((5, 5), (2, 2), rigid_matrix(angle, *flips))
        assert np.array_equal(Window(places, image.shape).nearest(image)[0], expected)


def test_coordinates_equal_the_formula_at_every_pixel():
    shape, centre, grid = (13, 9), (40.0, 30.0), np.random.default_rng(2).normal(0, 3, (2, 3, 4))
    matrix = rigid_matrix(0.7, False, True)
    places = tile_coordinates(shape, centre, matrix, grid)
    for y in range(shape[0]):
        for x in range(shape[1]):
            row, column = y * 2 / (shape[0] - 1), x * 3 / (shape[1] - 1)
            moved = [
                naive_displacement([naive_displacement(line, column) for line in plane], row)
                for plane in grid
            ]
            offset = np.array([y - 6, x - 4]) + moved
            assert places[:, y, x] == pytest.approx(centre + matrix @ offset, abs=2e-5)


def test_displacements_at_the_grid_points_are_those_given():
    grid = np.random.default_rng(3).normal(0, 10, (2, 3, 3))
    still = tile_coordinates((189, 205), (0, 0), np.eye(2))
    moved = tile_coordinates((189, 205), (0, 0), np.eye(2), grid)
    assert (moved - still)[:, ::94, ::102] == pytest.approx(grid, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 3), (9, 7), (40, 30)])
def test_cubic_equals_the_naive_sum_inside_and_far_outside(shape: tuple[int, int]):
    random = np.random.default_rng(shape[0])
    image = random.normal(size=shape).astype(np.float32)
    places = random.uniform(-30, 50, (2, 6, 11)).astype(np.float32)
    expected = [
        [naive_cubic(image, float(places[0, y, x]), float(places[1, y, x])) for x in range(11)]
        for y in range(6)
    ]
    assert Window(places, shape).cubic(image) == pytest.approx(np.array(expected), abs=5e-5)


def test_cubic_at_whole_numbers_is_the_pixel_itself():
    image = np.random.default_rng(4).normal(size=(300, 260)).astype(np.float32)
    places = tile_coordinates((300, 260), (150, 130), np.eye(2))
    assert np.array_equal(Window(places, image.shape).cubic(image), image)


def test_cubic_continues_a_slope():
    image = np.tile(np.arange(20, dtype=np.float32), (20, 1))
    places = np.array([[[8.3, 9.9]], [[7.25, 12.5]]], np.float32)
    assert Window(places, image.shape).cubic(image) == pytest.approx(np.array([[7.25, 12.5]]))


def test_nearest_takes_the_same_pixel_of_every_image():
    random = np.random.default_rng(5)
    labels = random.integers(0, 255, (31, 17)).astype(np.uint8)
    places = random.uniform(-20, 40, (2, 50, 60)).astype(np.float32)
    first, second = Window(places, labels.shape).nearest(labels, labels.astype(np.float32) * 2)
    rows, columns = (
        reflect(np.floor(p + 0.5).astype(int), n) for p, n in zip(places, labels.shape)
    )
    assert np.array_equal(first, labels[rows, columns])
    assert np.array_equal(second, 2.0 * first)
    assert (first.dtype, second.dtype) == (np.uint8, np.float32)


def test_intensities_by_hand():
    image = np.array([[0.25, 0.75]], np.float32)
    assert jitter_intensity(image, 1, 0, 1) is image
    assert jitter_intensity(image, 2, 0, 1).tolist() == [[0.0, 1.0]]
    assert jitter_intensity(image, 1, 0.5, 1).tolist() == [[0.75, 1.25]]
    assert jitter_intensity(image, 1, 0, 2) == pytest.approx(np.array([[0.0625, 0.5625]]))
    assert jitter_intensity(np.array([[-0.5, 0.0]], np.float32), 1, 0, 0.5).tolist() == [[0.0, 0.0]]
    assert jitter_intensity(image, 2, 0.1, 0.9).dtype == np.float32


def test_a_place_that_is_rounded_up_stays_in_the_window():
    # Seen from the origin, 501 pixels before the slice, the last place rounds to 601.
    last = np.nextafter(np.float32(100), np.float32(0))
    places = np.array([[-499.5, 50.0, last]], np.float32)
    coordinates = np.stack([places, places])
    ramp = np.add.outer(np.arange(600, dtype=np.float32), np.arange(600, dtype=np.float32))
    window = Window(coordinates, ramp.shape)
    np.testing.assert_allclose(window.cubic(ramp)[0, 1:], [100, 200], rtol=1e-6)
    np.testing.assert_array_equal(window.nearest(ramp)[0][0, 1:], [100, 200])
