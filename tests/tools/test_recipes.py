"""Recipes are data: every option is one that its program takes; what suits a machine is chosen."""

from __future__ import annotations

import platform
import shlex

import pytest

import training_choice
from recipes import RECIPES
from run_recipe import RUNNERS, Way, parse
from tests.conftest import REPOSITORY
from training_choice import CPU_SECONDS, WEIGHTINGS, Choice, choose
from unet.command import prepare, score, segment, track
from unet.command.fetch import parse as parse_fetch
from unet.command.options import parse_slices


@pytest.mark.parametrize("name", RECIPES)
def test_the_options_of_a_recipe_are_those_of_the_programs(name, tmp_path):
    recipe = RECIPES[name]
    options = {verb: shlex.split(getattr(recipe, verb)) for verb in ("prepare", "segment", "track")}
    parse_fetch([recipe.data, "-o", recipe.folder])
    segment.parse(["stack", "--weights", "w", *options["segment"]])
    track.parse(["cells.tif", "-o", "result", *options["track"]])
    score.parse(["truth", "result", *shlex.split(recipe.score)])
    for weighting in WEIGHTINGS.values():
        prepare.parse(["a", "-o", "b.h5", *options["prepare"], *weighting.split()])


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_names_is_there(name, tmp_path):
    recipe = RECIPES[name]
    makefile = (REPOSITORY / "Makefile").read_text()
    assert f"run_recipe.py {name} " in makefile or f"$(call TRAIN,{name})" in makefile
    assert not recipe.weights or (REPOSITORY / recipe.weights / "deploy.prototxt").is_file()
    assert not recipe.make or f"\n{recipe.make}: " in makefile
    way = Way(recipe, tmp_path, "cpu")
    for split in (recipe.splits or {}).values():
        for text in filter(None, (split.train, split.test)):
            assert len(parse_slices(text)) > 0
        # Nothing is judged by what it was learnt from.
        if split.judged == recipe.learn and split.train:
            learnt, judged = parse_slices(split.train), parse_slices(split.test)
            assert learnt.stop <= judged.start
        assert way.labels(split.judged) != way.data / split.judged
        for net in CPU_SECONDS:
            for suffix in ("", "_adam"):
                solver = REPOSITORY / "prototxt" / net / f"solver_{split.solver}{suffix}.prototxt"
                assert not split.solver or solver.is_file()
    assert (name in RUNNERS) == (not recipe.make)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(training_choice, "gpu_works", lambda device: False)


def chosen(*arguments: str) -> Choice:
    return choose(parse(["isbi2012", *arguments]), RECIPES["isbi2012"])


def test_without_a_gpu_the_slim_net_is_trained_and_told_what_the_papers_takes(no_gpu, capsys):
    choice = chosen("--net", "", "--iterations", "")
    assert (choice.net, choice.solver) == ("unet_slim", "Adam")
    assert choice.iterations * CPU_SECONDS["unet_slim"] < 25 * 60
    said = capsys.readouterr().out
    assert "make train-isbi NET=unet" in said
    assert said.count("\n") == 1


def test_with_a_gpu_the_papers_net_is_trained_as_its_solver_says(monkeypatch):
    monkeypatch.setattr(training_choice, "gpu_works", lambda device: True)
    assert chosen() == Choice("unet", 30_000, "SGD", "paper", "fp32")
    choice = chosen("--net", "unet_slim", "--iterations", "7", "--solver", "sgd")
    assert choice.variables() == (
        "NET=unet_slim SOLVER=sgd WEIGHTING=none ITERATIONS=7 PRECISION=fp32"
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
def test_a_card_names_the_precision_that_was_computed_in(no_gpu, monkeypatch, capfd):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    choice = chosen("--net", "unet_slim", "--precision", "bf16")
    assert choice.variables().endswith("PRECISION=fp32")
    assert capfd.readouterr().err.count("bf16 would be slower than float32") == 1
    assert training_choice.computed_in("cpu", "tf32") == "tf32"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["isbi2012", "--device", "gpu"], "DEVICE=gpu"),
        (["isbi2012", "--iterations", "-3"], "'-3' is not a whole number"),
        (["isbi2012", "--iterations", "0"], "'0' is not a whole number"),
        (["isbi2012", "--split", "half"], "half"),
        (["phc-u373", "--solver", "lbfgs"], "'lbfgs' is neither SGD nor Adam"),
        (["dic-hela", "--weighting", "most"], "most"),
        (["separation", "--precision", "fp8"], "fp8"),
        *((["demo", "--seconds", text], "--seconds") for text in ("0", "nan", "inf")),
        (["hela"], "hela"),
        ([], "name"),
    ],
)
def test_wrong_variables_are_told(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
