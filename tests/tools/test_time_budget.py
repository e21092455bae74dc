"""A demonstration takes the time it has: as many training steps as fit, or a word before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pipeline
import time_budget
from tests.tools.recorded import unknown_options
from time_budget import TRIED, WARM, Plan, measure, plan


@pytest.mark.parametrize(
    ("step", "rest", "left", "expected"),
    [
        # Enough are enough; what is left of the time is for a machine that becomes slower.
        (0.2, 5, 290, Plan(800, 270.0)),
        # Nine tenths of 270 s.
        (0.5, 5, 290, Plan(486, 270.0)),
        (2.43, 5, 290, Plan(100, 270.0)),
        # Fewer mean nothing: they take what they take.
        (2.44, 5, 290, Plan(100, None)),
        (0.2, 100, 290, Plan(100, None)),
        (0.2, 5, -60, Plan(100, None)),
    ],
)
def test_steps_are_fitted_into_the_time_that_is_left(step, rest, left, expected):
    assert plan(step, rest, left, 100, 800) == expected


class Machine(pipeline.Pipeline):
    """Steps of a training take `step` seconds, the first two 10; its program takes 6 beside."""

    def __init__(self, folder: Path, clock: list[float], step: float) -> None:
        super().__init__(folder)
        self.began, self.clock, self.step, self.runs = 0.0, clock, step, 0

    def run(self, step) -> None:
        self.runs += 1
        folder = Path(step.command[step.command.index("-o") + 1])
        assert not folder.exists()
        folder.mkdir()
        ends = [10 + max(0, number - WARM + 1) * self.step for number in range(TRIED)]
        rows = [f"{number},{end},0.001,0.5," for number, end in enumerate(ends)]
        rows += [f"{TRIED},{ends[-1] + 3},,,0.4"]
        (folder / "curve.csv").write_text(
            "\n".join(["iteration,seconds,rate,loss,test_loss", *rows])
        )
        self.clock[0] += ends[-1] + 6
        self.remember(step.title, step.fingerprint())


@pytest.fixture
def clock(monkeypatch):
    now = [30.0]
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: now[0])
    return now


def measured(machine: Machine, folder: Path, budget: float = 300) -> Plan:
    solver = folder / "solver.prototxt"
    solver.touch()
    return measure(machine, solver, [solver], folder, "cpu", budget, 100, 800)


@pytest.mark.parametrize(
    ("step", "expected", "said"),
    [
        # 30 s, 10 + 8 steps + 6 s are over; four times 6 s come after.
        (0.25, Plan(800, 228.0), "A step takes 0.25 s here: all 800 steps fit, about 272 s in all"),
        (0.5, Plan(406, 226.0), "A step takes 0.50 s here: 406 steps, of 800, fit into 5 minutes"),
        (
            5.0,
            Plan(100, None),
            "A step takes 5.00 s here: even 100 steps, below which the result means nothing, and "
            "what comes with them will take about 10 minutes in all, not 5.",
        ),
    ],
)
def test_a_trial_tells_how_many_fit_before_the_training_begins(
    tmp_path, clock, capsys, step, expected, said
):
    assert measured(Machine(tmp_path, clock, step), tmp_path) == expected
    assert said in capsys.readouterr().out
    assert not (tmp_path / "tried").exists()


def test_the_same_plan_is_made_once(tmp_path, clock):
    first = measured(Machine(tmp_path, clock, 0.5), tmp_path)
    slower = Machine(tmp_path, clock, 5.0)
    assert measured(slower, tmp_path) == first
    assert slower.runs == 0
    assert measured(slower, tmp_path, 299) == Plan(100, None)
    assert slower.runs == 1
    (tmp_path / "solver.prototxt").write_text("another")
    measured(slower, tmp_path, 299)
    assert slower.runs == 2


@pytest.mark.parametrize("text", ["", "[]", '{"budget": 300}', "{"])
def test_a_damaged_plan_costs_a_trial(tmp_path, clock, text):
    measured(Machine(tmp_path, clock, 0.5), tmp_path)
    (tmp_path / "plan.json").write_text(text)
    again = Machine(tmp_path, clock, 0.25)
    measured(again, tmp_path)
    assert again.runs == 1
    assert json.loads((tmp_path / "plan.json").read_text())["budget"] == 300


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Run nothing; a training ends after 60 steps."""
    recorded = []

    class Recorder(pipeline.Pipeline):
        def run(self, step):
            recorded.append(step)

        def train(self, step, folder):
            recorded.append(step)
            folder.mkdir(parents=True)
            for kind in ("solverstate", "caffemodel"):
                (folder / f"unet_slim_iter_60.{kind}").touch()

    monkeypatch.setattr(pipeline, "Pipeline", Recorder)
    monkeypatch.setattr(pipeline, "REPOSITORY", tmp_path)
    monkeypatch.setattr(pipeline, "demo_stacks", lambda: (Path("data/phantom"), "a phantom"))
    monkeypatch.chdir(tmp_path)
    return recorded


def test_the_demo_trains_as_long_as_planned_and_says_if_that_was_too_short(
    steps, monkeypatch, capsys
):
    monkeypatch.setattr(pipeline, "measure", lambda *_: Plan(400, 200.5))
    assert pipeline.main(["demo"]) is None
    assert not [step.command for step in steps if unknown_options(step.command)]
    train, segment = (step.command for step in steps if step.title in ("train", "segment"))
    assert train[train.index("--iterations") + 1] == "400"
    assert train[train.index("--seconds") + 1] == "200.5"
    assert "runs/demo/training/unet_slim_iter_60.caffemodel" in segment
    assert "Only 60 steps fitted into the time: the result means nothing." in (
        capsys.readouterr().out
    )


def test_steps_that_are_asked_for_are_not_measured(steps, monkeypatch):
    monkeypatch.delattr(pipeline, "measure")
    assert pipeline.main(["demo", "--iterations", "60"]) is None
    (train,) = (step.command for step in steps if step.title == "train")
    assert "--seconds" not in train


@pytest.mark.parametrize("seconds", ["0", "nan", "inf"])
def test_no_time_is_told(seconds, capsys):
    with pytest.raises(SystemExit) as stopped:
        pipeline.parse(["demo", "--seconds", seconds])
    assert stopped.value.code == 2
    assert "--seconds" in capsys.readouterr().err
