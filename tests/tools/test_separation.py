"""Two trainings that differ in one weight alone, and what is made of their results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import separation
from tests.tools.recorded import unknown_options
from unet.volumes import write_volume


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Run nothing: 30 slices of three cells; those of w0 = 0 are found as one."""
    recorded = []
    truth = np.zeros((30, 20, 40), np.uint16)
    for cell in range(3):
        truth[:, 4:16, 5 + 10 * cell : 15 + 10 * cell] = cell + 1

    class Recorder(separation.Pipeline):
        def run(self, step):
            recorded.append(step)
            if step.title == "data":
                write_volume(step.outputs[0], (100 * (truth > 0)).astype(np.uint8))
                write_volume(step.outputs[1], truth)
            if step.title.endswith("segment"):
                cells = truth[20:] if "w0 = 10" in step.title else (truth[20:] > 0)
                write_volume(step.outputs[0], cells.astype(np.uint16))

        def train(self, step, folder):
            recorded.append(step)

    monkeypatch.setattr(separation, "Pipeline", Recorder)
    monkeypatch.setattr(separation, "REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    return recorded


def test_the_trainings_differ_in_the_weight_alone(steps):
    assert separation.main(["--iterations", "9", "--device", "cpu"]) is None
    data, *both = steps
    assert not unknown_options(data.command)
    first, second = both[: len(both) // 2], both[len(both) // 2 :]
    for one, other in zip(first, second):
        assert not unknown_options(one.command), one.command
        same = [part.replace("w0_10", "w0_0") for part in one.command]
        if "--w0" in same:
            same[same.index("--w0") + 1] = "0"
        assert same == other.command


def test_merged_cells_are_counted_and_drawn(steps, capsys):
    separation.main(["--iterations", "9"])
    result = json.loads(Path("runs/separation/separation.json").read_text())
    assert result.pop("software").endswith("file of scores")
    assert result == {
        "iterations": 9,
        "precision": "fp32",
        "cells": 30,
        "merged": {"w0 = 10": 0, "w0 = 0": 30},
        "found": {"w0 = 10": 30, "w0 = 0": 10},
    }
    assert Path("runs/separation/separation.png").read_bytes().startswith(b"\x89PNG")
    assert "w0 = 0:   30 cells merged,   10 found" in capsys.readouterr().out
