"""What a network says of itself is taken where nothing else is asked for, and no further."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import unet
from unet.command import segment
from unet.errors import InputError
from unet.model.defaults import read_defaults, told, write_defaults
from unet.segmentation.instances import InstanceRules
from unet.volumes import read_volume, write_volume

SAID = {"tta": "mirror", "threshold": 0.35, "minimum_area": 7, "fill_holes": True, "watershed": 0.2}


def test_what_is_written_is_read(tmp_path):
    write_defaults(tmp_path / "segment.json", InstanceRules(0.35, 7, True, 0.2), "mirror")
    assert read_defaults(tmp_path / "deploy.prototxt") == SAID
    assert read_defaults(tmp_path / "other" / "deploy.prototxt") == {}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"threshold": 1.5}, "threshold 1.5: give a probability"),
        ({"threshold": True}, "'threshold' is true, which means nothing"),
        ({"threshold": "0.5"}, "'threshold' is \"0.5\", which means nothing"),
        ({"minimum_area": 1.5}, "'minimum_area' is 1.5, which means nothing"),
        ({"minimum_area": -1}, "minimum area -1: give a number of pixels"),
        ({"fill_holes": 1}, "'fill_holes' is 1, which means nothing"),
        ({"tta": "twice"}, "'tta' is 'twice': make it one of none, mirror"),
        ({"treshold": 0.5}, "'treshold' is 0.5, .* it may hold tta, threshold"),
        ([0.5], "must hold an object"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path, said, told):
    (tmp_path / "segment.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=f"segment.json: {told}"):
        read_defaults(tmp_path / "deploy.prototxt")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "segment.json").write_text('{"tta": ')
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_defaults(tmp_path / "deploy.prototxt")


def test_what_is_taken_is_told_in_the_flags_that_override_it():
    assert told(SAID) == (
        "--tta mirror --threshold 0.35 --minimum-area 7 --fill-holes --watershed 0.2: as "
        "segment.json beside the network says"
    )
    assert told({"tta": "none", "threshold": None, "minimum_area": 1}) == ""


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder that says how it is segmented."""
    folder = tmp_path_factory.mktemp("model")
    for name in ("deploy.prototxt", "weights.caffemodel", "input.json"):
        shutil.copy(repository / "models/isbi2012_slim" / name, folder)
    write_defaults(folder / "segment.json", InstanceRules(0.35, 7, True, 0.2), "mirror")
    return folder


STACK = np.random.default_rng(0).integers(0, 256, (1, 24, 34), np.uint8)


def test_a_model_takes_them_unless_asked_for_something_else(folder):
    model = unet.load(folder, device="cpu")
    bare = unet.load("isbi2012_slim", device="cpu")
    np.testing.assert_array_equal(model.segment(STACK), bare.segment(STACK, tta="mirror"))
    np.testing.assert_array_equal(model.segment(STACK, tta="none"), bare.segment(STACK))
    rules = dict(threshold=0.35, minimum_area=7, fill_holes=True, watershed=0.2)
    np.testing.assert_array_equal(
        model.instances(STACK), bare.instances(STACK, tta="mirror", **rules)
    )
    other = dict(threshold=0.8, minimum_area=1, fill_holes=False, watershed=0)
    assert model.options(other, tta="none").rules == InstanceRules(0.8, watershed=0)
    # The authors' procedure fixes all of it.
    assert model.options(procedure="2015").rules == bare.options(procedure="2015").rules


@pytest.fixture
def run(folder, tmp_path, capsys):
    write_volume(tmp_path / "stack.tif", STACK)

    def call(*arguments: object) -> str:
        given = [tmp_path / "stack.tif", "--model", folder, "--device", "cpu", *arguments]
        segment.main([str(one) for one in given])
        return capsys.readouterr().out

    return call


def test_the_program_takes_them_and_says_so_in_one_line(run, folder, tmp_path):
    said = run("--instances", tmp_path / "cells.tif", "--tile", 220).splitlines()
    assert said[0] == told(SAID)
    wanted = unet.load(folder, device="cpu").instances(STACK, tile=220)
    np.testing.assert_array_equal(read_volume(tmp_path / "cells.tif"), wanted)


def test_flags_of_the_program_override_them(run, tmp_path):
    flags = ("--tta", "none", "--threshold", 0.5, "--minimum-area", 1, "--no-fill-holes")
    flags += ("--watershed", 0)
    said = run("--instances", tmp_path / "cells.tif", "--tile", 220, *flags)
    assert "segment.json" not in said
    wanted = unet.load("isbi2012_slim", device="cpu").instances(STACK, threshold=0.5, tile=220)
    np.testing.assert_array_equal(read_volume(tmp_path / "cells.tif"), wanted)


def test_where_no_cells_are_asked_for_what_a_cell_is_does_not_matter(run, tmp_path):
    said = run("-o", tmp_path / "out.tif", "--tile", 220).splitlines()
    assert said[0] == "--tta mirror: as segment.json beside the network says"


def test_a_model_and_weights_are_not_both_given(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run("-o", tmp_path / "out.tif", "--weights", "isbi2012_slim")
    assert ended.value.code == 2
    assert "--weights: not allowed with argument --model" in capsys.readouterr().err


def test_a_model_or_weights_are_needed(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        segment.main([str(tmp_path / "stack.tif"), "-o", str(tmp_path / "out.tif")])
    assert ended.value.code == 2
    assert "one of the arguments --model --weights is required" in capsys.readouterr().err
