"""The notebooks: their cells run as Jupyter runs them; what is shown came out of these cells."""

from __future__ import annotations

import re
import sys

import pytest

import run_notebook

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="setup has Jupyter from 3.11 on")
MOST_BYTES = 1_000_000


@pytest.fixture(scope="module", params=run_notebook.NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def shown(path):
    import nbformat

    return nbformat.read(path, 4)


def texts(notebook) -> list[str]:
    """Return what came out of each cell, without numbers, and without pictures."""
    found = []
    for cell in notebook.cells:
        parts = cell.get("outputs", ())
        said = "".join(one.get("text") or one["data"]["text/plain"] for one in parts)
        found.append(re.sub(r"-?\d[\d.,e+-]*", "0", re.sub(r"\s+", " ", said)))
    return found


def kinds(notebook) -> list[set[str]]:
    return [
        {key for one in cell.get("outputs", ()) for key in one.get("data", {"stream": None})}
        for cell in notebook.cells
    ]


def test_what_is_shown_came_out_of_these_cells(path, shown):
    assert shown.metadata[run_notebook.RAN] == run_notebook.sources_of(shown), (
        "run tools/run_notebook.py"
    )
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_its_cells_run_and_give_what_is_shown(path, shown, tmp_path):
    ran = run_notebook.ran(path, tmp_path)
    assert texts(ran) == texts(shown)
    assert kinds(ran) == kinds(shown)
    assert any("image/png" in kind for kind in kinds(ran))


def test_a_cell_that_was_changed_since_is_noticed(shown):
    before = run_notebook.sources_of(shown)
    shown.cells[1].source += "\n"
    assert run_notebook.sources_of(shown) != before
