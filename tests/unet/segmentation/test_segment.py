"""Segmentation: tiles put together equal one pass, versions are averaged, nothing piles up."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import caffe
from unet.errors import InputError
from unet.nets import deploy_net
from unet.segmentation.segment import (
    VERSIONS,
    score_pictures,
    segment_picture,
    segment_volume,
    softmax,
)
from unet.segmentation.tiles import tile_places

BORDER = 92


@pytest.fixture(scope="module")
def net(repository: Path) -> caffe.Net:
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    return caffe.Net(str(repository / "prototxt/unet_slim/deploy.prototxt"), caffe.TEST)


def picture_of(shape: tuple[int, int], channels: int = 1) -> np.ndarray:
    """Return a picture that has no symmetry."""
    return np.random.default_rng(shape).random((channels,) + shape, np.float32)


def score_picture(
    net: caffe.Net, picture: np.ndarray, tile: tuple[int, int], together: int = 1
) -> np.ndarray:
    (scores,) = score_pictures(net, [picture], tile, together=together)
    return scores


def one_pass(net: caffe.Net, picture: np.ndarray) -> np.ndarray:
    """Return the scores of one pass over the whole mirrored picture, by numpy's own mirror."""
    shape = picture.shape[1:]
    # The next size that fits, found by trying.
    sizes = [next(16 * k + 60 for k in range(8, 999) if 16 * k - 124 >= n) for n in shape]
    padded = picture
    for axis, size in zip((1, 2), sizes):
        pads = [(0, 0)] * 3
        pads[axis] = (BORDER, size - BORDER - picture.shape[axis])
        mode = "reflect" if picture.shape[axis] > 1 else "edge"
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
    picture = picture_of((45, 70))
    return picture, one_pass(net, picture)


@pytest.mark.parametrize("size", range(204, 349, 16))
def test_square_tiles_give_what_one_pass_gives(net, crooked, size):
    picture, wanted = crooked
    assert_is_one_pass(score_picture(net, picture, (size, size)), wanted)


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
def test_oblong_tiles_give_what_one_pass_gives_whatever_the_picture(net, shape, tiles):
    picture = picture_of(shape)
    wanted = one_pass(net, picture)
    for tile in tiles:
        assert_is_one_pass(score_picture(net, picture, tile), wanted)


@pytest.mark.parametrize("together", [3, 8])
def test_tiles_that_the_net_is_given_together_are_passes_of_their_own(net, together):
    picture, passes, given = picture_of((20, 60)), [], []
    for number in (1, together):
        given.append(
            segment_picture(
                net,
                picture,
                (204, 220),
                average="rotate",
                together=number,
                after_pass=lambda: passes.append(1),
            )
        )
    assert len(passes) == 2 * 4 * len(list(tile_places((20, 60), (204, 220))))
    np.testing.assert_array_equal(*given)


def test_of_many_tiles_no_more_are_cut_than_the_net_is_given(net):
    cut = []

    def pictures():
        for number in range(4):
            cut.append(number)
            yield picture_of((20, 36))

    scored = score_pictures(net, pictures(), (204, 220), together=2)
    next(scored)
    assert cut == [0, 1]


def test_tiles_off_the_grid_would_show(net, monkeypatch):
    picture = picture_of((40, 60))
    wanted = one_pass(net, picture)
    # Tiles that touch, as the output size of 20 suggests: steps are no multiples of 16.
    monkeypatch.setattr(
        "unet.segmentation.segment.tile_places",
        lambda shape, tile: ((y, x) for y in range(0, 40, 20) for x in range(0, 60, 20)),
    )
    difference = np.abs(score_picture(net, picture, (204, 204)) - wanted)
    assert difference.max() > 1e-2 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("tile", [(444, 444), (572, 572), (572, 700), (700, 700), (716, 700)])
def test_a_slice_of_isbi_in_tiles(net, tile):
    picture = picture_of((512, 512))
    assert_is_one_pass(score_picture(net, picture, tile), one_pass(net, picture))


