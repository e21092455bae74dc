"""What microscopes write is opened by bioio; where that is missing, a sentence says what to do."""

from __future__ import annotations

import sys

import numpy as np
import pytest

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
