"""What of the time is set aside to judge is what judging takes."""

from __future__ import annotations

import json

import pytest

import unet
from unet.datasets.phantom import phantom
from unet.errors import InputError
from unet.experiment.budget import SCORING, Pace


@pytest.mark.parametrize(
    ("slices", "side", "many"),
    [(3, 32, 3), (4, 64, 1)],
    ids=["a quadrant each of 3 slices", "one slice of 4"],
)
def test_what_is_held_out_is_judged_and_no_more(slices, side, many, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise InputError("stopped before the first step")

    monkeypatch.setattr("unet.experiment.fit.measure", lambda *_: Pace(0.1, 0.1))
    monkeypatch.setattr("unet.experiment.settle.with_preview", lambda summary, *_: summary)
    monkeypatch.setattr("unet.experiment.run.Training", stopped)
    how = dict(minutes=5, levels=2, maps=16, tile=60, device="cpu", precision="fp32")
    with pytest.raises(InputError, match="stopped before"):
        unet.train(*phantom(slices=slices, size=64), tmp_path / "mine", **how)
    choices = json.loads((tmp_path / "mine" / "choices.json").read_text())
    # Four orientations, each of tiles whose scores are 20 x 20.
    passes = 4 * many * (-(-side // 20)) ** 2
    expected = 0.1 * passes + SCORING["membranes"] * many * side**2 / 1e6
    assert choices["seconds_to_judge"] == pytest.approx(expected, abs=0.05)
