"""What is read of a run, and which of many held-out slices are shown."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.unet.report.made_run import make_run
from unet.errors import InputError
from unet.report.run_files import UNKNOWN, read_run


def write(folder, **arrays) -> None:
    with h5py.File(str(folder / "held-out.h5"), "w") as file:
        for name, array in arrays.items():
            file[name] = array


def many(count: int, wrong: dict[int, int]) -> dict[str, np.ndarray]:
    """Arrays of slices of 8 x 8, `wrong` pixels of some of them mistaken."""
    truth = np.ones((count, 8, 8), np.int32)
    result = truth.copy()
    for place, pixels in wrong.items():
        result[place].ravel()[:pixels] = 0
    raw = np.arange(truth.size, dtype=np.uint8).reshape(truth.shape)
    return {"raw": raw, "truth": truth, "result": result, "slices": np.arange(count) * 3}


def test_all_slices_are_shown_if_they_are_few(tmp_path):
    write(tmp_path, **many(8, {}))
    run = read_run(tmp_path)
    assert [one.name for one in run.held_out()] == [f"slice {3 * z}" for z in range(8)]


def test_of_many_slices_the_worst_are_among_those_that_are_shown(tmp_path):
    write(tmp_path, **many(40, {17: 30, 23: 40, 5: 2}))
    places = [one.place for one in read_run(tmp_path).held_out()]
    assert {17, 23} <= set(places)
    assert len(places) == 8 and places == sorted(places)
    assert places[0] == 0 and places[-1] == 39


def test_what_nobody_annotated_makes_no_slice_the_worst(tmp_path):
    arrays = many(40, {17: 30, 23: 40, 5: 64})
    arrays["truth"][5] = UNKNOWN
    write(tmp_path, **arrays)
    places = [one.place for one in read_run(tmp_path).held_out()]
    assert {17, 23} <= set(places)


def test_a_slice_has_a_channel_at_least(tmp_path):
    arrays = many(2, {})
    write(tmp_path, **arrays)
    assert {one.raw.shape for one in read_run(tmp_path).held_out()} == {(1, 8, 8)}
    arrays["raw"] = np.zeros((2, 3, 8, 8))
    write(tmp_path, **arrays)
    assert {one.raw.shape for one in read_run(tmp_path).held_out()} == {(3, 8, 8)}


@pytest.mark.parametrize("name", ["raw", "truth", "result", "slices"])
def test_a_dataset_that_is_missing_or_of_another_size_is_told(tmp_path, name):
    arrays = many(2, {})
    write(tmp_path, **{**arrays, name: np.zeros((5, 5), np.int32)})
    with pytest.raises(InputError, match="do not belong together; remove it"):
        list(read_run(tmp_path).held_out())
    del arrays[name]
    write(tmp_path, **arrays)
    with pytest.raises(InputError, match=f"has no dataset {name}"):
        list(read_run(tmp_path).held_out())


def test_stages_are_those_that_are_planned_and_those_that_are_there(tmp_path):
    folder = make_run(tmp_path / "mine")
    assert [stage.done for stage in read_run(folder).stages] == [3200, 800]
    (folder / "choices.json").unlink()
    assert [stage.done for stage in read_run(folder).stages] == [3200, 800]
    other = make_run(tmp_path / "other", solver={"stages": [{}, {}, {}]})
    assert [stage.done for stage in read_run(other).stages] == [3200, 800, 0]


@pytest.mark.parametrize(
    "text, told", [("{", "cannot be read as JSON"), ("[1]", "holds no JSON object")]
)
def test_what_is_no_object_is_told(tmp_path, text, told):
    (tmp_path / "choices.json").write_text(text)
    (sentence,) = read_run(tmp_path).damaged
    assert told in sentence and str(tmp_path) not in sentence
