"""Random tiles of caffe_unet's training: SciPy, rotations by hand, and what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

import caffe
from caffe.errors import CaffeError
from caffe.layers import deformation


def input_of(name: str, *shape: int) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    param = f"input_param {{ shape {{ {dims} }} }}"
    return f"layer {{ name: '{name}' type: 'Input' top: '{name}' {param} }}\n"


def open_net(folder, shape, create: str, apply: str = "", bottom: str = "", seed: int = 1):
    """Return a net that cuts tiles of its input `x`; its `p` is where the tiles' middles may be."""
    axes = len(shape)
    text = input_of("x", 1, 2, *shape) + input_of("p", 1, 1, *shape) + input_of("small", 1, 1, 2, 3)
    below = f"bottom: '{bottom}'" if bottom else ""
    text += (
        f"layer {{ name: 'create' type: 'CreateDeformation' {below} top: 'def' "
        f"create_deformation_param {{ ncomponents: {axes} {create} }} }}\n"
        "layer { name: 'apply' type: 'ApplyDeformation' bottom: 'x' bottom: 'def' top: 'y' "
        f"apply_deformation_param {{ {apply} }} }}\n"
    )
    path = folder / "net.prototxt"
    path.write_text(text)
    caffe.set_random_seed(seed)
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["x"].data[...] = np.random.default_rng(5).random((2, *shape))
    return net


# -- where pixels are taken from -------------------------------------------------------------------


@pytest.mark.parametrize("bottom", ["p", ""])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize(
    ("shape", "tile", "start"), [((9, 8), (5, 4), (2, 2)), ((5, 8, 9), (3, 4, 5), (1, 2, 2))]
)
def test_nothing_asked_for_is_the_middle_as_it_is(
    tmp_path, bottom, interpolation, shape, tile, start
):
    sizes = " ".join(f"n{axis}: {size}" for axis, size in zip("zyx"[3 - len(tile) :], tile))
    net = open_net(tmp_path, shape, sizes, f"interpolation: '{interpolation}'", bottom)
    expected = net.blobs["x"].data[(..., *(slice(a, a + n) for a, n in zip(start, tile)))]
    net.forward()
    np.testing.assert_array_equal(net.blobs["y"].data, expected)


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (-90, 1)])
def test_a_turn_is_numpys(tmp_path, degrees, turns):
    param = f"ny: 5 nx: 5 random_rotate_from {{ v: {degrees} }} random_rotate_to {{ v: {degrees} }}"
    net = open_net(tmp_path, (5, 5), param)
    net.forward()
    expected = np.rot90(net.blobs["x"].data, turns, (2, 3))
    np.testing.assert_allclose(net.blobs["y"].data, expected, atol=1e-6)


def test_turns_of_volumes_keep_lengths_in_space():
    matrix = deformation.rotation((20, 30, 40), z_size=4).numpy()
    steps = np.random.default_rng(1).normal(size=(3, 10))
    sizes = np.array([[4], [1], [1]])
    np.testing.assert_allclose(
        np.linalg.norm(sizes * (matrix @ steps), axis=0), np.linalg.norm(sizes * steps, axis=0)
    )
    # About z alone no depth changes.
    np.testing.assert_allclose(deformation.rotation((20, 0, 0), 4)[0], [1, 0, 0])
    np.testing.assert_allclose(
        deformation.rotation((20, 0, 0), 4)[1:, 1:], deformation.rotation((20,))
    )


def test_each_axis_is_mirrored_by_chance_where_it_is_asked_for(tmp_path):
    net = open_net(tmp_path, (5, 7), "ny: 5 nx: 7 random_mirror_flag { v: 0 v: 1 }")
    x = net.blobs["x"].data.copy()
    mirrored = 0
    for _ in range(40):
        net.forward()
        y = net.blobs["y"].data
        flipped = np.array_equal(y, x[..., ::-1])
        assert flipped or np.array_equal(y, x)
        mirrored += flipped
    # 40 coins: outside of this once in 10,000.
    assert 8 <= mirrored <= 32


