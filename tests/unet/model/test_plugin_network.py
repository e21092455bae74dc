"""Networks of the Fiji plugin segment stacks: rescaled, normalised, brought back by its rules."""

from __future__ import annotations

import numpy as np
import pytest
from tqdm import tqdm

import unet
from tests.plain_caffe_unet import PluginModel, sizes, tiled
from unet.command import segment
from unet.errors import InputError
from unet.model import plugin_network
from unet.volumes import Calibration, read_volume, write_volume
from unet.volumes.element_size import normalized, rescaled


def naive_normalized(image: np.ndarray, kind: int) -> np.ndarray:
    image = image.astype(float)
    if kind == 1:
        return (image - image.min()) / (image.max() - image.min())
    if kind == 2:
        return (image - image.mean()) / image.std()
    if kind == 3:
        return image / np.sqrt((image**2).sum(axis=0).max())
    return image


def probabilities(model: PluginModel, seen: np.ndarray, padding: str = "mirror") -> np.ndarray:
    """Return the soft-max of the scores of one tile that shows a whole image."""
    tile = [sizes(one, side) for one, side in zip(model.levels, seen.shape[1:])]
    return soft(tiled(seen.astype(np.float32), tile, padding, model.network)[0])


def soft(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def naive_linear(line: np.ndarray, scale: float, length: int) -> np.ndarray:
    """Return values along the last axis at k / scale, one by one."""
    far = np.pad(line, [(0, 0)] * (line.ndim - 1) + [(0, 20)], mode="reflect")
    result = np.empty((*line.shape[:-1], length))
    for k in range(length):
        low = int(k / scale)
        result[..., k] = far[..., low] + (far[..., low + 1] - far[..., low]) * (k / scale - low)
    return result


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_grey_values_are_scaled_over_all_channels_and_slices(kind):
    image = np.random.default_rng(kind).integers(3, 4000, (3, 4, 5, 6)).astype(np.uint16)
    given = normalized(image, kind)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, naive_normalized(image, kind), rtol=1e-5, atol=1e-6)
    assert np.isfinite(normalized(np.zeros((1, 4, 4), np.uint8), kind)).all()


# 22.5 is rounded up.
@pytest.mark.parametrize(("scales", "shape"), [((0.4, 1.7), (4, 15)), ((1.0, 2.5), (9, 23))])
def test_pictures_are_rescaled_linearly_and_mirrored_at_the_end(scales, shape):
    image = np.random.default_rng(0).random((2, 9, 9))
    expected = naive_linear(image.swapaxes(1, 2), scales[0], shape[0]).swapaxes(1, 2)
    expected = naive_linear(expected, scales[1], shape[1])
    given = rescaled(image, scales)
    assert given.shape == (2, *shape)
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "channels", "kind", "padding"),
    [((2, 2), 1, 1, "mirror"), ((1, 2), 3, 3, "zero"), ((2, 2), 2, 2, "mirror")],
)
def test_each_slice_is_an_image_of_a_2d_network(tmp_path, levels, channels, kind, padding):
    model = PluginModel(tmp_path, levels, channels, normalization_type=kind, padding=padding)
    stack = np.random.default_rng(1).integers(0, 4000, (2, channels, 24, 31)).astype(np.uint16)
    loaded = unet.load(model.path, device="cpu")
    assert (loaded.channels, loaded.classes) == (channels, 2)
    given = loaded.segment(stack if channels > 1 else stack[:, 0])
    expected = [probabilities(model, naive_normalized(image, kind), padding)[1] for image in stack]
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_a_stack_of_depths_is_one_image_of_a_3d_network_and_each_time_point_another(tmp_path):
    model = PluginModel(tmp_path, (1, 2, 2), element_size_um=(1.0, 1.0, 1.0))
    stack = np.random.default_rng(2).integers(0, 4000, (6, 14, 11)).astype(np.uint16)
    stack[3:] //= 3
    calibration = Calibration("ZYX", times=2)
    write_volume(tmp_path / "stack.tif", stack, calibration=calibration)
    loaded = unet.load(model.path, device="cpu")
    expected = [
        probabilities(model, naive_normalized(part[None], 1))[1] for part in (stack[:3], stack[3:])
    ]
    given = loaded.segment(tmp_path / "stack.tif")
    np.testing.assert_allclose(given, np.concatenate(expected), atol=1e-5)
    # Some slices are those of the whole time point.
    some = loaded.segment(tmp_path / "stack.tif", slices=range(1, 4))
    np.testing.assert_array_equal(some, given[1:4])


def test_pixels_of_another_size_are_rescaled_and_the_scores_brought_back(tmp_path):
    model = PluginModel(tmp_path, (2, 2), element_size_um=(0.5, 0.25))
    stack = np.random.default_rng(3).integers(0, 256, (1, 20, 30)).astype(np.uint8)
    calibration = Calibration("ZYX", (None, 800.0, 200.0), "nm")
    write_volume(tmp_path / "stack.ome.tif", stack, calibration=calibration)
    seen = naive_linear(stack.astype(float).swapaxes(1, 2), 1.6, 32).swapaxes(1, 2)
    seen = naive_linear(seen, 0.8, 24)
    tile = [sizes(2, 32), sizes(2, 24)]
    scores, _ = tiled(naive_normalized(seen, 1).astype(np.float32), tile, "mirror", model.network)
    expected = naive_linear(scores.swapaxes(1, 2), 1 / 1.6, 20).swapaxes(1, 2)
    expected = naive_linear(expected, 1 / 0.8, 30)
    given = unet.load(model.path, device="cpu").segment(tmp_path / "stack.ome.tif")
    np.testing.assert_allclose(given[0], soft(expected)[1], atol=1e-5)


