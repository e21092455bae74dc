"""Segmentation: tiles put together equal one pass, orientations are averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import caffe
from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.network.nets import deploy_net
from unet.network.u_net import u_net
from unet.segmentation.segment import (
    TTA,
    Picture,
    score_image,
    segment_image,
    segment_pictures,
    softmax,
)
from unet.segmentation.tiles import Tiling

FIG_1 = Geometry()
BORDER = 92


@pytest.fixture(scope="module")
def net(repository: Path) -> caffe.Net:
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    return caffe.Net(str(repository / "prototxt/unet_slim/deploy.prototxt"), caffe.TEST)


def image_of(shape: tuple[int, int], channels: int = 1) -> np.ndarray:
    """Return an image that has no symmetry."""
    return np.random.default_rng(shape).random((channels,) + shape, np.float32)


def score(net: caffe.Net, image: np.ndarray, tile: tuple[int, int], together: int = 1):
    tiling = Tiling.over(image.shape[1:], tile, FIG_1)
    return score_image(net, image, tiling, together=together)


def segment(net: caffe.Net, image: np.ndarray, tile: tuple[int, int], tta: str = "none", **how):
    return segment_image(net, image, Tiling.over(image.shape[1:], tile, FIG_1), tta, **how)


class Passes:
    """Counts passes, as a bar of tqdm does."""

    n = 0

    def update(self) -> None:
        self.n += 1


def one_pass(net: caffe.Net, image: np.ndarray) -> np.ndarray:
    """Return the scores of one pass over the whole mirrored image, by numpy's own mirror."""
    shape = image.shape[1:]
    # The next size that fits, found by trying.
    sizes = [next(16 * k + 60 for k in range(8, 999) if 16 * k - 124 >= n) for n in shape]
    padded = image
    for axis, size in zip((1, 2), sizes):
        pads = [(0, 0)] * 3
        pads[axis] = (BORDER, size - BORDER - image.shape[axis])
        mode = "reflect" if image.shape[axis] > 1 else "edge"
        padded = np.pad(padded, pads, mode)
    net.blobs["data"].reshape(1, *padded.shape)
    net.reshape()
    net.blobs["data"].data[0] = padded
    net.forward()
    return net.blobs["score"].data[0, :, : shape[0], : shape[1]].copy()


def assert_is_one_pass(scores: np.ndarray, wanted: np.ndarray) -> None:
    assert scores.shape == wanted.shape
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def crooked(net) -> tuple[np.ndarray, np.ndarray]:
    image = image_of((45, 70))
    return image, one_pass(net, image)


@pytest.mark.parametrize("size", range(204, 349, 16))
def test_square_tiles_give_what_one_pass_gives(net, crooked, size):
    image, wanted = crooked
    assert_is_one_pass(score(net, image, (size, size)), wanted)


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((1, 1), [(188, 188), (204, 188), (252, 316)]),
        ((1, 200), [(188, 252), (204, 396)]),
        ((3, 4), [(188, 188)]),
        ((5, 4), [(204, 188), (220, 236)]),
        ((37, 600), [(236, 796), (220, 412)]),
        ((91, 93), [(252, 204), (204, 252), (284, 284)]),
        ((211, 130), [(252, 236), (396, 220)]),
    ],
)
def test_oblong_tiles_give_what_one_pass_gives_whatever_the_image(net, shape, tiles):
    image = image_of(shape)
    wanted = one_pass(net, image)
    for tile in tiles:
        assert_is_one_pass(score(net, image, tile), wanted)


@pytest.mark.parametrize("together", [3, 8])
def test_tiles_that_the_net_is_given_together_are_passes_of_their_own(net, together):
    image, bar, given = image_of((20, 60)), Passes(), []
    for number in (1, together):
        given.append(segment(net, image, (204, 220), "rotate", together=number, bar=bar))
    assert bar.n == 2 * 4 * len(Tiling.over((20, 60), (204, 220), FIG_1).origins)
    np.testing.assert_array_equal(*given)


@pytest.mark.parametrize("together", [1, 3])
def test_tiles_of_several_pictures_go_through_the_net_together(net, together):
    sizes = [(20, 20), (20, 24), (20, 60), (44, 20), (20, 20)]
    pictures = [
        Picture(image_of(size), Tiling.over(size, (204, 220), FIG_1), tta)
        for size, tta in zip(sizes, ["none", "mirror", "rotate", "none", "none"])
    ]
    alone = [segment_image(net, one.image, one.tiling, one.tta) for one in pictures]
    for given, wanted in zip(segment_pictures(net, pictures, together=together), alone):
        np.testing.assert_array_equal(given, wanted)

    def broken():
        yield from pictures[:2]
        raise OSError("slice 2 is broken")

    seen = []
    with pytest.raises(OSError, match="slice 2 is broken"):
        for given in segment_pictures(net, broken(), together=together):
            seen.append(given)
    np.testing.assert_array_equal(seen[1], alone[1])
    assert len(seen) == 2


