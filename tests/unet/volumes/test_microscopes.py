"""What microscopes write is opened by bioio; where that is missing, a sentence says what to do."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.unet.volumes.lif_case import write_lif
from tests.unet.volumes.stacks import refused, stack
from unet.volumes import Calibration, open_volume


@pytest.mark.parametrize("suffix", ["czi", "lif", "nd2", "dv"])
def test_without_bioio_the_command_that_installs_it_is_told(tmp_path, monkeypatch, suffix):
    monkeypatch.setitem(sys.modules, "bioio", None)
    (tmp_path / f"a.{suffix}").write_bytes(b"anything")
    refused(tmp_path / f"a.{suffix}", rf"pip install bioio bioio-{suffix}")


def test_a_czi_as_zeiss_writes_it(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("bioio_czi")
    pytest.importorskip("bioio")
    written = stack((2, 3, 20, 32), "uint16")
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for channel, z in np.ndindex(2, 3):
            place = {"C": channel, "Z": z, "T": 0}
            file.write(data=written[channel, z][..., None], plane=place)
        file.write_metadata("a", scale_x=2e-7, scale_y=2e-7, scale_z=1e-6)
    with open_volume(tmp_path / "a.czi") as volume:
        assert np.array_equal(volume[:], np.moveaxis(written, 0, 1))
        assert volume.calibration.axes == "ZCYX"
        part = volume.region(2, slice(3, 9), slice(30, 32))
        assert np.array_equal(part, written[:, 2, 3:9, 30:32])
    with open_volume(tmp_path / "a.czi", channel=1, scene=0, channels=1) as volume:
        assert np.array_equal(volume[:], written[1])
        assert volume.calibration == Calibration("ZYX", pytest.approx((1.0, 0.2, 0.2)), "µm")
    refused(tmp_path / "a.czi", "--scene 1: there is scene 0 only", scene=1)
    (tmp_path / "b.czi").write_bytes((tmp_path / "a.czi").read_bytes()[:500])
    refused(tmp_path / "b.czi", "b.czi")


@pytest.fixture
def scenes_of_czi(tmp_path):
    czi = pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("bioio_czi")
    pytest.importorskip("bioio")
    written = [stack((2, 20, 32), "uint8", seed) for seed in range(2)]
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for scene, z in np.ndindex(2, 2):
            place, at = {"C": 0, "Z": z, "T": 0}, (100 * scene, 0)
            file.write(data=written[scene][z][..., None], plane=place, location=at, scene=scene)
        # The title makes room for what pylibCZIrw does not write.
        file.write_metadata("t" * 500, scale_x=2e-7, scale_y=2e-7, scale_z=1e-6)
    return tmp_path / "a.czi", written


def test_scenes_of_a_czi_are_chosen_by_number_or_name(scenes_of_czi):
    path, written = scenes_of_czi
    names = "".join(f'<Scene Index="{k}" Name="P{k + 1}"/>' for k in range(2))
    told = f"<S><Scenes>{names}</Scenes></S><Channels>".encode()
    found = path.read_bytes()
    room = 500 + len(b"<Channels>") - len(told)
    path.write_bytes(found.replace(b"<Channels>", told).replace(b"t" * 500, b"t" * room))
    refused(path, r"a\.czi: holds 2 scenes \(0: P1, 1: P2\); choose one with --scene")
    for scene in range(2):
        with open_volume(path, scene=scene) as volume:
            assert np.array_equal(volume[:], written[scene])
            assert volume.calibration == Calibration("ZYX", pytest.approx((1.0, 0.2, 0.2)), "µm")
    with open_volume(path, scene="P2") as volume:
        assert np.array_equal(volume[:], written[1])


def test_scenes_of_a_czi_without_names_are_refused_because_its_plugin_sees_the_first(scenes_of_czi):
    refused(scenes_of_czi[0], r"a\.czi: holds 2 scenes, of which bioio-czi finds 1")


@pytest.fixture
def save_dv(tmp_path):
    mrc = pytest.importorskip("mrc")
    pytest.importorskip("bioio_dv")
    pytest.importorskip("bioio")

    def write(stored):
        mrc.imwrite(str(tmp_path / "a.dv"), stored, resolution=(0.1, 0.2, 0.5))
        return tmp_path / "a.dv"

    return write


def test_a_dv_of_two_channels_without_names(save_dv):
    """Those that DeltaVision has no room for names of: in the header, not behind it."""
    written = stack((2, 3, 20, 32), "uint16")
    path = save_dv(written)
    with open_volume(path) as volume:
        assert np.array_equal(volume[:], np.moveaxis(written, 0, 1))
        assert volume.calibration == Calibration("ZCYX", pytest.approx((0.5, 0.2, 0.1)), "µm")
        part = volume.region(2, slice(3, 9), slice(30, 32))
        assert np.array_equal(part, written[:, 2, 3:9, 30:32])
    with open_volume(path, channel=1, channels=1) as volume:
        assert np.array_equal(volume[:], written[1])
    refused(path, "--channel 2: there is channel 0 to 1", channel=2)


def test_a_dv_that_is_cut_off_is_refused(save_dv):
    path = save_dv(stack((3, 20, 32), "uint16"))
    path.write_bytes(path.read_bytes()[:-500])
    refused(path, r"a\.dv: cannot be read by bioio")


@pytest.fixture
def lif(tmp_path):
    pytest.importorskip("bioio_lif")
    pytest.importorskip("bioio")
    steps = {"X": 1e-7, "Y": 2e-7, "Z": 5e-7}
    scenes = {
        "cells": (stack((2, 3, 20, 32), "uint16"), "CZYX", steps),
        "movie": (stack((4, 3, 12, 14)), "TZYX", steps),
        "sweep": (stack((5, 12, 14)), "λYX", {}),
        "depth": (stack((2, 12, 14)), "TZX", {}),
    }
    write_lif(tmp_path / "a.lif", scenes)
    return tmp_path / "a.lif", scenes


def test_scenes_of_a_lif(lif):
    path, scenes = lif
    refused(path, r"a\.lif: holds 4 scenes \(0: cells, 1: movie, .*\); choose one with --scene")
    cells, movie = scenes["cells"][0], scenes["movie"][0]
    with open_volume(path, scene="cells") as volume:
        assert np.array_equal(volume[:], np.moveaxis(cells, 0, 1))
        assert volume.calibration == Calibration("ZCYX", pytest.approx((0.5, 0.2, 0.1)), "µm")
    with open_volume(path, scene=0, channel=1) as volume:
        assert np.array_equal(volume[:], cells[1])
    with open_volume(path, scene=1) as volume:
        assert np.array_equal(volume[:], movie.reshape(12, 12, 14))
    with open_volume(path, scene=1, time=2) as volume:
        assert np.array_equal(volume[:], movie[2])
        assert volume.calibration.pixel_size == pytest.approx((0.5, 0.2, 0.1))


@pytest.mark.parametrize("scene, said", [("sweep", "the axis λ"), ("depth", "frames along Z")])
def test_scenes_of_a_lif_that_its_plugin_does_not_read_are_refused(lif, scene, said):
    """bioio-lif leaves wavelengths out without a word, and breaks on frames in depth."""
    refused(lif[0], rf"\({scene}\) has {said}, which bioio-lif does not read", scene=scene)
