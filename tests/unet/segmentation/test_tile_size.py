"""How large a tile may be: what a pass takes, by hand and of a net, and the cheapest that fits."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.network.nets import deploy_net
from unet.segmentation.tile_size import PassCost, choose_tile
from unet.segmentation.tiles import Tiling

FIG_1 = Geometry()


def made_up_cost(**changes) -> PassCost:
    """Return the cost of a net with two maps: one as large as the input, one as the output."""
    values = dict(
        smallest=188,
        sizes=np.array([[188, 188], [4, 4]]),
        growth=np.ones((2, 2)),
        channels=np.array([1, 10]),
        live=np.ones((1, 2), bool),
        multiply_adds=np.array([2, 0]),
        workspace=np.array([3, 5]),
        workspaces_add=False,
    )
    return PassCost(**{**values, **changes})


def test_cost_by_hand():
    cost = made_up_cost()
    assert cost.pixels((204, 188)).tolist() == [204 * 188, 20 * 4]
    assert cost.work((204, 188)) == 2 * 204 * 188
    kept = 204 * 188 + 10 * 20 * 4
    assert cost.memory((204, 188)) == 4 * (kept + 3 * 204 * 188)
    in_turn = made_up_cost(live=np.eye(2, dtype=bool))
    assert in_turn.memory((204, 188)) == 4 * (204 * 188 + 3 * 204 * 188)
    both = made_up_cost(workspaces_add=True)
    assert both.memory((204, 188)) == 4 * (kept + 3 * 204 * 188 + 5 * 20 * 4)


def test_a_blob_that_caffe_cannot_count_fits_no_memory():
    huge = made_up_cost(channels=np.array([1, 100]))
    assert np.isfinite(huge.memory((4620, 4620)))
    assert huge.memory((4844, 4844)) == np.inf


def test_a_slice_of_isbi_takes_one_pass():
    assert choose_tile((512, 512), made_up_cost(), np.inf, FIG_1) == (700, 700)
    # Height and width do not depend on each other.
    assert choose_tile((37, 600), made_up_cost(), np.inf, FIG_1) == (236, 796)
    assert choose_tile((1, 1), made_up_cost(), np.inf, FIG_1) == (188, 188)


@pytest.mark.parametrize("shape", [(512, 512), (1024, 300), (5, 2000), (4, 4), (1, 5)])
@pytest.mark.parametrize("megabytes", [1, 2, 8, 64])
def test_choice_is_the_cheapest_of_all_that_fit(shape, megabytes):
    cost, memory = made_up_cost(), megabytes * 2.0**20
    every = []
    for height in range(188, shape[0] + 204, 16):
        for width in range(188, shape[1] + 204, 16):
            tile = (height, width)
            try:
                tiles = len(Tiling.over(shape, tile, FIG_1).origins)
            except InputError:
                continue
            if cost.memory(tile) <= memory:
                every.append(tiles * cost.work(tile))
    chosen = choose_tile(shape, cost, memory, FIG_1)
    assert cost.memory(chosen) <= memory
    assert len(Tiling.over(shape, chosen, FIG_1).origins) * cost.work(chosen) == min(every)


def test_memory_for_no_tile_is_refused():
    with pytest.raises(InputError, match="smallest tiles, 204x204, takes about 1 MB, but 0 MB"):
        choose_tile((512, 512), made_up_cost(), 1e5, FIG_1)


def multiply_adds(width: int, tile: tuple[int, int], classes: int = 2) -> int:
    """Count those of Fig. 1 by walking through it."""
    work = 0
    size, channels = np.array(tile), 1

    def convolve(maps: int, kernel: int = 3) -> None:
        nonlocal size, channels, work
        size = size - (kernel - 1)
        work += int(np.prod(size)) * kernel**2 * channels * maps
        channels = maps

    for level in range(5):
        if level:
            size = size // 2
        convolve(width * 2**level)
        convolve(width * 2**level)
    for level in range(3, -1, -1):
        work += int(np.prod(size)) * 4 * channels * (channels // 2)
        size, channels = size * 2, channels
        convolve(width * 2**level)
        convolve(width * 2**level)
    convolve(classes, 1)
    return work


@pytest.mark.parametrize(("name", "width"), [("unet", 64), ("unet_slim", 16)])
def test_cost_of_a_pass_is_that_of_the_net(name, width, tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net(name)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    cost = PassCost.of(net, FIG_1)
    for tile in ((188, 188), (572, 572), (204, 700)):
        assert cost.work(tile) == multiply_adds(width, tile)


@pytest.mark.parametrize("name", ["unet", "unet_slim"])
def test_memory_of_a_pass_is_what_lies_in_memory_at_the_same_time(name, tmp_path):
    (tmp_path / "net.prototxt").write_text(str(deploy_net(name)))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.retain_data = False
    cost = PassCost.of(net, FIG_1)
    net.blobs["data"].reshape(1, 1, 252, 316)
    net.reshape()
    seen = []

    def look(_layer: int) -> None:
        storages = {}
        for blob in net.blobs.values():
            tensor = blob.data_memory._tensor
            if tensor is not None:
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        seen.append(sum(storages.values()))

    net.after_forward(look)
    net.forward()
    largest = 4 * max(blob.count for blob in net.blobs.values())
    assert cost.memory((252, 316)) == pytest.approx(max(seen) + largest, rel=0.02)
    # Far less than all maps take.
    assert max(seen) < 0.5 * sum(4 * blob.count for blob in net.blobs.values())
