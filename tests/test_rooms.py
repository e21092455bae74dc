"""The plan of the rooms, where a machine can hold it: python/README.md says what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# As many as one can look over; the plan names each.
MOST_ENTRIES = 18
MOST_LINES = 600


def entries(package: str) -> set[str]:
    """Return the modules and packages on the first level of a package."""
    return {
        path.name
        for path in (REPOSITORY / "python" / package).iterdir()
        if path.suffix == ".py" or list(path.glob("*.py"))
    }


def test_the_method_can_be_looked_over():
    assert len(entries("unet")) <= MOST_ENTRIES


@pytest.mark.parametrize("folder", ["python", "tools", "tests"])
def test_files_can_be_looked_over(folder):
    lines = {
        str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines())
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    assert {path: many for path, many in lines.items() if many > MOST_LINES} == {}


@pytest.mark.parametrize("package", ["caffe", "unet", "unet_export", "unet_napari"])
def test_the_plan_names_what_is_there(package):
    plan = Path(REPOSITORY, "python", "README.md").read_text()
    section = plan.split(f"## {package}/")[1].split("\n## ")[0]
    rows = [row.split("`")[1] for row in section.splitlines() if row.startswith("| `")]
    assert sorted(row.rstrip("/") for row in rows) == sorted(entries(package))
