"""The guard of all outputs: what would damage an input, another output or anybody's work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unet.errors import InputError
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import PICTURE, RESULT, SCORE_FILE, STACK

LOST = r"is, holds or lies in the input .*, which would be damaged"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with an input file, and an input folder of two pages."""
    for name in ("in.tif", "data.h5", "pages/a.png", "pages/b.png", "g.zarr/0/zarr.json"):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def guard(output: str | Path, *inputs: str | Path) -> None:
    """Guard a file of scores, which nothing keeps from replacing what is there."""
    guard_outputs([Output(output, SCORE_FILE)], inputs, overwrite=True)


@pytest.mark.parametrize(
    ("output", "given"),
    [
        ("in.tif", "in.tif"),
        ("./pages/../in.tif", "in.tif"),
        ("data.h5", "data.h5:/v"),
        ("data.h5", "data.h5:group/v"),
        ("pages/a.png", "pages"),
        ("pages/new.json", "pages"),
        ("pages/deep/new.json", "pages"),
        ("pages", "pages/a.png"),
        ("g.zarr/new.json", "g.zarr:/0"),
        ("g.zarr", "g.zarr/0"),
        ("g.zarr/0/zarr.json", "g.zarr"),
    ],
)
def test_an_output_that_is_holds_or_lies_in_an_input(place, output, given):
    with pytest.raises(InputError, match=LOST):
        guard(output, given)
    with pytest.raises(InputError, match=LOST):
        guard(place / output, given)
    with pytest.raises(InputError, match=LOST):
        guard(output, "absent.tif", place / given)


def test_links_are_what_they_lead_to():
    os.symlink("in.tif", "soft.tif")
    os.link("in.tif", "hard.tif")
    os.symlink("pages", "folder")
    for name in ("soft.tif", "hard.tif"):
        for output, given in ((name, "in.tif"), ("in.tif", name)):
            with pytest.raises(InputError, match=LOST):
                guard(output, given)
    for output, given in (("folder/new.json", "pages"), ("pages/new.json", "folder")):
        with pytest.raises(InputError, match=LOST):
            guard(output, given)


def test_links_in_an_input_folder_lead_to_inputs():
    os.mkdir("raw")
    for name in ("x.png", "y.png"):
        Path("raw", name).write_text(name)
    os.symlink("../raw/x.png", "pages/x.png")
    os.link("raw/y.png", "pages/y.png")
    for output in ("raw/x.png", "raw/y.png", "raw"):
        with pytest.raises(InputError, match=LOST):
            guard_outputs([Output(output, RESULT)], ["pages"], overwrite=True)
    guard("raw/z.png", "pages")


def test_names_of_one_file_on_the_disk_are_that_file(monkeypatch):
    # As a file system does that takes upper and lower case for the same.
    real = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **rest: real(str(path).replace("IN.TIF", "in.tif"), **rest)
    )
    with pytest.raises(InputError, match=LOST):
        guard("IN.TIF", "in.tif")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("out.tif", "out.tif", "is named for two outputs"),
        ("out.tif", "./x/../out.tif", "is, holds or lies in the other output out.tif"),
        ("out", "out/picture.png", "is, holds or lies in the other output out"),
        ("out/deep/picture.png", "out", "is, holds or lies in the other output"),
    ],
)
def test_two_outputs_that_are_the_same_or_hold_each_other(first, second, said):
    with pytest.raises(InputError, match=said):
        guard_outputs([Output(first, STACK), Output(second, PICTURE)], ["in.tif"])


def test_two_outputs_with_one_file_on_the_disk():
    Path("one.png").touch()
    os.link("one.png", "two.png")
    with pytest.raises(InputError, match=r"lies in the other output one.png"):
        guard_outputs([Output("one.png", STACK), Output("two.png", PICTURE)], [])


@pytest.mark.parametrize("output", ["s.h5:/prob", "s.h5:prob", "g.zarr:/0", "in.tif:/0"])
def test_an_output_is_no_dataset_of_a_file(output):
    with pytest.raises(InputError, match=r"an output is a file of its own, not a dataset in one"):
        guard(output)


def test_the_working_folder_and_devices_are_no_outputs(place):
    for output in (".", "..", place, place.parent):
        with pytest.raises(InputError, match="is or holds the working folder"):
            guard_outputs([Output(output, RESULT)], [], overwrite=True)
    os.mkfifo("pipe")
    for output in ("pipe", os.devnull):
        with pytest.raises(InputError, match="is neither a file nor a folder"):
            guard(output, "in.tif")


def test_a_file_takes_no_folders_place():
    with pytest.raises(InputError, match="pages: is a folder; name a file in it"):
        guard("pages", "in.tif")


def test_other_places_are_free():
    guard_outputs(
        [
            Output("out", STACK),
            Output("out.png", PICTURE),
            Output("new/deep/scores.json", SCORE_FILE),
            # Beside an input, and names that begin like one.
            Output("in.tif.json", SCORE_FILE),
            Output("pages.json", SCORE_FILE),
            Output("12:30.tif", STACK),
        ],
        ["in.tif", "pages", "data.h5:/v", "g.zarr:/0"],
    )


def test_the_work_of_others_is_replaced_only_if_asked():
    Path("mine.json").write_text("{}")
    with pytest.raises(InputError, match=r"mine.json: exists, and is not a file of scores"):
        guard_outputs([Output("new.json", SCORE_FILE), Output("mine.json", SCORE_FILE)], [])
    guard("mine.json")
