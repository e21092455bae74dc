"""Where the tests of this folder compute: on a GPU, and on a pretended one where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.gpu.pretended import Repeats, pretended_gpu


@pytest.fixture
def pretended(monkeypatch) -> Iterator[list[Repeats]]:
    """Pretend that there is a GPU; return what repeats the passes that it captures."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: nothing needs to be pretended")
    with pretended_gpu(monkeypatch) as repeats:
        yield repeats


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request) -> str:
    """Have a GPU, a real one or one that is pretended."""
    if request.param == "pretended":
        request.getfixturevalue("pretended")
    return "gpu"
