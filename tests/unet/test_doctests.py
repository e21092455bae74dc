"""The examples in the docstrings of unet are what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import unet

FOLDER = Path(unet.__file__).parent
FILES = [path.relative_to(FOLDER.parent) for path in sorted(FOLDER.rglob("*.py"))]
EXAMPLES = [path for path in FILES if ">>> " in (FOLDER.parent / path).read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = path.with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for examples in doctest.DocTestFinder().find(module):
        runner.run(examples)
    assert not runner.failures
