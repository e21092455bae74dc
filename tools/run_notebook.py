"""Run the notebooks of docs/ and put what comes out into them; a mark says which cells gave it.

    .venv/bin/python tools/run_notebook.py

What goes to standard error, progress bars, is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet.command.running import run_program
from unet.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = (REPOSITORY / "docs" / "first-steps.ipynb",)
# In the metadata of a notebook: `sources_of` the cells that gave its outputs.
RAN = "ran"


def sources_of(notebook: Any) -> str:
    """Return a hash of the cells of a notebook, without what came out of them."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        digest.update(f"{cell.cell_type}\0{cell.source}\0".encode())
    return digest.hexdigest()


def ran(path: Path, folder: Path) -> Any:
    """Run a notebook.

    Parameters
    ----------
    path : pathlib.Path
        Is left as it is.
    folder : pathlib.Path
        Where its cells run.

    Returns
    -------
    nbformat.NotebookNode
        With outputs and the mark.

    Raises
    ------
    InputError
        If Jupyter is missing.
    nbclient.exceptions.CellExecutionError
        If a cell does.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError as error:
        raise InputError(
            f"running a notebook needs Jupyter: pip install nbclient ipykernel ({error})"
        ) from None

    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        # When each cell ran.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    notebook.metadata[RAN] = sources_of(notebook)
    return notebook


def main(argv: Sequence[str] | None = None) -> None:
    """Run them all."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = ran(path, Path(folder))
        import nbformat

        nbformat.write(notebook, path)
        print(f"{path}: ran")


if __name__ == "__main__":
    run_program(main)
