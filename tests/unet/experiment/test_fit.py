"""What fits into the time and into memory: judging is set aside, tiles become smaller."""

from __future__ import annotations

import itertools
import json
import re

import pytest

import unet
from unet.datasets.phantom import phantom
from unet.errors import InputError
from unet.experiment.budget import SCORING, Pace

HOW = dict(minutes=5, levels=2, maps=16, device="cpu", precision="fp32")


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """Return what settles a run and goes no further: its choices, by number of slices."""

    def stopped(*_, **__):
        raise InputError("stopped before the first step")

    monkeypatch.setattr("unet.experiment.fit.measure", lambda *_: Pace(0.1, 0.1))
    monkeypatch.setattr("unet.experiment.settle.with_preview", lambda summary, *_: summary)
    monkeypatch.setattr("unet.experiment.run.Training", stopped)

    def call(slices: int, **options: object) -> dict:
        with pytest.raises(InputError, match="stopped before"):
            unet.train(*phantom(slices=slices, size=64), tmp_path / "mine", **HOW, **options)
        return json.loads((tmp_path / "mine" / "choices.json").read_text())

    return call


@pytest.fixture
def short_of_memory(monkeypatch):
    """Return what lets so many measurements fail for want of memory; and the tiles of each."""

    def call(many: int, error: Exception) -> list[int]:
        tiles = []

        def measure(caffe, solver, root, longest):
            net = (root / "deploy.prototxt").read_text()
            tiles.append(int(re.findall(r"dim: (\d+)", net)[3]))
            if len(tiles) <= many:
                raise error
            return Pace(0.1, 0.1)

        monkeypatch.setattr("unet.experiment.fit.measure", measure)
        return tiles

    return call


@pytest.mark.parametrize(
    ("slices", "side", "many"),
    [(3, 32, 3), (4, 64, 1)],
    ids=["a quadrant each of 3 slices", "one slice of 4"],
)
def test_what_is_held_out_is_judged_and_no_more(slices, side, many, settle):
    choices = settle(slices, tile=60)
    # Four orientations, each of tiles whose scores are 20 x 20.
    passes = 4 * many * (-(-side // 20)) ** 2
    expected = 0.1 * passes + SCORING["membranes"] * many * side**2 / 1e6
    assert choices["seconds_to_judge"] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("64 MiB"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("layer 'conv' (Convolution): could not create a primitive (bottoms: (1, 16))"),
    ],
    ids=["memory", "memory of a GPU", "memory of oneDNN"],
)
def test_a_tile_that_memory_is_too_short_for_is_made_smaller_and_that_is_said(
    settle, short_of_memory, tmp_path, error
):
    tiles = short_of_memory(2, error)
    choices = settle(4)
    assert len(tiles) == 3
    assert tiles[0] > tiles[1] > tiles[2] == choices["tile"]
    assert choices["reasons"]["tile"] == f"those of {tiles[1]} do not fit into memory"
    said = (tmp_path / "mine" / "run.log").read_text()
    for before, after in itertools.pairwise(tiles):
        assert f"tiles of {after}: those of {before} do not fit into memory" in said
    # Both the network and what feeds it are of that size.
    net = (tmp_path / "mine" / "net" / "train_val.prototxt").read_text()
    assert set(re.findall(r'\\"tile\\": (\d+)', net)) == {str(choices["tile"])}


def test_a_tile_that_would_not_fit_is_not_tried(settle, short_of_memory, monkeypatch):
    free = iter([1e6, *[1e12] * 9])
    monkeypatch.setattr("unet.experiment.fit.pass_memory", lambda device: next(free))
    tiles = short_of_memory(0, MemoryError())
    choices = settle(4)
    assert tiles == [choices["tile"]]
    assert "do not fit into memory: they take" in choices["reasons"]["tile"]


@pytest.mark.parametrize(
    ("many", "options"), [(9, {}), (1, {"tile": 60})], ids=["no tile fits", "one is asked for"]
)
def test_where_no_smaller_tile_may_be_tried_it_is_said_what_helps(
    short_of_memory, tmp_path, many, options
):
    short_of_memory(many, MemoryError("64 MiB"))
    with pytest.raises(MemoryError, match=r"do not fit into memory; end other programs, or give"):
        unet.train(*phantom(slices=4, size=64), tmp_path / "mine", **HOW, **options)


def test_an_error_that_is_not_of_memory_is_told_as_it_is(short_of_memory, tmp_path):
    tiles = short_of_memory(1, RuntimeError("blob 'data' has no height"))
    with pytest.raises(RuntimeError, match="blob 'data' has no height"):
        unet.train(*phantom(slices=4, size=64), tmp_path / "mine", **HOW)
    assert len(tiles) == 1
