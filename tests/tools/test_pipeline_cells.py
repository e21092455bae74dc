"""From a sequence of cells to its tracks: variables, the steps and their options, the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import choices
import pipeline_cells
from tests.tools.recorded import program_of, unknown_options


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Run nothing, but remember the steps; two sequences of a small data set."""
    recorded = []
    data = tmp_path / "data"
    for sequence in ("01", "02"):
        for number in (7, 60, 61, 90, 91):
            for place in (f"{sequence}/t{number:03d}", f"{sequence}_GT/SEG/man_seg{number:03d}"):
                path = data / f"{place}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, np.zeros((8, 9), np.uint8))

    class Recorder(pipeline_cells.Pipeline):
        def run(self, step):
            recorded.append(step)

        def train(self, step, folder):
            recorded.append(step)

    about = pipeline_cells.DATA["phc-u373"]._replace(folder=data)
    monkeypatch.setitem(pipeline_cells.DATA, "phc-u373", about)
    monkeypatch.setattr(pipeline_cells, "Pipeline", Recorder)
    monkeypatch.setattr(choices, "gpu_works", lambda device: False)
    made = {}
    monkeypatch.setattr(
        pipeline_cells, "make_model_folder", lambda target, *rest: made.update({target: rest[3]})
    )
    scores = json.dumps({"SEG": 0.91, "DET": 0.97, "TRA": 0.96})
    monkeypatch.setattr(pipeline_cells.Path, "read_text", read_with(scores))
    recorded.append(made)
    return recorded


def read_with(scores):
    real = Path.read_text

    def read(path, *rest, **options):
        return scores if path.name == "scores.json" else real(path, *rest, **options)

    return read


@pytest.mark.parametrize("split", ["holdout", "all"])
def test_every_step_is_a_command_that_its_program_takes(steps, split, capsys):
    assert pipeline_cells.main(["phc-u373", "--split", split, "--iterations", "9"]) is None
    made, *run = steps
    assert [program_of(step.command)[-1] for step in run] == [
        "tools/fetch.py",
        "tools/prepare.py",
        "unet.nets",
        "tools/train.py",
        "tools/segment.py",
        "tools/track.py",
        "tools/segment.py",
        "tools/evaluate.py",
    ]
    for step in run:
        assert not unknown_options(step.command), step.command
    nets = " ".join(run[2].command)
    # Frames 7 and 60 are trained on, 61, 90 and 91 held out.
    assert ("--train-slices 0:2 --test-slices 2:5" in nets) == (split == "holdout")
    assert ("--train-slices 0:5" in nets) == (split == "all")
    picture = " ".join(run[6].command)
    assert "t090.tif" in picture
    assert "man_seg090.tif" in picture
    assert ("/02/t090" in picture) == (split == "holdout")
    assert ("61:" in run[7].command) == (split == "holdout")
    (target, card), *_ = made.items()
    assert target.name == f"phc-u373_unet_slim_{split}_adam_none"
    assert "| SEG | 0.9100 |" in card
    assert f"make train-phc SPLIT={split} NET=unet_slim SOLVER=adam" in card
    assert "The paper's net would take" in capsys.readouterr().out


def test_without_the_other_sequence_nothing_is_scored(steps, capsys):
    folder = pipeline_cells.DATA["phc-u373"].folder
    (folder / "01").rename(folder / "away")
    pipeline_cells.main(["phc-u373", "--split", "all", "--iterations", "9"])
    made, *run = steps
    assert not any("tools/evaluate.py" in step.command for step in run)
    assert "is not there" in capsys.readouterr().out
    assert "Score" not in next(iter(made.values()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["hela"], "hela"), (["phc-u373", "--device", "gpu"], "DEVICE=gpu"), ([], "data")],
)
def test_wrong_variables_are_told(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        pipeline_cells.main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