def test_tiles_off_the_grid_would_show(net):
    image = image_of((40, 60))
    wanted = one_pass(net, image)
    # Tiles that touch, as the output size of 20 suggests: steps are not multiples of 16.
    touching = tuple((y, x) for y in range(0, 40, 20) for x in range(0, 60, 20))
    tiling = replace(Tiling.over((40, 60), (204, 204), FIG_1), origins=touching)
    difference = np.abs(score_image(net, image, tiling) - wanted)
    assert difference.max() > 1e-2 * np.abs(wanted).max()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_tiles_of_a_net_of_any_depth_show_no_seam(tmp_path, levels, padded):
    n = caffe.NetSpec()
    n["data"] = caffe.layers.Input(shape=dict(dim=[1, 1, 64, 64]))
    u_net(n, 2, 2, levels=levels, padded=padded)
    geometry = Geometry.of(n.to_proto())
    n = str(n.to_proto()).replace("dim: 64", f"dim: {geometry.smallest}")
    (tmp_path / "net.prototxt").write_text(n)
    caffe.set_random_seed(5)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    image, factor = image_of((3 * geometry.downsample_factor, 40)), geometry.downsample_factor
    whole, small = (
        score_image(net, image, Tiling.over(image.shape[1:], tile, geometry))
        for tile in (
            tuple(geometry.input_size(size) for size in image.shape[1:]),
            (geometry.input_size(factor), geometry.input_size(2 * factor)),
        )
    )
    np.testing.assert_allclose(small, whole, rtol=0, atol=1e-5 * np.abs(whole).max())
    assert np.ptp(whole) > 0


@pytest.mark.slow
@pytest.mark.parametrize("tile", [(444, 444), (572, 572), (572, 700), (700, 700), (716, 700)])
def test_a_slice_of_isbi_in_tiles(net, tile):
    image = image_of((512, 512))
    assert_is_one_pass(score(net, image, tile), one_pass(net, image))


def test_orientations_by_hand():
    corner = np.array([[1, 2, 3], [4, 5, 6]])
    laid = {
        "mirror": [corner, corner[:, ::-1], corner[::-1], corner[::-1, ::-1]],
        "rotate": [np.rot90(corner, turns) for turns in range(4)],
    }
    for tta, wanted in laid.items():
        given = [one.apply(corner) for one in TTA[tta]]
        assert sorted(map(str, given)) == sorted(map(str, wanted))
    both = {str(one.apply(corner)) for one in TTA["dihedral"]}
    assert len(both) == 8
    for one in TTA["dihedral"]:
        np.testing.assert_array_equal(one.undo(one.apply(corner)), corner)
        assert one.is_transposed == (one.apply(corner).shape != corner.shape)


@pytest.mark.parametrize(
    ("tta", "turns", "flips"),
    [
        ("none", [0], [""]),
        ("mirror", [0], ["", "x", "y", "xy"]),
        ("rotate", range(4), [""]),
        ("dihedral", range(4), ["", "x"]),
    ],
)
def test_scores_are_averaged_before_the_softmax(net, tta, turns, flips):
    image = image_of((30, 50))
    versions = [(turn, flip) for turn in turns for flip in flips]
    total = np.zeros((2, 30, 50))
    for turn, flip in versions:
        flipped = (slice(None), *(slice(None, None, -1 if a in flip else 1) for a in "yx"))
        laid = np.rot90(image[flipped], turn, axes=(1, 2))
        total += np.rot90(one_pass(net, laid), -turn, axes=(1, 2))[flipped]
    powers = np.exp(total / len(versions))
    bar = Passes()
    given = segment(net, image, (236, 252), tta, bar=bar)
    np.testing.assert_allclose(given, powers / powers.sum(axis=0), atol=1e-5)
    assert given.dtype == np.float32
    assert bar.n == len(versions)


def test_turned_tiles_that_only_fit_when_turned_along(net):
    # 188 gives 4 pixels: enough for the 3 rows, not for the 40 columns.
    image = image_of((3, 40))
    given = segment(net, image, (188, 236), "rotate")
    same = segment(net, image, (252, 252), "rotate")
    np.testing.assert_allclose(given, same, atol=1e-5)


def test_classes_and_channels_are_those_of_the_net(tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net("unet_slim", channels=2, classes=3)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    image = image_of((25, 30), channels=2)
    assert_is_one_pass(score(net, image, (204, 220)), one_pass(net, image))
    given = segment(net, image, (220, 220), "mirror")
    assert given.shape == (3, 25, 30)
    np.testing.assert_allclose(given.sum(axis=0), 1, atol=1e-6)
    with pytest.raises(InputError, match="has 1 channels, but the network takes 2"):
        segment(net, image[:1], (220, 220))


def test_softmax_by_hand_and_far_out():
    scores = np.array([[0.0, 1e4, -1e4], [np.log(3), 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(softmax(scores), [[0.25, 1, 0], [0.75, 0, 1]], atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_refused_whatever_the_network_makes_of_it(net, value):
    image = image_of((20, 20))
    image[0, 3, 4] = value
    # Nothing is computed.
    bar = Passes()
    with pytest.raises(FloatingPointError, match="picture"):
        segment(net, image, (204, 204), bar=bar)
    assert bar.n == 0
