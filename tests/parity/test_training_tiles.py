"""The data layer, unchanged, in genuine Caffe: the same tiles, and the same words for a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.parity.harness import SCRIPTS, Engine
from tests.unet.noise_set import write_noise_set


def test_both_engines_deliver_the_same_tiles(tmp_path: Path, ours: Engine, reference: Engine):
    path = write_noise_set(tmp_path / "set.h5", (3, 60, 50), ignored_rows=9, weights=(1, 5))
    here, there = (
        engine.run(SCRIPTS / "run_tiles.py", None, str(path)) for engine in (ours, reference)
    )
    for results in (here, there):
        for name in [name for name in results if name.startswith("2 ")]:
            assert np.array_equal(results[name], results["0" + name[1:]]), name
    assert here.keys() == there.keys()
    for name in here:
        if name.endswith(("label", "weight", "epoch", "left")) or name.startswith("test"):
            assert np.array_equal(here[name], there[name]), name
        elif name.endswith("data"):
            # Coordinates differ by 1e-5 px of rounding, and the noise by up to 1 a pixel.
            assert np.max(np.abs(here[name] - there[name])) < 1e-4, name
        else:
            assert str(here[name]) == str(there[name]), name
    assert here["left"] == 0
    assert "killed by SIGKILL" in str(here["killed"])
    assert "did you mean 'seed'" in str(here["unknown key"])
    assert "no such training set" in str(here["no file"])