def test_versions_by_hand():
    corner = np.array([[1, 2, 3], [4, 5, 6]])
    laid = {
        "mirror": [corner, corner[:, ::-1], corner[::-1], corner[::-1, ::-1]],
        "rotate": [np.rot90(corner, turns) for turns in range(4)],
    }
    for average, wanted in laid.items():
        given = [version.of(corner) for version in VERSIONS[average]]
        assert sorted(map(str, given)) == sorted(map(str, wanted))
    both = {str(version.of(corner)) for version in VERSIONS["dihedral"]}
    assert len(both) == 8
    for version in VERSIONS["dihedral"]:
        np.testing.assert_array_equal(version.undo(version.of(corner)), corner)
        assert version.size(corner.shape) == version.of(corner).shape


@pytest.mark.parametrize(
    ("average", "turns", "flips"),
    [
        ("none", [0], [""]),
        ("mirror", [0], ["", "x", "y", "xy"]),
        ("rotate", range(4), [""]),
        ("dihedral", range(4), ["", "x"]),
    ],
)
def test_scores_are_averaged_before_the_softmax(net, average, turns, flips):
    picture = picture_of((30, 50))
    versions = [(turn, flip) for turn in turns for flip in flips]
    total = np.zeros((2, 30, 50))
    for turn, flip in versions:
        flipped = (slice(None), *(slice(None, None, -1 if a in flip else 1) for a in "yx"))
        laid = np.rot90(picture[flipped], turn, axes=(1, 2))
        total += np.rot90(one_pass(net, laid), -turn, axes=(1, 2))[flipped]
    powers = np.exp(total / len(versions))
    passes = []
    given = segment_picture(
        net, picture, (236, 252), average=average, after_pass=lambda: passes.append(1)
    )
    np.testing.assert_allclose(given, powers / powers.sum(axis=0), atol=1e-5)
    assert given.dtype == np.float32
    assert len(passes) == len(versions)


def test_turned_tiles_that_only_fit_when_turned_along(net):
    # 188 gives 4 pixels: enough for the 3 rows, not for the 40 columns.
    picture = picture_of((3, 40))
    given = segment_picture(net, picture, (188, 236), average="rotate")
    same = segment_picture(net, picture, (252, 252), average="rotate")
    np.testing.assert_allclose(given, same, atol=1e-5)


def test_classes_and_channels_are_those_of_the_net(tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net("unet_slim", channels=2, classes=3)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    picture = picture_of((25, 30), channels=2)
    assert_is_one_pass(score_picture(net, picture, (204, 220)), one_pass(net, picture))
    given = segment_picture(net, picture, (220, 220), average="mirror")
    assert given.shape == (3, 25, 30)
    np.testing.assert_allclose(given.sum(axis=0), 1, atol=1e-6)
    with pytest.raises(InputError, match="has 1 channels, but the network takes 2"):
        segment_picture(net, picture[:1], (220, 220))


def test_invalid_tile_is_refused(net):
    with pytest.raises(InputError, match="nearest are 492 and 508"):
        segment_picture(net, picture_of((9, 9)), (500, 572))


def test_slices_are_read_when_their_turn_comes(net):
    read = []

    def pictures():
        for z in range(3):
            read.append(z)
            yield np.full((20, 30), 100 * z, np.uint8)

    segmented = segment_volume(net, pictures(), (0, 200), (204, 220))
    assert read == []
    first = next(segmented)
    assert read == [0]
    assert first.shape == (2, 20, 30)
    second = next(segmented)
    wanted = segment_picture(net, np.full((1, 20, 30), 0.5, np.float32), (204, 220))
    np.testing.assert_array_equal(second, wanted)


def test_memory_does_not_grow_with_the_slices(net):
    def peak(slices: int) -> int:
        pictures = (np.zeros((120, 300), np.uint8) for _ in range(slices))
        tracemalloc.start()
        for _ in segment_volume(net, pictures, (0, 255), (316, 492), average="none"):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    # The scores of one slice alone are 288 kB.
    assert peak(5) - peak(2) < 100_000


def test_softmax_by_hand_and_far_out():
    scores = np.array([[0.0, 1e4, -1e4], [np.log(3), 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(softmax(scores), [[0.25, 1, 0], [0.75, 0, 1]], atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_that_is_not_finite_is_refused_whatever_the_network_makes_of_it(net, value):
    picture = picture_of((20, 20))
    picture[0, 3, 4] = value

    def score(net, pictures, tile, **_):
        return (np.zeros((2,) + picture.shape[1:], np.float32) for picture in pictures)

    with pytest.raises(FloatingPointError, match="picture"):
        segment_picture(net, picture, (188, 188), score=score)