def middles(net, tile, times):
    """Return the coordinates of the tiles' middle pixels."""
    found = []
    for _ in range(times):
        net.forward()
        found.append(net.blobs["def"].data[(0, *(size // 2 for size in tile))].copy())
    return np.array(found)


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
def test_middles_are_drawn_by_the_density(tmp_path, shape):
    axes = "zyx"[3 - len(shape) :]
    tile = " ".join(f"n{axis}: 4" for axis in axes)
    # Offsets, which the editor writes as well, are not added.
    further = f"random_offset_from {{ {'v: -8 ' * len(shape)} }} random_offset_to {{ "
    further += f"{'v: 8 ' * len(shape)} }}"
    net = open_net(
        tmp_path, shape, f"{tile} random_offset_range_from_pdf: true {further}", bottom="p"
    )
    net.blobs["p"].data[...] = 0
    likely, rare = tuple(size - 1 for size in shape), (1,) * len(shape)
    net.blobs["p"].data[(0, 0, *likely)] = 3
    net.blobs["p"].data[(0, 0, *rare)] = 1
    found = [tuple(middle) for middle in middles(net, (4,) * len(shape), 200)]
    assert set(found) == {likely, rare}
    # 200 draws of 3 to 1: outside of this once in 10,000.
    assert 126 <= found.count(likely) <= 173


def test_ignored_labels_are_never_the_middle(tmp_path):
    param = "ny: 2 nx: 2 random_offset_range_from_ignore_label: 2"
    net = open_net(tmp_path, (4, 4), param, bottom="p")
    labels = np.full((4, 4), 2)
    labels[1, 2] = labels[3, 0] = 0
    labels[0, 3] = 1
    net.blobs["p"].data[0, 0] = labels
    assert set(map(tuple, middles(net, (2, 2), 60))) == {(1, 2), (3, 0), (0, 3)}


def test_nowhere_to_go_is_refused(tmp_path):
    net = open_net(tmp_path, (4, 4), "ny: 2 nx: 2 random_offset_range_from_pdf: true", bottom="p")
    with pytest.raises(CaffeError, match=r"'create'.*no pixel of the bottom"):
        net.forward()


@pytest.mark.parametrize(
    ("param", "low", "high"),
    [
        ("random_offset_range_from_in_blob_shape: true", (0, 0), (7, 9)),
        (
            "random_offset_from { v: -2 v: 1 } random_offset_to { v: 2 v: 1 }",
            *((2, 6), (6, 6)),
        ),
    ],
)
def test_middles_fill_the_range(tmp_path, param, low, high):
    net = open_net(tmp_path, (8, 10), f"ny: 3 nx: 3 {param}", bottom="p")
    found = middles(net, (3, 3), 100)
    for axis, (least, most) in enumerate(zip(low, high)):
        assert least <= found[:, axis].min() <= least + 0.15 * (most - least)
        assert most >= found[:, axis].max() >= most - 0.15 * (most - least)


def test_deformations_go_through_points_of_the_magnitudes_asked_for(tmp_path):
    param = (
        "ny: 61 nx: 41 random_elastic_grid_spacing { v: 20 v: 10 } "
        "random_elastic_deform_magnitude { v: 2 v: 5 }"
    )
    net = open_net(tmp_path, (61, 41), param)
    straight = np.stack(np.mgrid[:61, :41], -1)
    found = []
    for _ in range(40):
        net.forward()
        # At the points, which lie around the middle.
        found.append((net.blobs["def"].data[0] - straight)[::20, ::10])
    spread = np.std(found, axis=(0, 1, 2))
    # Of 800 values each.
    np.testing.assert_allclose(spread, [2, 5], rtol=0.1)
    assert (
        abs(
            np.corrcoef(
                np.array(found)[:, :, :-1, 0].ravel(), np.array(found)[:, :, 1:, 0].ravel()
            )[0, 1]
        )
        < 0.15
    )


@pytest.mark.parametrize(("size", "spacing"), [(61, 20), (50, 7), (9, 150), (1, 4)])
def test_cubic_convolution_continues_quadratic_curves(size, spacing):
    weights = deformation.grid_weights(size, spacing).numpy()
    cells = weights.shape[1] - 3
    points = (np.arange(cells + 3) - 1 - cells / 2) * spacing
    pixels = np.arange(size) - (size - 1) / 2
    for power in range(3):
        np.testing.assert_allclose(weights @ points**power, pixels**power, atol=1e-8 * spacing**2)


def test_one_seed_gives_the_same_tiles(tmp_path):
    param = (
        "ny: 20 nx: 20 random_elastic_grid_spacing { v: 8 v: 8 } random_elastic_deform_magnitude "
        "{ v: 2 v: 2 } random_rotate_from { v: 0 } random_rotate_to { v: 360 } "
        "random_offset_range_from_pdf: true random_mirror_flag { v: 1 v: 1 }"
    )
    tiles = []
    for seed in (3, 3, 4):
        net = open_net(tmp_path, (30, 30), param, bottom="p", seed=seed)
        net.blobs["p"].data[...] = 1
        net.forward()
        net.forward()
        tiles.append(net.blobs["y"].data.copy())
    np.testing.assert_array_equal(tiles[0], tiles[1])
    assert not np.allclose(tiles[0], tiles[2], atol=0.05)


# -- pixels at coordinates -------------------------------------------------------------------------


@pytest.mark.parametrize(("mirror", "mode"), [(True, "mirror"), (False, "grid-constant")])
@pytest.mark.parametrize(("linear", "order"), [(True, 1), (False, 0)])
@pytest.mark.parametrize("shape", [(6, 9), (4, 5, 7), (1, 6)])
def test_values_between_and_beyond_pixels_are_scipys(shape, linear, order, mirror, mode):
    random = np.random.default_rng(6)
    image = random.random((2, *shape))
    # Far out: the mirror goes on.
    places = random.uniform(-2.4, 3.3, (len(shape), 200)) * np.array(shape)[:, None]
    found = deformation.sample(
        torch.tensor(image), [torch.tensor(axis) for axis in places], linear, mirror
    )
    for channel, values in zip(image, found.numpy()):
        expected = ndimage.map_coordinates(channel, places, order=order, mode=mode)
        np.testing.assert_allclose(values, expected, atol=1e-12)


def test_the_shape_of_another_blob_is_cut_in_the_middle(tmp_path):
    whole = open_net(tmp_path, (8, 9), "ny: 6 nx: 7")
    whole.forward()
    cut = open_net(tmp_path, (8, 9), "ny: 6 nx: 7", "output_shape_from: 'small'")
    cut.forward()
    np.testing.assert_array_equal(cut.blobs["y"].data, whole.blobs["y"].data[..., 2:4, 2:5])
    # And follows it.
    cut.blobs["small"].reshape(1, 1, 4, 1)
    cut.forward()
    np.testing.assert_array_equal(cut.blobs["y"].data, whole.blobs["y"].data[..., 1:5, 3:4])


@pytest.mark.parametrize(
    ("create", "apply", "told"),
    [
        ("ny: 4", "", "needs ny and nx"),
        ("ny: 4 nx: 4 nz: 2", "", "ncomponents: 3"),
        ("ny: 4 nx: 4 random_mirror_flag { v: 1 }", "", "random_mirror_flag needs 2 value"),
        ("ny: 4 nx: 4 random_rotate_to { v: 1 }", "", "as many values each"),
        ("ny: 4 nx: 4 random_offset_range_from_pdf: true", "", "needs a bottom"),
        (
            "ny: 4 nx: 4 random_elastic_deform_magnitude { v: 1 v: 1 }",
            *("", "grid_spacing .* must be positive"),
        ),
        ("ny: 4 nx: 4", "interpolation: 'cubic'", "interpolation is 'cubic'"),
        ("ny: 4 nx: 4", "extrapolation: 'wrap'", "extrapolation is 'wrap'"),
        ("ny: 4 nx: 4", "output_shape_from: 'score'", "no layer before it makes a blob 'score'"),
        ("ny: 4 nx: 4", "output_shape_from: 'x'", r"coordinates for \(4, 4\) pixels, not"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, create, apply, told):
    with pytest.raises(CaffeError, match=rf"net.prototxt:\d:1: layer '.*{told}"):
        open_net(tmp_path, (8, 9), create, apply)


# -- ValueAugmentation -----------------------------------------------------------------------------


def augmented(folder, param: str, x: np.ndarray, seed: int = 1) -> np.ndarray:
    path = folder / "net.prototxt"
    path.write_text(
        input_of("x", *x.shape) + "layer { name: 'y' type: 'ValueAugmentation' bottom: 'x' top: "
        f"'y' value_augmentation_param {{ {param} }} }}\n"
    )
    caffe.set_random_seed(seed)
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["x"].data[...] = x
    return net.forward()["y"].copy()


EDITORS = (
    "black_from: -0.05 black_to: 0.05 white_from: 0.95 white_to: 1.05 slope_min: 0.8 slope_max: 1.2"
)


def test_curves_keep_to_their_ends_and_slopes(tmp_path):
    # A row a curve, at the table's own places.
    x = np.tile(np.linspace(0, 1, 257), (50, 1, 1, 1))
    y = augmented(tmp_path, f"{EDITORS} lut_size: 257", x)[:, 0, 0]
    assert np.abs(y[:, 0]).max() <= 0.05
    assert np.abs(y[:, -1] - 1).max() <= 0.05
    slopes = np.diff(y) * 256
    assert slopes.min() >= 0.8 - 1e-3
    assert slopes.max() <= 1.2 + 1e-3
    # Ends are drawn from all of their range, and 4 pieces have slopes of their own.
    assert np.ptp(y[:, 0]) > 0.08
    pieces = slopes.reshape(50, 4, 64)
    np.testing.assert_allclose(pieces, np.broadcast_to(pieces[..., :1], pieces.shape), atol=1e-3)
    assert np.std(pieces[..., 0], axis=1).mean() > 0.05


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pictures_that_hold_no_numbers_are_refused(tmp_path, value):
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 2, 1] = value
    with pytest.raises(caffe.CaffeError, match=r"'y' .*NaN or infinite"):
        augmented(tmp_path, EDITORS, x)


def test_curves_of_channels_are_one_and_of_items_others(tmp_path):
    x = np.broadcast_to(np.random.default_rng(7).random((4, 5)), (2, 3, 4, 5))
    y = augmented(tmp_path, EDITORS, x)
    np.testing.assert_array_equal(y[:, 0], y[:, 1])
    assert not np.allclose(y[0], y[1])
    np.testing.assert_array_equal(y, augmented(tmp_path, EDITORS, x))


@pytest.mark.parametrize("insertions", [0, 2, 3])
def test_a_slope_of_1_changes_nothing_beyond_0_and_1_either(tmp_path, insertions):
    x = np.random.default_rng(8).normal(0.5, 1, (1, 1, 4, 50))
    param = f"slope_min: 1 slope_max: 1 n_control_point_insertions: {insertions}"
    np.testing.assert_allclose(augmented(tmp_path, param, x), x, atol=1e-5)


@pytest.mark.parametrize(
    ("param", "told"),
    [("lut_size: 1", "lut_size of 2"), ("slope_min: 2 slope_max: 1", "slope_min 2.0 is above")],
)
def test_curves_that_cannot_be_are_refused(tmp_path, param, told):
    with pytest.raises(CaffeError, match=f"'y'.*{told}"):
        augmented(tmp_path, param, np.zeros((1, 1, 2, 2)))
