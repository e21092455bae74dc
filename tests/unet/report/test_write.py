"""The page of a run: whole, self-contained, of what is there, with every name escaped."""

from __future__ import annotations

import json
import os
import re
import shlex
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest

from tests.unet.report.made_run import make_run, write_held_out
from unet.command.segment import parse
from unet.errors import InputError
from unet.report.write import write_report
from unet.training.history import write_history

_VOID = {"img", "input", "meta"}


class Page(HTMLParser):
    """The elements of a page, and its text; every element must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.typed: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "pre":
            self.typed.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
        if "pre" in self.open:
            self.typed[-1] += data

    @property
    def text(self) -> str:
        return "".join(self.words)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def report(folder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
def test_a_finished_run_has_every_part(tmp_path, kind):
    page = report(make_run(tmp_path / "mine", kind))
    parts = ["data", "curves", "slices", "worst", "scores", "next", "use"]
    assert page.ids == parts
    assert [link["href"] for link in page.all("a")][: len(parts)] == [f"#{one}" for one in parts]


def test_what_was_chosen_is_told_with_its_reasons(tmp_path):
    text = report(make_run(tmp_path / "mine")).text
    for said in (
        "membranes, as the labels say",
        "3 levels, 16 maps at the first, padded convolutions, 470,000 parameters",
        "levels: cells are 40 pixels wide; maps: of more too few steps would fit",
        "stage 2: 800 iterations at rate 0.0003, gaps between cells weigh more (w0 10, sigma 5)",
        "Weatherit rained",
        "trained on slices 0–3; held out: 4, 5",
        "Trained with 4,000 iterations in 66.7 minutes.",
    ):
        assert said in text


def test_parts_of_a_slice_are_named_by_their_place(tmp_path):
    parts = [
        {"z": 7, "rows": [0, 80], "columns": [80, 160]},
        {"z": 7, "rows": [80, 160], "columns": [0, 80]},
    ]
    text = report(make_run(tmp_path / "mine", split={"train": [7], "held_out": parts})).text
    assert "held out: 7 (rows 0–79, columns 80–159), 7 (rows 80–159, columns 0–79)" in text
    assert "Slice 5, rows 80–159, columns 0–79" in text


def test_worst_places_of_parts_are_told_by_rows_and_columns_of_the_slice(tmp_path):
    whole = report(make_run(tmp_path / "whole")).text
    place = re.search(r"Slice 4, around row (\d+), column (\d+)", whole)
    row, column = map(int, place.groups())
    part = {"z": 4, "rows": [200, 360], "columns": [400, 560]}
    split = {"train": [4, 5], "held_out": [part, {**part, "z": 5}]}
    text = report(make_run(tmp_path / "part", split=split)).text
    assert f"columns 400–559, around row {200 + row}, column {400 + column}" in text


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
def test_the_pixel_error_of_membranes_is_drawn_of_membranes_alone(tmp_path, kind):
    folder = make_run(tmp_path / "mine", kind)
    (folder / "held-out.h5").unlink()
    rows = [{"iteration": 0, "seconds": 0, "test_misclassified": 0.09, "test_pixel_error": 0.5512}]
    write_history(folder / "training-1" / "curve.csv", rows)
    text = report(folder).text
    assert "misclassified 0.0900" in text
    assert ("pixel error 0.5512" in text) == (kind == "membranes")
    assert ("0.5512" in text) == (kind == "membranes")


def test_a_slice_is_called_by_its_file_wherever_it_is_named(tmp_path):
    files = {"4": "Img_017_a<b>.PNG", "5": "Img_021.PNG"}
    split = {"train": [0, 1], "held_out": [4, 5], "files": files}
    page = report(make_run(tmp_path / "mine", "cells", split=split))
    told = "held out: 4 (Img_017_a<b>.PNG), 5 (Img_021.PNG) (counted from 0, in the order of their"
    assert told in page.text
    # Its button; its numbers, and the places that are worst in it; its row of scores.
    words = [word for word in page.words if "Img_021" in word and "held out" not in word]
    assert words[0] == "slice 5 (Img_021.PNG)"
    assert words[1].startswith("Slice 5 (Img_021.PNG): ")
    assert set(words[2:-1]) == {"Slice 5 (Img_021.PNG)"}
    assert words[-1] == "5 (Img_021.PNG)"


def test_frames_of_a_sequence_are_called_so_by_their_own_numbers(tmp_path):
    split = {"train": [50, 51, 52], "held_out": [4, 5], "unit": "frame"}
    page = report(make_run(tmp_path / "mine", "cells", split=split))
    assert "trained on frames 50–52; held out: 4, 5" in page.text
    assert "counted from 0" not in page.text
    assert "frame 5" in page.words
    assert "Frame by frame" in page.words
    assert "slice 5" not in page.text.lower()


def test_a_long_name_is_whole_once_and_short_on_buttons(tmp_path):
    name = "2019-03-12_experiment4_well-B03_channel1_z017.tif"
    split = {"train": [0], "held_out": [4, 5], "files": {"4": name, "5": "b.tif"}}
    page = report(make_run(tmp_path / "mine", split=split))
    assert page.text.count(name) == 1
    assert "slice 4 (2019-03-1…_channel1_z017.tif)" in page.words


def test_scores_are_shown_as_they_were_written(tmp_path):
    page = report(make_run(tmp_path / "mine", "classes"))
    for number in ("0.8642", "0.9100", "–", "0.8200"):
        assert number in page.text
    assert "IoU, class 2" in page.text


def test_the_threshold_that_was_chosen_is_marked_in_its_curve(tmp_path):
    page = report(make_run(tmp_path / "mine"))
    assert "chosen: 0.4" in page.text
    assert "score over threshold" in [one.get("aria-label") for one in page.all("svg")]


def test_commands_are_those_of_the_folder_in_which_it_lies(tmp_path):
    text = report(make_run(tmp_path / "mine", "cells", stack="/data/my stack's.tif")).text
    options = "--model . -o probabilities.tif --instances cells.tif"
    assert f"unet segment STACK {options}" in text
    assert f"""unet segment '/data/my stack'"'"'s.tif' {options}""" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("kind", ["membranes", "cells", "classes"])
def test_the_program_takes_the_commands(tmp_path, kind):
    page = report(make_run(tmp_path / "mine", kind))
    commands = [line for line in page.typed if line.startswith("unet segment")]
    assert len(commands) == 2
    for command in commands:
        given = parse(shlex.split(command)[2:])
        assert (given.model, str(given.probabilities)) == (".", "probabilities.tif")


def test_nothing_is_loaded_from_anywhere_else(tmp_path):
    page = report(make_run(tmp_path / "mine"))
    for _, attributes in page.elements:
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("data:image/", "#"))
    assert not page.all("link") and not page.all("iframe")
    text = (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)


@pytest.mark.parametrize("missing", [
    "choices.json", "labels.png", "training-1", "held-out.h5", "scores.json", "segment.json",
    "weights.caffemodel",
])  # fmt: skip
def test_any_file_may_not_be_there_yet(tmp_path, missing):
    folder = make_run(tmp_path / "mine")
    os.renames(folder / missing, tmp_path / "elsewhere" / missing)
    page = report(folder)
    gone = {
        "held-out.h5": {"slices", "worst"},
        "scores.json": {"scores"},
        "weights.caffemodel": {"use"},
    }.get(missing, set())
    parts = ("data", "curves", "slices", "worst", "scores", "next", "use")
    assert page.ids == [one for one in parts if one not in gone]


def test_before_the_first_step_the_page_says_so(tmp_path):
    (tmp_path / "mine").mkdir()
    assert "Training begins." in report(tmp_path / "mine").text


def test_while_it_trains_the_page_tells_how_far_it_is(tmp_path):
    folder = make_run(tmp_path / "mine")
    for name in ("scores.json", "held-out.h5", "training-2/curve.csv"):
        (folder / name).unlink()
    page = report(folder)
    assert "stage 1 of 2, iteration 3,200 of 3,200" in page.text
    assert "80% trained" in [one.get("aria-label") for one in page.all("div")]


def test_slices_that_are_written_later_are_shown_then(tmp_path):
    folder = make_run(tmp_path / "mine", "membranes")
    before = report(folder)
    write_held_out(folder, "cells")
    sources = [one.get("src") for one in report(folder).all("img")]
    assert sources != [one.get("src") for one in before.all("img")]


@pytest.mark.parametrize("many", [8, 10])
def test_it_says_which_of_many_slices_have_a_button(tmp_path, many):
    small = np.arange(many * 1024, dtype=np.uint8).reshape(many, 32, 32)
    with h5py.File(str(tmp_path / "held-out.h5"), "w") as file:
        file["raw"], file["truth"], file["result"] = small, small // 128, small // 100
        file["slices"] = np.arange(many)
    page = report(tmp_path)
    assert sum(one.get("name") == "slice" for one in page.all("input")) == 8
    said = "Shown are 8 of the 10 held out, so that the page stays small"
    assert (said in page.text) == ("Shown are" in page.text) == (many == 10)


@pytest.mark.parametrize(
    "name", ["choices.json", "scores.json", "held-out.h5", "training-1/curve.csv"]
)
def test_a_damaged_file_is_told_and_all_else_is_there(tmp_path, name):
    folder = make_run(tmp_path / "mine")
    (folder / name).write_text("no\nsuch thing\n")
    page = report(folder)
    assert "What cannot be read" in page.text
    assert name in page.text
    assert "data" in page.ids and "curves" in page.ids


def test_what_is_well_in_both_stages_is_said_once(tmp_path):
    page = report(make_run(tmp_path / "mine"))
    assert page.text.count("It does not overfit") == 1
    assert page.text.count("the held-out loss was lowest") == 2


def test_a_fault_is_told_at_the_top_with_what_to_do(tmp_path):
    folder = make_run(tmp_path / "mine")
    with h5py.File(str(folder / "held-out.h5"), "a") as file:
        file["truth"][...] = np.roll(file["truth"][()], (6, 0), (1, 2))
    page = report(folder)
    assert "Look at this first: labels shifted." in page.text
    assert "Move the labels 6 pixels up, and train again." in page.text
    assert "Look at this" not in report(make_run(tmp_path / "other")).text


def places(value, before=()):
    """Where something stands in JSON, from the whole to each number."""
    yield before
    inside = value if isinstance(value, (dict, list)) else ()
    for key, inner in inside.items() if isinstance(inside, dict) else enumerate(inside):
        yield from places(inner, (*before, key))


def with_other(value, place, other):
    if not place:
        return other
    key, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = with_other(value[key], rest, other)
    return copy


@pytest.mark.parametrize("name", ["choices.json", "scores.json", "segment.json"])
def test_json_of_any_other_form_stops_no_training(tmp_path, name):
    folder = make_run(tmp_path / "mine")
    for slow in ("held-out.h5", "labels.png"):
        (folder / slow).unlink()
    whole = json.loads((folder / name).read_text())
    for k, place in enumerate(places(whole)):
        other = ("x", [None], {"a": 1}, None, True)[k % 5]
        (folder / name).write_text(json.dumps(with_other(whole, place, other)))
        report(folder)


def test_names_are_text_whatever_is_in_them(tmp_path):
    evil = "</script><script>alert(1)</script>\udcb5&\"'"
    folder = make_run(
        tmp_path / "<b>mine & co",
        stack=f"/data/{evil}",
        understood=evil,
        command=evil,
        reasons={evil: evil, "net": evil},
        split={"train": [0], "held_out": [evil, evil]},
    )
    page = report(folder)
    assert len(page.all("script")) == 1
    assert not page.all("b") or all("alert" not in str(one) for one in page.all("b"))
    assert "</script><script>alert(1)</script>\\xb5&\"'" in page.text
    assert "<b>mine & co" in page.text


def test_a_report_replaces_the_one_before(tmp_path):
    folder = make_run(tmp_path / "mine")
    write_report(folder)
    (folder / "scores.json").unlink()
    assert "scores" not in report(folder).ids
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]


def test_a_folder_that_is_none_is_told(tmp_path):
    with pytest.raises(InputError, match="is no folder of a run"):
        write_report(tmp_path / "nothing")


def test_what_was_unusual_of_the_labels_is_told(tmp_path):
    text = report(make_run(tmp_path / "mine", notes=["2 of the 9 pictures have no labels"])).text
    assert "Note: 2 of the 9 pictures have no labels" in text
    assert "Note:" not in report(make_run(tmp_path / "other", notes={"of": "damage"})).text
