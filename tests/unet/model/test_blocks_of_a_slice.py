"""Slices computed block by block: as one pass would, in any order, whatever the memory."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
import unet
from tests.unet.watched import watch
from unet.segmentation.options import Plan, SegmentationOptions
from unet.volumes import Volume, as_volume

STACK = np.random.default_rng(4).integers(0, 256, (2, 300, 281), np.uint8)
# Bytes: of arrays of a block of 160 x 144, and a pass of the smallest tiles.
LITTLE = 12e6
# A slice that is cut into blocks of 64 x 64, each of which a single tile gives, in this memory.
SMALL, FEW_PASSES = STACK[:1, :126, :109], 40e6


@pytest.fixture
def model(repository, tmp_path):
    """The slim net with weights that tell every pixel from its neighbour."""
    deploy = repository / "prototxt/unet_slim/deploy.prototxt"
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    caffe.Net(str(deploy), caffe.TEST).save(str(tmp_path / "weights.caffemodel"))
    return unet.load(tmp_path / "weights.caffemodel", deploy, device="cpu")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("unet.segmentation.blocks._SMALLEST", 64)


@pytest.fixture
def always_blocks(monkeypatch, small_blocks):
    for share in ("BLOCK", "SLICE"):
        monkeypatch.setattr(f"unet.segmentation.blocks._SHARE_OF_{share}", 0.01)


def plan_of(model: unet.Model, volume: Volume, **options: object) -> Plan:
    return model.plan(volume, SegmentationOptions(intensity=(0, 255), **options))


@pytest.mark.parametrize("tta", ["none", "dihedral"])
def test_blocks_give_what_the_whole_slice_gives_in_every_orientation(model, always_blocks, tta):
    with as_volume(SMALL, "stack") as volume:
        plan = plan_of(model, volume, memory=FEW_PASSES, tta=tta)
        assert len(plan.blocks) == 4
        assert plan.block == (64, 64)
    whole = model.segment(SMALL, intensity=(0, 255), tta=tta)
    given = model.segment(SMALL, intensity=(0, 255), tta=tta, memory=FEW_PASSES)
    np.testing.assert_allclose(given, whole, rtol=0, atol=1e-5)
    assert whole.std() > 1e-3


def test_a_slice_that_is_normalised_is_so_as_a_whole(model, small_blocks):
    bright = (STACK[:1] * np.linspace(0.2, 1, 281)).astype(np.uint8)
    whole = model.segment(bright, normalise=True)
    given = model.segment(bright, normalise=True, memory=LITTLE)
    np.testing.assert_allclose(given, whole, rtol=0, atol=1e-5)


def test_blocks_are_the_same_to_the_bit_in_whatever_order(model, always_blocks):
    with as_volume(SMALL, "stack") as volume:
        plan = plan_of(model, volume, memory=FEW_PASSES, tta="rotate")
        forth = [values for _, values in model.run(volume, plan)]
        back = [model.run_block(volume, plan, block)[1] for block in plan.blocks[::-1]]
    assert len(forth) == 4
    for one, other in zip(forth, back[::-1]):
        np.testing.assert_array_equal(one, other)


def test_the_image_of_a_block_is_that_part_of_the_slice(model, small_blocks):
    with as_volume(STACK, "stack") as volume:
        plan = plan_of(model, volume, memory=LITTLE)
        block = plan.blocks[-1]
        image, values = model.run_block(volume, plan, block)
    np.testing.assert_array_equal(image, STACK[1, 160:, 144:])
    assert values.shape == (2, 140, 137)


def test_only_what_a_block_shows_is_read(model, small_blocks):
    with as_volume(STACK[:1], "stack") as volume:
        plan = plan_of(model, volume, memory=LITTLE)
        read = []
        volume.region = lambda z, rows, columns: (
            read.append((rows.stop - rows.start, columns.stop - columns.start))
            or STACK[z, rows, columns]
        )
        list(model.run(volume, plan))
    # The network's border of 92, and what of a tile lies beyond its block.
    assert len(read) == len(plan.blocks)
    assert max(height for height, _ in read) <= plan.block[0] + 2 * 92 + 16
    assert min(width for _, width in read) < 281


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("can't allocate memory")])
def test_out_of_memory_goes_on_with_smaller_tiles(model, monkeypatch, capsys, error):
    whole = model.segment(STACK, intensity=(0, 255), tta="mirror")
    passes = []

    def fails(picture):
        passes.append(picture.tiling.tile)
        if len(passes) == 2 or passes[1:2] == [picture.tiling.tile]:
            raise error

    watch(monkeypatch, fails)
    given = model.segment(STACK, intensity=(0, 255), tta="mirror")
    np.testing.assert_allclose(given, whole, rtol=0, atol=1e-5)
    assert np.prod(passes[-1]) < np.prod(passes[0])
    said = capsys.readouterr().err
    assert said.count("did not fit into memory") == 1
    assert "stack: slice 1: tiles of" in said