def test_the_size_of_tiles_changes_nothing(tmp_path):
    for number, levels in enumerate([(2, 2), (1, 2, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = PluginModel(folder, levels, element_size_um=(1.0,) * len(levels))
        stack = np.random.default_rng(4).random((4, 50, 40)).astype(np.float32)
        loaded = unet.load(model.path, device="cpu")
        whole = loaded.segment(stack, tta="rotate")
        small = dict(tile=(52, 56)) if number == 0 else dict(memory=3.5e6)
        with unet.volumes.as_volume(stack, "stack") as volume:
            assert loaded.plan(volume, loaded.options(**small)).tiling.number > 1
        np.testing.assert_allclose(loaded.segment(stack, tta="rotate", **small), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("levels", "channels", "kind", "padding", "pixels", "tta"),
    [
        ((2, 2), 1, 1, "mirror", (1.0, 1.0), "dihedral"),
        ((1, 2), 2, 2, "zero", (1.6, 0.7), "mirror"),
        # So much smaller that many pixels of the stack become one.
        ((1, 1), 1, 3, "mirror", (0.3, 0.45), "none"),
        ((2, 1), 1, 2, "mirror", (0.9, 2.3), "rotate"),
    ],
)
def test_a_slice_in_blocks_is_the_slice_in_one_piece(
    tmp_path, monkeypatch, levels, channels, kind, padding, pixels, tta
):
    model = PluginModel(tmp_path, levels, channels, normalization_type=kind, padding=padding)
    stack = np.random.default_rng(7).integers(0, 4000, (2, channels, 73, 65)).astype(np.uint16)
    stack[1] //= 2
    calibration = Calibration("ZCYX" if channels > 1 else "ZYX", (None, *pixels), "um")
    path = tmp_path / "stack.ome.tif"
    write_volume(path, stack if channels > 1 else stack[:, 0], calibration=calibration)
    loaded = unet.load(model.path, device="cpu")
    whole = loaded.segment(path, tta=tta)
    monkeypatch.setattr(plugin_network, "choose_block", lambda *_: (40, 24))
    with unet.open_volume(path, channels=channels) as volume:
        plan = loaded.plan(volume, loaded.options(tta=tta))
        assert len(plan.blocks) == 2 * 2 * 3
    bar, passes = tqdm(total=0, disable=True), []
    monkeypatch.setattr(bar, "update", lambda *_: passes.append(1))
    given = loaded.segment(path, tta=tta, bar=bar)
    np.testing.assert_allclose(given, whole, atol=1e-6)
    assert len(passes) == plan.passes == bar.total
    assert np.ptp(whole) > 0.005
    if channels == 1 and pixels == (1.0, 1.0):
        dask_array = pytest.importorskip("dask.array")
        lazy = loaded.segment(dask_array.from_array(stack[:, 0]), tta="none")
        assert len(lazy.chunks[1]) > 1
        np.testing.assert_allclose(lazy, loaded.segment(stack[:, 0], tta="none"), atol=1e-6)


def test_what_does_not_suit_is_told(tmp_path):
    model = PluginModel(tmp_path, (1, 1))
    loaded = unet.load(model.path, device="cpu")
    stack = np.random.default_rng(5).integers(0, 256, (1, 20, 20)).astype(np.uint8)
    for options, told in (
        (dict(normalise=True), "says itself how grey values are normalised"),
        (dict(procedure="2015"), "is no network of 2015"),
        (dict(memory=1e4), r"smallest tiles, .* MB are free"),
        (dict(tile=(15, 15)), "tile size 15 is not"),
    ):
        with pytest.raises(InputError, match=told):
            loaded.segment(stack, **options)
    with pytest.raises(InputError, match="has 2 channels"):
        loaded.segment(np.zeros((1, 2, 20, 20), np.uint8))
    given = loaded.segment(stack, intensity=(10.0, 60.0))
    expected = probabilities(model, (stack - 10.0) / 50)[1]
    np.testing.assert_allclose(given[0], expected, atol=1e-5)


def test_a_volume_is_segmented_into_files_and_not_slice_by_slice(tmp_path):
    model = PluginModel(tmp_path, (1, 1, 1), element_size_um=(1.0, 1.0, 1.0))
    stack = np.random.default_rng(6).integers(0, 256, (3, 12, 10)).astype(np.uint8)
    write_volume(tmp_path / "stack.tif", stack)
    words = [tmp_path / "stack.tif", "--weights", model.weights, "-o", tmp_path / "out.tif"]
    segment.main([*map(str, words), "--device", "cpu"])
    expected = probabilities(model, naive_normalized(stack[None], 1))[1]
    np.testing.assert_allclose(read_volume(tmp_path / "out.tif"), expected, atol=1e-5)
    dask_array = pytest.importorskip("dask.array")
    with pytest.raises(InputError, match="sees a volume at once"):
        unet.load(model.path, device="cpu").segment(dask_array.from_array(stack))
